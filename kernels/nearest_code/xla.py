"""The portable form computes ``|e|^2 - 2 x.e`` by a matrix product per chunk of rows, reduced before the next chunk.

``|x|^2`` is the same for every entry and left out. Rows and codebook are moved so that the codebook's mean is the
origin: distances stay, but their terms no longer dwarf them. (Without this, 82% of the float32 indices are not the
nearest for 64 columns and 512 entries that are standard normal around 1000.)

A chunk takes rows at equal distances, so that the axis that remains is the outer one. Where rows are spread over
devices, each device then works on its own rows in every chunk and none are exchanged; chunks of successive rows would
lie on one device after another. Entries are the outer axis of the distances, as a minimum over it works on whole
vectors.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int32, Shaped

CPU_DISTANCES, OTHER_DISTANCES = 2**20, 2**23
"""The number of distances per chunk; a problem that has no more is done in one product.

On a CPU 4 MiB are still in cache when they are reduced: 65,536 rows, 1,024 entries and 64 columns take 330, 320, 350,
410, 540 ms with 2^18, 2^19, 2^20, 2^21, 2^22 distances, and 700 with all at once and ``argmin`` (two AVX-512 cores,
busy with other work too, so that only the ratios count). 32 MiB fit into an H100's second-level cache; this was not
timed.
"""


@jax.jit
def nearest_code(x: Float[Array, "N D"], codebook: Float[Array, "K D"]) -> Int32[Array, "N"]:
    """Finds the nearest entries; see ``api.nearest_code``."""
    sizes = {"cpu": CPU_DISTANCES, "default": OTHER_DISTANCES}
    forms = {platform: partial(nearest_in_chunks, most=most) for platform, most in sizes.items()}
    return lax.platform_dependent(x, codebook, **forms)


def nearest_in_chunks(x: Float[Array, "N D"], codebook: Float[Array, "K D"], most: int) -> Int32[Array, "N"]:
    """Finds the nearest entries with at most ``most`` distances at once; see ``map_rows``."""
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
        # On a CPU these two reductions are faster than XLA's argmin. With a NaN the least is NaN, nothing is
        # above it, and the index is 0.
        above = distances > distances.min(axis=0, keepdims=True)
        entry = lax.broadcasted_iota(jnp.int32, distances.shape, 0)
        return jnp.where(above, len(codebook), entry).min(axis=0)

    return map_rows(of_rows, len(codebook), most, x)


def map_rows(
    of_rows: Callable[[Array], Array], codes: int, most: int, x: Float[Array, "N D"]
) -> Shaped[Array, "N"]:
    """Runs ``of_rows`` on chunks of rows with at most ``most`` distances to ``codes`` entries, or on single rows."""
    count, width = x.shape
    # A power of two divides most batches; the others are padded.
    chunks = min(1 << max(-(-count * codes // most) - 1, 0).bit_length(), max(count, 1))
    if chunks == 1:
        return of_rows(x)
    x = jnp.pad(x, ((0, -count % chunks), (0, 0))).reshape(-1, chunks, width)
    values = lax.map(lambda i: of_rows(lax.dynamic_index_in_dim(x, i, 1, keepdims=False)), jnp.arange(chunks))
    return values.T.reshape(-1)[:count]
