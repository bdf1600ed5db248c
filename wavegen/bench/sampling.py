"""Times implementations of ``wavenet_generate`` in alternation, so that a busy moment of the machine affects all."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wavegen.bench.machine import has_native_library, has_peaks, time_in_turns
from wavegen.bench.torch_loop import torch_sampler
from wavegen.errors import WavegenError
from wavegen.kernels import native, wavenet_generate, wavenet_init_state
from wavegen.kernels.wavenet.shapes import NETS, Net, Weights
from wavegen.kernels.wavenet.state import input_table

DEFAULTS = {"cpu": ("cpu", "xla"), "tpu": ("pallas_tpu", "xla"), "gpu": ("mosaic_gpu", "xla")}
"""The implementations to time by default, by JAX's name for the platform."""
PRECISIONS = ("float32", "bfloat16", "int8")
"""What is timed by default; int8 rounds float32 weights when they are packed, and is no dtype of the weights."""
KEY = jax.random.key(0)
STREAM_RATE = 16000
"""Samples per second that count as real time."""
_PRODUCTS = ("dilated", "residual", "skip", "hidden", "output")
"""The weights with which every sample is multiplied."""
_CHECKED = 64
"""Number of samples whose outputs are compared with those of the reference."""


@dataclass(frozen=True)
class Speed:
    """The measurement of one implementation.

    Attributes:
        name: name of the implementation.
        precision: one of ``PRECISIONS``.
        batch: streams that are sampled together.
        threads: threads that could be used.
        per_stream: samples per second and stream, median.
        slowest: samples per second and stream of the slowest round.
        fastest: samples per second and stream of the fastest round, which other work on the machine disturbs least.
        real_time: seconds of audio per second and stream, at 16 kHz.
        gflops: floating-point operations per second of all streams, in 10^9.
        share_of_arithmetic: share of the measured peak of the threads in use; None where it was not measured, as that
            of int8 is not.
        share_of_bandwidth: bytes of weights read per second, if every step reads each weight once, over the measured
            rate at which a core reads a working set of that size; None where it was not measured.
        error: largest difference of the outputs from those of the float64 reference on the same tokens, relative to
            the largest output; None where it was not measured.
    """

    name: str
    precision: str
    batch: int
    threads: int
    per_stream: float
    slowest: float
    fastest: float
    real_time: float
    gflops: float
    share_of_arithmetic: float | None
    share_of_bandwidth: float | None
    error: float | None


def find_net(name: str) -> Net:
    """Returns a network of ``shapes.NETS``, or that of the instrument that ships with the package.

    Raises:
        WavegenError: if there is no network of this name.
    """
    if name == "shipped":
        return shipped_net()
    if name not in NETS:
        raise WavegenError(f"expected one of the networks {', '.join(NETS)}, shipped, got '{name}'")
    return NETS[name]


def shipped_net() -> Net:
    """Returns the sizes of the network of ``wavegen.load()``, without its excitation."""
    from wavegen.generation.load import load_generator
    from wavegen.models.wavenet import WaveNet
    from wavegen.networks.base import with_parameters

    generator = load_generator()
    model = with_parameters(generator.graph, generator.params)
    if not isinstance(model, WaveNet):
        raise WavegenError("the shipped instrument is not a WaveNet")
    weights = model.weights()
    _, taps, residual, gates = weights["dilated"].shape
    skip, hidden = weights["hidden"].shape
    return Net(
        model.shape,
        residual=residual,
        gate=gates // 2,
        skip=skip,
        hidden=hidden,
        kernel_size=taps,
        input_kernel_size=input_table(weights).shape[0],
        condition=weights["condition"].shape[1] if "condition" in weights else 0,
        scalar_input="scalar" in weights,
    )


