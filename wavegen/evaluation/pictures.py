"""Pictures of audio and of training, drawn without a display."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a run's ``metrics.jsonl``: "step", "time" and figures by name, None where one was not finite.

    Raises:
        WavegenError: the file cannot be read.
    """
    try:
        return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    except (OSError, json.JSONDecodeError) as error:
        raise WavegenError(f"expected one JSON object a line in {path}, got: {error}") from error


def loss_curve(metrics: str | Path, path: str | Path) -> Path:
    """Draw the losses of a run over its steps.

    Args:
        metrics: ``metrics.jsonl`` of a run: a JSON object a line with "step" and numbers by name.
        path: of the PNG.

    Returns:
        The path.

    Raises:
        WavegenError: the file cannot be read, or holds no bits per sample and no loss.
    """
    from matplotlib.figure import Figure

    rows = read_metrics(metrics)
    names = list(dict.fromkeys(name for row in rows for name in row))
    shown = [name for name in names if "bits_per_sample" in name] or [
        name for name in names if "loss" in name
    ]
    if not shown:
        raise WavegenError(f"expected a loss in {metrics}, got only {', '.join(names) or 'an empty file'}")
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for name in shown:
        points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
        # training rows are many and noisy: a line; evaluations are few: marked
        marker = "o" if len(points) <= 30 else None
        axes.plot(
            *zip(*points, strict=True),
            label=name.replace("_", " "),
            marker=marker,
            markersize=4,
            linewidth=1.4,
        )
    axes.set_xlabel("step")
    axes.set_ylabel("bits per sample" if "bits_per_sample" in shown[0] else "loss")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
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
