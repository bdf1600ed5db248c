"""Pictures of audio and of training, drawn without a display."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from wavegen.audio import Audio
from wavegen.errors import WavegenError

RANGE_DB = 80.0


def spectrograms(path: str | Path, clips: Mapping[str, Audio]) -> Path:
    """Draw spectrograms one above the other, on one time axis and one colour scale.

    Args:
        path: of the PNG.
        clips: title to audio; the loudest bin of all is 0 dB.

    Returns:
        The path.

    Raises:
        WavegenError: there are no clips.
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
        axes.set_title(title, loc="left", fontsize=10)
        axes.set_ylabel("frequency (kHz)")
        axes.set_facecolor("black")
    rows[-1].set_xlabel("time (s)")
    rows[-1].set_xlim(0, seconds)
    rows[-1].set_ylim(0, max(clip.sample_rate for clip in clips.values()) / 2000)
    figure.colorbar(image, ax=rows, label="level (dB)", pad=0.01)
    figure.savefig(path, dpi=110)
    return Path(path)


def read_picture(path: str | Path) -> UInt8[np.ndarray, "height width 3"]:
    """The pixels of a PNG, red green blue."""
    from matplotlib.image import imread

    return np.rint(imread(path)[..., :3] * 255).astype(np.uint8)


def _level(clip: Audio) -> Float[np.ndarray, "bins F"]:
    """Power in dB, a frame every 8 ms or, in long clips, as many as fit a picture."""
    from scipy.signal import ShortTimeFFT
    from scipy.signal.windows import hann

    wave = clip.mono().samples[:, 0].astype(np.float64)
    size = 1 << round(np.log2(0.064 * clip.sample_rate))
    hop = max(round(0.008 * clip.sample_rate), len(wave) // 1500, 1)
    wave = np.pad(wave, (0, max(0, size - len(wave))))
    power = ShortTimeFFT(hann(size), hop, clip.sample_rate).spectrogram(wave)
    return 10 * np.log10(np.maximum(power, 1e-14))
