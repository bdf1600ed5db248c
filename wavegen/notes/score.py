"""Notes as in a score: in ticks, fractions of a quarter note, on tracks, with a tempo map.

Ticks are integers, so that nothing is lost between a file, a grid and a token. Seconds follow from the tempo map
alone: ``Score.performance`` converts to them for playing and for measuring audio (``wavegen.notes.performance``).
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from wavegen.errors import WavegenError
from wavegen.notes.performance import Performance

TICKS = 480  # per quarter note, unless given
TEMPO = 500_000  # microseconds per quarter note before the first tempo, as in MIDI: 120 per minute
COLUMNS = ("pitch", "onset", "duration", "velocity", "track")
END_OF_TIME = 1 << 28  # ticks; the delay of a MIDI event has 28 bits


class Track(NamedTuple):
    """The player of some notes: a name, a General MIDI program (0 to 127), and whether pitches stand for drums."""

    name: str = ""
    program: int = 0
    drum: bool = False


@dataclass(frozen=True, eq=False)
class Score:
    """Notes, sorted by onset, track, pitch, duration and velocity, whatever order they are given in.

    Two pieces are equal if they have the same notes, tracks, resolution, tempos and metres.

    Attributes:
        pitch: MIDI numbers, 0 to 127; 60 is middle C.
        onset: ticks from the start, at least 0.
        duration: ticks, at least 1; notes end before tick 2**28.
        velocity: strength of the stroke, 1 to 127.
        track: index into ``tracks`` of the player of each note.
        tracks: the players, at most 65534; some may have no notes.
        ticks_per_quarter: the resolution, 1 to 32767.
        tempos: rows of a tick and the microseconds per quarter note from there on, 1 to 2**24 - 1; before the first
            row a quarter note takes half a second.
        metres: rows of tick, numerator (1 to 255) and denominator (a power of two up to 128); before the first row
            the metre is 4/4.

    Raises:
        WavegenError: if the arrays differ in length or a value is out of range.

    Example:
        >>> import numpy as np
        >>> from wavegen import Score
        >>> one = np.ones(2, int)
        >>> notes = Score(np.array([60, 64]), np.array([480, 0]), 480 * one, 90 * one, 0 * one)
        >>> notes.pitch.tolist(), notes.seconds(notes.onset).tolist(), notes.end
        ([64, 60], [0.0, 0.5], 960)
        >>> notes.transpose(12).between(480, 960).pitch.tolist()
        [72]
    """

    pitch: Int[np.ndarray, " notes"]
    onset: Int[np.ndarray, " notes"]
    duration: Int[np.ndarray, " notes"]
    velocity: Int[np.ndarray, " notes"]
    track: Int[np.ndarray, " notes"]
    tracks: tuple[Track, ...] = (Track(),)
    ticks_per_quarter: int = TICKS
    tempos: Int[np.ndarray, "tempos 2"] = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    metres: Int[np.ndarray, "metres 3"] = field(default_factory=lambda: np.zeros((0, 3), np.int64))

    def __post_init__(self) -> None:
        columns = [np.asarray(getattr(self, name), np.int64) for name in COLUMNS]
        if len({len(column) for column in columns}) > 1:
            raise WavegenError(
                f"expected five arrays of one length, got {[len(column) for column in columns]}"
            )
        _in_range("ticks per quarter note", np.array([self.ticks_per_quarter]), 1, 32767)
        highest = (127, END_OF_TIME - 1, END_OF_TIME - 1, 127, len(self.tracks) - 1)
        for name, column, low, high in zip(COLUMNS, columns, (0, 0, 1, 1, 0), highest, strict=True):
            _in_range(f"{name} of a note", column, low, high)
        _in_range("end of a note", columns[1] + columns[2], 1, END_OF_TIME - 1)
        _in_range("count of tracks", np.array([len(self.tracks)]), 0, 65534)
        _in_range("program of a track", np.array([track.program for track in self.tracks], int), 0, 127)
        order = _order(*columns)
        for name, column in zip(COLUMNS, columns, strict=True):
            object.__setattr__(self, name, _frozen(column[order]))
        tempos, metres = _last_of_each_tick(self.tempos), _last_of_each_tick(self.metres)
        _in_range("tick of a tempo", tempos[:, 0], 0, END_OF_TIME - 1)
        _in_range("microseconds per quarter note", tempos[:, 1], 1, (1 << 24) - 1)
        _in_range("tick of a metre", metres[:, 0], 0, END_OF_TIME - 1)
        _in_range("numerator of a metre", metres[:, 1], 1, 255)
        if not np.isin(metres[:, 2], 1 << np.arange(8)).all():
            raise WavegenError(f"expected metres over 1, 2, 4, ... 128, got {metres[:, 2].tolist()}")
        object.__setattr__(self, "tempos", _frozen(tempos))
        object.__setattr__(self, "metres", _frozen(metres))

    def __len__(self) -> int:
        return len(self.pitch)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Score):
            return NotImplemented
        same = self.tracks == other.tracks and self.ticks_per_quarter == other.ticks_per_quarter
        arrays = (*COLUMNS, "tempos", "metres")
        return same and all(np.array_equal(getattr(self, name), getattr(other, name)) for name in arrays)

    __hash__ = None  # type: ignore[assignment]

    @property
    def end(self) -> int:
        """The tick at which the last note ends; 0 without notes."""
        return int((self.onset + self.duration).max(initial=0))

    @property
    def program(self) -> Int[np.ndarray, " notes"]:
        """The program of each note's track."""
        return np.array([track.program for track in self.tracks], np.int64)[self.track]

    @property
    def drum(self) -> Bool[np.ndarray, " notes"]:
        """Whether each note's track is a drum track."""
        return np.array([track.drum for track in self.tracks], bool)[self.track]

    def seconds(self, ticks: Int[np.ndarray, "*axes"]) -> Float[np.ndarray, "*axes"]:
        """Returns the time of each of ``ticks`` in seconds from the start, through the tempo map."""
        start = np.concatenate([[0], self.tempos[:, 0]])
        pace = np.concatenate([[TEMPO], self.tempos[:, 1]]) / (1e6 * self.ticks_per_quarter)
        reached = np.concatenate([[0.0], np.cumsum(np.diff(start) * pace[:-1])])
        # A row at tick 0 makes the first stretch empty; the search takes the last row that has begun.
        row = np.searchsorted(start, ticks, side="right") - 1
        return np.asarray(reached[row] + (ticks - start[row]) * pace[row])

    def performance(self) -> Performance:
        """Returns the notes in seconds, with velocities divided by 127, as the piano plays them."""
        onset, end = self.seconds(self.onset), self.seconds(self.onset + self.duration)
        return Performance(self.pitch, onset, end - onset, self.velocity / 127)

    def pitched(self) -> Performance:
        """Returns the notes of all tracks but drums, in seconds.

        Raises:
            WavegenError: if there are none.
        """
        played = self.select(lambda track: not track.drum).performance()
        if not len(played):
            raise WavegenError(
                f"expected notes with a pitch, got none and {len(self)} of drums: give a piece with pitched notes"
            )
        return played

    def select(self, keep: Callable[[Track], bool]) -> "Score":
        """Returns the tracks for which ``keep`` is true, and their notes: ``select(lambda track: not track.drum)``."""
        kept = np.array([bool(keep(track)) for track in self.tracks], bool)
        number = np.cumsum(kept) - 1
        tracks = tuple(track for track, stays in zip(self.tracks, kept, strict=True) if stays)
        chosen = self.where(kept[self.track])
        return replace(chosen, track=number[chosen.track], tracks=tracks)

    def between(self, start: int, stop: int) -> "Score":
        """Returns the notes that begin in [start, stop) ticks, ended by ``stop``.

        Times, tempos and metres of the result start at ``start``.
        """
        inside = self.where((self.onset >= start) & (self.onset < stop))
        return replace(
            inside,
            onset=inside.onset - start,
            duration=np.minimum(inside.duration, stop - inside.onset),
            tempos=_cut(self.tempos, start, stop),
            metres=_cut(self.metres, start, stop),
        )

    def transpose(self, semitones: int) -> "Score":
        """Moves the pitch of all but drums by ``semitones``.

        Raises:
            WavegenError: if a pitch leaves 0 to 127.
        """
        return replace(self, pitch=self.pitch + semitones * ~self.drum)

    def at_resolution(self, ticks_per_quarter: int) -> "Score":
        """Converts to another resolution.

        Onsets and ends are rounded to the nearest tick, halves up; no note becomes shorter than a tick.
        """
        if self.ticks_per_quarter == ticks_per_quarter:
            return self
        onset, duration = self._rounded(ticks_per_quarter)
        tempos, metres = (
            np.column_stack([self._moved(rows[:, 0], ticks_per_quarter), rows[:, 1:]])
            for rows in (self.tempos, self.metres)
        )
        return replace(
            self,
            onset=onset,
            duration=duration,
            ticks_per_quarter=ticks_per_quarter,
            tempos=tempos,
            metres=metres,
        )

    def order_at(self, ticks_per_quarter: int) -> Int[np.ndarray, " notes"]:
        """Returns the index in this piece of each note of ``at_resolution``.

        Notes that move to one tick change places.
        """
        onset, duration = self._rounded(ticks_per_quarter)
        return _order(self.pitch, onset, duration, self.velocity, self.track)

    def _rounded(self, ticks_per_quarter: int) -> tuple[Int[np.ndarray, " notes"], Int[np.ndarray, " notes"]]:
        onset, end = (
            self._moved(ticks, ticks_per_quarter) for ticks in (self.onset, self.onset + self.duration)
        )
        return onset, np.maximum(end - onset, 1)

    def _moved(self, ticks: Int[np.ndarray, " ticks"], ticks_per_quarter: int) -> Int[np.ndarray, " ticks"]:
        old = self.ticks_per_quarter
        return (2 * ticks * ticks_per_quarter + old) // (2 * old)

    def where(self, kept: Bool[np.ndarray, " notes"]) -> "Score":
        """Returns the notes for which ``kept`` is true; all tracks stay."""
        pitch, onset, duration, velocity, track = (getattr(self, name)[kept] for name in COLUMNS)
        return replace(self, pitch=pitch, onset=onset, duration=duration, velocity=velocity, track=track)


