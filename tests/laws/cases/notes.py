"""Note codecs: grids and events, frame by frame and token after token."""

from dataclasses import replace
from functools import cache, partial

import numpy as np

from laws.note_codec import LAWS, OF_INTERLEAVED, Case, tokens_of_a_range_of_pitches_decode_into_it
from laws.registered import registered, without
from wavegen.codecs.make import make_codec
from wavegen.codecs.notes.grid import NoteGrid
from wavegen.config.codecs import NoteEventsConfig, NoteGridConfig
from wavegen.notes.score import Score, Track

ONE_VOICE = {"voices": 1, "low": 0, "high": 127, "ties": True, "steps_per_quarter": 12}
GRIDS = {
    "four voices": NoteGridConfig(interleave=False),
    "ties": NoteGridConfig(ties=True, interleave=False),
    "one voice": NoteGridConfig(**ONE_VOICE, interleave=False),
    "interleaved": NoteGridConfig(voices=2, low=60, high=72, bar=4),
    "interleaved, ties": NoteGridConfig(voices=2, ties=True),
}
SMALL = {"max_shift": 5, "max_duration": 3, "velocities": 127, "programs_per_group": 1}
ONE_OF_EACH = {"max_shift": 1, "max_duration": 1, "velocities": 1, "programs_per_group": 128}
EVENTS = {
    "plain": NoteEventsConfig(interleave=False),
    "every program": NoteEventsConfig(steps_per_quarter=4, **SMALL, interleave=False),
    "one bin": NoteEventsConfig(steps_per_quarter=96, **ONE_OF_EACH, interleave=False),
    "interleaved": NoteEventsConfig(),
}


def voices(codec: NoteGrid) -> Score:
    """Voices a little off the grid, with accents and a tempo of their own."""
    random = np.random.default_rng(1)
    tokens = random.integers(0, codec.high - codec.low + 1, (40, codec.voices)).repeat(2, axis=0)
    if codec.ties:
        tokens[1::2] = np.where(tokens[1::2] > 0, codec.vocab_size - 1, 0)
    piece = codec.decode(tokens).at_resolution(480)
    # A tenth of a step, or less.
    moved = piece.onset + random.integers(0, 48 // codec.steps_per_quarter, len(piece))
    own = {"velocity": random.integers(1, 128, len(piece)), "tempos": np.array([[0, 400_000]])}
    return replace(piece, onset=moved, **own)


def band(count: int = 120) -> Score:
    """Chords of three players off the grid, with accents, a tempo map and programs that no codec keeps."""
    random = np.random.default_rng(0)
    return Score(
        random.integers(40, 90, count),
        np.sort(random.integers(0, 40 * count, count)) // 37 * 37,
        random.integers(3, 700, count),
        random.integers(1, 128, count),
        random.integers(0, 3, count),
        (Track("flute", 73), Track("bass", 33), Track("kit", 0, drum=True)),
        tempos=np.array([[0, 400_000], [481, 612_345]]),
        metres=np.array([[0, 3, 4]]),
    )


def written_on_a_grid(codec: NoteGrid, tokens: np.ndarray) -> np.ndarray:
    """Holds that hold nothing are silence, and silence at the end is left out."""
    tokens = tokens.copy()
    for step in range(len(tokens)):
        before = tokens[step - 1] if step else np.zeros(codec.voices)
        tokens[step][(tokens[step] == codec.vocab_size - 1) & codec.ties & (before == 0)] = 0
    sounding = np.flatnonzero(tokens.any(axis=1))
    return tokens[: sounding[-1] + 1 if len(sounding) else 0]


def written_as_events(tokens: np.ndarray) -> np.ndarray:
    """The same notes in order of onset, instrument, pitch, duration, velocity."""
    onset = np.cumsum(tokens[:, 0])
    rows = sorted((int(o), *map(int, (i, p, d, v))) for o, (_, p, d, v, i) in zip(onset, tokens, strict=True))
    before = [0, *(row[0] for row in rows)]
    ordered = [[o - b, p, d, v, i] for (o, i, p, d, v), b in zip(rows, before, strict=False)]
    return np.array(ordered).reshape(-1, 5)


@cache
def make_grid_case(name: str) -> Case:
    section = GRIDS[name]
    codec = make_codec(section).plain
    return Case(
        partial(make_codec, section),
        make_codec(section.model_copy(update={"ties": not section.ties})),
        voices(codec),
        partial(written_on_a_grid, codec),
        whats=("notes", "pitches"),
        pitches=(codec.low + 2, codec.low + 5),
    )


@cache
def make_event_case(name: str) -> Case:
    section = EVENTS[name]
    return Case(
        partial(make_codec, section),
        make_codec(section.model_copy(update={"velocities": 3})),
        band(),
        written_as_events,
        whats=("notes", "pitches", "durations"),
        pitches=(50, 53),
    )


# One field a frame has to be drawn, for a value of pitch to be told from one of another field.
OF_FIELDS_AT_ONCE = without(LAWS, tokens_of_a_range_of_pitches_decode_into_it)
CASES = {
    NoteGridConfig: {
        **registered(make_grid_case, ["four voices", "ties", "one voice"], LAWS),
        **registered(make_grid_case, ["interleaved", "interleaved, ties"], LAWS + OF_INTERLEAVED),
    },
    NoteEventsConfig: {
        **registered(make_event_case, ["plain", "every program", "one bin"], OF_FIELDS_AT_ONCE),
        **registered(make_event_case, ["interleaved"], LAWS + OF_INTERLEAVED),
    },
}
