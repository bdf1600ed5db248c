"""Whole training runs, split over devices and processes, end where one run ends; single steps; what stops a run.

The runs are processes of their own, on one device each, and share their compiled programs.
"""

import json
import math
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml

from wavegen.codecs.base import Codecs
from wavegen.codecs.samples import MuLaw
from wavegen.config import Config, dump_config, load_config, resolve
from wavegen.data.open import open_dataset
from wavegen.data.prepare import Clip, write_dataset
from wavegen.errors import WavegenError
from wavegen.networks import initial
from wavegen.networks.base import parameters
from wavegen.runs.checkpoints import Checkpoints
from wavegen.runs.trained import open_trained
from wavegen.training import loop, needs
from wavegen.training.state import state_hash
from wavegen.training.step import first_state, make_evaluation_step, make_train_step

RATE, STEPS = 8000, 60
CODECS = Codecs(MuLaw())
TREE = {
    "data": {"sample_rate": RATE, "crop": 128, "batch_size": 8, "augment": {"gain_db": 6, "polarity": True}},
    "model": {
        "dilations": [1, 2, 4],
        "cycles": 1,
        "residual_channels": 8,
        "gate_channels": 8,
        "skip_channels": 8,
        "head_channels": 8,
        "dropout": 0.1,
    },
    "optimizer": {"learning_rate": 1e-2, "warmup_steps": 10},
    "training": {
        "steps": STEPS,
        "log_every": 1,
        "evaluate_every": 20,
        "evaluate_batches": 2,
        "checkpoint_every": 10,
        "keep_latest": 10,
        "sample_seconds": 0.02,
        "sample_count": 1,
    },
}

WIDEST = tuple(f"model.{name}_channels=4096" for name in ("residual", "gate", "skip", "head"))
WIDEST += ("model.cycles=16", "model.kernel_size=16")


def tone(samples: int, period: int = 20, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    wave = 8000 * np.sin(2 * np.pi * np.arange(samples) / period)
    return (wave + noise * np.random.default_rng(seed).standard_normal(samples)).astype(np.int16)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    splits = ["train"] * 4 + ["valid"] * 2
    clips = [
        Clip(f"{n}.wav", tone(2000 + 500 * n, 15 + n, 500, n), split=split) for n, split in enumerate(splits)
    ]
    write_dataset(folder, clips, RATE)
    return folder


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, data) -> Path:
    """Where processes run: the configuration, their runs, and the compiled programs that they share."""
    folder = tmp_path_factory.mktemp("workplace")
    (folder / "a.yaml").write_text(dump_config(experiment(data)))
    return folder


def experiment(data: Path, *overrides: str) -> Config:
    return resolve(TREE, [f"data.path={data}", *overrides])


