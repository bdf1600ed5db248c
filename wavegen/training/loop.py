"""The training run, from a configuration to a folder of checkpoints, figures and audio: read it top to bottom.

A run is a folder::

    config.yaml      the resolved configuration
    metrics.jsonl    one line per logged step and per evaluation
    tensorboard/     the same for TensorBoard, with audio and pictures
    checkpoints/     states with sha256 manifests
    samples/         audio and spectrograms written on the way

Running the same command again resumes from the newest sound checkpoint, and ends with the weights of a run that was
never interrupted. That holds because all randomness is a function of the seed and the step.

With a larger ``training.steps`` a run goes on for longer, also one that has ended. From there on the learning rate is
that of the longer run, so it rises again where it had fallen; the weights differ from those of a run that was as long
from the start.
"""

import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import jax
from flax import nnx

from wavegen.atomic import atomic_write, remove_left_overs
from wavegen.config import Config, dump_config, load_config, resolve
from wavegen.data.batches import BatchSource, iterator
from wavegen.data.dataset import Dataset
from wavegen.data.open import expect_same_codec, open_dataset
from wavegen.errors import WavegenError
from wavegen.locks import locked
from wavegen.runs.checkpoints import Checkpoints
from wavegen.runs.log import RunLog
from wavegen.runs.same import differences
from wavegen.runs.trained import expect_same_codecs, fingerprints, keep_codecs, open_codecs
from wavegen.training.evaluate import evaluate, evaluation_source, to_devices
from wavegen.training.mesh import initialize_distributed, make_mesh, shard_state
from wavegen.training.needs import expect_batches_to_fit, expect_to_fit
from wavegen.training.samples import write_samples
from wavegen.training.signals import TrainingStop
from wavegen.training.start_codec import start_codec
from wavegen.training.start_from import start_from
from wavegen.training.state import TrainState, abstract_state, count_parameters
from wavegen.training.step import first_state, make_evaluation_step, make_train_step, metric_of


def train(config: Config, folder: str | Path) -> Path:
    """Trains until ``config.training.steps``, from the beginning or from where the folder's run stopped.

    Args:
        config: the experiment.
        folder: of the run; made if missing.

    Returns:
        The folder.

    Raises:
        WavegenError: the data cannot be used, the folder holds another experiment, cannot be written or is being
            written by another process, or too many steps in a row were not finite.
        KeyboardInterrupt: after SIGINT, when the state is saved; SystemExit after SIGTERM and SIGHUP.
    """
    folder = Path(folder)
    initialize_distributed()
    # One process writes for all of a run.
    writes = jax.process_index() == 0
    with locked(folder) if writes else nullcontext():
        for place in filter(Path.is_dir, (folder, folder / "samples") if writes else ()):
            # Of a process that was killed while it wrote what this start may not write again.
            remove_left_overs(place)
        _train(config, folder)
    return folder


