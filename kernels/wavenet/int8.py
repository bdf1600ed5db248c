"""Products in 8 bits: how a network whose shape says ``int8`` rounds what it multiplies.

A matrix has a grid for each column, which is an output channel, and each vector that is multiplied with it has one
too: the largest magnitude is 127 steps, and every value is rounded to whole steps, halves to even. The products of
bytes are summed in integers, exactly, and the sum is multiplied with both steps. This is done for the products that are
needed for every sample: the newest tap of a layer; its older taps, which together are one vector; the residual and the
skip channels; and both matrices of the head. All else is float32: the input convolution, conditions, biases, the
residual and skip sums, the gates, softmax and draw, and what the rings keep.
"""

from collections.abc import Mapping

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

LARGEST = 127
"""Steps of the largest magnitude."""
LEAST = 1e-30
"""Where the largest magnitude is smaller than this, all values are rounded to zero."""
MATRICES = ("dilated", "residual", "skip", "hidden", "output")
"""Weights that are rounded."""


def round_to_grid(x: Float[Array, "..."], axis: int) -> tuple[Int[Array, "..."], Float[Array, "..."]]:
    """Rounds to bytes with one step for all values along an axis.

    Returns:
        Whole numbers in [-127, 127], and the steps, with 1 element on that axis.
    """
    largest = jnp.max(jnp.abs(x), axis=axis, keepdims=True)
    used = jnp.where(largest < LEAST, 1, largest)
    whole = jnp.where(largest < LEAST, 0, jnp.rint(x * (LARGEST / used)))
    return whole.astype(jnp.int32), jnp.where(largest < LEAST, 0, used / LARGEST)


def product(x: Float[Array, "B I"], kernel: Float[Array, "I O"]) -> Float[Array, "B O"]:
    """Multiplies in 8 bits: the columns of the kernel and the rows of x are rounded."""
    rows, row_steps = round_to_grid(x, 1)
    columns, column_steps = round_to_grid(kernel, 0)
    sums = lax.dot(rows, columns, preferred_element_type=jnp.int32)
    return sums.astype(x.dtype) * (row_steps * column_steps)


def round_matrices(weights: Mapping[str, Array]) -> dict[str, Array]:
    """Returns the weights with their matrices rounded as the sampler rounds them, which then changes nothing more.

    The parallel form, which reads prompts and scores recordings in float32, thus has the sampler's network.
    """
    rounded = dict(weights)
    for name in MATRICES:
        kernel = weights[name]
        if name == "dilated":  # the newest tap is one matrix, the older ones are another
            count, taps, residual, gates = kernel.shape
            older = _on_grid(kernel[:, :-1].reshape(count, -1, gates)).reshape(
                count, taps - 1, residual, gates
            )
            rounded[name] = jnp.concatenate([older, _on_grid(kernel[:, -1:])], axis=1)
        else:
            rounded[name] = _on_grid(kernel)
    return rounded


def _on_grid(kernel: Float[Array, "*L I O"]) -> Float[Array, "*L I O"]:
    whole, steps = round_to_grid(kernel, -2)
    return whole * steps
