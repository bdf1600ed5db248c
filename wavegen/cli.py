"""The command line: ``wavegen prepare | train | sample | evaluate | report | export | bench | info``.

Each command is a function; its arguments and their help come from the signature and the docstring.
"""

from __future__ import annotations

import math
import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

from wavegen.errors import WavegenError


def prepare(
    folder: Positional[Path],
    /,
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])],
    sample_rate: int = 16000,
    label_pattern: str | None = None,
    valid: str = "0.05",
    test: str = "0.05",
    trim_silence_db: float | None = None,
    backend: Literal["memmap", "array_record"] = "memmap",
    workers: int | None = None,
    shard_index: int = 0,
    num_shards: int = 1,
) -> None:
    """Turn a folder of recordings into a dataset of int16 shards with checksums.

    Args:
        folder: searched with its subfolders for anything that libsndfile reads.
        out: the dataset's folder.
        sample_rate: in Hz; recordings are resampled to it and mixed to mono.
        label_pattern: labels from the path: '{digit}_{speaker}_{take}', '{genre}/*', or 'folder'.
        valid: the validation split: a fraction (0.05), labels ('take=5-9') or a path pattern ('valid/*').
        test: the test split, likewise.
        trim_silence_db: cut ends that are this much quieter than the loudest moment.
        backend: of the shards; memmap works everywhere.
        workers: processes; one a processor by default.
        shard_index: this machine's number among num-shards.
        num_shards: machines that share the work and the output folder.
    """
    from wavegen.data.prepare import prepare as run

    report = run(
        folder,
        out,
        sample_rate=sample_rate,
        label_pattern=label_pattern,
        split={"test": _fraction(test), "valid": _fraction(valid)},
        trim_silence_db=trim_silence_db,
        backend=backend,
        workers=workers,
        shard_index=shard_index,
        num_shards=num_shards,
    )
    print(report)


def train(
    config: Positional[Path], overrides: Positional[tuple[str, ...]] = (), /, runs: Path = Path("runs")
) -> None:
    """Train a model; the same command goes on where a run stopped.

    Args:
        config: a YAML file, for example configs/quickstart.yaml.
        overrides: changes to it, written a.b=c: optimizer.learning_rate=1e-3 name=slow
        runs: the run folder is RUNS/NAME.
    """
    from wavegen.config import load_config

    resolved = load_config(config, overrides)
    _use_cpu_devices(resolved.training.mesh.cpu_devices)
    from wavegen.training.loop import train as run

    folder = run(resolved, runs / resolved.name)
    print(f"run      {folder}\nlisten   python sample.py {folder}")


def sample(
    run: Positional[Path | None] = None,
    /,
    seconds: float | None = None,
    count: int = 1,
    seed: int = 0,
    temperature: float | None = None,
    top_k: int = 0,
    top_p: float = 1.0,
    prompt: Path | None = None,
    notes: Path | None = None,
    labels: tuple[str, ...] = (),
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("generated"),
    implementation: str | None = None,
) -> None:
    """Generate audio, written to disk as it comes; Ctrl-C keeps what is written.

    Args:
        run: a run folder or a .safetensors file; none: the instrument that comes with the package.
        seconds: length of what is generated; a note-conditioned model plays its notes to the end by default.
        count: clips.
        seed: the same seed gives the same clips.
        temperature: below 1 calmer, above 1 wilder, 0 always the likeliest token; by default the experiment's own.
        top_k: draw among the k likeliest tokens; 0 is all.
        top_p: draw among the likeliest tokens that together have this probability.
        prompt: a recording to continue.
        notes: a melody as text (see wavegen.notes.score) for note-conditioned models; none: one is composed from the
            seed.
        labels: values of label fields, written field=value.
        out: folder for the WAV files and their spectrograms.
        implementation: of the sampling kernel, by name.
    """
    import wavegen
    from wavegen.atomic import atomic_write
    from wavegen.audio import Audio, AudioWriter
    from wavegen.evaluation.pictures import spectrograms
    from wavegen.notes.score import Notes

    generator = wavegen.load(run)
    melody = Notes.read(notes) if notes else None
    local = generator.config.model.local
    if melody is None and local is not None and local.kind == "notes":
        from wavegen.notes.composer import compose

        melody = compose(seed, seconds or 10.0)
    if seconds is None and melody is None:
        seconds = 3.0
    blocks = generator.stream(
        seconds,
        count=count,
        seed=seed,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        prompt=Audio.read(prompt) if prompt else None,
        labels=_pairs(labels),
        notes=melody,
        implementation=implementation,
    )
    name = run.stem if run else "piano-wavenet"
    paths = [out / f"{name}-seed{seed}-{row}.wav" for row in range(count)]
    if melody is not None:
        with atomic_write(out / f"{name}-seed{seed}.txt") as file:
            file.write(melody.text().encode())
    total = seconds if seconds is not None else melody.seconds if melody is not None else math.nan
    with ExitStack() as files:
        writers = [files.enter_context(AudioWriter(path, generator.sample_rate)) for path in paths]
        try:
            with _Progress(total, count) as bar:
                for block in blocks:
                    for writer, row in zip(writers, block, strict=True):
                        writer.write(row)
                    bar.advance(block.shape[1] / generator.sample_rate)
        except KeyboardInterrupt:
            seconds = min(writer.duration for writer in writers)
            print(f"stopped; the {seconds:.1f} s that were generated are kept", file=sys.stderr)
            if not seconds:
                return
    for path in paths:
        picture = spectrograms(path.with_suffix(".png"), {path.stem: Audio.read(path)})
        print(f"audio        {path}\nspectrogram  {picture}")