def jax_call(
    net: Net, weights: Weights, batch: int, steps: int, implementation: str, **options: Any
) -> tuple[Any, ...]:
    """Generates from silence with the public call."""
    state = wavenet_init_state(weights, net.shape, batch)
    if net.condition:
        frames = -(-steps // 64)
        random = np.random.default_rng(0).standard_normal((batch, frames, net.condition), np.float32)
        options |= {"condition": jnp.asarray(random), "condition_hop": 64}
    return wavenet_generate(
        weights, net.shape, state, steps, key=KEY, implementation=implementation, **options
    )


def in_precision(net: Net, weights: Weights, precision: str) -> tuple[Net, Weights]:
    """Returns the network and its weights in one of ``PRECISIONS``."""
    if precision == "int8":
        return replace(net, shape=replace(net.shape, int8=True)), weights
    return net, {name: w.astype(precision) for name, w in weights.items()}


def _tokens(net: Net, weights: Weights, batch: int, steps: int, implementation: str) -> np.ndarray:
    return np.asarray(jax_call(net, weights, batch, steps, implementation)[0])


def largest_error(net: Net, weights: Weights, batch: int, implementation: str) -> float:
    """Returns the largest relative difference of teacher-forced outputs from the float64 reference."""
    tokens, _, outputs = jax_call(net, weights, batch, _CHECKED, implementation, return_logits=True)
    net = replace(net, shape=replace(net.shape, int8=False))
    with jax.enable_x64(True):
        exact = {name: jnp.asarray(np.asarray(w, np.float64)) for name, w in weights.items()}
        expected = jax_call(net, exact, batch, _CHECKED, "reference", forced=tokens, return_logits=True)[2]
        return float(np.abs(np.asarray(outputs) - expected).max() / np.abs(expected).max())


def measure(
    net: Net,
    batch: int,
    *,
    implementations: Sequence[str],
    precisions: Sequence[str] = ("float32",),
    steps: int = 1000,
    rounds: int = 9,
    against_torch: bool = False,
    check: bool = True,
    report: Callable[[str], None] = lambda text: None,
    refused: Callable[[str], None] = print,
) -> list[Speed]:
    """Times every implementation with every precision, in alternation.

    Args:
        net: sizes of the network; its weights are random.
        batch: streams that are sampled together.
        implementations: names known to ``wavenet_generate``.
        precisions: some of ``PRECISIONS``.
        steps: samples per stream in a round.
        rounds: number of rounds; their median is reported.
        against_torch: whether to time a plain PyTorch loop in float32 as well.
        check: whether to compare the outputs with those of the reference, which takes some seconds.
        report: called with lines of progress.
        refused: called with the name and reason of an implementation that cannot run the network here.

    Returns:
        One row per implementation and precision.
    """
    samplers: dict[tuple[str, str], Callable[[], np.ndarray]] = {}
    threads = native.settings().threads if has_native_library() else os.cpu_count() or 1
    weights = net.random_weights()
    networks = {precision: in_precision(net, weights, precision) for precision in precisions}
    for name in implementations:
        for precision in precisions:
            samplers[name, precision] = partial(_tokens, *networks[precision], batch, steps, name)
    if against_torch:
        samplers["torch", "float32"] = torch_sampler(net, weights, batch, steps, KEY, threads)
    able = {}
    for (name, precision), sample in samplers.items():
        report(f"compiling {name} {precision}")
        try:
            sample()
            able[name, precision] = sample
        except NotImplementedError as reason:
            refused(f"{name} {precision}, batch {batch}: {reason}")
    seconds = time_in_turns(able, rounds, lambda text: report(f"batch {batch}: {text}"))
    size = sum(weights[name].size for name in _PRODUCTS)
    rows = []
    for (name, precision), times in seconds.items():
        rate = steps / float(np.median(times))
        bytes_read = size * jnp.dtype(precision).itemsize
        arithmetic = bandwidth = None
        if has_peaks():
            operations, read = native.peaks(bytes_read)
            used = min(threads, batch) if name == "cpu" else threads
            bandwidth = bytes_read * rate / read
            if precision != "int8":
                arithmetic = 2 * size * rate * batch / (operations * used)
        report(f"checking {name} {precision}")
        rows.append(
            Speed(
                name=name,
                precision=precision,
                batch=batch,
                threads=threads,
                per_stream=rate,
                slowest=steps / max(times),
                fastest=steps / min(times),
                real_time=rate / STREAM_RATE,
                gflops=2e-9 * size * rate * batch,
                share_of_arithmetic=arithmetic,
                share_of_bandwidth=bandwidth,
                error=largest_error(*networks[precision], batch, name) if check and name != "torch" else None,
            )
        )
    return rows


def table(rows: Sequence[Speed]) -> str:
    """Returns rows as text; the last column compares with the last row of the same batch."""
    heads = (
        "",
        "weights",
        "batch",
        "kHz/stream",
        "fastest",
        "kHz",
        "x real time",
        "GFLOP/s",
        "of peak",
        "of reading",
        "error",
    )
    lines = ["{:<10}{:<10}{:>6}{:>12}{:>9}{:>9}{:>13}{:>9}{:>9}{:>12}{:>10}{:>8}".format(*heads, "x last")]
    for row in rows:
        last = [other for other in rows if other.batch == row.batch][-1]
        shares = [
            "-" if share is None else f"{share:.0%}"
            for share in (row.share_of_arithmetic, row.share_of_bandwidth)
        ]
        error = "-" if row.error is None else f"{row.error:.1e}"
        lines.append(
            f"{row.name:<10}{row.precision:<10}{row.batch:>6}{row.per_stream / 1e3:>12.2f}"
            f"{row.fastest / 1e3:>9.2f}"
            f"{row.per_stream * row.batch / 1e3:>9.2f}{row.real_time:>13.2f}{row.gflops:>9.1f}"
            f"{shares[0]:>9}{shares[1]:>12}{error:>10}{row.per_stream / last.per_stream:>8.2f}"
        )
    return "\n".join(lines)