def start(workplace: Path, runs: str, *overrides: str, **environment: str) -> subprocess.Popen:
    """The command ``wavegen train`` in a process with one device."""
    alone = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "OMPI", "WAVEGEN"))}
    alone |= {
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=1",
        "JAX_COMPILATION_CACHE_DIR": str(workplace / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    program = "import sys; from wavegen.cli import main; main(sys.argv[1:])"
    return subprocess.Popen(
        [sys.executable, "-c", program, "train", "a.yaml", *overrides, "--runs", runs],
        env=alone | environment,
        cwd=workplace,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen) -> str:
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output
    return output


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def last_loss(folder: Path) -> float:
    return next(row["bits_per_sample"] for row in reversed(rows(folder)) if "bits_per_sample" in row)


def final_state(folder: Path) -> tuple[int, dict]:
    with Checkpoints(folder / "checkpoints", keep_latest=100) as checkpoints:
        card = checkpoints.config()
        state = jax.eval_shape(lambda: first_state(resolve(card["config"]), card["labels"], CODECS)[1])
        state, step, _ = checkpoints.restore(state)
    return step, state


def final_hash(folder: Path) -> str:
    step, state = final_state(folder)
    assert step == STEPS
    return state_hash(state)


@pytest.fixture(scope="module")
def uninterrupted(workplace) -> Path:
    """A whole run on one device."""
    finish(start(workplace, "whole"))
    return workplace / "whole" / "run"


# --- one whole run ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_writes_all_that_it_promises(uninterrupted):
    names = {path.name for path in uninterrupted.iterdir()}
    assert names == {"config.yaml", "metrics.jsonl", "tensorboard", "checkpoints", "samples", ".lock"}
    assert [path.suffix for path in sorted((uninterrupted / "samples").iterdir())] == [".png", ".wav"]
    training = [row for row in rows(uninterrupted) if "gradient_norm" in row]
    assert [row["step"] for row in training] == list(range(1, STEPS + 1))
    for name in ("bits_per_sample", "steps_per_second", "audio_seconds_per_second", "gflops_per_second"):
        assert all(math.isfinite(row[name]) for row in training), name
    evaluations = [row for row in rows(uninterrupted) if "valid/bits_per_sample" in row]
    assert [row["step"] for row in evaluations] == [20, 40, 60]
    assert training[-1]["bits_per_sample"] < training[0]["bits_per_sample"] - 1
    assert evaluations[-1]["valid/bits_per_sample"] < evaluations[0]["valid/bits_per_sample"]


@pytest.mark.slow
def test_a_checkpoint_of_another_run_of_the_same_shapes_is_refused(workplace, uninterrupted, data):
    folder = workplace / "mixed" / "run"
    shutil.copytree(uninterrupted, folder)
    config = load_config(folder / "config.yaml", ["seed=4"])
    (folder / "config.yaml").write_text(dump_config(config))
    with pytest.raises(WavegenError, match=r"holds another experiment \(seed is \d+ there, 4 asked for\)"):
        loop.train(config, folder)
    with pytest.raises(WavegenError, match=r"holds a checkpoint of another run \(seed is 4 there"):
        open_trained(folder)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ("data.crop=60000000", "data.batch_size=60000"),
            r"5 batches of 60000 x 60000000 samples need .* GiB, and",
        ),
        (
            ("data.crop=200000", "data.batch_size=8", "data.prefetch=0"),
            r"a training step needs [\d,.]+ GiB or more, and there are",
        ),
        (WIDEST, "the network has .* weights or more, and this machine's memory holds"),
    ],
)
def test_what_no_machine_holds_is_refused_before_it_is_built(data, tmp_path, monkeypatch, overrides, message):
    for module in (needs, initial):
        monkeypatch.setattr(module, "memory_of_host", lambda: 2**30)
    with pytest.raises(WavegenError, match=message):
        loop.train(experiment(data, *overrides), tmp_path / "run")


@pytest.mark.slow
def test_a_finished_run_is_left_as_it_is(workplace, uninterrupted):
    folder = workplace / "finished" / "run"
    shutil.copytree(uninterrupted, folder)
    finish(start(workplace, "finished"))
    assert final_hash(folder) == final_hash(uninterrupted)
    assert len(rows(folder)) == len(rows(uninterrupted))


# --- devices and processes ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_eight_devices_train_as_one_and_one_goes_on_where_they_stopped(workplace, uninterrupted, data):
    assert jax.device_count() == 8
    # Channels so many that arrays are really split; without dropout, whose numbers would be the same anyhow.
    wide = ["model.residual_channels=64", "model.gate_channels=64", "model.skip_channels=128"]
    wide += ["model.head_channels=128", "training.steps=6", "training.checkpoint_every=2"]
    wide += ["training.evaluate_every=6", "optimizer.warmup_steps=2"]
    folder = workplace / "eight" / "run"
    loop.train(experiment(data, *wide, "training.mesh.data=4", "training.mesh.fsdp=2"), folder)
    finish(start(workplace, "one", *wide))
    np.testing.assert_allclose(last_loss(folder), last_loss(workplace / "one" / "run"), rtol=1e-4)

    resumed = workplace / "resumed" / "run"
    shutil.copytree(folder, resumed)
    for step in (4, 6):
        shutil.rmtree(resumed / "checkpoints" / str(step))
    output = finish(start(workplace, "resumed", *wide))
    assert "resuming from step 2" in output
    np.testing.assert_allclose(last_loss(resumed), last_loss(folder), rtol=1e-3)


