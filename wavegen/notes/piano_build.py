"""Builds the piano that ships with the package from the recordings of Upright Piano KW (CC0).

``python -m wavegen.notes.piano_build FOLDER`` reads ``FOLDER/samples/{note}v{layer}.flac`` and writes ``piano.flac``
and ``piano.json`` into ``wavegen/assets``: every recording, mono at 16 kHz, cut, levelled and measured.
"""

import json
from pathlib import Path

import numpy as np
import soundfile
import tyro
from jaxtyping import Float
from scipy.signal import resample_poly

from wavegen.errors import WavegenError
from wavegen.notes.performance import Performance, frequency

SAMPLE_RATE = 16_000  # Hz
ATTACK = 0.002  # seconds from the onset of a recording to the first clear sample of the hammer's stroke
AUDIBLE = 10 ** (-60 / 20)  # share of the peak; a recording ends where it stays below
LONGEST, SHORTEST = 6.0, 1.5  # seconds kept of the lowest and of the highest keys
LEVEL, PEAK = 0.6, 0.9  # peak at velocity 1: of the median recording, and the highest of all
SOURCE = "Upright Piano KW, 2022-02-21, https://freepats.zenvoid.org/Piano/acoustic-grand-piano.html"
ASSETS = Path(__file__).parents[1] / "assets"


def build(folder: tyro.conf.Positional[Path], out: Path = ASSETS) -> None:
    """Writes ``piano.flac`` and ``piano.json`` into ``out``.

    Args:
        folder: the folder of the instrument, with ``samples/{note}v{layer}.flac``.
        out: the folder to write to.

    Raises:
        WavegenError: if the folder has no recordings.
    """
    recordings = []
    for path in sorted((folder / "samples").glob("*.flac")):
        name, layer = path.stem.rsplit("v", 1)
        pitch = int(Performance.parse(f"{name} 1").pitch[0])
        samples, rate = soundfile.read(path, dtype="float64", always_2d=True)
        # The right microphone alone is used: the mean of both cancels partials, up to 8 dB in some notes.
        wave = cut(resample_poly(samples[:, -1], SAMPLE_RATE, rate), longest_seconds(pitch))
        recordings.append((pitch, layer, wave, tuning(wave, pitch)))
    if not recordings:
        raise WavegenError(f"expected recordings such as samples/A4vL.flac in {folder}, got none")
    recordings.sort(key=lambda recording: recording[:2])

    # Every stored recording fills its 16 bits; ``gain`` makes the first 0.3 s of all recordings equally loud, except
    # for the highest keys, which would have to peak above PEAK.
    crest = np.array([np.abs(wave).max() / loudness(wave) for *_, wave, _ in recordings])
    gains = np.minimum(PEAK, LEVEL * crest / np.median(crest))
    index, offset = [], 0
    for (pitch, layer, wave, cents), gain in zip(recordings, gains, strict=True):
        index.append(
            {"pitch": pitch, "layer": layer, "offset": offset, "length": len(wave),
             "gain": round(float(gain), 4), "cents": round(cents, 1)}
        )  # fmt: skip
        offset += len(wave)
    pcm = [np.rint(wave / np.abs(wave).max() * 32767).astype(np.int16) for *_, wave, _ in recordings]
    soundfile.write(out / "piano.flac", np.concatenate(pcm), SAMPLE_RATE, subtype="PCM_16")
    head = {"source": SOURCE, "licence": "CC0-1.0", "sample_rate": SAMPLE_RATE, "attack_seconds": ATTACK}
    lines = ",\n".join(f"  {json.dumps(row)}" for row in index)
    (out / "piano.json").write_text(f'{json.dumps(head)[:-1]}, "recordings": [\n{lines}\n]}}\n')
    size = (out / "piano.flac").stat().st_size
    print(f"{len(index)} recordings, {offset / SAMPLE_RATE:.0f} s, {size / 1e6:.2f} MB")


def longest_seconds(pitch: int) -> float:
    """Returns how many seconds of a key are kept: fewer and fewer above middle C."""
    return float(np.interp(pitch, [60, 108], [LONGEST, SHORTEST]))


def cut(wave: Float[np.ndarray, "T"], longest: float) -> Float[np.ndarray, "T2"]:
    """Cuts a recording so that it begins ``ATTACK`` before its stroke, and fades it out where it becomes inaudible."""
    peak = np.abs(wave).max()
    stroke = int(np.argmax(np.abs(wave) > 0.05 * peak))
    lead = round(ATTACK * SAMPLE_RATE)
    wave = np.concatenate([np.zeros(lead), wave])[stroke:]
    wave[:lead] *= np.linspace(0, 1, lead, endpoint=False)  # avoids a click where the lead-in is cut
    audible = np.flatnonzero(np.abs(wave) > AUDIBLE * peak)[-1] + 1
    wave = wave[: min(audible, round(longest * SAMPLE_RATE))].copy()
    fade = len(wave) // 4
    wave[-fade:] *= 0.5 + 0.5 * np.cos(np.linspace(0, np.pi, fade))
    return wave


def loudness(wave: Float[np.ndarray, "T"]) -> float:
    """Returns the root mean square of the first 0.3 s."""
    return float(np.sqrt(np.mean(wave[: round(0.3 * SAMPLE_RATE)] ** 2)))


def tuning(wave: Float[np.ndarray, "T"], pitch: int) -> float:
    """Returns by how many cents a recording is sharp of equal temperament.

    This is the mean of its first four partials, weighted by their strength. Strings are stiff, so that high partials
    are sharp, and the ear judges a bass key by its low partials and a treble key by its first.
    """
    steady = wave[round(0.05 * SAMPLE_RATE) : round(1.05 * SAMPLE_RATE)]
    size = 1 << 19  # zero-padded to bins of 0.03 Hz
    spectrum = np.abs(np.fft.rfft(steady * np.hanning(len(steady)), size))
    cents, weights = [], []
    for partial in range(1, 5):
        expected = partial * float(frequency(pitch)) * size / SAMPLE_RATE
        low, high = (round(expected * 2 ** (semitones / 12)) for semitones in (-1, 1))
        if high >= len(spectrum):
            break
        peak = low + int(np.argmax(spectrum[low:high]))
        cents.append(1200 * np.log2(peak / expected))
        weights.append(spectrum[peak])
    return float(np.average(cents, weights=weights))


if __name__ == "__main__":
    tyro.cli(build)
