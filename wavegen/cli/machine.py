"""Commands about the machine: bench, info."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from wavegen.errors import WavegenError


def bench(
    net: str | None = None,
    codec: str | None = None,
    model: str | None = None,
    batch: tuple[int, ...] = (1,),
    precision: tuple[Literal["float32", "bfloat16"], ...] = (),
    implementation: tuple[str, ...] = (),
    threads: int | None = None,
    steps: int | None = None,
    seconds: float | None = None,
    passes: int | None = None,
    rounds: int = 9,
    train: bool = False,
    against: Literal["torch"] | None = None,
    check: bool = True,
    json: Path | None = None,
    info: bool = False,
) -> None:
    """Time what is there in turns: the sampling of WaveNets, or with --codec and --model coding and masked generation.

    Without --codec and --model implementations of the sampler run the same random weights.

    Args:
        net: a WaveNet by name: 20x64x128 (the default), 30x64x256 (layers x residual x skip channels; nv-wavenet's),
            24x128x128 (wavenet_vocoder's), or shipped (the instrument that comes with the package).
        codec: a codec to time, there and back: a run, or wave_vq-8k, wave_vq-16k or wave_vq-44k, with random weights.
        model: a masked model to time, one pass and a whole generation: a run, or bert-small or bert-base with random
            weights, on the tokens of --codec.
        batch: streams or clips side by side; several are timed one after the other.
        precision: of a WaveNet's weights; by default both.
        implementation: of the sampler of a WaveNet, by name; by default what can run here, without the reference.
        threads: of the sampler of a WaveNet, at most so many, where an implementation has a choice; by default one a
            processor.
        steps: samples of each stream in a round, of a WaveNet; by default 1000.
        seconds: of audio in each clip, of codecs (by default 2) and masked models (by default all that they see at
            once).
        passes: of a masked model's generation, over all codebooks; by default 24.
        rounds: of which the median counts.
        train: also time a training step of the codec or the masked model.
        against: also time a plain PyTorch loop with ring buffers, in float32; of codecs and masked models the
            training step of the same network in PyTorch.
        check: compare a WaveNet's outputs with the float64 reference, which takes some seconds.
        json: a file for the figures and what they depend on.
        info: only print what the native library found and chose.
    """
    from wavegen.bench.machine import machine
    from wavegen.training.malloc import keep_freed_memory

    counts = {"batch": min(batch), "steps": steps, "rounds": rounds, "threads": threads, "passes": passes}
    for name, value in counts.items():
        if value is not None and value < 1:
            raise WavegenError(f"{name} must be at least 1, got {value}")
    if threads is not None:
        os.environ["WAVEGEN_THREADS"] = str(threads)
    for name, value in machine().items():
        print(f"{name:<12}{value}")
    if info:
        return
    if codec is None and model is None:
        _refuse("a WaveNet", seconds=seconds, passes=passes, train=train)
        what = net or "20x64x128"
        rows, text = _bench_sampling(
            what, batch, precision, implementation, steps or 1000, rounds, against == "torch", check
        )
    else:
        _refuse("--codec or --model", net=net, precision=precision, implementation=implementation)
        _refuse("--codec or --model", threads=threads, steps=steps)
        what = " ".join(name for name in (codec, model) if name)
        train = train or against == "torch"
        if train:
            keep_freed_memory()  # as wavegen train does, for both sides
        rows, text = _bench_tokens(codec, model, batch, seconds, passes, rounds, train, against == "torch")
    print(f"\n{what}, median of {rounds} rounds\n\n{text}")
    if json is not None:
        _write(json, what, rows)


def _bench_sampling(
    net: str,
    batch: tuple[int, ...],
    precision: tuple[str, ...],
    implementation: tuple[str, ...],
    steps: int,
    rounds: int,
    against_torch: bool,
    check: bool,
) -> tuple[list[Any], str]:
    import jax
    from rich.console import Console

    from wavegen.bench import sampling

    rows = []
    with Console(stderr=True).status("starting") as status:
        for streams in batch:
            rows += sampling.measure(
                sampling.find_net(net),
                streams,
                implementations=implementation or sampling.DEFAULTS[jax.default_backend()],
                precisions=precision or ("float32", "bfloat16"),
                steps=steps,
                rounds=rounds,
                against_torch=against_torch,
                check=check,
                report=status.update,
                refused=lambda reason: print(f"left out    {reason}"),
            )
    if not rows:
        raise WavegenError("none of the implementations can run this network here, for the reasons above")
    return rows, sampling.table(rows)


def _bench_tokens(
    codec: str | None,
    model: str | None,
    batch: tuple[int, ...],
    seconds: float | None,
    passes: int | None,
    rounds: int,
    train: bool,
    against_torch: bool,
) -> tuple[list[Any], str]:
    from rich.console import Console

    from wavegen.bench import networks, tokens, training

    reader = networks.open_codec(codec) if codec else None
    generator = networks.open_model(model, reader) if model else None
    works = []
    for clips in batch:
        if reader is not None:
            works += tokens.codec_work(reader, clips, 2.0 if seconds is None else seconds)
        if generator is not None:
            works += tokens.model_work(generator, clips, seconds, passes or 24)
    if train and generator is not None:
        works += training.model_training(generator, against_torch)
    elif train and reader is not None:
        works += training.codec_training(reader, against_torch)
    with Console(stderr=True).status("starting") as status:
        rows = tokens.measure(works, rounds=rounds, report=status.update)
    return rows, tokens.table(rows)


def _write(path: Path, what: str, rows: list[Any]) -> None:
    """Writes the figures and what they depend on."""
    import json
    from dataclasses import asdict

    from wavegen.atomic import atomic_write
    from wavegen.bench.machine import machine

    tree = {"net": what, "machine": machine(), "rows": [asdict(row) for row in rows]}
    with atomic_write(path) as file:
        file.write(json.dumps(tree, indent=2).encode())
    print(f"\njson         {path}")


def _refuse(what: str, **options: object) -> None:
    given = [name for name, value in options.items() if value not in (None, (), False)]
    if given:
        raise WavegenError(f"with {what} there is no --{given[0]}; leave it out")


def info() -> None:
    """Print versions, devices and what the native kernels found."""
    import jax

    import wavegen
    from wavegen.kernels import native

    print(
        f"wavegen {wavegen.__version__}, jax {jax.__version__}, {jax.device_count()} x {jax.devices()[0].device_kind}"
    )
    print(native.status())
