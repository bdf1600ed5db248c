"""Combinations of pieces: at the same time, in the same tracks, and one after another."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

import numpy as np
from jaxtyping import Int

from wavegen.errors import WavegenError
from wavegen.notes.score import COLUMNS, TEMPO, Score, Track


def together(parts: Iterable[Score]) -> Score:
    """Combines parts that sound at the same time, with the tracks of all; tempos and metres are the first part's.

    Raises:
        WavegenError: if there are no parts, or they differ in resolution.

    Example:
        >>> from wavegen import Performance
        >>> from wavegen.notes.arrange import together
        >>> from wavegen.notes.score import from_performance
        >>> high, low = (from_performance(Performance.parse(text)) for text in ("E4 1, F4 1", "C3 2"))
        >>> both = together([high, low])
        >>> both.pitch.tolist(), both.track.tolist()
        ([64, 48, 65], [0, 1, 0])
    """
    parts = _alike(parts)
    shift = np.cumsum([0, *(len(part.tracks) for part in parts)])
    return _joined(parts, [0] * len(parts), [int(first) for first in shift[:-1]])


def overlaid(kept: Score, fresh: Score, first: int) -> Score:
    """Combines the notes of two pieces in the same tracks, where those of ``kept`` are the tracks from ``first`` on.

    Args:
        kept: the piece whose resolution, tempos and metres the result has.
        fresh: the piece that provides the tracks before and behind the kept ones; its notes may be on any track.
        first: the track of the result that is the first track of ``kept``.
    """
    fresh = fresh.at_resolution(kept.ticks_per_quarter)
    # No tracks are added behind the last one that has notes.
    used = max(int(fresh.track.max(initial=-1)) + 1, first + len(kept.tracks))
    tracks = [*fresh.tracks[:first], *kept.tracks, *fresh.tracks[first + len(kept.tracks) : used]]
    shift = {name: first if name == "track" else 0 for name in COLUMNS}
    columns: dict[str, Any] = {
        name: np.concatenate([getattr(kept, name) + shift[name], getattr(fresh, name)]) for name in COLUMNS
    }
    return replace(kept, tracks=tuple(tracks), **columns)


def concatenate(parts: Iterable[Score], length: int | None = None) -> Score:
    """Joins parts one after another; all have the same tracks, and each keeps its tempos and metres.

    Args:
        parts: the pieces in order.
        length: ticks from the beginning of one part to that of the next; None is the ``end`` of each part, rounded up
            to a quarter note.

    Raises:
        WavegenError: if there are no parts, or they differ in tracks or resolution.

    Example:
        >>> from wavegen import Performance
        >>> from wavegen.notes.arrange import concatenate
        >>> from wavegen.notes.score import from_performance
        >>> part = from_performance(Performance.parse("tempo 120, C4 1"))
        >>> concatenate([part, part, part]).onset.tolist()
        [0, 480, 960]
    """
    parts = _alike(parts)
    if any(part.tracks != parts[0].tracks for part in parts):
        raise WavegenError(
            "expected parts with the same tracks, got different ones: use together(), or select()"
        )
    quarter = parts[0].ticks_per_quarter
    lengths = [-(-part.end // quarter) * quarter if length is None else length for part in parts]
    starts = [0, *accumulate(lengths[:-1])]
    whole = _joined(parts, starts, [0] * len(parts))
    return replace(
        whole,
        tracks=parts[0].tracks,
        tempos=_in_turn([part.tempos for part in parts], lengths, [0, TEMPO]),
        metres=_in_turn([part.metres for part in parts], lengths, [0, 4, 4]),
    )


def with_same_tracks(parts: Iterable[Score]) -> list[Score]:
    """Gives every part the tracks of all parts, as ``concatenate`` needs them.

    Tracks are in the order of their first appearance.
    """
    parts = list(parts)
    tracks = tuple(dict.fromkeys(track for part in parts for track in _told_apart(part.tracks)))
    moved = []
    for part in parts:
        number = np.array([tracks.index(track) for track in _told_apart(part.tracks)], np.int64)
        moved.append(replace(part, track=number[part.track], tracks=tuple(track for track, _ in tracks)))
    return moved


def skyline(notes: Score) -> Score:
    """Returns the highest notes as one monophonic track, the usual estimate of a melody.

    A note is cut where a higher one begins, and does not return after it. A note that begins under a higher one is
    left out altogether, and so are drums.

    Example:
        >>> from wavegen import Performance
        >>> from wavegen.notes.arrange import skyline, together
        >>> from wavegen.notes.score import from_performance
        >>> high, low = (from_performance(Performance.parse(text)) for text in ("R 1, E5 1", "C4 4"))
        >>> line = skyline(together([high, low]))
        >>> line.pitch.tolist(), line.onset.tolist(), line.duration.tolist()
        ([60, 76], [0, 576], [576, 576])
    """
    pitched = notes.where(~notes.drum)
    order = np.lexsort((-pitched.pitch, pitched.onset))
    chosen: list[int] = []
    duration = pitched.duration.copy()
    for note in order:
        if chosen:
            last = chosen[-1]
            sounds = pitched.onset[last] + duration[last] > pitched.onset[note]
            if pitched.onset[last] == pitched.onset[note] or (
                sounds and pitched.pitch[last] >= pitched.pitch[note]
            ):
                continue
            duration[last] = min(duration[last], pitched.onset[note] - pitched.onset[last])
        chosen.append(int(note))
    kept = np.zeros(len(pitched), bool)
    kept[chosen] = True
    line = replace(pitched, duration=duration).where(kept)
    return replace(line, track=np.zeros(len(line), np.int64), tracks=(Track("melody"),))


def _told_apart(tracks: Sequence[Track]) -> list[tuple[Track, int]]:
    """Returns each track with the number of equal tracks before it."""
    return [(track, tracks[:number].count(track)) for number, track in enumerate(tracks)]


def _alike(parts: Iterable[Score]) -> list[Score]:
    parts = list(parts)
    resolutions = {part.ticks_per_quarter for part in parts}
    if len(resolutions) != 1:
        raise WavegenError(
            f"expected parts of one resolution, got {sorted(resolutions) or 'no parts'}: use .at_resolution()"
        )
    return parts


def _joined(parts: Sequence[Score], starts: Sequence[int], tracks: Sequence[int]) -> Score:
    """Joins all notes, those of each part moved by its start in ticks and its first track."""
    pitch, onset, duration, velocity, track = (
        np.concatenate([getattr(part, name) for part in parts]) for name in COLUMNS
    )
    count = [len(part) for part in parts]
    return replace(
        parts[0],
        pitch=pitch,
        onset=onset + np.repeat(starts, count),
        duration=duration,
        velocity=velocity,
        track=track + np.repeat(tracks, count),
        tracks=tuple(track for part in parts for track in part.tracks),
    )


def _in_turn(
    maps: Sequence[Int[np.ndarray, "_ columns"]], lengths: Sequence[int], default: list[int]
) -> Int[np.ndarray, "rows columns"]:
    """Joins tempo or metre maps, each cut at its length; a map without a row at its start begins with the default."""
    if not any(len(rows) for rows in maps):
        return maps[0]
    turns, start = [], 0
    for number, (rows, length) in enumerate(zip(maps, lengths, strict=True)):
        last = number == len(maps) - 1
        # Of two rows at one tick ``Score`` keeps the later: the default yields to the part's own row.
        turn = np.concatenate([[default], rows if last else rows[rows[:, 0] < length]])
        turn[:, 0] += start
        turns.append(turn)
        start += length
    return np.concatenate(turns)
