"""Specifies the operation by all distances of one row after another; float64 inputs give float64 arithmetic."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int32


@jax.jit
def nearest_code(x: Float[Array, "N D"], codebook: Float[Array, "K D"]) -> Int32[Array, "N"]:
    """Finds the nearest entries; see ``api.nearest_code``."""
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    codebook = codebook.astype(dtype)

    def of_row(row: Float[Array, "D"]) -> Int32[Array, ""]:
        distances = jnp.sum((row[None] - codebook) ** 2, axis=-1)
        finite = jnp.isfinite(row).all() & jnp.isfinite(codebook).all()
        return jnp.where(finite, jnp.argmin(distances), 0).astype(jnp.int32)

    return lax.map(of_row, x.astype(dtype))