@pytest.mark.slow
def test_two_processes_train_as_one(workplace, uninterrupted):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    both = {"WAVEGEN_COORDINATOR": f"localhost:{port}", "WAVEGEN_NUM_PROCESSES": "2"}
    processes = [start(workplace, "two", **both, WAVEGEN_PROCESS_ID=str(index)) for index in range(2)]
    for process in processes:
        finish(process)
    folder = workplace / "two" / "run"
    np.testing.assert_allclose(last_loss(folder), last_loss(uninterrupted), rtol=1e-5)
    _, state = final_state(folder)
    _, expected = final_state(uninterrupted)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), state["params"], expected["params"]
    )
    assert len(rows(folder)) == len(rows(uninterrupted))


# --- one step -----------------------------------------------------------------------------------------------


def make_step(config: Config):
    model, state = first_state(config, {}, CODECS)
    step = jax.jit(make_train_step(config, parameters(model)[0]))
    return lambda state, batch: step(state, batch, CODECS), state


def batch_of(pcm: np.ndarray) -> dict[str, jax.Array]:
    count, length = pcm.shape
    return {
        "pcm": jnp.asarray(pcm),
        "length": jnp.full(count, length, jnp.int32),
        "context": jnp.zeros(count, jnp.int32),
        "labels": jnp.zeros((count, 0), jnp.int32),
    }


PLAIN = ("model.dropout=0", "data.augment={gain_db: 0}", "optimizer.warmup_steps=0")


def test_accumulated_gradients_equal_those_of_the_whole_batch(data):
    # Clips of many lengths: pieces with fewer scored samples must weigh less.
    pcm = np.stack([tone(128, 9 + n, 3000, n) for n in range(8)])
    batch = batch_of(pcm) | {"length": jnp.arange(16, 136, 16, dtype=jnp.int32)}
    results = []
    for pieces in (1, 4):
        step, state = make_step(experiment(data, *PLAIN, f"optimizer.accumulate={pieces}"))
        results.append(step(state, batch))
    (whole, metrics), (pieced, pieced_metrics) = results
    for name, value in metrics.items():
        np.testing.assert_allclose(pieced_metrics[name], value, rtol=1e-5, err_msg=name)
    moments = [jax.tree.leaves(state["optimizer"]) for state in (whole, pieced)]
    for a, b in zip(*moments, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_one_clip_is_learned_by_heart(data, precision):
    # So wide that seeds agree: six of them end between 0.002 and 0.08, on CPUs with AVX2 and with AVX-512.
    wide = [f"model.{name}_channels=16" for name in ("residual", "skip", "head")]
    fast = ("optimizer.warmup_steps=20", "training.steps=200", f"training.precision={precision}")
    config = experiment(data, *PLAIN, *wide, *fast)
    step, state = make_step(config)
    batch = batch_of(np.stack([tone(128, 16)] * 2))
    losses = []
    for _ in range(200):
        state, metrics = step(state, batch)
        losses.append(float(metrics["bits_per_sample"]))
    assert abs(losses[0] - 8) < 0.3
    assert losses[-1] < 0.5
    assert {leaf.dtype for leaf in jax.tree.leaves(state["params"])} == {jnp.dtype("float32")}


def test_padding_and_context_are_not_scored(data):
    config = experiment(data, *PLAIN)
    model, state = first_state(config, {}, CODECS)
    evaluate = jax.jit(make_evaluation_step(config, parameters(model)[0]))
    pcm = np.stack([tone(128, 9 + n, 3000, n) for n in range(2)])
    cut = batch_of(pcm) | {"length": jnp.array([100, 0]), "context": jnp.array([40, 0])}
    nats, count, *_ = evaluate(state["params"], cut, CODECS)
    assert int(count) == 60
    other = pcm.copy()
    other[0, 100:], other[1] = 77, -5
    again = evaluate(state["params"], cut | {"pcm": jnp.asarray(other)}, CODECS).total
    np.testing.assert_allclose(nats, again, rtol=1e-6)


# --- what stops a run ---------------------------------------------------------------------------------------


def test_a_model_that_is_not_finite_stops_the_run_and_names_the_batch(data, tmp_path, monkeypatch):
    def broken(config, labels, codecs):
        model, state = first_state(config, labels, codecs)
        params = jax.tree.map(lambda p: p * jnp.nan, state["params"])
        return model, {**state, "params": params}

    monkeypatch.setattr(loop, "first_state", broken)
    with pytest.raises(
        WavegenError, match=r"^3 steps in a row had .* not finite, the last one with batch 2; lower"
    ):
        loop.train(experiment(data, "optimizer.max_bad_steps=3"), tmp_path / "run")
    assert [row["bits_per_sample"] for row in rows(tmp_path / "run")] == [None, None, None]


def begun_run(folder: Path, config: Config) -> dict[str, bytes]:
    """A run folder with a checkpoint, as the loop sees it, and its content."""
    (folder / "checkpoints" / "10").mkdir(parents=True)
    (folder / "config.yaml").write_text(dump_config(config))
    (folder / "metrics.jsonl").write_text('{"step": 10}\n')
    return content(folder)


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path): path.read_bytes() for path in files}


