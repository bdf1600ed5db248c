"""Kernel audio distance: the squared maximum mean discrepancy between two sets of embeddings.

Sources: Chung et al. 2025, "KAD: No More FAD! An Effective and Efficient Evaluation Metric for Audio Generation", for
the kernel, its bandwidth and the factor 100; Gretton et al. 2012, "A Kernel Two-Sample Test", lemma 6, for the
estimate. Over samples ``x`` and ``y`` of sizes m and n,

    mean of k(x_i, x_j) over i != j + mean of k(y_i, y_j) over i != j - 2 mean of k(x_i, y_j).

It is unbiased for any number of clips, so that two halves of one set have a distance around 0, below it as often as
above, where a Fréchet distance of few clips is far too large.
"""

import numpy as np
from jaxtyping import Float

SCALE = 100.0
"""Factor of the squared discrepancy, which is at most 2."""


def bandwidth_of(reference: Float[np.ndarray, "N D"]) -> float:
    """Returns the median distance between two embeddings of the reference, for ``kernel_audio_distance``."""
    squares = squared_distances(reference, reference)[np.triu_indices(len(reference), 1)]
    median = float(np.sqrt(np.median(squares))) if len(squares) else 0.0
    return median or 1.0  # equal embeddings have no scale, and any will do


def kernel_audio_distance(
    generated: Float[np.ndarray, "M D"], reference: Float[np.ndarray, "N D"], bandwidth: float | None = None
) -> float:
    """Returns 100 times the unbiased squared discrepancy under the kernel ``exp(-|x - y|^2 / (2 bandwidth^2))``.

    Args:
        generated: one embedding per row, at least 2.
        reference: the same of recordings, at least 2.
        bandwidth: of the kernel; None takes ``bandwidth_of(reference)``.

    Example:
        >>> import numpy as np
        >>> from wavegen.evaluation.kernel_distance import kernel_audio_distance
        >>> a, b = np.random.default_rng(0).normal(size=(2, 200, 4))
        >>> abs(kernel_audio_distance(a, b)) < 1 < kernel_audio_distance(a + 1, b)
        True
    """
    width = bandwidth_of(reference) if bandwidth is None else bandwidth
    within = sum(_mean_of_pairs(_kernel(rows, rows, width)) for rows in (generated, reference))
    return float(SCALE * (within - 2 * _kernel(generated, reference, width).mean()))


def squared_distances(a: Float[np.ndarray, "M D"], b: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "M N"]:
    """Returns the squared distance of every row of one set from every row of the other."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    # Distances survive a common shift, and small numbers lose less in the difference.
    center = b.mean(axis=0)
    a, b = a - center, b - center
    return np.maximum((a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T, 0)


def _kernel(
    a: Float[np.ndarray, "M D"], b: Float[np.ndarray, "N D"], width: float
) -> Float[np.ndarray, "M N"]:
    return np.exp(-squared_distances(a, b) / (2 * width**2))


def _mean_of_pairs(kernel: Float[np.ndarray, "M M"]) -> float:
    count = len(kernel)
    return (kernel.sum() - np.trace(kernel)) / (count * (count - 1))
