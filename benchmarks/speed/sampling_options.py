"""What options of the sampler cost, and whether a long call is as fast as a short one.

    WAVEGEN_THREADS=1 python benchmarks/speed/sampling_options.py [--net 20x64x128] [--precision bfloat16]

Variants of one network take turns; a column compares the median of each with the plain one's. Then one call generates a
minute of audio at 16 kHz, beside calls of a second.
"""

import resource
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import jax.numpy as jnp
import numpy as np
import tyro

from wavegen.bench.sampling import find_net, jax_call
from wavegen.kernels.wavenet.shapes import Net

SECOND = 16000


def sampler(net: Net, precision: str, batch: int, steps: int, implementation: str, **options) -> Callable:
    """A function that generates once."""
    weights = {name: jnp.asarray(w, precision) for name, w in net.random_weights().items()}
    call = partial(jax_call, net, weights, batch, steps, implementation, **options)
    return lambda: np.asarray(call()[0])


def seconds(call: Callable) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main(
    net: str = "20x64x128",
    precision: str = "bfloat16",
    batch: int = 1,
    implementation: str = "cpu",
    steps: int = 2000,
    rounds: int = 15,
) -> None:
    """Measure what options of the sampler cost.

    Args:
        net: By name, see `wavegen bench`.
        precision: Of the weights.
        batch: Streams side by side.
        implementation: By name.
        steps: Samples of each stream in a round.
        rounds: Of which the median counts.
    """
    plain = find_net(net)
    mixture = replace(plain, shape=replace(plain.shape, head="mixture", mixtures=10))
    variants = {
        "plain": (plain, {}),
        "temperature 0.8, top-k 50": (plain, {"temperature": 0.8, "top_k": 50}),
        "top-p 0.9": (plain, {"top_p": 0.9}),
        "80 channels of condition, hop 64": (replace(plain, condition=80), {}),
        "mixture of 10 logistics": (mixture, {}),
    }
    calls = {
        name: sampler(variant, precision, batch, steps, implementation, **options)
        for name, (variant, options) in variants.items()
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(seconds(call))
    print(f"{net}, {precision}, batch {batch}, {implementation}: median of {rounds} rounds\n")
    for name, taken in times.items():
        rate = batch * steps / np.median(taken)
        share = np.median(times["plain"]) / np.median(taken)
        print(f"{name:<34}{rate / 1e3:>8.2f} kHz{share:>8.2f} of plain")

    second, minute = (sampler(plain, precision, batch, n * SECOND, implementation) for n in (1, 60))
    second()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    short, long = [], []
    for _ in range(3):
        short += [seconds(second) for _ in range(15)]
        long.append(seconds(minute))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    rates = [batch * n * SECOND / np.median(taken) / 1e3 for n, taken in ((1, short), (60, long))]
    print(f"\na second at a time {rates[0]:.2f} kHz, a minute in one call {rates[1]:.2f} kHz")
    print(f"memory grown by {grown / 1024:.1f} MiB")


if __name__ == "__main__":
    tyro.cli(main)
