"""Initial weights, drawn on the host.

XLA takes about a second of processor time to compile the draw of one shape: a small network would wait 20 seconds
before its first step, or before it is loaded. NumPy's Philox draws the same numbers on every platform at once.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float


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
