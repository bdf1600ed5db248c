"""Draws the picture at the head of the README: waveform, spectrogram and notes of what the shipped instrument plays.

    python sample.py --seconds 10 && python docs/instrument.py

Reads the first clip, and the melody that it plays, from ``generated/``; writes ``docs/instrument.png``.
"""

import io
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from scipy.signal import spectrogram

import wavegen

PLAYED = Path("generated/piano-seed0")
COLOURS = 96  # of the PNG, which is far smaller than with all of them


def draw(clip: wavegen.Audio, melody: wavegen.Performance) -> Figure:
    """Waveform above spectrogram, with each note's fundamental as a line from its onset to its end."""
    wave, rate = clip.samples[:, 0], clip.sample_rate
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 3))
    above.plot(np.arange(len(wave)) / rate, wave, color="#3b3b6b", linewidth=0.5)
    above.set_ylabel("amplitude")
    above.set_yticks([])
    frequency, time, power = spectrogram(wave, rate, nperseg=512, noverlap=384)
    level = 10 * np.log10(np.maximum(power, 1e-12))
    below.pcolormesh(time, frequency, level, cmap="magma", vmin=-115, vmax=-40, rasterized=True)
    hertz = 440 * 2 ** ((melody.pitch - 69) / 12)
    below.hlines(
        hertz, melody.onset, melody.onset + melody.duration, color="cyan", linewidth=1.2, label="notes"
    )
    below.legend(loc="upper right", fontsize=8)
    below.set(xlabel="time (s)", ylabel="frequency (Hz)", xlim=(0, clip.duration), ylim=(0, 3000))
    return figure


if __name__ == "__main__":
    clip = wavegen.Audio.read(f"{PLAYED}-0.wav")
    melody = wavegen.Performance.read(f"{PLAYED}.txt").between(0, clip.duration)
    png = io.BytesIO()
    draw(clip, melody).savefig(png, dpi=100)
    out = Path(__file__).with_suffix(".png")
    Image.open(png).convert("RGB").quantize(COLOURS).save(out, optimize=True)
    print(f"{out}: {out.stat().st_size:,} bytes")
