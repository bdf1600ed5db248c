"""Fréchet distance between two sets of embeddings, each taken as one Gaussian.

Source: Kilgour et al. 2019, "Fréchet Audio Distance: A Reference-Free Metric for Evaluating Music Enhancement
Algorithms"; the distance between Gaussians is that of Dowson and Landau 1982,

    |mean_a - mean_b|^2 + trace(C_a) + trace(C_b) - 2 trace((C_a C_b)^(1/2)).

It is biased: with fewer clips than some thousands it is too large, the more so the fewer there are. Compare it only at
equal numbers of clips, and prefer the kernel distance for few.
"""

import numpy as np
from jaxtyping import Float


def frechet_distance(generated: Float[np.ndarray, "M D"], reference: Float[np.ndarray, "N D"]) -> float:
    """Returns the distance, at least 0, in squared units of the embedding.

    The covariances need not have full rank: where ``C = R^T R``, the trace of the root of the product is the sum of the
    singular values of ``R_a R_b^T``, so that no root of a singular matrix is taken.

    Args:
        generated: one embedding per row, at least 2.
        reference: the same of recordings, at least 2.

    Example:
        >>> import numpy as np
        >>> from wavegen.evaluation.frechet import frechet_distance
        >>> a = np.random.default_rng(0).normal(size=(50, 3))
        >>> round(frechet_distance(a + [3, 0, 0], a), 6), round(frechet_distance(2 * a - a.mean(0), a) > 1)
        (9.0, 1)
    """
    a, b = generated.astype(np.float64), reference.astype(np.float64)
    roots = [_root(rows) for rows in (a, b)]
    shared = np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum()
    spread = sum(float((root**2).sum()) for root in roots)
    distance = np.sum((a.mean(axis=0) - b.mean(axis=0)) ** 2) + spread - 2 * shared
    return max(float(distance), 0.0)


def _root(rows: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "R D"]:
    """Returns R with ``R^T R`` the covariance of the rows, in at most D rows."""
    centered = (rows - rows.mean(axis=0)) / np.sqrt(len(rows) - 1)
    return np.asarray(np.linalg.qr(centered, mode="r"))
