"""Lookup of the nearest codebook entry: in chunks, all distances at once, and PyTorch's.

    python benchmarks/speed/nearest_code.py [--against torch] [--lookups 8192x512x128 ...] [--chunks 18 20 22]

The ways take turns, so that a busy moment of the machine hits all of them; medians are shown, and the least. Share of
the peak: `2 N K D` floating-point operations against the largest float32 matrix product that the same program measures
on the same machine. "distances" is the matrix product alone, chunk by chunk, with no more than a sum over each chunk:
what no lookup built on XLA's products can beat.
"""

import os
import platform
import time
from collections.abc import Callable
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from wavegen.kernels import nearest_code
from wavegen.kernels.nearest_code import xla
from wavegen.kernels.nearest_code.shapes import TIMED, Lookup

PEAK_SIZE = 2048


@jax.jit
def at_once(x: jax.Array, codebook: jax.Array) -> jax.Array:
    """Every distance in one array: what is usually written."""
    products = jnp.einsum("nd,kd->nk", x, codebook, precision="highest")
    return jnp.argmin(jnp.sum(codebook**2, axis=1)[None] - 2 * products, axis=1)


@partial(jax.jit, static_argnames="most")
def in_chunks_of(x: jax.Array, codebook: jax.Array, most: int) -> jax.Array:
    """The library's form with another size of chunks."""
    return xla.nearest_in_chunks(x, codebook, most)


@jax.jit
def distances(x: jax.Array, codebook: jax.Array) -> jax.Array:
    """The matrix products of all chunks; the square keeps XLA from summing before it multiplies."""

    def of_rows(rows: jax.Array) -> jax.Array:
        return jnp.sum(jnp.einsum("kd,nd->kn", codebook, rows, precision="highest") ** 2, axis=0)

    return xla.map_rows(of_rows, len(codebook), xla.CPU_DISTANCES, x)


def torch_lookup(x: jax.Array, codebook: jax.Array) -> Callable[[], np.ndarray]:
    import torch

    rows, entries = (torch.from_numpy(np.array(a)) for a in (x, codebook))
    return torch.inference_mode()(lambda: torch.cdist(rows, entries).argmin(1).numpy())


def ways(lookup: Lookup, against: str | None, chunks: tuple[int, ...]) -> dict[str, Callable[[], jax.Array]]:
    x, codebook = lookup.random()
    calls: dict[str, Callable] = {
        "nearest_code": lambda: nearest_code(x, codebook),
        "at once": lambda: at_once(x, codebook),
        "distances": lambda: distances(x, codebook),
    }
    for power in chunks:
        calls[f"chunks 2^{power}"] = partial(in_chunks_of, x, codebook, 2**power)
    if against:
        calls["torch.cdist"] = torch_lookup(x, codebook)
    return calls


def measure(calls: dict[str, Callable], rounds: int) -> dict[str, tuple[float, float]]:
    """Median and least seconds of each call, taken in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        jax.block_until_ready(call())
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            jax.block_until_ready(call())
            seconds[name].append(time.perf_counter() - start)
    return {name: (float(np.median(times)), min(times)) for name, times in seconds.items()}


def main(
    lookups: tuple[str, ...] = tuple(TIMED),
    against: Literal["torch"] | None = None,
    chunks: tuple[int, ...] = (),
    rounds: int = 15,
) -> None:
    """Time ways to look up the nearest codebook entry.

    Args:
        lookups: problems by name, rows x entries x width.
        against: time this library's lookup too.
        chunks: logarithms to base 2 of other numbers of distances in a chunk.
        rounds: rounds, of which the median counts.
    """
    if unknown := set(lookups) - set(TIMED):
        raise SystemExit(f"no lookup {', '.join(sorted(unknown))}; choose from {', '.join(TIMED)}")
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    print(f"{rounds} rounds; {machine}, jax {jax.__version__}, load {os.getloadavg()[0]:.1f}\n")
    print(
        "| lookup | way | ms | least | GFLOP/s | share of the peak |\n| --- | --- | --- | --- | --- | --- |"
    )
    square = jnp.asarray(np.random.default_rng(0).standard_normal((PEAK_SIZE, PEAK_SIZE), np.float32))
    product = jax.jit(jnp.matmul)
    for name in lookups:
        lookup = TIMED[name]
        calls = ways(lookup, against, chunks) | {"peak": lambda: product(square, square)}
        times = measure(calls, rounds)
        peak = 2 * PEAK_SIZE**3 / times.pop("peak")[0]
        for way, (median, least) in times.items():
            rate = 2 * lookup.rows * lookup.codes * lookup.width / median
            print(
                f"| {name} | {way} | {1e3 * median:.2f} | {1e3 * least:.2f} | {rate / 1e9:.1f} | {rate / peak:.0%} |"
            )
        print(f"| {name} | matrix product of {PEAK_SIZE}^3 | | | {peak / 1e9:.1f} | |")


if __name__ == "__main__":
    tyro.cli(main)