def from_performance(played: Performance, quarters_per_minute: float = 120.0) -> Score:
    """Converts notes in seconds to notes in ticks on one track, at one tempo; times and velocities are rounded.

    Args:
        played: the notes.
        quarters_per_minute: the tempo of the result. It decides where beats fall and how long a tick is, and leaves
            times in seconds as they are, but for rounding to a tick (1 ms at 120).

    Raises:
        WavegenError: if a quarter note of this tempo does not take 1 to 2**24 - 1 microseconds (3.58 quarter notes
            per minute or more), or the piece takes 2**28 ticks or more.

    Example:
        >>> from wavegen import Performance
        >>> from wavegen.notes.score import from_performance
        >>> notes = from_performance(Performance.parse("tempo 120, C4 1, E4 2"))
        >>> notes.onset.tolist(), notes.duration.tolist(), notes.velocity.tolist()
        ([0, 480], [480, 960], [102, 102])
    """
    if not quarters_per_minute > 0:
        raise WavegenError(f"expected more than 0 quarter notes per minute, got {quarters_per_minute}")
    # MIDI writes whole microseconds: onsets are counted in the rounded tempo, the one that is written.
    tempo = round(60e6 / quarters_per_minute)
    ticks_per_second = 1e6 * TICKS / tempo
    onset, end = (np.rint(time * ticks_per_second) for time in (played.onset, played.onset + played.duration))
    onset, end = (np.minimum(time, END_OF_TIME).astype(np.int64) for time in (onset, end))
    return Score(
        played.pitch,
        onset,
        np.maximum(end - onset, 1),
        np.clip(np.rint(127 * played.velocity), 1, 127).astype(np.int64),
        np.zeros(len(played), np.int64),
        tempos=np.array([[0, tempo]]),
    )


