"""K-means: entries in the middle of the rows nearest to them (Lloyd 1982)."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from wavegen.errors import WavegenError
from wavegen.kernels import nearest_code


def kmeans(
    rows: Float[Array, "N D"], size: int, *, iterations: int, random: np.random.Generator
) -> tuple[Float[Array, "V D"], Int[Array, "N"]]:
    """Clusters rows.

    The first entries are rows drawn without replacement. An entry to which no row is nearest stays where it is.

    Args:
        rows: at least ``size`` rows.
        size: entries of the codebook, V.
        iterations: number of assignments, each followed by a move to the means.
        random: generator of the first entries.

    Returns:
        The float32 entries, and the index of the nearest one to each row.

    Raises:
        WavegenError: if there are fewer rows than entries.

    Example:
        >>> import jax.numpy as jnp
        >>> import numpy as np
        >>> from wavegen.codecs.quantizers.kmeans import kmeans
        >>> rows = jnp.array([[0.0], [2.0], [10.0], [12.0]])
        >>> entries, codes = kmeans(rows, 2, iterations=5, random=np.random.default_rng(0))
        >>> sorted(entries[:, 0].tolist()), len(codes)
        ([1.0, 11.0], 4)
    """
    if len(rows) < size:
        raise WavegenError(
            f"expected at least {size} vectors to place {size} entries, got {len(rows)}; take more audio"
        )
    rows = rows.astype(jnp.float32)
    first = jnp.asarray(random.choice(len(rows), size, replace=False), jnp.int32)
    return _lloyd(rows, rows[first], iterations=iterations)


def sum_by_code(rows: Float[Array, "N D"], codes: Int[Array, "N"], size: int) -> Float[Array, "V D"]:
    """Returns the sum of the rows of each code."""
    return jnp.zeros((size, rows.shape[1]), rows.dtype).at[codes].add(rows)


@partial(jax.jit, static_argnames="iterations")
def _lloyd(
    rows: Float[Array, "N D"], entries: Float[Array, "V D"], *, iterations: int
) -> tuple[Float[Array, "V D"], Int[Array, "N"]]:
    def iterate(_: Int[Array, ""], entries: Float[Array, "V D"]) -> Float[Array, "V D"]:
        codes = nearest_code(rows, entries)
        counts = jnp.bincount(codes, length=len(entries))[:, None]
        return jnp.where(counts > 0, sum_by_code(rows, codes, len(entries)) / jnp.maximum(counts, 1), entries)

    entries = lax.fori_loop(0, iterations, iterate, entries)
    return entries, nearest_code(rows, entries)
