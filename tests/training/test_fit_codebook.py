"""Mini-batch k-means finds what is there, streams, and goes on; frames of a dataset are those of its recordings."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from wavegen.codecs.spectrogram.files import read_codebook
from wavegen.codecs.spectrogram.frames import MelFrames
from wavegen.codecs.spectrogram.kmeans import Fit, fit_batches, start
from wavegen.data.dataset import Dataset
from wavegen.data.mel_batches import PIECE, FrameBatches
from wavegen.data.prepare import Clip, write_dataset
from wavegen.errors import WavegenError
from wavegen.training.codebook import fit_codebook

RATE = 8000
FRAMES = MelFrames(RATE, n_fft=128, hop_length=32, bands=12)
CENTRES = np.asarray([[0, 0, 0], [9, 0, 0], [0, 9, 0], [0, 0, 9], [9, 9, 9]], np.float32)


def cluster_rows(seed: int, count: int = 200) -> np.ndarray:
    random = np.random.default_rng(seed)
    rows = CENTRES[random.integers(len(CENTRES), size=count)]
    return rows + 0.5 * random.standard_normal(rows.shape).astype(np.float32)


def same(a: Fit, b: Fit) -> None:
    np.testing.assert_array_equal(a.codebook, b.codebook)
    np.testing.assert_array_equal(a.counts, b.counts)
    assert a.batches == b.batches


@pytest.mark.parametrize("seed", range(5))
def test_separate_clusters_are_found(seed: int) -> None:
    batches = [cluster_rows(100 * seed + i) for i in range(20)]
    fit = fit_batches(batches, len(CENTRES), seed=seed)
    distance = np.linalg.norm(np.asarray(fit.codebook)[:, None] - CENTRES[None], axis=-1)
    assert sorted(distance.argmin(axis=1)) == list(range(len(CENTRES)))
    assert distance.min(axis=1).max() < 0.1
    assert fit.counts.sum() == 20 * 200


def test_entries_are_the_means_of_all_their_rows() -> None:
    """The paper's loop over single rows, in float64."""
    batches = [cluster_rows(i, 50) for i in range(3)]
    first = start(batches[0], 5, seed=0)
    entries, counts = np.asarray(first.codebook, np.float64), np.zeros(5)
    for rows in batches:
        codes = ((rows[:, None] - entries[None]) ** 2).sum(axis=-1).argmin(axis=1)
        for row, code in zip(rows, codes, strict=True):
            counts[code] += 1
            entries[code] += (row - entries[code]) / counts[code]
    fit = fit_batches(batches, 5, seed=0)
    np.testing.assert_array_equal(fit.counts, counts)
    np.testing.assert_allclose(fit.codebook, entries, atol=1e-5)


def test_a_stream_equals_the_batches_in_memory_and_a_rest_in_between() -> None:
    batches = [cluster_rows(i) for i in range(6)]
    seen: list[tuple[int, float]] = []
    whole = fit_batches(batches, 8, seed=3, progress=lambda *figures: seen.append(figures))
    same(fit_batches((rows for rows in batches), 8, seed=3), whole)
    half = fit_batches(batches[:2], 8, seed=3)
    same(fit_batches(batches[2:], 8, seed=3, fit=half), whole)
    assert [batch for batch, _ in seen] == [1, 2, 3, 4, 5, 6]
    assert seen[-1][1] < 0.8 * seen[0][1]
    assert (np.asarray(fit_batches(batches, 8, seed=4).codebook) != np.asarray(whole.codebook)).any()


def test_dead_entries_move_to_rows_that_are_badly_served() -> None:
    batches, far = [cluster_rows(i) for i in range(30)], jnp.full((5, 3), 1000.0)
    errors: list[float] = []
    fit = fit_batches(
        batches, 5, fit=Fit(far, jnp.zeros(5), 0), progress=lambda _, error: errors.append(error)
    )
    distance = np.linalg.norm(np.asarray(fit.codebook)[:, None] - CENTRES[None], axis=-1)
    assert distance.min(axis=1).max() < 9
    assert fit.counts.min() > 10
    # One cluster in two entries' care, and two in the care of one, is the worst that can be left.
    assert errors[-1] < 20 < errors[1]