def test_a_folder_of_another_experiment_is_refused_and_not_harmed(data, tmp_path):
    before = begun_run(tmp_path / "run", experiment(data))
    with pytest.raises(WavegenError) as caught:
        loop.train(experiment(data, "optimizer.learning_rate=0.5"), tmp_path / "run")
    assert str(caught.value) == (
        f"{tmp_path / 'run'} holds another experiment (optimizer.learning_rate is 0.01 there, 0.5 asked for); "
        f"give this one another name (name=...), with training.start_from={tmp_path / 'run'} if it is to begin with "
        "these weights, or delete the folder"
    )
    assert content(tmp_path / "run") == before


def test_a_configuration_of_before_a_key_was_added_is_the_same_experiment(data, tmp_path):
    config = experiment(data)
    begun_run(tmp_path / "run", config)
    tree = config.model_dump(mode="json")
    del tree["data"]["augment"]["input_noise"]
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(tree))
    loop._claim(tmp_path / "run", config)
    assert (tmp_path / "run" / "config.yaml").read_text() == dump_config(config)


@pytest.mark.parametrize(
    "override",
    ["training.checkpoint_every=3", "training.mesh.fsdp=2", "data.prefetch=0", "training.sample_count=7"],
)
def test_what_does_not_move_the_weights_may_change_on_the_way(data, tmp_path, override):
    begun_run(tmp_path / "run", experiment(data))
    loop._claim(tmp_path / "run", experiment(data, override))


def test_a_run_that_failed_at_its_start_can_be_mended(data, tmp_path):
    with pytest.raises(WavegenError, match="names 'digit', the dataset has label fields: none"):
        loop.train(experiment(data, "model.label_fields=[digit]"), tmp_path / "run")
    loop._claim(tmp_path / "run", experiment(data))
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["model"]["label_fields"] == []


def test_a_run_folder_that_cannot_be_made_is_one_line(data, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WavegenError, match=r"^cannot write the run in .*run: Not a directory; "):
        loop.train(experiment(data), tmp_path / "file" / "run")


@pytest.mark.parametrize(
    ("local", "has"),
    [
        ({"kind": "notes", "hop_length": 8}, "reads 4 features every 8 samples, .* has 3 every 16 samples"),
        (
            {"kind": "features", "width": 5, "hop_length": 16},
            "reads 5 features every 16 samples, .* has 3 every 16",
        ),
    ],
)
def test_features_that_the_data_does_not_have_are_named(tmp_path, local, has):
    clip = Clip("a.wav", tone(160), features=np.zeros((10, 3), np.float32))
    write_dataset(tmp_path, [clip], RATE, feature_hop=16)
    with pytest.raises(WavegenError, match=has):
        open_dataset(experiment(tmp_path, f"model.local={json.dumps(local)}"))


def test_data_of_another_rate_is_refused(data):
    with pytest.raises(
        WavegenError, match=r"was prepared at 8000 Hz, data\.sample_rate is 16000; make them equal"
    ):
        open_dataset(experiment(data, "data.sample_rate=16000"))


@pytest.mark.parametrize("kind", ["missing", "empty"])
def test_a_missing_and_an_empty_folder_are_named(tmp_path, kind):
    folder = tmp_path / "recordings"
    if kind == "empty":
        folder.mkdir()
    with pytest.raises(WavegenError, match=str(folder)) as caught:
        open_dataset(experiment(folder, f"data.cache={tmp_path / 'cache'}"))
    assert "\n" not in str(caught.value)
