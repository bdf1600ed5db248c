"""What each note codec promises on its own, and one line for what it cannot say. The laws are in tests/laws."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from laws.cases.notes import make_grid_case
from laws.note_codec import few

from wavegen.codecs.notes.base import Interleaved
from wavegen.codecs.notes.events import NoteEvents
from wavegen.codecs.notes.grid import NoteGrid
from wavegen.codecs.notes.remix import What
from wavegen.errors import WavegenError
from wavegen.notes.score import Score, Track

GRIDS = [
    NoteGrid(),
    NoteGrid(ties=True),
    NoteGrid(voices=1, low=0, high=127, ties=True, steps_per_quarter=12),
]


def notes_of(*rows: tuple[int, int, int, int, int], **options) -> Score:
    """Rows of pitch, onset, duration, velocity, track."""
    return Score(*np.array(rows, int).reshape(-1, 5).T, **options)


def voices(count: int) -> dict:
    return {"tracks": tuple(Track(f"voice {number + 1}") for number in range(count)), "ticks_per_quarter": 4}


@pytest.mark.parametrize("name", ["four voices", "ties", "one voice"])
def test_a_grid_of_so_many_frames_ends_in_silence(name: str) -> None:
    case = make_grid_case(name)

    @few
    @given(case.plain_tokens)
    def check(tokens: np.ndarray) -> None:
        written = case.written(tokens)
        again = case.codec.encode(case.codec.decode(tokens), len(tokens))
        np.testing.assert_array_equal(again[: len(written)], written)
        assert again.shape == tokens.shape
        assert not again[len(written) :].any()

    check()


@pytest.mark.parametrize("codec", GRIDS, ids=str)
@given(data=st.data())
@settings(deadline=None, max_examples=30)
def test_pitches_round_trip(codec: NoteGrid, data: st.DataObject) -> None:
    pitch = st.sampled_from([-1, codec.low, codec.low + 1, codec.high])
    pitches = data.draw(arrays(np.int64, (7, codec.voices), elements=pitch))
    tokens = codec.from_pitches(pitches)
    assert tokens.min() >= 0
    assert tokens.max() < codec.vocab_size
    np.testing.assert_array_equal(codec.to_pitches(tokens), pitches)


def test_repeated_notes_survive_with_ties_alone() -> None:
    notes = notes_of((60, 0, 2, 80, 0), (60, 2, 1, 80, 0), (62, 4, 2, 80, 0), **voices(1))
    tied, plain = NoteGrid(voices=1, ties=True), NoteGrid(voices=1)
    assert tied.encode(notes)[:, 0].tolist() == [25, 47, 25, 0, 27, 47]
    assert tied.decode(tied.encode(notes)) == notes
    assert plain.encode(notes)[:, 0].tolist() == [25, 25, 25, 0, 27, 27]
    assert plain.decode(plain.encode(notes)).duration.tolist() == [3, 2]
    assert (tied.vocab_size, plain.vocab_size, NoteGrid().sizes) == (48, 47, (47,) * 4)


def test_notes_off_the_grid_move_to_the_nearest_step() -> None:
    notes = notes_of((60, 110, 130, 99, 0), (62, 251, 20, 1, 1), tracks=(Track("a"), Track("b")))
    tokens = NoteGrid(voices=2).encode(notes, frames=4)
    assert tokens.tolist() == [[0, 0], [25, 0], [0, 27], [0, 0]]


@pytest.mark.parametrize(
    ("rows", "frames", "message"),
    [
        ([(35, 0, 4, 80, 0)], None, r"expected pitches 36 to 81 and no drums, got 35 on track 0 at step 0"),
        ([(60, 0, 4, 80, 0), (82, 7, 4, 80, 1)], None, "got 82 on track 1 at step 7: transpose"),
        (
            [(60, 0, 4, 80, 1), (62, 3, 4, 80, 1)],
            None,
            "expected one note at a time, got two on track 1 at step 3",
        ),
        ([(60, 1 << 22, 1, 80, 0)], None, "expected at most 4194304 steps, got 4194305"),
        ([(60, 0, 4, 80, 0)], 3, "expected at least 4 frames for these notes, got 3"),
    ],
)
def test_what_a_grid_cannot_say_is_refused(rows: list, frames: int | None, message: str) -> None:
    with pytest.raises(WavegenError, match=message):
        NoteGrid().encode(notes_of(*rows, **voices(2)), frames)


def test_wrong_grids_and_tokens_are_refused() -> None:
    with pytest.raises(WavegenError, match="expected at most 4 tracks, one a voice, got 5"):
        NoteGrid().encode(notes_of(**voices(5)))
    with pytest.raises(WavegenError, match="expected pitches 36 to 81 and no drums, got 60"):
        NoteGrid().encode(notes_of((60, 0, 1, 80, 0), tracks=(Track("kit", 0, True),)))
    with pytest.raises(WavegenError, match="expected pitches 36 to 81, or -1, got 0 in voice 2 at step 0"):
        NoteGrid().from_pitches(np.array([[60, 60, 0, 60]]))
    with pytest.raises(WavegenError, match="expected 0 <= low <= high <= 127, got low 60, high 59"):
        NoteGrid(low=60, high=59)
    with pytest.raises(WavegenError, match="expected at least 1 voice and step, got 0 voices"):
        NoteGrid(voices=0)


@pytest.mark.parametrize("what", ["notes", "pitches"])
@pytest.mark.parametrize("ties", [False, True])
def test_what_a_grid_draws_anew_cannot_be_read_from_what_it_shows(ties: bool, what: What) -> None:
    codec = NoteGrid(voices=2, ties=ties)
    piece = notes_of(*((60 + n, 3 * n, 3, 80, voice) for n in range(8) for voice in (0, 1)), **voices(2))
    chosen = np.random.default_rng(0).random(len(piece)) < 0.5
    other = replace(piece, pitch=np.where(chosen, piece.pitch - 12, piece.pitch))
    shown = [
        np.where(gaps.hidden, -1, gaps.tokens)
        for gaps in (codec.redraw(notes, chosen, what) for notes in (piece, other))
    ]
    np.testing.assert_array_equal(*shown)
    assert (shown[0] > 0).any()


@pytest.mark.parametrize("bins", range(1, 128))
def test_every_velocity_bin_decodes_into_itself(bins: int) -> None:
    codec = NoteEvents(velocities=bins)
    tokens = np.zeros((bins, 5), int)
    tokens[:, 3] = np.arange(bins)
    again = codec.encode(codec.decode(tokens))
    assert again[:, 3].tolist() == list(range(bins))
    loud = codec.encode(notes_of(*((60, 0, 1, velocity, 0) for velocity in (1, 127))))
    assert loud[:, 3].tolist() == [0, bins - 1]


def test_events_say_what_is_played() -> None:
    tracks = (Track("Kit", 0, True), Track("Violin I", 40), Track("Violin II", 41), Track("Piano", 0))
    notes = notes_of(
        (36, 480, 10, 127, 0), (76, 480, 480, 64, 1), (72, 480, 479, 64, 2), (60, 0, 100_000, 1, 3),
        (64, 9600, 120, 1, 3), tracks=tracks,
    )  # fmt: skip
    codec = NoteEvents(steps_per_quarter=4, max_shift=32, max_duration=64)
    assert codec.encode(notes).tolist() == [
        [0, 60, 63, 0, 0],
        [4, 72, 3, 7, 5],
        [0, 76, 3, 7, 5],
        [0, 36, 0, 15, 16],
        [32, 64, 0, 0, 0],  # 76 steps of silence between onsets are shortened to 32
    ]
    assert codec.sizes == (33, 128, 64, 16, 17)
    assert codec.vocab_size == 128
    decoded = codec.decode(codec.encode(notes))
    assert decoded.tracks == (Track("piano", 0), Track("strings", 40), Track("drums", 0, True))
    assert decoded.velocity.tolist() == [4, 60, 60, 124, 4]
    every = NoteEvents(programs_per_group=1)
    assert every.decode(every.encode(notes)).tracks[1:3] == (Track("strings", 40), Track("strings", 41))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps_per_quarter": 0}, "expected steps_per_quarter from 1 to 32767, got 0"),
        ({"max_shift": 0}, "expected max_shift from 1"),
        ({"max_duration": 0}, "expected max_duration from 1"),
        ({"velocities": 128}, "expected velocities from 1 to 127, got 128"),
        ({"programs_per_group": 3}, "expected programs_per_group to divide 128, got 3"),
    ],
)
def test_wrong_event_codecs_are_refused(options: dict, message: str) -> None:
    with pytest.raises(WavegenError, match=message):
        NoteEvents(**options)


@pytest.mark.parametrize("interleaved", [False, True])
def test_a_rest_that_tokens_cannot_say_stays_in_a_prompt(interleaved):
    """Seventeen beats, where the longest shift is eight."""
    codec = NoteEvents()
    notes = Score(
        *(
            np.array(column)
            for column in ([60, 62, 64], [480, 960, 960 + 17 * 480], [240] * 3, [64] * 3, [0] * 3)
        ),
        (Track(),),
        480,
    )
    whole = Interleaved(codec) if interleaved else codec
    tokens = codec.encode(notes)
    drawn = np.concatenate([tokens, [[6, 65, 5, 8, 0]]])
    piece = whole.continued(notes, drawn.reshape(-1, 1) if interleaved else drawn)
    np.testing.assert_array_equal(piece.onset, [12, 24, 24 + 17 * 12, 24 + 17 * 12 + 6])
    assert codec.decode(drawn).onset[-1] < piece.onset[-1], "which the tokens alone do not say"
