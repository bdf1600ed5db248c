"""Notes as arrays, their text format, and the features that a model is conditioned on.

The text format (``melody.txt``) lets a melody be typed by hand::

    # Frère Jacques             a comment runs to the end of its line
    tempo 104                   quarter notes per minute, from here on (100 until one is given)
    velocity 0.7                loudness above 0 and up to 1, from here on (0.8 until one is given)
    C4 1, D4 1, E4 1, C4 1 |    pitch and beats; a beat is a quarter note
    F#4 1/2, Bb4 1.5 0.9        fractions or decimals; a third number is the velocity of this note alone
    R 2                         a rest

``,``, ``|`` and the end of a line separate notes; ``|`` marks a bar line for the reader. C4 is middle C, MIDI number
60.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, Int

from wavegen.bounded import read_text
from wavegen.errors import WavegenError

TEMPO = 100.0  # quarter notes per minute, for a text that gives no tempo
VELOCITY = 0.8
LARGEST = 1 << 20  # bytes of a melody as text: some 100,000 notes, which take about three seconds
FEATURES = 4  # columns of ``Performance.frames``
_STEPS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
_PITCH = re.compile(r"[A-G][#b]?(-1|\d)")


@dataclass(frozen=True, eq=False)
class Performance:
    """Notes in seconds, sorted by onset.

    Attributes:
        pitch: MIDI numbers, 0 to 127; 60 is middle C, 69 is A at 440 Hz.
        onset: seconds from the start, at least 0.
        duration: seconds, above 0.
        velocity: loudness of the stroke, above 0 and at most 1.

    Raises:
        WavegenError: if the arrays differ in length or a value is out of range.

    Example:
        >>> from wavegen import Performance
        >>> melody = Performance.parse("tempo 120, A4 1, R 1, B4 1/2")
        >>> melody.pitch.tolist(), melody.onset.tolist(), melody.duration.tolist()
        ([69, 71], [0.0, 1.0], [0.5, 0.25])
        >>> melody.transpose(-12).pitch.tolist(), melody.seconds
        ([57, 59], 1.25)
    """

    pitch: Int[np.ndarray, " notes"]
    onset: Float[np.ndarray, " notes"]
    duration: Float[np.ndarray, " notes"]
    velocity: Float[np.ndarray, " notes"]

    def __post_init__(self) -> None:
        sizes = {len(self.pitch), len(self.onset), len(self.duration), len(self.velocity)}
        if len(sizes) > 1:
            raise WavegenError(f"expected four arrays of one length, got lengths {sorted(sizes)}")
        for name, column, valid in (
            ("pitch in 0..127", self.pitch, (self.pitch >= 0) & (self.pitch <= 127)),
            ("onset of at least 0 s", self.onset, np.isfinite(self.onset) & (self.onset >= 0)),
            ("duration above 0 s", self.duration, np.isfinite(self.duration) & (self.duration > 0)),
            ("velocity in (0, 1]", self.velocity, (self.velocity > 0) & (self.velocity <= 1)),
        ):
            if not valid.all():
                where = int(np.argmin(valid))
                raise WavegenError(f"expected {name}, got {column[where]} at note {where}: correct that note")
        order = np.argsort(self.onset, kind="stable")
        for name in ("pitch", "onset", "duration", "velocity"):
            object.__setattr__(self, name, getattr(self, name)[order])

    def __len__(self) -> int:
        return len(self.pitch)

    @property
    def seconds(self) -> float:
        """Time at which the last note ends; 0 without notes."""
        return float((self.onset + self.duration).max(initial=0.0))

    @classmethod
    def parse(cls, text: str, source: str = "melody") -> "Performance":
        """Parses the text format of this module.

        Args:
            text: the melody.
            source: the name of the text in error messages.

        Raises:
            WavegenError: if a line cannot be parsed; the message names the line.
        """
        rows: list[tuple[int, float, float, float]] = []
        tempo, velocity, now = TEMPO, VELOCITY, 0.0
        for number, line in enumerate(text.splitlines(), start=1):
            # '#' is also the sharp sign: a comment starts a line or follows a space.
            for statement in re.split(r"[,|]", re.sub(r"(^|\s)#.*", "", line)):
                match statement.split():
                    case []:
                        continue
                    case ["tempo", value]:
                        tempo = _number(value, 1, 1000, "tempo", source, number)
                    case ["velocity", value]:
                        velocity = _number(value, 0, 1, "velocity", source, number)
                    case [name, beats, *own] if len(own) <= 1 and (name == "R" or _PITCH.fullmatch(name)):
                        duration = _number(beats, 0, 10_000, "beats", source, number) * 60 / tempo
                        stroke = _number(own[0], 0, 1, "velocity", source, number) if own else velocity
                        if name != "R":
                            rows.append((_midi(name, source, number), now, duration, stroke))
                        now += duration
                    case _:
                        raise WavegenError(
                            f"{source}, line {number}: expected a note like 'C#4 1/2', a rest 'R 1', "
                            f"'tempo 96' or 'velocity 0.7', got {statement.strip()[:80]!r}"
                        )
        columns = np.array(rows, dtype=np.float64).reshape(-1, 4)
        return cls(columns[:, 0].astype(np.int64), columns[:, 1], columns[:, 2], columns[:, 3])

    @classmethod
    def read(cls, path: str | Path) -> "Performance":
        """Reads a melody file.

        Raises:
            WavegenError: if the file is missing, no file, larger than 1 MiB, not text in UTF-8, or contains a line
                that cannot be parsed.
        """
        return cls.parse(read_text(path, LARGEST, "a melody as text", "split the melody"), str(path))

    def text(self, tempo: float = TEMPO) -> str:
        """Returns the notes in the text format, one per line; ``parse`` recovers them up to the rounding of floats.

        Args:
            tempo: quarter notes per minute, 1 to 1000, in which durations are written.

        Raises:
            WavegenError: if notes overlap, which the text format cannot express.

        Example:
            >>> from wavegen import Performance
            >>> print(Performance.parse("tempo 60, C4 1, R 1/2, E4 2").text(tempo=60.0), end="")
            tempo 60.0
            C4 1.0 0.8
            R 0.5
            E4 2.0 0.8
        """
        lines, now = [f"tempo {tempo!r}"], 0.0
        for pitch, onset, duration, velocity in zip(
            self.pitch, self.onset, self.duration, self.velocity, strict=True
        ):
            # A nanosecond of tolerance: seconds and beats are floats, and their sums round.
            if onset < now - 1e-9:
                raise WavegenError(
                    f"expected one note at a time, got overlapping notes at {onset:.3f} s: give a file of one voice "
                    "(in Python, .monophonic() makes one)"
                )
            if onset > now + 1e-9:
                lines.append(f"R {float(onset - now) * tempo / 60!r}")
            lines.append(f"{pitch_name(int(pitch))} {float(duration) * tempo / 60!r} {float(velocity)!r}")
            now = onset + duration
        return "\n".join(lines) + "\n"

    def transpose(self, semitones: int) -> "Performance":
        """Moves every pitch up by ``semitones``, or down where it is negative."""
        return Performance(self.pitch + semitones, self.onset, self.duration, self.velocity)

    def stretch(self, factor: float) -> "Performance":
        """Multiplies onsets and durations by ``factor``."""
        return Performance(self.pitch, self.onset * factor, self.duration * factor, self.velocity)

    def between(self, start: float, stop: float) -> "Performance":
        """Returns the notes that begin in [start, stop) seconds, ended by ``stop``.

        Times of the result start at ``start``.
        """
        kept = (self.onset >= start) & (self.onset < stop)
        onset = self.onset[kept]
        return Performance(
            self.pitch[kept],
            onset - start,
            np.minimum(self.duration[kept], stop - onset),
            self.velocity[kept],
        )

    def monophonic(self) -> "Performance":
        """Ends every note where the next begins; of notes that begin together it keeps the highest."""
        order = np.lexsort((-self.pitch, self.onset))
        first = order[np.diff(self.onset[order], prepend=-1.0) > 0]
        pitch, onset, duration, velocity = (
            column[first] for column in (self.pitch, self.onset, self.duration, self.velocity)
        )
        return Performance(pitch, onset, np.minimum(duration, np.diff(onset, append=np.inf)), velocity)

    def quantize(self, sample_rate: int, hop: int) -> "Performance":
        """Moves onsets to the nearest multiple of ``hop`` samples.

        Ends stay where they are, but every note lasts at least ``hop`` samples.
        """
        frame = hop / sample_rate
        onset = np.rint(self.onset * sample_rate / hop) * frame
        duration = np.maximum(self.onset + self.duration - onset, frame)
        return Performance(self.pitch, onset, duration, self.velocity)

    def frames(self, sample_rate: int, hop: int, length: int) -> Float32[np.ndarray, "F 4"]:
        """Returns the condition of a model: which note sounds at the first sample of every frame.

        Frame f covers samples [f * hop, (f + 1) * hop). Onsets are rounded to frames: audio that is rendered from the
        notes of ``quantize`` agrees with these features to the sample.

        Args:
            sample_rate: sample rate in Hz.
            hop: samples per frame.
            length: samples of the audio; there are ceil(length / hop) frames.

        Returns:
            One row per frame: pitch (MIDI number; 0 in a rest), age in samples since the onset, samples that remain
            until the note ends, and velocity. All four are 0 in a rest.

        Raises:
            WavegenError: if two notes begin in one frame or overlap.

        Example:
            >>> from wavegen import Performance
            >>> Performance.parse("tempo 60, A4 1, R 1").frames(sample_rate=4, hop=2, length=6).tolist()[:2]
            [[69.0, 0.0, 4.0, 0.800000011920929], [69.0, 2.0, 2.0, 0.800000011920929]]
        """
        notes = self.quantize(sample_rate, hop)
        onset = np.rint(notes.onset * sample_rate).astype(np.int64)
        end = np.rint((notes.onset + notes.duration) * sample_rate).astype(np.int64)
        overlap = np.maximum(end[:-1] - onset[1:], hop * (np.diff(onset) < hop))
        if (overlap >= hop).any():
            where = int(np.argmax(overlap >= hop))
            raise WavegenError(
                f"expected one note at a time, got notes {where} and {where + 1} together at "
                f"{notes.onset[where + 1]:.3f} s: give a file with one voice, such as the melody alone "
                f"(in Python, .monophonic() makes one), or a model with a hop under {hop} samples"
            )
        # Rounding an onset down to its frame may leave the previous note a few samples too long.
        end[:-1] = np.minimum(end[:-1], onset[1:])
        sample = np.arange(-(-length // hop)) * hop
        note = np.searchsorted(onset, sample, side="right") - 1
        rows = np.zeros((len(sample), FEATURES), np.float32)
        sounding = (note >= 0) & (sample < np.append(end, 0)[note])
        note, sample = note[sounding], sample[sounding]
        rows[sounding] = np.stack(
            [notes.pitch[note], sample - onset[note], end[note] - sample, notes.velocity[note]], axis=1
        )
        return rows


def pitch_name(pitch: int) -> str:
    """Returns the name of a MIDI number: 61 is ``C#4``."""
    return f"{_NAMES[pitch % 12]}{pitch // 12 - 1}"


def frequency(pitch: Float[np.ndarray, "..."] | Int[np.ndarray, "..."] | float) -> Float[np.ndarray, "..."]:
    """Returns the frequency in equal temperament, 440 * 2 ** ((pitch - 69) / 12) Hz."""
    return np.asarray(440.0 * np.exp2((np.asarray(pitch, np.float64) - 69.0) / 12.0))


def _midi(name: str, source: str, line: int) -> int:
    octave = name.lstrip("ABCDEFG#b")
    pitch = 12 * (int(octave) + 1) + _STEPS[name[0]] + name.count("#") - name.count("b")
    if not 0 <= pitch <= 127:
        raise WavegenError(f"{source}, line {line}: expected a pitch from C-1 to G9, got {name}")
    return pitch


def _number(text: str, low: float, high: float, what: str, source: str, line: int) -> float:
    """Parses a decimal or a fraction in (low, high]."""
    try:
        numerator, _, denominator = text.partition("/")
        value = float(numerator) / float(denominator or 1)
    except (ValueError, ZeroDivisionError, OverflowError):
        value = np.nan
    if not low < value <= high:
        raise WavegenError(
            f"{source}, line {line}: expected {what} above {low} and at most {high}, got {text[:80]!r}"
        )
    return value
