"""Commands about the machine: bench, info."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from wavegen.errors import WavegenError


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
    import jax
    from rich.console import Console

    from wavegen.atomic import atomic_write
    from wavegen.bench import sampling

    for name, value in {
        "batch": min(batch),
        "steps": steps,
        "rounds": rounds,
        "threads": threads or 1,
    }.items():
        if value < 1:
            raise WavegenError(f"{name} must be at least 1, got {value}")
    if threads is not None:
        os.environ["WAVEGEN_THREADS"] = str(threads)
    for name, value in sampling.machine().items():
        print(f"{name:<12}{value}")
    if info:
        return
    names = implementation or sampling.DEFAULTS[jax.default_backend()]
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
                refused=lambda reason: print(f"left out    {reason}"),
            )
    if not rows:
        raise WavegenError("none of the implementations can run this network here, for the reasons above")
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
