"""Figures that distinguish good audio from bad, given the notes to be played and a recording of them.

No figure suffices alone: a likelihood can be good while the audio decays to hiss, and a bare sine has the right
pitch. Compare them with the controls of ``wavegen.evaluation.report``.
"""

from dataclasses import dataclass
from types import ModuleType

import numpy as np
from jaxtyping import Bool, Float

from wavegen.audio import Audio
from wavegen.errors import WavegenError
from wavegen.evaluation.noise import noise_share
from wavegen.notes.performance import Performance, frequency

HOP = 0.02  # seconds between frames
RANGE_DB = 60.0  # what lies further below the loudest frame or bin is treated as inaudible
CENTS = 50.0  # tolerance of pitch
# Pitch is sought from a quarter of a semitone under A1 to C7 in half semitones. So every bin lies 25 or 75 cents from a
# key, and none on the border of 50; the cost of a finer grid grows with its square.
LOWEST, HIGHEST, SEMITONES = float(frequency(33 - 0.25)), float(frequency(96)), 0.5


@dataclass(frozen=True)
class Figures:
    """The figures of a clip; None where there was nothing to compare with.

    Attributes:
        rms_first: root mean square of the first half second.
        rms_last: root mean square of the last half second; that of a model that dies out is far below its
            recording's.
        voiced_probability: mean probability that a frame has a pitch, by pYIN; 0 to 1.
        chroma_entropy: entropy of the energy over the 12 pitch classes, mean of audible frames; 0 to 3.58 bits.
        flatness_db: ratio of the geometric to the arithmetic mean of the spectrum, mean of audible frames; noise has
            -2.5 dB.
        noise_share: share of the frames that are loud although their spectrum is flat: bursts of noise.
        pitch_accuracy: share of the frames with a note whose pitch is within 50 cents of it; a frame without a pitch
            is wrong.
        mel_distance_db: mean absolute difference of mel spectrograms from those of the recording, over a range of 60
            dB.
        envelope_correlation: correlation of the loudness over time with that of the recording; -1 to 1.
    """

    rms_first: float
    rms_last: float
    voiced_probability: float
    chroma_entropy: float
    flatness_db: float
    noise_share: float
    pitch_accuracy: float | None = None
    mel_distance_db: float | None = None
    envelope_correlation: float | None = None


def measure(audio: Audio, recording: Audio | None = None, notes: Performance | None = None) -> Figures:
    """Measures a clip.

    Args:
        audio: the clip, which is mixed to mono.
        recording: the same music at the same rate; the longer of both is cut.
        notes: the notes that are played; time 0 is the first sample of the clip.

    Raises:
        WavegenError: if librosa is not installed, the clip is shorter than half a second, or the rates differ.
    """
    librosa = _librosa()
    rate = audio.sample_rate
    if audio.duration < 0.5:
        raise WavegenError(f"expected at least 0.5 s of audio to measure, got {audio.duration:.3f} s")
    wave = audio.mono().samples[:, 0]
    hop, half = round(HOP * rate), rate // 2
    size = _window(rate)
    magnitude = np.abs(librosa.stft(wave, n_fft=size, hop_length=hop))
    audible = _audible(magnitude)
    chroma = librosa.feature.chroma_stft(S=magnitude**2, sr=rate, tuning=0.0, norm=1)[:, audible]
    flatness = librosa.feature.spectral_flatness(S=magnitude, power=2.0)[0, audible]
    pitch, _, voiced = librosa.pyin(
        wave,
        fmin=LOWEST,
        fmax=min(HIGHEST, 0.45 * rate),
        sr=rate,
        frame_length=size // 2,  # shorter than for the spectrum: long frames smear short notes
        hop_length=hop,
        resolution=SEMITONES,
    )
    mel = envelope = None
    if recording is not None:
        if recording.sample_rate != rate:
            raise WavegenError(
                f"expected a recording at {rate} Hz like the clip, got {recording.sample_rate} Hz: resample one"
            )
        other = recording.mono().samples[:, 0]
        shorter = min(len(wave), len(other))
        mel = _mel_distance(wave[:shorter], other[:shorter], rate)
        envelope = _correlation(_envelope(wave[:shorter], hop), _envelope(other[:shorter], hop))
    return Figures(
        rms_first=_rms(wave[:half]),
        rms_last=_rms(wave[-half:]),
        voiced_probability=float(voiced.mean()),
        chroma_entropy=float(-(chroma * np.log2(np.maximum(chroma, 1e-12))).sum(0).mean()),
        flatness_db=float(10 * np.log10(flatness).mean()),
        noise_share=noise_share(audio),
        pitch_accuracy=None if notes is None else _pitch_accuracy(pitch, notes),
        mel_distance_db=mel,
        envelope_correlation=envelope,
    )


def _librosa() -> ModuleType:
    try:
        import librosa
    except ImportError as error:
        raise WavegenError("expected librosa for these figures: pip install 'wavegen[evaluate]'") from error
    return librosa


def _window(rate: int) -> int:
    """Returns a power of two of about a fifth of a second, which resolves semitones from 130 Hz up."""
    return 1 << round(np.log2(0.2 * rate))


def _audible(magnitude: Float[np.ndarray, "bins F"]) -> Bool[np.ndarray, "F"]:
    """Returns the frames within 60 dB of the loudest; the spectrum of silence is not worth averaging."""
    power = (magnitude**2).sum(0)
    return power >= power.max() * 10 ** (-RANGE_DB / 10)


def _rms(wave: Float[np.ndarray, "T"]) -> float:
    return float(np.sqrt(np.mean(np.square(wave, dtype=np.float64))))


def _pitch_accuracy(pitch: Float[np.ndarray, "F"], notes: Performance) -> float | None:
    """Compares ``pitch`` in Hz, one every ``HOP`` seconds and NaN where none was found, with the notes."""
    time = np.arange(len(pitch)) * HOP
    note = np.searchsorted(notes.onset, time, side="right") - 1
    end = np.append(notes.onset + notes.duration, 0.0)
    played = (note >= 0) & (time < end[note])
    if not played.any():
        return None
    cents = 1200 * np.log2(pitch[played] / frequency(notes.pitch[note[played]]))
    return float((np.abs(cents) <= CENTS).mean())  # comparisons with NaN are false


def _mel_distance(wave: Float[np.ndarray, "T"], other: Float[np.ndarray, "T"], rate: int) -> float:
    librosa = _librosa()
    powers = [
        librosa.feature.melspectrogram(
            y=each, sr=rate, n_fft=_window(rate), hop_length=round(HOP * rate), n_mels=64, fmin=50.0
        )
        for each in (wave, other)
    ]
    floor = max(powers[1].max() * 10 ** (-RANGE_DB / 10), 1e-12)
    mel, reference = (10 * np.log10(np.maximum(power, floor)) for power in powers)
    return float(np.abs(mel - reference).mean())


def _envelope(wave: Float[np.ndarray, "T"], hop: int) -> Float[np.ndarray, "F"]:
    frames = wave[: len(wave) // hop * hop].reshape(-1, hop)
    return np.sqrt(np.mean(np.square(frames, dtype=np.float64), axis=1))


def _correlation(a: Float[np.ndarray, "F"], b: Float[np.ndarray, "F"]) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = np.sqrt((a**2).sum() * (b**2).sum())
    # An envelope that is constant up to rounding has no correlation.
    return float((a * b).sum() / scale) if scale > 1e-9 * len(a) else 0.0
