"""Distances between sets: what they are of known sets, their bias, and their errors."""

import numpy as np
import pytest

from wavegen.evaluation.distinct_bins import Bins
from wavegen.evaluation.frechet import frechet_distance
from wavegen.evaluation.jackknife import standard_error
from wavegen.evaluation.kernel_distance import SCALE, bandwidth_of, kernel_audio_distance

RANDOM = np.random.default_rng(0)


def gaussian(count: int, width: int = 3, shift: float = 0.0) -> np.ndarray:
    return RANDOM.normal(shift, 1, (count, width))


def test_kernel_distance_is_the_formula_written_out():
    x, y = gaussian(4), gaussian(5, shift=1.0)

    def k(a, b):
        return np.exp(-np.sum((a - b) ** 2) / (2 * 0.7**2))

    within = np.mean([k(x[i], x[j]) for i in range(4) for j in range(4) if i != j])
    within += np.mean([k(y[i], y[j]) for i in range(5) for j in range(5) if i != j])
    across = np.mean([k(a, b) for a in x for b in y])
    assert kernel_audio_distance(x, y, 0.7) == pytest.approx(SCALE * (within - 2 * across))


def test_bandwidth_is_the_median_distance():
    assert bandwidth_of(np.array([[0.0], [1.0], [5.0]])) == pytest.approx(4)
    assert bandwidth_of(np.zeros((3, 2))) == 1, "equal embeddings leave no scale"


def test_kernel_distance_is_unbiased_for_few_clips_and_frechet_distance_is_not():
    kernel = [kernel_audio_distance(gaussian(10), gaussian(10), 2.0) for _ in range(300)]
    assert abs(np.mean(kernel)) < 4 * np.std(kernel) / np.sqrt(300)
    few, many = (np.mean([frechet_distance(gaussian(n), gaussian(n)) for _ in range(30)]) for n in (10, 100))
    assert few > 5 * many > 0


def test_frechet_distance_of_gaussians_is_that_of_their_moments():
    rows = RANDOM.normal(size=(5, 3))
    rows -= rows.mean(axis=0)
    # Diagonal covariances commute: the distance is that of means and of standard deviations.
    orthogonal = np.linalg.qr(rows)[0] * 2  # covariance: 4 / (5 - 1) in each direction
    other = orthogonal * [2, 1, 3] + [1, 0, 0]
    assert frechet_distance(other, orthogonal) == pytest.approx(1 + (2 - 1) ** 2 + 0 + (3 - 1) ** 2)


def test_frechet_distance_of_fewer_clips_than_numbers_is_finite_and_zero_to_itself():
    rows = gaussian(4, 20)
    assert frechet_distance(rows, rows) == pytest.approx(0, abs=1e-9)
    assert np.isfinite(frechet_distance(gaussian(3, 20), rows))


def test_the_error_is_that_of_repeated_draws():
    def one() -> float:
        return kernel_audio_distance(gaussian(40, shift=0.5), gaussian(40), 2.0)

    drawn = np.std([one() for _ in range(200)])
    estimated = np.mean(
        [
            standard_error(
                lambda a, b: kernel_audio_distance(a, b, 2.0),
                list(gaussian(40, shift=0.5)[:, None]),
                list(gaussian(40)[:, None]),
            )
            for _ in range(20)
        ]
    )
    assert estimated == pytest.approx(drawn, rel=0.3)
    assert standard_error(kernel_audio_distance, [gaussian(1)] * 3, [gaussian(1)] * 30) is None


def test_bins_differ_by_chance_alone_in_a_twentieth_and_all_where_a_mode_is_missing():
    centers = np.array([[0.0, 0.0], [8.0, 0.0], [0.0, 8.0], [8.0, 8.0]])
    rows = np.concatenate([RANDOM.normal(center, 1, (100, 2)) for center in centers])
    same = np.concatenate([RANDOM.normal(center, 1, (100, 2)) for center in centers])
    bins = Bins(rows)
    alike, collapsed = bins.compare(same), bins.compare(same[:100])
    assert alike.bins == 40
    assert alike.different < 0.15 < 0.25 < collapsed.different
    assert alike.divergence < 0.1 < 0.5 < collapsed.divergence <= 1
    assert bins.compare(rows).divergence == 0
