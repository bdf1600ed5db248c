"""The laws of note codecs, each as one check of a case."""

from collections import Counter
from collections.abc import Callable
from functools import cached_property

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from laws.registered import Law
from wavegen.codecs.notes.base import NoteCodec
from wavegen.codecs.notes.choice import allowed_values
from wavegen.codecs.notes.remix import What
from wavegen.errors import WavegenError
from wavegen.notes.score import COLUMNS, Score

# It has to go into a compiled step of training.
transpose = jax.jit(lambda codec, tokens, semitones: codec.transposed(tokens, semitones))
few = settings(max_examples=40, deadline=None, derandomize=True, database=None)


class Case:
    """A codec, a piece that it can write, and which tokens it writes.

    Args:
        make: makes the codec, always the same.
        other: a codec that writes other tokens.
        piece: off the grid, and with room for a semitone more at the top.
        written: from any tokens of the plain codec to those that it writes of what they mean.
        whats: what of a piece it draws anew.
        pitches: a range within its own.
    """

    def __init__(
        self,
        make: Callable[[], NoteCodec],
        other: NoteCodec,
        piece: Score,
        written: Callable[[np.ndarray], np.ndarray],
        *,
        whats: tuple[What, ...],
        pitches: tuple[int, int],
    ):
        self.make, self.other, self.piece, self.written = make, other, piece, written
        self.whats, self.pitches = whats, pitches

    @cached_property
    def codec(self) -> NoteCodec:
        return self.make()

    @cached_property
    def plain_tokens(self) -> st.SearchStrategy:
        """Any tokens of the plain codec, few values so that notes repeat and hold."""
        sizes = np.asarray(self.codec.plain.sizes)
        kinds = st.integers(0, 12).flatmap(
            lambda n: arrays(np.int64, (n, len(sizes)), elements=st.integers(0, 5))
        )

        def of_kinds(kinds: np.ndarray) -> np.ndarray:
            values = np.stack([0 * sizes, 0 * sizes + 1, 0 * sizes + 2, sizes // 2, sizes - 2, sizes - 1])
            values = np.clip(values, 0, sizes - 1)
            return values[kinds, np.arange(len(sizes))].astype(np.int32)

        return kinds.map(of_kinds)

    def in_turn(self, tokens: np.ndarray) -> np.ndarray:
        """Tokens of the plain codec as this one writes them."""
        return tokens.reshape(-1, self.codec.codebooks)

    def random_tokens(self, allowed: np.ndarray, frames: int) -> np.ndarray:
        random = np.random.default_rng(2)
        rows = [
            random.choice(np.flatnonzero(allowed[n % len(allowed)]), self.codec.codebooks)
            for n in range(frames)
        ]
        return np.asarray(rows, np.int32)


def tokens_come_back_as_they_are_written(case):
    @few
    @given(case.plain_tokens)
    def check(tokens):
        notes = case.codec.decode(case.in_turn(tokens))
        np.testing.assert_array_equal(case.codec.encode(notes), case.in_turn(case.written(tokens)))

    check()


def notes_on_the_grid_come_back(case):
    @few
    @given(case.plain_tokens)
    def check(tokens):
        notes = case.codec.decode(case.in_turn(tokens))
        assert case.codec.decode(case.codec.encode(notes)) == notes

    check()


def tokens_are_in_range_and_allowed_at_their_place(case):
    codec, tokens = case.codec, case.codec.encode(case.piece)
    assert len(case.piece) > 30
    assert tokens.shape == (len(tokens), codec.codebooks)
    assert tokens.dtype == np.int32
    assert (tokens >= 0).all()
    assert (tokens < np.asarray(codec.sizes)).all()
    if codec.allowed is not None:
        assert codec.allowed.shape == (codec.period, codec.vocab_size)
        assert codec.allowed[np.arange(len(tokens)) % codec.period, tokens[:, 0]].all()


def sizes_are_those_of_the_contract(case):
    codec = case.codec
    assert codec.codebooks == len(codec.sizes)
    assert codec.vocab_size == max(codec.sizes)
    assert 0 <= codec.start_token < min(codec.sizes)
    assert (codec.hop_length, codec.places) == (1, codec.period)
    assert codec.encode(case.piece.select(lambda track: False)).shape == (0, codec.codebooks)


def codecs_are_values(case):
    codec, again, other = case.codec, case.make(), case.other
    assert codec is not again
    assert codec == again
    assert hash(codec) == hash(again)
    assert codec.fingerprint == again.fingerprint
    assert codec != other
    assert codec.fingerprint != other.fingerprint
    assert jax.tree.structure(codec) == jax.tree.structure(again) != jax.tree.structure(other)


def tokens_that_mean_nothing_are_refused(case):
    codec, sizes = case.codec, case.codec.plain.sizes
    for column, size in enumerate(sizes):
        for wrong in (-1, size):
            tokens = np.zeros((2, len(sizes)), np.int32)
            tokens[1, column] = wrong
            message = f"expected tokens under {size} in column {column}, got {wrong} at frame 1"
            with pytest.raises(WavegenError, match=message):
                codec.decode(case.in_turn(tokens))
    with pytest.raises(WavegenError, match=rf"expected tokens .*got \[3, {codec.codebooks + 1}\]"):
        codec.decode(np.zeros((3, codec.codebooks + 1), np.int32))


def tokens_of_a_range_of_pitches_decode_into_it(case):
    codec = case.codec
    low, high = case.pitches
    narrowed = allowed_values(codec, pitches=(low, high))
    assert narrowed.shape[1] == codec.vocab_size
    assert narrowed.any(axis=1).all()
    every = np.ones((1, codec.vocab_size), bool) if codec.allowed is None else codec.allowed
    assert not (narrowed & ~every).any()
    assert (narrowed != every).any()
    notes = codec.decode(case.random_tokens(narrowed, 40 * codec.interleaving))
    assert set(notes.pitch.tolist()) == set(range(low, high + 1))
    for wrong in ((high, low), (-1, high), (low, 128)):
        with pytest.raises(WavegenError, match="expected the lowest and the highest pitch within"):
            allowed_values(codec, pitches=wrong)


def transposed_tokens_are_those_of_transposed_notes(case):
    """A clip that would leave the range stays, and so do frames that fill up a clip, and one that is not whole."""
    codec, tokens = case.codec, case.codec.encode(case.piece)
    rows = np.stack([np.pad(tokens, ((0, 3), (0, 0)))] * 3)
    moved = np.asarray(transpose(codec, rows, np.asarray([0, 1, 127])))
    np.testing.assert_array_equal(moved[[0, 2]], rows[[0, 2]])
    up = codec.encode(case.piece.transpose(1))
    assert (up != tokens).any()
    np.testing.assert_array_equal(moved[1, : len(up)], up)
    np.testing.assert_array_equal(moved[1, len(up) :], rows[1, len(up) :])


def notes(piece: Score, *names: str) -> Counter:
    return Counter(zip(*(getattr(piece, name).tolist() for name in names), strict=True))


def redrawing(case, what, chosen):
    """A piece with gaps, and the tokens that fill them."""
    gaps = case.codec.redraw(case.piece, chosen, what)
    np.testing.assert_array_equal(gaps.tokens, case.codec.plain.encode(case.piece))
    assert gaps.hidden.shape == gaps.tokens.shape
    sizes, random = case.codec.plain.sizes, np.random.default_rng(3)
    fresh = np.column_stack([random.integers(size, size=len(gaps.tokens)) for size in sizes])
    if gaps.allowed is not None:
        values = np.flatnonzero(gaps.allowed)
        fresh = random.choice(values, gaps.tokens.shape)
    return gaps, np.where(gaps.hidden, fresh, gaps.tokens).astype(np.int32)


def choices(case):
    return np.random.default_rng(1).random(len(case.piece)) < 0.5


def where_nothing_is_chosen_nothing_is_redrawn(case):
    for what in case.whats:
        gaps, filled = redrawing(case, what, np.zeros(len(case.piece), bool))
        assert not gaps.hidden.any()
        assert gaps.rebuilt(filled) == case.piece


def notes_that_are_not_chosen_stay_to_the_tick(case):
    chosen = choices(case)
    for what in case.whats:
        gaps, filled = redrawing(case, what, chosen)
        rebuilt = gaps.rebuilt(filled)
        kept = notes(case.piece.where(~chosen), *COLUMNS)
        assert kept <= notes(rebuilt, *COLUMNS)
        assert rebuilt != case.piece
        assert (rebuilt.tracks, rebuilt.ticks_per_quarter) == (
            case.piece.tracks,
            case.piece.ticks_per_quarter,
        )
        np.testing.assert_array_equal(rebuilt.tempos, case.piece.tempos)
        np.testing.assert_array_equal(rebuilt.metres, case.piece.metres)
        # The codec can write what it has drawn.
        case.codec.encode(rebuilt)


def only_what_is_asked_for_is_redrawn(case):
    changed = {"pitches": "pitch", "durations": "duration"}
    for what in case.whats:
        if what in changed:
            gaps, filled = redrawing(case, what, choices(case))
            others = [name for name in COLUMNS if name != changed[what]]
            assert notes(gaps.rebuilt(filled), *others) == notes(case.piece, *others)


def tokens_that_are_not_hidden_do_not_count(case):
    for what in case.whats:
        gaps, filled = redrawing(case, what, choices(case))
        assert gaps.hidden.any()
        assert not gaps.hidden.all()
        assert gaps.rebuilt(np.where(gaps.hidden, filled, 0)) == gaps.rebuilt(filled)


def frames_are_written_token_after_token(case):
    codec, plain = case.codec, case.codec.plain
    width = plain.codebooks
    assert (codec.codebooks, codec.interleaving) == (1, width)
    assert codec.period == plain.period * width
    tokens = codec.encode(case.piece)
    np.testing.assert_array_equal(tokens.reshape(-1, width), plain.encode(case.piece))
    assert codec.decode(tokens) == plain.decode(plain.encode(case.piece))
    # A last frame that is not whole is left out.
    assert codec.decode(tokens[:-1]) == plain.decode(plain.encode(case.piece)[:-1])
    assert codec.fingerprint != plain.fingerprint


LAWS: tuple[Law, ...] = (
    tokens_come_back_as_they_are_written,
    notes_on_the_grid_come_back,
    tokens_are_in_range_and_allowed_at_their_place,
    sizes_are_those_of_the_contract,
    codecs_are_values,
    tokens_that_mean_nothing_are_refused,
    tokens_of_a_range_of_pitches_decode_into_it,
    transposed_tokens_are_those_of_transposed_notes,
    where_nothing_is_chosen_nothing_is_redrawn,
    notes_that_are_not_chosen_stay_to_the_tick,
    only_what_is_asked_for_is_redrawn,
    tokens_that_are_not_hidden_do_not_count,
)
"""The laws that every note codec obeys, each in at least one of its cases."""

OF_INTERLEAVED: tuple[Law, ...] = (frames_are_written_token_after_token,)
"""More laws of codecs whose tokens are written one after the other."""
