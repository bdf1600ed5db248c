"""Pieces put together: side by side, one over another, and one after another."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

import numpy as np
from jaxtyping import Int

from wavegen.errors import WavegenError
from wavegen.notes.score import COLUMNS, TEMPO, Notes, Track


def together(parts: Iterable[Notes]) -> Notes:
    """Parts that sound at the same time, with the tracks of all; tempos and metres are the first part's.

    Raises:
        WavegenError: no parts, or parts of different resolution.
    """
    parts = _alike(parts)
    shift = np.cumsum([0, *(len(part.tracks) for part in parts)])
    return _joined(parts, [0] * len(parts), [int(first) for first in shift[:-1]])


def overlaid(kept: Notes, fresh: Notes, first: int) -> Notes:
    """The notes of two pieces in the same tracks: those of `kept` are the ones from `first` on.

    Args:
        kept: whose resolution, tempos and metres are those of the result.
        fresh: its tracks are those before and behind the kept ones, and any of its notes may be on those.
        first: track of the result that is the first one of `kept`.
    """
    fresh = fresh.at_resolution(kept.ticks_per_quarter)
    # Tracks behind the last one that sounds are not made up.
    used = max(int(fresh.track.max(initial=-1)) + 1, first + len(kept.tracks))
    tracks = [*fresh.tracks[:first], *kept.tracks, *fresh.tracks[first + len(kept.tracks) : used]]
    shift = {name: first if name == "track" else 0 for name in COLUMNS}
    columns: dict[str, Any] = {
        name: np.concatenate([getattr(kept, name) + shift[name], getattr(fresh, name)]) for name in COLUMNS
    }
    return replace(kept, tracks=tuple(tracks), **columns)


def concatenate(parts: Iterable[Notes], length: int | None = None) -> Notes:
    """Parts one after another; all have the same tracks, and each brings its tempos and metres.

    Args:
        parts: the pieces in order.
        length: ticks from the beginning of one part to that of the next; by default each part's `end`, rounded up
            to a quarter note.

    Raises:
        WavegenError: no parts, or parts of different tracks or resolution.
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


def with_same_tracks(parts: Iterable[Notes]) -> list[Notes]:
    """The parts with the tracks of all of them, in the order of their first appearance, as `concatenate` needs them."""
    parts = list(parts)
    tracks = tuple(dict.fromkeys(track for part in parts for track in _told_apart(part.tracks)))
    moved = []
    for part in parts:
        number = np.array([tracks.index(track) for track in _told_apart(part.tracks)], np.int64)
        moved.append(replace(part, track=number[part.track], tracks=tuple(track for track, _ in tracks)))
    return moved


def skyline(notes: Notes) -> Notes:
    """The highest note that sounds at every moment, as one track; a note that a higher one covers is cut there.

    Drums are left out. A note that begins under a higher one is left out too, also for what it has left after that.
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
    """Tracks with how many equal ones stand before them."""
    return [(track, tracks[:number].count(track)) for number, track in enumerate(tracks)]


def _alike(parts: Iterable[Notes]) -> list[Notes]:
    parts = list(parts)
    resolutions = {part.ticks_per_quarter for part in parts}
    if len(resolutions) != 1:
        raise WavegenError(
            f"expected parts of one resolution, got {sorted(resolutions) or 'no parts'}: use .at_resolution()"
        )
    return parts


def _joined(parts: Sequence[Notes], starts: Sequence[int], tracks: Sequence[int]) -> Notes:
    """All notes, those of each part moved by its start in ticks and its first track."""
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
    """Tempo or metre maps one after another, each cut at its length; one without a first row has the default."""
    if not any(len(rows) for rows in maps):
        return maps[0]
    turns, start = [], 0
    for number, (rows, length) in enumerate(zip(maps, lengths, strict=True)):
        last = number == len(maps) - 1
        # of two rows at one tick `Notes` keeps the later: the default gives way to the part's own
        turn = np.concatenate([[default], rows if last else rows[rows[:, 0] < length]])
        turn[:, 0] += start
        turns.append(turn)
        start += length
    return np.concatenate(turns)
