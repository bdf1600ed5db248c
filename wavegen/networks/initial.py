"""Initial weights, drawn on the host.

XLA takes about a second of processor time to compile the draw of one shape: a small network would wait 20 seconds
before its first step, or before it is loaded. NumPy's Philox draws the same numbers on every platform at once.
"""

import math
import os
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from wavegen.errors import WavegenError

_BYTES_PER_WEIGHT = 12
"""Two arrays while it is drawn, and the one on the device."""


class Draws(np.random.Generator):
    """Philox numbers for the weights of a network, of which there may not be more than fit.

    A configuration or the card of a file may ask for any size; this is noticed here before the memory is taken.

    Args:
        seed: of the numbers.
        most: how many weights there may be; None is what this machine's memory holds.
    """

    def __init__(self, seed: int, most: int | None = None) -> None:
        super().__init__(np.random.Philox(seed))
        self._most = memory_of_host() // _BYTES_PER_WEIGHT if most is None else most
        self._drawn = 0
        self._of_file = most is not None

    def standard_normal(self, size: Any = None, dtype: Any = np.float64, out: Any = None) -> Any:
        """Draws weights of this shape.

        Raises:
            WavegenError: there are too many.
        """
        self._drawn += math.prod(size) if isinstance(size, tuple) else size or 1
        if self._drawn > self._most:
            there, mend = (
                (f"the file holds {self._most:,}", "it is damaged; export it again")
                if self._of_file
                else (f"this machine's memory holds {self._most:,}", "make the model smaller")
            )
            raise WavegenError(f"the network has {self._drawn:,} weights or more, and {there}; {mend}")
        return super().standard_normal(size, dtype, out)


def memory_of_host() -> int:
    """Returns the bytes of memory that this machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def normal(random: np.random.Generator, *shape: int, scale: float) -> nnx.Param[Float[Array, "..."]]:
    """A parameter of normal numbers with this standard deviation."""
    return nnx.Param(jnp.asarray(random.standard_normal(shape, np.float32) * np.float32(scale)))


def zeros(*shape: int) -> nnx.Param[Float[Array, "..."]]:
    """A parameter of zeros."""
    return nnx.Param(jnp.asarray(np.zeros(shape, np.float32)))


def layer_options(random: np.random.Generator) -> dict[str, Any]:
    """The arguments that give a layer of flax such weights: normal with variance 1 / fan-in, biases zero."""

    def kernel(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
        del key
        return normal(random, *shape, scale=float(np.prod(shape[:-1])) ** -0.5)[...].astype(dtype)

    def bias(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
        del key
        return zeros(*shape)[...].astype(dtype)

    initializers: dict[str, Callable[..., Array]] = {"kernel_init": kernel, "bias_init": bias}
    return {**initializers, "rngs": nnx.Rngs(0)}