def test_rows_that_are_all_alike_are_their_entries() -> None:
    fit = fit_batches([np.full((10, 2), 3, np.float32)] * 2, 4)
    np.testing.assert_array_equal(fit.codebook, np.full((4, 2), 3))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings from one sample to several pieces long."""
    random = np.random.default_rng(0)
    lengths = [1, 31, 32, 33, 5000, PIECE * 32 * 3, 4100]
    clips = [Clip(f"{n}", random.integers(-9000, 9000, n).astype(np.int16), {}) for n in lengths]
    folder = tmp_path_factory.mktemp("dataset")
    write_dataset(folder, clips, sample_rate=RATE)
    return folder


def test_an_epoch_is_every_frame_of_every_recording_once(dataset: Path) -> None:
    data = Dataset.open(dataset)
    source = FrameBatches(data, "train", FRAMES, batch_size=50, seed=1)
    files = source.files
    whole = [
        np.asarray(
            FRAMES.from_audio(jnp.asarray(data.read(files, i, 0, int(n))[:, 0][None] / np.float32(32768)))
        )[0]
        for i, n in enumerate(files.length)
    ]
    expected = np.concatenate(whole)
    assert len(source) == len(expected)
    count = -(-len(source) // 50)
    got = np.concatenate([source.batch(i) for i in range(2 * count)])
    assert got.dtype == np.float32
    for epoch in (got[: len(source)], got[len(source) : 2 * len(source)]):
        distance = np.abs(epoch[:, None] - expected[None]).max(axis=-1)
        assert sorted(distance.argmin(axis=1)) == list(range(len(source)))
        assert distance.min(axis=1).max() < 2e-3
    assert (got[: len(source)] != got[len(source) : 2 * len(source)]).any()
    np.testing.assert_array_equal(
        FrameBatches(data, "train", FRAMES, batch_size=50, seed=1).batch(3), source.batch(3)
    )


OPTIONS = {"size": 16, "n_fft": 128, "hop_length": 32, "bands": 12, "batch_size": 100, "seed": 5}


def test_a_fit_that_was_cut_short_ends_like_one_that_was_not(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wavegen.training.codebook.SAVE_EVERY", 2)
    whole = fit_codebook(dataset, tmp_path / "whole.safetensors", **OPTIONS, batches=5)

    class Killed(Exception):
        pass

    def kill(batch: int, error: float) -> None:
        if batch == 4:
            raise Killed

    with pytest.raises(Killed):
        fit_codebook(dataset, tmp_path / "cut.safetensors", **OPTIONS, batches=5, progress=kill)
    assert read_codebook(tmp_path / "cut.safetensors")[1]["batches"] == 2
    again: list[int] = []
    cut = fit_codebook(
        dataset, tmp_path / "cut.safetensors", **OPTIONS, batches=5, progress=lambda n, _: again.append(n)
    )
    assert again == [3, 4, 5]
    np.testing.assert_array_equal(cut.codebook[...], whole.codebook[...])
    assert cut.frames == whole.frames == FRAMES
    assert (tmp_path / "cut.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


def test_another_codebook_is_not_overwritten(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.safetensors"
    fit_codebook(dataset, out, **OPTIONS, batches=1)
    with pytest.raises(WavegenError, match="a codebook of seed 5, not 6; choose another name"):
        fit_codebook(dataset, out, **{**OPTIONS, "seed": 6}, batches=1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: fit_batches([], 4), "at least one batch of rows, got none"),
        (lambda d: fit_batches([np.zeros((3, 2), np.float32)], 4), "1 to 3 entries.* got 4"),
        (
            lambda d: fit_batches([np.ones((5, 2), np.float32), np.ones((5, 3), np.float32)], 4),
            "rows of 2 values",
        ),
        (lambda d: FrameBatches(d, "train", MelFrames()), "mono dataset at 22050 Hz, got .* 8000 Hz"),
        (lambda d: FrameBatches(d, "test", FRAMES), "recordings in split 'test'"),
    ],
)
def test_bad_arguments_are_named(dataset: Path, call, message: str) -> None:
    with pytest.raises(WavegenError, match=message):
        call(Dataset.open(dataset))
