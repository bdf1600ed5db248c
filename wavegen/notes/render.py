"""Notes to audio: on the piano that ships with the package, or with the sounds of a SoundFont."""

import warnings
from functools import cache
from pathlib import Path

import numpy as np

from wavegen.audio import Audio
from wavegen.errors import WavegenError
from wavegen.losses import LossWarning
from wavegen.notes.midi import midi_bytes
from wavegen.notes.piano import Piano
from wavegen.notes.score import Score

LOUDNESS = -20.0  # dB of full scale, RMS of the loudest 0.4 s
PEAK = 0.99
LONGEST = 7200.0  # seconds, which take half a gigabyte at 16 kHz

shipped_piano = cache(Piano.load)


def render(
    notes: Score,
    sample_rate: int = 16_000,
    *,
    soundfont: str | Path | None = None,
    loudness: float | None = LOUDNESS,
    length: int | None = None,
) -> Audio:
    """Plays notes.

    The piano plays every pitched track, whatever its program, and leaves drums out with a warning. A note begins at
    sample ``round(seconds * sample_rate)`` of its onset (its stroke becomes audible 2 ms later, as in the
    recordings). A SoundFont plays each program with its own sound, and drums too; its onsets are exact to a
    millisecond.

    Args:
        notes: the notes to play.
        sample_rate: sample rate in Hz.
        soundfont: an .sf2 or .sf3 file; None plays the piano.
        loudness: root mean square of the loudest 0.4 s in dB of full scale, lower where the peak would exceed 0.99.
            None keeps the level as played, scaled down only if it would clip.
        length: samples of the result; None ends with the release of the last note.

    Returns:
        Mono audio.

    Raises:
        WavegenError: if the notes last more than two hours, the SoundFont cannot be read, or a SoundFont is given and
            symusic is not installed.

    Example:
        >>> from wavegen import Performance
        >>> from wavegen.notes.render import render
        >>> from wavegen.notes.score import from_performance
        >>> render(from_performance(Performance.parse("tempo 120, C4 1, E4 1")))
        Audio(1.030 s, 1 channel(s), 16000 Hz)
    """
    seconds = float(notes.seconds(np.array(notes.end)))
    if max(seconds, (length or 0) / sample_rate) > LONGEST:
        raise WavegenError(
            f"expected at most {LONGEST:.0f} seconds of notes, got {seconds:.0f}: cut the piece"
        )
    if soundfont is not None:
        audio = _with_soundfont(notes, sample_rate, Path(soundfont), length)
    else:
        drums = int(notes.drum.sum())
        if drums:
            warnings.warn(
                f"the piano leaves out {drums} drum notes; a soundfont plays them", LossWarning, stacklevel=2
            )
        pitched = notes.select(lambda track: not track.drum)
        audio = shipped_piano().render(pitched.performance(), sample_rate, length=length)
    return audio if loudness is None else levelled(audio, loudness)


def _with_soundfont(notes: Score, sample_rate: int, path: Path, length: int | None) -> Audio:
    try:
        import symusic
    except ImportError as error:
        raise WavegenError("SoundFonts need symusic: pip install 'wavegen[soundfont]'") from error
    if not path.is_file():
        raise WavegenError(f"cannot read {path}: expected a SoundFont (.sf2 or .sf3), got no file")
    if not len(notes):
        return Audio(np.zeros((length or 0, 1), np.float32), sample_rate)
    try:
        synthesizer = symusic.Synthesizer(sf_path=str(path), sample_rate=sample_rate, quality=0)
    except RuntimeError as error:
        raise WavegenError(
            f"cannot read {path}: expected a SoundFont (.sf2 or .sf3), got: {error}"
        ) from error
    wave = np.asarray(synthesizer.render(symusic.Score.from_midi(midi_bytes(notes)), stereo=False))[0]
    if length is not None:
        wave = np.pad(wave[:length], (0, max(length - len(wave), 0)))
    return Audio(wave[:, None] / np.abs(wave).max(initial=1.0), sample_rate)


def levelled(audio: Audio, loudness: float) -> Audio:
    """Scales mono audio to a loudness, or to the peak limit where that is lower."""
    wave = audio.samples[:, 0]
    if not wave.any():
        return audio
    block = max(1, audio.sample_rate // 10)
    energy = np.add.reduceat(np.square(wave, dtype=np.float64), np.arange(0, len(wave), block))
    loudest = np.sqrt(np.convolve(energy, np.ones(4)).max() / (4 * block))
    gain = min(10 ** (loudness / 20) / loudest, PEAK / np.abs(wave).max())
    return Audio(audio.samples * np.float32(gain), audio.sample_rate)
