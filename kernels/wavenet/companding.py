"""Converts between tokens, their code values u (even steps in [-1, 1]) and amplitudes: u, or u expanded by mu-law."""

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int


def compress(amplitude: Float[Array, "*s"], mu: int) -> Float[Array, "*s"]:
    """Returns the code value sign(x) ln(1 + mu|x|) / ln(1 + mu) of amplitudes in [-1, 1]; mu = 0: x itself.

    It is written without sign and abs, whose gradients are 0 at x = 0, where silence and untrained predictors lie.
    """
    if mu == 0:
        return amplitude
    rising = jnp.log1p(mu * jnp.maximum(amplitude, 0))
    falling = jnp.log1p(-mu * jnp.minimum(amplitude, 0))
    return (rising - falling) / jnp.log1p(jnp.asarray(mu, amplitude.dtype))


def expand(value: Float[Array, "*s"], mu: int) -> Float[Array, "*s"]:
    """Returns the amplitude of code values in [-1, 1], the inverse of ``compress``."""
    if mu == 0:
        return value
    return jnp.sign(value) * jnp.expm1(jnp.abs(value) * jnp.log1p(jnp.asarray(mu, value.dtype))) / mu


def code_value(
    tokens: Int[Array, "*s"], vocab_size: int, dtype: DTypeLike = jnp.float32
) -> Float[Array, "*s"]:
    """Returns the evenly spaced values of tokens: 0 is -1, vocab_size - 1 is 1."""
    return tokens.astype(dtype) * (2 / (vocab_size - 1)) - 1


def amplitude(
    tokens: Int[Array, "*s"], vocab_size: int, mu: int, dtype: DTypeLike = jnp.float32
) -> Float[Array, "*s"]:
    """Returns the amplitudes of tokens; a missing token (negative: before the start) is silent, exactly 0."""
    return jnp.where(tokens < 0, 0, expand(code_value(tokens, vocab_size, dtype), mu))
