"""Number of statistically different bins: which kinds of sound a set has too few or too many of.

Source: Richardson and Weiss 2018, "On GANs and GMMs", section 3. The reference is cut into bins by k-means; the shares
of both sets in a bin are compared by a test of two proportions at the level of 5 %.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from wavegen.codecs.spectrogram.kmeans import fit_batches
from wavegen.evaluation.kernel_distance import squared_distances

BINS = 50
"""At most; and no more than a tenth of the reference's rows, as the test needs some in every bin."""
ROUNDS = 20
Z = 1.959964  # standard deviations, two-sided level of 5 %


@dataclass(frozen=True)
class DistinctBins:
    """How the shares of bins differ.

    Attributes:
        different: share of the bins whose proportions differ significantly, 0 to 1; 0.05 by chance alone.
        divergence: Jensen-Shannon divergence of the shares, 0 to 1 bit.
        bins: number of bins.
    """

    different: float
    divergence: float
    bins: int


class Bins:
    """The bins of a reference.

    Args:
        reference: one row per piece of the recordings.
        seed: of the k-means.

    Example:
        >>> import numpy as np
        >>> from wavegen.evaluation.distinct_bins import Bins
        >>> places = np.repeat([[0.0], [10.0]], 20, axis=0)
        >>> bins = Bins(places)
        >>> bins.compare(places).different, bins.compare(places[:20]).different
        (0.0, 1.0)
    """

    def __init__(self, reference: Float[np.ndarray, "N D"], seed: int = 0) -> None:
        size = min(BINS, max(len(reference) // 10, 2))
        size = min(size, len(np.unique(reference, axis=0)))
        rows = reference.astype(np.float32)
        self._centers = np.asarray(fit_batches([rows] * ROUNDS, size, seed=seed).codebook, np.float64)
        self._reference = self._counts(reference)

    def compare(self, generated: Float[np.ndarray, "M D"]) -> DistinctBins:
        """Compares a set with the reference; pieces of one clip resemble each other, which makes bins differ more."""
        counts = self._counts(generated), self._reference
        totals = [count.sum() for count in counts]
        shares = [count / total for count, total in zip(counts, totals, strict=True)]
        pooled = (counts[0] + counts[1]) / sum(totals)
        error = np.sqrt(pooled * (1 - pooled) * sum(1 / total for total in totals))
        different = np.abs(shares[0] - shares[1]) > Z * error
        middle = (shares[0] + shares[1]) / 2
        divergence = float(np.mean([_divergence(share, middle) for share in shares]))
        return DistinctBins(float(different.mean()), divergence, len(self._centers))

    def _counts(self, rows: Float[np.ndarray, "N D"]) -> Int[np.ndarray, "V"]:
        nearest = squared_distances(rows, self._centers).argmin(axis=1)
        return np.bincount(nearest, minlength=len(self._centers))


def _divergence(share: Float[np.ndarray, "V"], other: Float[np.ndarray, "V"]) -> float:
    """Returns the Kullback-Leibler divergence in bits; ``other`` is 0 only where ``share`` is."""
    some = share > 0
    return float(np.sum(share[some] * np.log2(share[some] / other[some])))
