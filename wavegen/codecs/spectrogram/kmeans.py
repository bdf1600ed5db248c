"""K-means over any amount of data, one batch of rows at a time.

Each entry is the mean of all rows that were assigned to it since it was placed. Sources: Sculley 2010, "Web-Scale
K-Means Clustering", algorithm 1; Arthur and Vassilvitskii 2007, "k-means++: The Advantages of Careful Seeding", for
the first entries.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from wavegen.codecs.quantizers.kmeans import sum_by_code
from wavegen.errors import WavegenError
from wavegen.kernels import nearest_code

TRIALS = 4
"""Candidates that are drawn for each first entry; the one that lowers the error most is taken."""

RESTART = 0.01
"""An entry with less than this share of the mean count is dead."""


class Fit(NamedTuple):
    """The state of a fit, from which it can resume.

    Attributes:
        codebook: the entries, float32.
        counts: number of rows of which each entry is the mean; floats, because they grow without bound and their last
            digits do not matter.
        batches: number of batches so far.
    """

    codebook: Float[Array, "V D"]
    counts: Float[Array, "V"]
    batches: int


Progress = Callable[[int, float], None]
"""Called after every batch with the number of batches so far and the error of the batch.

The error is the mean squared distance of the batch's rows from their entries before these moved; it is summed over
bands.
"""


def fit_batches(
    batches: Iterable[Float[np.ndarray, "N D"]],
    size: int,
    *,
    seed: int = 0,
    fit: Fit | None = None,
    progress: Progress | None = None,
) -> Fit:
    """Learns a codebook from batches of rows.

    Args:
        batches: batches of one shape, so that they are compiled once. The first has at least ``size`` rows, better
            many more, and is like those to come: entries begin as rows of it.
        size: number of entries, V.
        seed: seed of all random choices; the result depends on it and on the batches alone.
        fit: the state from which to resume, with the batches that follow; None starts anew.
        progress: called after every batch; see ``Progress``.

    Raises:
        WavegenError: if there are too few rows to start with, rows of another width, or no batches.

    Example:
        >>> import numpy as np
        >>> from wavegen.codecs.spectrogram.kmeans import fit_batches
        >>> batch = np.array([[0.0], [2.0], [10.0], [12.0]], np.float32)
        >>> fit = fit_batches([batch] * 3, size=2)
        >>> sorted(fit.codebook[:, 0].tolist()), fit.counts.tolist(), fit.batches
        ([1.0, 11.0], [6.0, 6.0], 3)
    """
    for rows in batches:
        if fit is None:
            fit = start(rows, size, seed=seed)
        if rows.shape[1] != fit.codebook.shape[1]:
            raise WavegenError(
                f"expected rows of {fit.codebook.shape[1]} values, got {list(rows.shape)}; "
                "resume with the frames with which the codebook was started"
            )
        draws = _draws(seed, fit.batches + 1, len(fit.codebook))
        codebook, counts, error = _learn(fit.codebook, fit.counts, jnp.asarray(rows), draws)
        fit = Fit(codebook, counts, fit.batches + 1)
        if progress is not None:
            progress(fit.batches, float(error))
    if fit is None:
        raise WavegenError("expected at least one batch of rows, got none; give more audio")
    return fit


def start(rows: Float[np.ndarray, "N D"], size: int, *, seed: int) -> Fit:
    """Draws entries from the rows of a batch, far apart from each other.

    The probability of a row is proportional to its squared distance from the entries so far.

    Raises:
        WavegenError: if there are fewer rows than entries.
    """
    if not 1 <= size <= len(rows):
        raise WavegenError(
            f"expected a codebook of 1 to {len(rows)} entries, the rows of the first batch, got {size}; "
            "use a larger batch or a smaller codebook"
        )
    codebook = _spread(jnp.asarray(rows, jnp.float32), _draws(seed, 0, size, TRIALS))
    return Fit(codebook, jnp.zeros(size, jnp.float32), 0)


def _draws(seed: int, batch: int, *shape: int) -> Float[Array, "V *trials"]:
    """Returns numbers in [0, 1), a pure function of the arguments."""
    return jnp.asarray(np.random.Generator(np.random.Philox(key=[seed, batch])).random(shape, np.float32))


@jax.jit
def _spread(rows: Float[Array, "N D"], draws: Float[Array, "V trials"]) -> Float[Array, "V D"]:
    def place(i: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        entries, distance = state
        candidates = rows[_choose(distance, draws[i])]
        after = jax.vmap(lambda entry: jnp.minimum(distance, _distance(rows, entry[None])))(candidates)
        best = after.sum(axis=1).argmin()
        return entries.at[i].set(candidates[best]), after[best]

    entries = jnp.zeros((len(draws), rows.shape[1]), jnp.float32)
    # Larger than any distance, so that the first draw is uniform.
    far = jnp.full(len(rows), 1e30)
    return lax.fori_loop(0, len(draws), place, (entries, far))[0]


@jax.jit
def _learn(
    codebook: Float[Array, "V D"],
    counts: Float[Array, "V"],
    rows: Float[Array, "N D"],
    draws: Float[Array, "V"],
) -> tuple[Float[Array, "V D"], Float[Array, "V"], Float[Array, ""]]:
    rows = rows.astype(jnp.float32)
    codes = nearest_code(rows, codebook)
    distance = _distance(rows, codebook[codes])
    new = jnp.bincount(codes, length=len(codebook)).astype(jnp.float32)
    counts = counts + new
    # The paper's steps of 1 / count, one row after another, yield the mean; so does this, for all rows at once.
    step = sum_by_code(rows - codebook[codes], codes, len(codebook)) / jnp.maximum(counts, 1)[:, None]
    codebook = codebook + step
    # Dead entries move to rows far from their entry; the new count gives them time to attract rows.
    least = RESTART * counts.mean()
    dead = counts < least
    candidates = rows[_choose(distance, draws)]
    return (
        jnp.where(dead[:, None], candidates, codebook),
        jnp.where(dead, least, counts),
        distance.mean(),
    )


def _distance(rows: Float[Array, "N D"], entries: Float[Array, "#N D"]) -> Float[Array, "N"]:
    return jnp.sum((rows - entries) ** 2, axis=1)


def _choose(weights: Float[Array, "N"], draws: Float[Array, "*V"]) -> Array:
    """Draws indices with probabilities in proportion to weights; the first index where all weights are 0."""
    total = jnp.cumsum(weights)
    return jnp.minimum(jnp.searchsorted(total, draws * total[-1], side="right"), len(weights) - 1)
