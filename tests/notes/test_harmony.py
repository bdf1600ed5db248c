"""Chorales from JSON, and what is counted in them."""

import json

import numpy as np
import pytest

from wavegen.codecs.notes.grid import NoteGrid
from wavegen.errors import WavegenError
from wavegen.notes.harmony import (
    RANGES,
    chord_agreement,
    chord_tone_match,
    in_range,
    parallels,
    pitch_class_entropy,
    pitch_classes,
    repetition,
    roll_pitch_classes,
)
from wavegen.notes.jsb import read_chorales
from wavegen.notes.roll import piano_roll


def test_chorales_are_read_into_grids(tmp_path) -> None:
    piece = [[72, 67, 64, 48], [72, 67, -1, 50]]
    (tmp_path / "a.json").write_text(json.dumps({"train": [piece], "valid": [], "test": [piece, piece]}))
    chorales = read_chorales(tmp_path / "a.json")
    assert {split: len(pieces) for split, pieces in chorales.items()} == {"train": 1, "valid": 0, "test": 2}
    assert chorales["train"][0].tolist() == piece
    codec = NoteGrid()
    np.testing.assert_array_equal(codec.to_pitches(codec.from_pitches(chorales["train"][0])), piece)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected chorales as JSON in"),
        ("[" * 100_000, "expected chorales as JSON in"),
        ("[]", 'expected lists "train", "valid" and "test"'),
        ('{"train": [], "valid": []}', 'expected lists "train", "valid" and "test"'),
        (
            '{"train": [], "valid": [[[60, 61], [60]]], "test": []}',
            "valid, piece 0: .*steps of different lengths",
        ),
        ('{"train": [[[60.5]]], "valid": [], "test": []}', "train, piece 0: expected steps of whole numbers"),
        (
            '{"train": [[60]], "valid": [], "test": []}',
            r"expected steps of whole numbers, got an array \[1\]",
        ),
        ('{"train": [[]], "valid": [], "test": []}', "expected steps of whole numbers"),
        ('{"train": [[[]]], "valid": [], "test": []}', "expected steps of whole numbers"),
        ('{"train": [[["C4"]]], "valid": [], "test": []}', "expected steps of whole numbers"),
        ('{"train": [[[128]]], "valid": [], "test": []}', "expected MIDI numbers or -1, got 128 to 128"),
    ],
)
def test_other_files_are_refused_in_one_line(text: str, message: str, tmp_path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(WavegenError, match=message) as caught:
        read_chorales(tmp_path / "a.json")
    assert "\n" not in str(caught.value)
    with pytest.raises(
        WavegenError, match=r"cannot read .*absent.json: No such file .*expected chorales as JSON"
    ):
        read_chorales(tmp_path / "absent.json")


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([[67, 60], [69, 62]], (1, 0, 1)),  # fifths
        ([[79, 60], [81, 62]], (1, 0, 1)),  # a fifth and an octave between
        ([[67, 60], [81, 62]], (1, 0, 1)),  # a fifth, then a twelfth, in similar motion
        ([[72, 60], [74, 62]], (0, 1, 1)),  # octaves
        ([[60, 60], [62, 62]], (0, 1, 1)),  # unisons
        ([[67, 60], [67, 60]], (0, 0, 0)),  # nothing moves
        ([[67, 60], [69, 60]], (0, 0, 0)),  # one voice stays
        ([[67, 60], [62, 67]], (0, 0, 1)),  # contrary motion
        ([[67, 72], [79, 72]], (0, 0, 0)),  # one voice leaps over the other
        ([[81, 62], [67, 60]], (1, 0, 1)),  # downwards
        ([[66, 60], [69, 62]], (0, 0, 1)),  # a diminished fifth, then a perfect one
        ([[69, 60], [71, 64]], (0, 0, 1)),  # hidden: a sixth, then a fifth
        ([[65, 60], [67, 62]], (0, 0, 1)),  # fourths
        ([[60, 67], [62, 69]], (1, 0, 1)),  # voices that are crossed in both steps
        ([[67, -1], [69, 62]], (0, 0, 0)),  # a voice enters
        ([[67, 60], [-1, -1], [69, 62]], (0, 0, 0)),  # a rest between
        ([[79, 72, 60], [81, 74, 62]], (2, 1, 3)),  # three voices: two fifths and an octave
    ],
)
def test_parallels_are_counted_as_defined(steps: list, expected: tuple[int, int, int]) -> None:
    found = parallels(np.array(steps))
    assert tuple(found) == expected
    assert found.rate == (expected[0] + expected[1]) / max(expected[2], 1)


def test_ranges() -> None:
    grid = np.array([[60, 55, 47, -1], [80, 72, 67, -1], [-1, 73, 68, -1]])
    np.testing.assert_allclose(in_range(grid), [1 / 2, 2 / 3, 1 / 3, 1])
    np.testing.assert_allclose(in_range(np.array(RANGES).T), 1)
    with pytest.raises(WavegenError, match="expected a range for each of 3 voices, got 4"):
        in_range(grid[:, :3])


def test_chords_match() -> None:
    melody = pitch_classes(np.array([[72], [74], [-1], [76], [77]]))
    chords = pitch_classes(np.array([[48, 52, 55], [48, 52, 55], [48, 52, 55], [-1, -1, -1], [53, 57, 60]]))
    assert chords[0].nonzero()[0].tolist() == [0, 4, 7]
    assert chord_tone_match(melody, chords) == pytest.approx(2 / 3)
    assert np.isnan(chord_tone_match(melody[2:3], chords[2:3]))
    other = pitch_classes(np.array([[48, 52, 55], [48, 51, 55], [-1, -1, -1], [-1, -1, -1], [53, 57, 60]]))
    assert chord_agreement(chords, other) == pytest.approx((1 + 2 / 4 + 0 + 1) / 4)
    assert np.isnan(chord_agreement(other[2:4], other[2:4]))


def test_rolls_and_grids_have_the_same_pitch_classes() -> None:
    codec = NoteGrid()
    tokens = np.random.default_rng(0).integers(0, codec.vocab_size, (40, 4))
    roll = piano_roll(codec.decode(tokens).performance(), 8, 40)  # sixteenths at 120 quarter notes per minute
    np.testing.assert_array_equal(roll_pitch_classes(roll), pitch_classes(codec.to_pitches(tokens)))


def test_entropy_and_repetition() -> None:
    assert pitch_class_entropy(np.array([60, 72, 48])) == 0
    assert pitch_class_entropy(np.arange(60, 84)) == pytest.approx(np.log2(12))
    assert pitch_class_entropy(np.zeros(0, int)) == 0
    assert repetition(np.arange(20)) == 0
    assert repetition(np.arange(20).repeat(2).reshape(20, 2)) == 0
    assert repetition(np.tile([1, 2, 3], 10)) == pytest.approx(1 - 3 / 27)
    assert repetition(np.zeros((10, 2)), 10) == 0
    assert np.isnan(repetition(np.zeros(3)))
    with pytest.raises(WavegenError, match="expected runs of at least 1 frame, got 0"):
        repetition(np.zeros(3), 0)