def _train(config: Config, folder: Path) -> None:
    config = _with_places(config)
    begun = _claim(folder, config)
    expect_batches_to_fit(config)
    dataset = open_dataset(config)
    # A copy that a start without checkpoints left behind may be of another codec than is asked for now.
    codecs = open_codecs(config, folder if begun else None)
    if not begun and jax.process_index() == 0:
        keep_codecs(folder, codecs)
    expect_same_codec(dataset, config, codecs)
    reads = fingerprints(codecs)
    model, state = first_state(config, dataset.labels, codecs)
    graph, t = nnx.split(model)[0], config.training
    mesh = make_mesh(t.mesh.data, t.mesh.fsdp)
    state, codecs = shard_state(state, mesh), shard_state(codecs, mesh)
    layout = jax.tree.map(lambda x: x.sharding, state)
    train_step = jax.jit(make_train_step(config, graph), donate_argnums=0, out_shardings=(layout, None))
    evaluation_step = jax.jit(make_evaluation_step(config, graph))
    judged_by, _ = metric_of(config)

    source = BatchSource(
        dataset,
        "train",
        batch_size=config.data.batch_size,
        crop=config.data.crop,
        seed=config.seed,
        fields=config.model.label_fields,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        period=1 if codecs.tokens is None else codecs.tokens.period,
    )
    valid = evaluation_source(config, dataset, "valid", model, codecs)
    # What a checkpoint needs besides its arrays to become a model again.
    card = {
        "config": config.model_dump(mode="json"),
        "labels": {k: list(v) for k, v in dataset.labels.items()},
        "reads": reads,
    }

    with Checkpoints(folder / "checkpoints", keep_latest=t.keep_latest, keep_best=t.keep_best) as checkpoints:
        start, extended = 0, ""
        if checkpoints.latest_step() is not None:
            state, start, there = checkpoints.restore(abstract_state(state))
            before = resolve(there["config"])
            _expect_same(before, config, folder / "checkpoints" / str(start))
            if before.training.steps < t.steps:
                extended = (
                    f"; the run was one of {before.training.steps:,} steps, and its learning rate now falls over "
                    f"{t.steps:,}"
                )
            expect_same_codecs(reads, there.get("reads", {}), folder)
        elif t.start_from is not None:
            state = shard_state(start_from(t.start_from, config, state, codecs), mesh)
        else:
            state = shard_state(start_codec(config, graph, state, dataset), mesh)
        seconds = (
            0 if dataset.holds_notes else config.data.batch_size * config.data.crop / dataset.sample_rate
        )
        coding: Any = model if codecs.tokens is None else codecs.tokens
        frames = -(-config.data.crop // coding.hop_length)
        flops = 3 * model.flops_per_frame(frames) * config.data.batch_size * frames
        with (
            RunLog(
                folder,
                total_steps=t.steps,
                start_step=start,
                audio_seconds_per_step=seconds,
                flops_per_step=flops,
            ) as log,
            TrainingStop() as stop,
        ):
            log.say(_describe(config, dataset, model, state))
            if start:
                log.say(f"resuming from step {start}{extended}")
            metric = math.nan
            unread: tuple[int, dict[str, Any]] | None = None
            batches = iterator(source, start, t.steps, prefetch=config.data.prefetch)
            for done, batch in enumerate(batches, start=start + 1):
                examples = to_devices(batch, mesh)
                if done == start + 1:
                    expect_to_fit(train_step, state, examples, codecs)
                state, metrics = train_step(state, examples, codecs)
                # The step before is read only now, while the device works on this one.
                if unread is not None:
                    _report(log, *unread, config)
                unread = (done, metrics)
                stopping = stop.reached(done)
                last = done == t.steps
                evaluating = last or done % t.evaluate_every == 0
                saving = last or stopping or done % t.checkpoint_every == 0
                if not (evaluating or saving):
                    continue
                _report(log, *unread, config)
                unread = None
                with log.paused():
                    weights = state["ema"] or state["params"]
                    if evaluating:
                        result = evaluate(
                            config, evaluation_step, weights, codecs, valid, t.evaluate_batches, mesh
                        )
                        metric = result.figures[judged_by]
                        log.evaluation(done, {f"valid/{name}": x for name, x in result.figures.items()})
                    if saving:
                        log.flush()
                        checkpoints.save(done, state, card, metric if evaluating else None)
                    if last or (t.sample_every and done % t.sample_every == 0):
                        write_samples(folder, log, done, config, codecs, graph, weights, dataset)
                if stopping and not last:
                    checkpoints.wait()
                    log.say(f"stopped at step {done}; run the same command to resume")
                    break
    stop.interrupt()


def _with_places(config: Config) -> Config:
    """The configuration with the whole paths of its data, so that the run finds them from any working directory."""
    places = {"cache": str(Path(config.data.cache).absolute())}
    if config.data.path is not None:
        places["path"] = str(Path(config.data.path).absolute())
    return config.model_copy(update={"data": config.data.model_copy(update=places)})


def _claim(folder: Path, config: Config) -> bool:
    """Writes the resolved configuration, unless the folder holds checkpoints of another experiment.

    Returns:
        Whether there are checkpoints already.
    """
    path = folder / "config.yaml"
    # Without a checkpoint there is nothing to lose: what failed at its start can be mended and run again.
    begun = any(step.name.isdigit() for step in (folder / "checkpoints").glob("*"))
    if begun and path.exists():
        _expect_same(load_config(path), config, folder)
    if jax.process_index() == 0:
        with atomic_write(path) as file:
            file.write(dump_config(config).encode())
    return begun


def _expect_same(there: Config, asked: Config, place: Path) -> None:
    different = differences(there, asked)
    if asked.training.steps < there.training.steps:
        raise WavegenError(
            f"{place} holds a run of {there.training.steps:,} steps, training.steps is {asked.training.steps:,}; a run "
            "can be made longer, not shorter: give this one another name (name=...)"
        )
    if different:
        raise WavegenError(
            f"{place} holds another experiment ({different[0]}); give this one another name (name=...), with "
            f"training.start_from={place} if it is to begin with these weights, or delete the folder"
        )


def _describe(config: Config, dataset: Dataset, model: Any, state: TrainState) -> str:
    total = {split: dataset.split(split).length.sum() for split in dataset.splits}
    size = f"{count_parameters(state['params']):,} parameters"
    field = getattr(model, "receptive_field", None)
    if field is not None:
        size += f", receptive field {field:,} "
        size += "tokens" if dataset.holds_notes else f"samples ({1000 * field / dataset.sample_rate:.0f} ms)"
    if dataset.holds_notes:
        return f"{config.name}: {size}; tokens {', '.join(f'{name} {n:,}' for name, n in total.items())}"
    lengths = ", ".join(f"{name} {n / dataset.sample_rate / 60:.1f} min" for name, n in total.items())
    return f"{config.name}: {size}; audio {lengths}"


def _report(log: RunLog, step: int, metrics: dict[str, Any], config: Config) -> None:
    in_a_row = metrics["skipped_in_a_row"]
    if step % config.training.log_every == 0 or step == config.training.steps:
        log.log(step, {name: value for name, value in metrics.items() if name != "skipped_in_a_row"})
    if int(in_a_row) >= config.optimizer.max_bad_steps:
        raise WavegenError(
            f"{int(in_a_row)} steps in a row had a loss or gradient that is not finite, the last one with batch "
            f"{step - 1}; lower optimizer.learning_rate or look at that batch"
        )
