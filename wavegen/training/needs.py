"""The least memory that a training takes, compared with what there is before that is used."""

import math
from collections.abc import Iterator
from typing import Any

import jax
from jaxtyping import PyTree

from wavegen.config import Config
from wavegen.errors import WavegenError
from wavegen.networks.initial import memory_of_host

_GIB = 2**30


def expect_to_fit(step: Any, state: PyTree, batch: PyTree, codecs: PyTree) -> None:
    """Checks that the state of a step, its gradients and the largest array between them fit.

    This is a lower bound: the other activations come on top.

    Args:
        step: the jitted step; tracing it here is not repeated by its first call.
        state: see ``wavegen.training.state``.
        batch: of the first step.
        codecs: the step's third argument.

    Raises:
        WavegenError: they do not fit.
    """
    whole = sum(x.nbytes for x in jax.tree.leaves(state))
    gradients = sum(x.nbytes for x in jax.tree.leaves(state["params"]))
    largest = max(_sizes(step.trace(state, batch, codecs).jaxpr))
    needed, there = whole + gradients + largest, _memory()
    if needed > there:
        raise WavegenError(
            f"a training step needs {needed / _GIB:,.1f} GiB or more, and there are {there / _GIB:,.1f}; make "
            "data.batch_size, data.crop or the model smaller, or raise optimizer.accumulate"
        )


def expect_batches_to_fit(config: Config) -> None:
    """Checks that the batches that are read ahead fit into the memory of the machine.

    Raises:
        WavegenError: they do not.
    """
    data = config.data
    needed = 2 * data.batch_size * data.crop * data.channels * (data.prefetch + 1)
    if needed > memory_of_host():
        raise WavegenError(
            f"{data.prefetch + 1} batches of {data.batch_size} x {data.crop} samples need {needed / _GIB:,.1f} GiB, "
            f"and there are {memory_of_host() / _GIB:,.1f}; make data.batch_size, data.crop or data.prefetch smaller"
        )


def _sizes(jaxpr: Any) -> Iterator[int]:
    """The bytes of every array that a program makes, those in loops and calls included."""
    yield 0
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        for variable in equation.outvars:
            shape, dtype = getattr(variable.aval, "shape", ()), getattr(variable.aval, "dtype", None)
            yield math.prod(shape) * getattr(dtype, "itemsize", 0)
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                    yield from _sizes(inner)


def _memory() -> int:
    """Bytes of all devices that this process trains on; the CPU's are those of the machine."""
    devices = jax.local_devices()
    if devices[0].platform == "cpu":
        return memory_of_host()
    return sum((device.memory_stats() or {}).get("bytes_limit", 2**62) for device in devices)
