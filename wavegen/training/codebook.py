"""Fit the codebook of a spectrogram codec to a prepared dataset: ``wavegen fit-codebook``."""

from dataclasses import asdict
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from wavegen.codecs.spectrogram.codebook import SpectrogramCodebook
from wavegen.codecs.spectrogram.files import read_codebook, write_codebook
from wavegen.codecs.spectrogram.frames import MelFrames
from wavegen.codecs.spectrogram.kmeans import Fit, Progress, fit_batches
from wavegen.data.dataset import Dataset
from wavegen.data.mel_batches import FrameBatches
from wavegen.errors import WavegenError

SAVE_EVERY = 20
"""Batches between files, so that little is lost when the process ends early."""


def fit_codebook(
    dataset: str | Path,
    out: str | Path,
    *,
    size: int = 512,
    n_fft: int = 2048,
    hop_length: int = 512,
    bands: int = 128,
    f_min: float = 0.0,
    f_max: float | None = None,
    split: str = "train",
    batches: int = 200,
    batch_size: int = 8192,
    seed: int = 0,
    progress: Progress | None = None,
) -> SpectrogramCodebook:
    """Fits a codebook to the log-mel frames of a dataset, by mini-batch k-means.

    The file is written on the way too. The same call resumes where that was cut short, with the result of one that
    was not, and with more batches it continues a whole one.

    Args:
        dataset: a prepared, mono dataset.
        out: the codebook, NAME.safetensors.
        size: entries of the codebook.
        n_fft: samples of a frame, even; about 0.1 s.
        hop_length: samples of a code.
        bands: of a frame.
        f_min: Hz, where the first band begins.
        f_max: Hz, where the last band ends; None is half the sample rate.
        split: whose recordings are used.
        batches: to learn from, in all.
        batch_size: frames of a batch.
        seed: of the order and of the first entries.
        progress: called for every batch.

    Raises:
        WavegenError: the dataset cannot be used, an argument is out of range, or ``out`` is another codebook.
    """
    data = Dataset.open(dataset)
    frames = MelFrames(data.sample_rate, n_fft, hop_length, bands, f_min, f_max)
    source = FrameBatches(data, split, frames, batch_size=batch_size, seed=seed)
    settings = {
        "frames": asdict(frames),
        "size": size,
        "split": split,
        "batch_size": batch_size,
        "seed": seed,
    }
    fit = _read(Path(out), settings) if Path(out).exists() else None
    done = 0 if fit is None else fit.batches
    while done < batches:
        last = min(done + SAVE_EVERY, batches)
        fit = fit_batches(source.iterate(done, last), size, seed=seed, fit=fit, progress=progress)
        done = fit.batches
        tensors = {"codebook": np.asarray(fit.codebook), "counts": np.asarray(fit.counts)}
        write_codebook(out, tensors, {**settings, "batches": done})
    return SpectrogramCodebook.from_file(out)


def _read(path: Path, settings: dict) -> Fit:
    tensors, card = read_codebook(path)
    for name, value in settings.items():
        if card.get(name) != value:
            raise WavegenError(
                f"{path} is a codebook of {name} {card.get(name)}, not {value}; choose another name or delete it"
            )
    return Fit(jnp.asarray(tensors["codebook"]), jnp.asarray(tensors["counts"]), card["batches"])