def evaluate(run: Positional[Path], /, data: Path | None = None, split: str = "test") -> None:
    """Measure the exact likelihood of a split's recordings, in bits per sample.

    Args:
        run: a run folder or a .safetensors file.
        data: a folder of recordings or a prepared dataset; by default the run's own.
        split: train, valid or test.
    """
    import wavegen
    from wavegen.training.evaluate import evaluate_split

    generator = wavegen.load(run)
    result = evaluate_split(generator.config, generator.graph, generator.params, split, data)
    print(
        f"{result.bits:.4f} bits per sample over {result.tokens:,} samples of {result.files} files ({split})"
    )


def report(
    run: Positional[Path | None] = None,
    /,
    out: Path | None = None,
    clips: int = 4,
    temperature: float | None = None,
) -> None:
    """Play held-out melodies and print the figures that tell good audio from bad, beside controls.

    Args:
        run: a note-conditioned run folder or .safetensors file; none: the instrument that comes with the package.
        out: folder for the audio, the pictures and the figures; by default RUN/report, or generated/report.
        clips: held-out melodies to play.
        temperature: below 1 calmer, above 1 wilder; by default the experiment's own.
    """
    import wavegen
    from wavegen.evaluation.instrument import write_report

    place = run if run is not None and run.is_dir() else Path("generated")
    print(
        write_report(
            wavegen.load(run),
            out or place / "report",
            clips=clips,
            temperature=temperature,
            run=run,
        )
    )


def export(run: Positional[Path], out: Positional[Path]) -> None:
    """Write a run's averaged weights and configuration as one safetensors file.

    Args:
        run: a run folder.
        out: NAME.safetensors.
    """
    import wavegen

    path = wavegen.load(run).save(out)
    print(f"{path}: {path.stat().st_size:,} bytes")


def bench(
    net: str = "20x64x128",
    batch: tuple[int, ...] = (1,),
    precision: tuple[Literal["float32", "bfloat16"], ...] = ("float32", "bfloat16"),
    implementation: tuple[str, ...] = (),
    threads: int | None = None,
    steps: int = 1000,
    rounds: int = 9,
    against: Literal["torch"] | None = None,
    check: bool = True,
    json: Path | None = None,
    info: bool = False,
) -> None:
    """Time the sampling of WaveNets, implementations in turn, on the same random weights.

    Args:
        net: a network by name: 20x64x128, 30x64x256 (layers x residual x skip channels; nv-wavenet's), 24x128x128
            (wavenet_vocoder's), or shipped (the instrument that comes with the package).
        batch: streams side by side; several are timed one after the other.
        precision: of the weights.
        implementation: by name; by default what can run here, without the reference.
        threads: at most so many, where an implementation has a choice; by default one a processor.
        steps: samples of each stream in a round.
        rounds: of which the median counts.
        against: also time a plain PyTorch loop with ring buffers, in float32.
        check: compare outputs with the float64 reference, which takes some seconds.
        json: a file for the figures and what they depend on.
        info: only print what the native library found and chose.
    """
    from rich.console import Console

    from wavegen.atomic import atomic_write
    from wavegen.bench import sampling

    if threads is not None:
        os.environ["WAVEGEN_THREADS"] = str(threads)
    for name, value in sampling.machine().items():
        print(f"{name:<12}{value}")
    if info:
        return
    names = implementation or (("cpu", "xla") if sampling.has_native_library() else ("xla",))
    rows = []
    with Console(stderr=True).status("starting") as status:
        for streams in batch:
            rows += sampling.measure(
                sampling.find_net(net),
                streams,
                implementations=names,
                precisions=precision,
                steps=steps,
                rounds=rounds,
                against_torch=against == "torch",
                check=check,
                report=status.update,
            )
    print(f"\n{net}, {steps} samples a stream, median of {rounds} rounds\n\n{sampling.table(rows)}")
    if json is not None:
        with atomic_write(json) as file:
            file.write(sampling.to_json(net, rows).encode())
        print(f"\njson         {json}")


def info() -> None:
    """Print versions, devices and what the native kernels found."""
    import jax

    import wavegen
    from wavegen.kernels import native

    print(
        f"wavegen {wavegen.__version__}, jax {jax.__version__}, {jax.device_count()} x {jax.devices()[0].device_kind}"
    )
    print(native.status())


class _Progress:
    """A bar in seconds of audio with the real-time factor."""

    def __init__(self, seconds: float, count: int) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._bar = Progress(BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
        self._task = self._bar.add_task("starting", total=seconds)
        self._count, self._done, self._start = count, 0.0, time.perf_counter()

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def advance(self, seconds: float) -> None:
        self._done += seconds
        factor = self._done * self._count / (time.perf_counter() - self._start)
        self._bar.update(
            self._task, completed=self._done, description=f"{self._done:.1f} s, {factor:.2f} x real time"
        )


def _fraction(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _pairs(texts: tuple[str, ...]) -> dict[str, str]:
    bad = [text for text in texts if "=" not in text]
    if bad:
        raise WavegenError(f"a label is written field=value, for example digit=3; got '{bad[0]}'")
    return dict(text.split("=", 1) for text in texts)


def _use_cpu_devices(count: int) -> None:
    """Splits the CPU into devices, which must be said before JAX starts."""
    if count > 1:
        os.environ["XLA_FLAGS"] = (
            f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}".strip()
        )


COMMANDS = {f.__name__: f for f in (prepare, train, sample, evaluate, report, export, bench, info)}


def main(arguments: list[str] | None = None) -> None:
    """Runs one command; bad input is one line on the error output and exit status 2."""
    try:
        tyro.extras.subcommand_cli_from_dict(COMMANDS, prog="wavegen", args=arguments)
    except (WavegenError, NotImplementedError) as error:  # the latter: a kernel that cannot run here
        print(f"wavegen: {error}", file=sys.stderr)
        raise SystemExit(2) from None
