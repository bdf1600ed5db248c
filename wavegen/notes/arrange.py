"""Pieces put together: side by side, and one after another."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import accumulate

import numpy as np
from jaxtyping import Int

from wavegen.errors import WavegenError
from wavegen.notes.events import COLUMNS, TEMPO, Notes


def together(parts: Iterable[Notes]) -> Notes:
    """Parts that sound at the same time, with the tracks of all; tempos and metres are the first part's.

    Raises:
        WavegenError: no parts, or parts of different resolution.
    """
    parts = _alike(parts)
    shift = np.cumsum([0, *(len(part.tracks) for part in parts)])
    return _joined(parts, [0] * len(parts), [int(first) for first in shift[:-1]])


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


def on_common_tracks(parts: Iterable[Notes]) -> list[Notes]:
    """The parts on all tracks that any of them has, so that they can be concatenated."""
    parts = list(parts)
    tracks = tuple(dict.fromkeys(track for part in parts for track in part.tracks))
    numbers = [np.array([tracks.index(track) for track in part.tracks], np.int64) for part in parts]
    return [
        replace(part, track=number[part.track], tracks=tracks)
        for part, number in zip(parts, numbers, strict=True)
    ]


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
