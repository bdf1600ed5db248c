"""What is drawn anew where a piece is remixed: whole notes, only their pitches, or only their durations."""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from wavegen.codecs import NoteCodec, NoteEvents, NoteGrid
from wavegen.errors import WavegenError
from wavegen.notes.arrange import overlaid
from wavegen.notes.score import Notes

What = Literal["notes", "pitches", "durations"]

FIELDS: dict[What, list[int]] = {"notes": [1, 2, 3], "pitches": [1], "durations": [2]}
"""Columns of ``NoteEvents`` that are drawn; onsets stay, from which the onsets of all later notes are counted."""


class Redrawing(NamedTuple):
    """A piece with gaps.

    Attributes:
        tokens: of the piece.
        hidden: which of them are drawn anew.
        allowed: values that those may take, beside what the codec allows; None is all.
        rebuilt: from the tokens with the gaps filled to the new piece.
    """

    tokens: Int[np.ndarray, "N K"]
    hidden: Bool[np.ndarray, "N K"]
    allowed: Bool[np.ndarray, " V"] | None
    rebuilt: Callable[[Int[np.ndarray, "N K"]], Notes]


def redrawing(codec: NoteCodec, notes: Notes, chosen: Bool[np.ndarray, " notes"], what: What) -> Redrawing:
    """Takes out of a piece what is to be drawn anew.

    Args:
        codec: a grid of voices, or events.
        notes: the piece.
        chosen: its notes that are to change.
        what: "notes": on a grid the places that they sound in, of events pitch, duration and velocity; "pitches", and
            for events "durations": nothing else.

    Raises:
        WavegenError: another ``what``; durations on a grid; a piece that the codec cannot write.
    """
    if what not in FIELDS:
        raise WavegenError(f"expected one of {', '.join(FIELDS)} to remix, got {what!r}")
    if isinstance(codec, NoteEvents):
        return _of_events(codec, notes, chosen, what)
    assert isinstance(codec, NoteGrid)
    if what == "durations":
        raise WavegenError(
            "on a grid the end of a note is the beginning of the next; to remix durations take a model of "
            "codec.kind=note_events (configs/events-bert.yaml)"
        )
    return _pitches_of_grid(codec, notes, chosen) if what == "pitches" else _of_grid(codec, notes, chosen)


def _of_events(codec: NoteEvents, notes: Notes, chosen: Bool[np.ndarray, " notes"], what: What) -> Redrawing:
    tokens = codec.encode(notes)
    hidden = np.zeros(tokens.shape, bool)
    hidden[:, FIELDS[what]] = chosen[codec.order(notes)][:, None]
    return Redrawing(tokens, hidden, None, lambda filled: codec.revised(notes, filled, hidden))


def _of_grid(codec: NoteGrid, notes: Notes, chosen: Bool[np.ndarray, " notes"]) -> Redrawing:
    tokens, kept = codec.encode(notes), notes.where(~chosen)
    hidden = codec.encode(notes.where(chosen), len(tokens)) > 0

    def rebuilt(filled: Int[np.ndarray, "N K"]) -> Notes:
        return overlaid(kept, codec.decode(np.where(hidden, filled, 0)), 0)

    return Redrawing(tokens, hidden, None, rebuilt)


def _pitches_of_grid(codec: NoteGrid, notes: Notes, chosen: Bool[np.ndarray, " notes"]) -> Redrawing:
    tokens, grid = codec.encode(notes), notes.at_resolution(codec.steps_per_quarter)
    order = notes.order_at(codec.steps_per_quarter)
    drawn = np.flatnonzero(chosen[order])
    hidden = np.zeros(tokens.shape, bool)
    for onset, duration, voice in zip(
        grid.onset[drawn], grid.duration[drawn], grid.track[drawn], strict=True
    ):
        # Without ties a note is its pitch again and again: all of it is hidden, and what it begins with counts.
        hidden[onset : onset + (1 if codec.ties else duration), voice] = True
    pitches = np.arange(codec.vocab_size)
    allowed = (pitches > 0) & (pitches <= codec.high - codec.low + 1)

    def rebuilt(filled: Int[np.ndarray, "N K"]) -> Notes:
        pitch = notes.pitch.copy()
        pitch[order[drawn]] = filled[grid.onset[drawn], grid.track[drawn]] + codec.low - 1
        return replace(notes, pitch=pitch)

    return Redrawing(tokens, hidden, allowed, rebuilt)