def _cut(rows: Int[np.ndarray, "rows columns"], start: int, stop: int) -> Int[np.ndarray, "kept columns"]:
    """Returns the rows in force within [start, stop), counted from ``start``; the row before ``start`` begins there."""
    first = max(int(np.searchsorted(rows[:, 0], start, side="right")) - 1, 0)
    rows = rows[first : np.searchsorted(rows[:, 0], stop)]
    return np.column_stack([np.maximum(rows[:, 0] - start, 0), rows[:, 1:]])


def _last_of_each_tick(rows: Int[np.ndarray, "rows columns"]) -> Int[np.ndarray, "kept columns"]:
    rows = np.asarray(rows, np.int64)
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    return rows[np.append(rows[:-1, 0] != rows[1:, 0], True)[: len(rows)]]


def _order(
    pitch: Int[np.ndarray, " notes"],
    onset: Int[np.ndarray, " notes"],
    duration: Int[np.ndarray, " notes"],
    velocity: Int[np.ndarray, " notes"],
    track: Int[np.ndarray, " notes"],
) -> Int[np.ndarray, " notes"]:
    return np.lexsort((velocity, duration, pitch, track, onset))


def _frozen(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def _in_range(what: str, values: Int[np.ndarray, " values"], low: int, high: int) -> None:
    wrong = (values < low) | (values > high)
    if wrong.any():
        where = int(np.argmax(wrong))
        raise WavegenError(
            f"expected {what} in {low}..{high}, got {values[where]} (number {where}): correct it"
        )
