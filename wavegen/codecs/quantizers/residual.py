"""Residual quantization: each level quantizes what the levels before it left over.

The levels are one ``lax.scan``: they are compiled once, whatever their number. Sources: Zeghidour et al. 2021,
"SoundStream: An End-to-End Neural Audio Codec", algorithm 1; Juang and Gray 1982.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PyTree

from wavegen.types import Tokens

Level = Callable[
    [Float[Array, "B N D"], Bool[Array, "B"], Any], tuple[Int[Array, "B N"], Float[Array, "B N D"], PyTree]
]
"""``(residual, rows that use this level, its weights) -> (codes, quantized residual, anything else)``."""


def quantize_levels(
    level: Level, latents: Float[Array, "B N D"], used: Bool[Array, "K B"], weights: PyTree
) -> tuple[Tokens, Float[Array, "B N D"], PyTree]:
    """Runs the levels one after another.

    Args:
        level: computes one level. Its quantized residual is subtracted with its gradient, if it has one.
        latents: float32.
        used: which rows use each level; a row that does not use one uses none after it.
        weights: the weights of each level, arrays [K ...]; those of levels that ``used`` lacks are left out.

    Returns:
        The codes, the sum of the quantized residuals of used levels, and the remaining results of the levels, [K
        ...].
    """

    def step(carry: tuple[Array, Array], inputs: tuple[Array, PyTree]) -> tuple[tuple[Array, Array], PyTree]:
        (residual, total), (rows, own) = carry, inputs
        codes, quantized, more = level(residual, rows, own)
        total = total + jnp.where(rows[:, None, None], quantized, 0)
        return (residual - quantized, total), (codes, more)

    weights = jax.tree.map(lambda x: x[: len(used)], weights)
    (_, total), (codes, more) = lax.scan(step, (latents, jnp.zeros_like(latents)), (used, weights))
    return jnp.moveaxis(codes, 0, -1), total, more


def decode_levels(
    look_up: Callable[[Int[Array, "B N"], Any], Float[Array, "B N D"]],
    codes: Tokens,
    weights: PyTree,
    width: int,
) -> Float[Array, "B N D"]:
    """Sums the vectors of the codes of each level, in the order of ``quantize_levels``."""
    total = jnp.zeros((*codes.shape[:2], width), jnp.float32)
    levels = codes.shape[2]
    weights = jax.tree.map(lambda x: x[:levels], weights)
    return lax.scan(
        lambda total, inputs: (total + look_up(*inputs), None), total, (jnp.moveaxis(codes, -1, 0), weights)
    )[0]


def mean_of_used(values: Float[Array, "B N D"], used: Bool[Array, "B"]) -> Float[Array, ""]:
    """Returns the mean over all rows, of which unused ones count as 0 (as in DAC)."""
    return jnp.mean(jnp.where(used[:, None, None], values, 0))
