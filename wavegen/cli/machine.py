"""Commands on the machine: how fast it is, and what it has."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from wavegen.cli.options import refuse
from wavegen.cli.ranges import Passes, Rounds, Seconds, Streams, Threads, TimedSteps
from wavegen.cli.show import print_facts, write_json
from wavegen.errors import WavegenError
from wavegen.progress import Progress


def bench(
    net: str | None = None,
    codec: str | None = None,
    model: str | None = None,
    batch: tuple[Streams, ...] = (1,),
    precision: tuple[Literal["float32", "bfloat16", "int8"], ...] = (),
    implementation: tuple[str, ...] = (),
    threads: Threads | None = None,
    steps: TimedSteps | None = None,
    seconds: Seconds | None = None,
    passes: Passes | None = None,
    rounds: Rounds = 9,
    train: bool = False,
    against: Literal["torch"] | None = None,
    check: bool = True,
    json: Path | None = None,
    info: bool = False,
) -> None:
    """Times networks on this machine: sampling by default, or coding and masked generation.

    Without --codec and --model the implementations of the WaveNet sampler are timed in alternation, with the same
    random weights.

    Args:
        net: a WaveNet by name: 20x64x128 (the default), 30x64x256 (layers x residual x skip channels; nv-wavenet's),
            24x128x128 (wavenet_vocoder's), or shipped (the instrument that comes with the package).
        codec: a codec to time, encoding and decoding: a run, or wave_vq-8k, wave_vq-16k or wave_vq-44k, with random
            weights.
        model: a masked model to time, one pass and a whole generation: a run, or bert-small or bert-base with random
            weights, on the tokens of --codec.
        batch: number of streams or clips at once; several numbers are timed one after the other.
        precision: of a WaveNet's weights; by default float32, bfloat16 and int8.
        implementation: of the sampler of a WaveNet, by name; by default all that can run here, without the reference.
        threads: the most threads that the sampler of a WaveNet uses, where an implementation has a choice; by default
            one per processor.
        steps: samples of each stream per round, for a WaveNet; by default 1000.
        seconds: of audio in each clip, for codecs (by default 2) and masked models (by default their whole window).
        passes: of a masked model's generation, over all codebooks; by default 24.
        rounds: number of rounds, of which the median counts.
        train: also time a training step of the codec or the masked model.
        against: also time a plain PyTorch loop with ring buffers, in float32; for codecs and masked models the
            training step of the same network in PyTorch.
        check: compare a WaveNet's outputs with the float64 reference, which takes some seconds.
        json: a file for the figures and what they depend on.
        info: only print what the native library found and chose.
    """
    from wavegen.bench.machine import machine
    from wavegen.training.malloc import keep_freed_memory

    if not batch:
        raise WavegenError("--batch expects one number or more, got none; leave it out for 1")
    if threads is not None:
        os.environ["WAVEGEN_THREADS"] = str(threads)
    print_facts(machine())
    if info:
        return
    if codec is None and model is None:
        refuse("the bench of a WaveNet", seconds=seconds, passes=passes, train=train)
        what = net or "20x64x128"
        rows, text = _bench_sampling(
            what, batch, precision, implementation, steps or 1000, rounds, against == "torch", check
        )
    else:
        refuse(
            "the bench of a codec or a masked model",
            net=net,
            precision=precision,
            implementation=implementation,
        )
        refuse("the bench of a codec or a masked model", threads=threads, steps=steps)
        what = " ".join(name for name in (codec, model) if name)
        train = train or against == "torch"
        if train:
            keep_freed_memory()  # as wavegen train does, for both sides
        rows, text = _bench_tokens(codec, model, batch, seconds, passes, rounds, train, against == "torch")
    print(f"\n{what}, median of {rounds} rounds\n\n{text}")
    if json is not None:
        print()
        write_json({"net": what, "machine": machine(), "rows": [asdict(row) for row in rows]}, json)


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

    from wavegen.bench import sampling

    rows = []
    with Progress(aside=True) as progress:
        line = progress.line("starting")
        for streams in batch:
            rows += sampling.measure(
                sampling.find_net(net),
                streams,
                implementations=implementation or sampling.DEFAULTS[jax.default_backend()],
                precisions=precision or sampling.PRECISIONS,
                steps=steps,
                rounds=rounds,
                against_torch=against_torch,
                check=check,
                report=line.update,
                refused=lambda reason: print_facts({"left out": reason}),
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
    with Progress(aside=True) as progress:
        line = progress.line("starting")
        rows = tokens.measure(works, rounds=rounds, report=line.update)
    return rows, tokens.table(rows)


def info() -> None:
    """Prints versions, devices and what the native kernels found."""
    import jax

    import wavegen
    from wavegen.kernels import native

    print(
        f"wavegen {wavegen.__version__}, jax {jax.__version__}, {jax.device_count()} x {jax.devices()[0].device_kind}"
    )
    print(native.status())
