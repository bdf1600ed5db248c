"""The portable form: `|e|^2 - 2 x.e` by matrix products over chunks of rows, reduced before the next chunk.

`|x|^2` is the same for every entry and left out. Rows and codebook are moved so that the codebook's mean is the
origin: distances stay, but their terms no longer dwarf them. (64 columns, 512 entries, both standard normal around
1000: without it 82% of the float32 indices are not the nearest.)

Each chunk takes every so-many-th row. So the axis that remains is the outer one: where rows are spread over devices,
each device works on its own rows in every chunk and none are exchanged; chunks of successive rows would lie on one
device after another. Entries are the outer axis of the distances, as a minimum over it works on whole vectors.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int32

CPU_DISTANCES, OTHER_DISTANCES = 2**20, 2**23
"""Distances in a chunk, and how many a problem may have to be done in one product.

4 MiB are in cache when they are reduced. 32 MiB still are in the second-level cache of an H100, in few launches;
that figure is not timed.
"""


@jax.jit
def nearest_code(x: Float[Array, "N D"], codebook: Float[Array, "K D"]) -> Int32[Array, "N"]:
    """Find the nearest entries; see `api.nearest_code`."""
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    codebook = codebook.astype(dtype)
    centre = codebook.mean(axis=0, keepdims=True)
    codebook = codebook - centre
    squares = jnp.sum(codebook**2, axis=1, keepdims=True)

    def of_rows(rows: Float[Array, "n D"]) -> Int32[Array, "n"]:
        rows = rows.astype(dtype) - centre
        rows = jnp.where(jnp.isfinite(rows), rows, jnp.nan)  # an infinite product could be the least
        products = jnp.einsum("kd,nd->kn", codebook, rows, precision=lax.Precision.HIGHEST)
        distances = squares - 2 * products
        # XLA's argmin is slower on a CPU than these two reductions. NaN is not above the least, which NaN makes NaN:
        # index 0.
        above = distances > distances.min(axis=0, keepdims=True)
        entry = lax.broadcasted_iota(jnp.int32, distances.shape, 0)
        return jnp.where(above, len(codebook), entry).min(axis=0)

    chunked = partial(map_rows, of_rows, len(codebook))
    return lax.platform_dependent(
        x, cpu=partial(chunked, CPU_DISTANCES), default=partial(chunked, OTHER_DISTANCES)
    )


def map_rows(of_rows, codes: int, most: int, x: Float[Array, "N D"]) -> Int32[Array, "N"]:
    """Run `of_rows` on chunks of rows with at most `most` distances to `codes` entries, or on one row a chunk."""
    count, width = x.shape
    # A power of two divides most batches; others are padded.
    chunks = min(1 << max(-(-count * codes // most) - 1, 0).bit_length(), max(count, 1))
    if chunks == 1:
        return of_rows(x)
    x = jnp.pad(x, ((0, -count % chunks), (0, 0))).reshape(-1, chunks, width)
    indices = lax.map(lambda i: of_rows(lax.dynamic_index_in_dim(x, i, 1, keepdims=False)), jnp.arange(chunks))
    return indices.T.reshape(-1)[:count]
