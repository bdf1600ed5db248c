"""Figures of audio, drawn without a display."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from wavegen.audio import Audio
from wavegen.errors import WavegenError

RANGE_DB = 80.0


def spectrograms(path: str | Path, clips: Mapping[str, Audio]) -> Path:
    """Draws spectrograms one above the other, on one time axis and one colour scale.

    Args:
        path: the PNG file to write.
        clips: audio by title; the loudest bin of all clips is 0 dB.

    Returns:
        The path.

    Raises:
        WavegenError: if there are no clips.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from wavegen import Audio
        >>> from wavegen.pictures.audio import read_picture, spectrograms
        >>> noise = Audio(np.random.default_rng(0).uniform(-0.1, 0.1, 4000), 8000)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     read_picture(spectrograms(f"{folder}/noise.png", {"noise": noise})).shape
        (352, 1100, 3)
    """
    from matplotlib.figure import Figure

    if not clips:
        raise WavegenError("expected at least one clip to draw, got none")
    seconds = max(clip.duration for clip in clips.values())
    levels = {title: _level(clip) for title, clip in clips.items()}
    top = max(level.max() for level in levels.values())
    figure = Figure(figsize=(10, 0.9 + 2.3 * len(clips)), layout="constrained")
    rows = figure.subplots(len(clips), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, (title, level) in zip(rows, levels.items(), strict=True):
        clip = clips[title]
        image = axes.imshow(
            level - top,
            origin="lower",
            aspect="auto",
            extent=(0, clip.duration, 0, clip.sample_rate / 2000),
            cmap="magma",
            vmin=-RANGE_DB,
            vmax=0,
            interpolation="nearest",
        )
        axes.set_title(title, loc="left", fontsize=10, parse_math=False)
        axes.set_ylabel("frequency (kHz)")
        axes.set_facecolor("black")
    rows[-1].set_xlabel("time (s)")
    rows[-1].set_xlim(0, seconds)
    rows[-1].set_ylim(0, max(clip.sample_rate for clip in clips.values()) / 2000)
    figure.colorbar(image, ax=rows, label="level (dB)", pad=0.01)
    figure.savefig(path, dpi=110)
    return Path(path)


def read_picture(path: str | Path) -> UInt8[np.ndarray, "height width 3"]:
    """Reads the pixels of a PNG file: red, green and blue, 0 to 255."""
    from matplotlib.image import imread

    return np.rint(imread(path)[..., :3] * 255).astype(np.uint8)


def _level(clip: Audio) -> Float[np.ndarray, "bins F"]:
    """Returns the power in dB, one frame per 8 ms or, in long clips, about 1500 frames."""
    from scipy.signal import ShortTimeFFT
    from scipy.signal.windows import hann

    wave = clip.mono().samples[:, 0].astype(np.float64)
    size = 1 << round(np.log2(0.064 * clip.sample_rate))
    hop = max(round(0.008 * clip.sample_rate), len(wave) // 1500, 1)
    wave = np.pad(wave, (0, max(0, size - len(wave))))
    power = ShortTimeFFT(hann(size), hop, clip.sample_rate).spectrogram(wave)
    return 10 * np.log10(np.maximum(power, 1e-14))
