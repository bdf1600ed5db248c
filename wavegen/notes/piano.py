"""The piano that ships with the package: recorded keys, resampled to every pitch and placed to the sample."""

import json
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Float32, Int16

from wavegen.audio import Audio
from wavegen.errors import WavegenError
from wavegen.notes.performance import Performance

ASSETS = Path(__file__).parents[1] / "assets"
SOFT = 80 / 127  # velocities up to this play the soft layer, as in the instrument's own map
RELEASE = 0.03  # seconds for which a damped string still sounds


@dataclass(frozen=True, eq=False)
class Piano:
    """Recorded keys of a piano (Upright Piano KW, CC0) in two velocity layers.

    Attributes:
        pcm: all recordings, one after another.
        sample_rate: sample rate of the recordings in Hz.
        recordings: the place of each recording, its pitch, layer and gain, and its tuning in cents.
        attack_seconds: from an onset to the first clear sample of the stroke, at the recorded pitch.

    Example:
        >>> from wavegen import Performance
        >>> from wavegen.notes.piano import Piano
        >>> Piano.load().render(Performance.parse("tempo 120, C4 1, E4 1, G4 2"), 16_000).duration
        2.03
    """

    pcm: Int16[np.ndarray, "T"]
    sample_rate: int
    recordings: tuple[dict, ...]
    attack_seconds: float
    _keys: dict[tuple[int, str, int], Float32[np.ndarray, "T"]] = field(default_factory=dict, repr=False)

    @classmethod
    def load(cls) -> "Piano":
        """Reads the recordings that are installed with the package."""
        index = json.loads((ASSETS / "piano.json").read_text(encoding="utf-8"))
        pcm, _ = soundfile.read(ASSETS / "piano.flac", dtype="int16")
        return cls(pcm, index["sample_rate"], tuple(index["recordings"]), index["attack_seconds"])

    def key(self, pitch: int, layer: str, sample_rate: int) -> Float32[np.ndarray, "T"]:
        """Returns one key struck with velocity 1, from its onset to the end of its recording.

        The nearest recorded key is resampled to the pitch in equal temperament, and cached for the next call.

        Args:
            pitch: MIDI number.
            layer: "L" for the soft layer, "H" for the loud one.
            sample_rate: sample rate of the result in Hz.
        """
        if (pitch, layer, sample_rate) not in self._keys:
            nearest = min(
                (recording for recording in self.recordings if recording["layer"] == layer),
                key=lambda recording: abs(recording["pitch"] - pitch),
            )
            # Imported here, because it takes a second: a training without a piano need not wait for it.
            from scipy.signal import resample_poly

            wave = self.pcm[nearest["offset"] : nearest["offset"] + nearest["length"]] / 32768
            semitones = pitch - nearest["pitch"] - nearest["cents"] / 100
            # With denominators up to 300 the pitch is exact within 0.02 cents.
            ratio = Fraction(sample_rate / self.sample_rate * 2 ** (-semitones / 12)).limit_denominator(300)
            wave = resample_poly(wave * nearest["gain"], ratio.numerator, ratio.denominator)
            self._keys[pitch, layer, sample_rate] = wave.astype(np.float32)
        return self._keys[pitch, layer, sample_rate]

    def render(
        self, notes: Performance, sample_rate: int, *, release: float = RELEASE, length: int | None = None
    ) -> Audio:
        """Plays notes.

        A note begins at sample ``round(onset * sample_rate)``, and its stroke is audible ``attack_seconds`` later.
        The amplitude is the square of the velocity. From its end on a note fades out.

        Args:
            notes: the notes, which may overlap.
            sample_rate: sample rate of the result in Hz.
            release: seconds for which a note fades after its end.
            length: samples of the result; None ends with the release of the last note.

        Returns:
            Mono audio. If the sum of the notes leaves [-1, 1], all of it is scaled down by one factor.

        Raises:
            WavegenError: if the release is negative.
        """
        if release < 0:
            raise WavegenError(f"expected a release of at least 0 seconds, got {release}")
        if length is None:
            length = round((notes.seconds + release) * sample_rate)
        out = np.zeros(length, np.float32)
        fade = (0.5 + 0.5 * np.cos(np.linspace(0, np.pi, round(release * sample_rate)))).astype(np.float32)
        onset = np.rint(notes.onset * sample_rate).astype(np.int64)
        end = np.rint((notes.onset + notes.duration) * sample_rate).astype(np.int64)
        for pitch, start, stop, velocity in zip(notes.pitch, onset, end, notes.velocity, strict=True):
            key = self.key(int(pitch), "L" if velocity <= SOFT else "H", sample_rate)
            held = stop - start
            note = key[: held + len(fade)] * np.float32(velocity**2)
            tail = note[held:]
            tail *= fade[: len(tail)]
            span = out[start : start + len(note)]
            span += note[: len(span)]
        return Audio(out[:, None] / np.abs(out).max(initial=1.0), sample_rate)
