"""The laws of audio codecs, each as one check of a case."""

from collections.abc import Callable
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from laws.registered import Law
from wavegen.codecs.base import AudioCodec
from wavegen.errors import WavegenError

BATCH = 2

encode = jax.jit(lambda codec, audio: codec.encode(audio))
decode = jax.jit(lambda codec, tokens: codec.decode(tokens))


class Case:
    """A codec, and audio of whole frames to be coded.

    Args:
        make: makes the codec, always the same.
        audio: ``BATCH`` clips.
        reach: how many frames before a cut look past it, and how many behind it look back over it; None is all.
        cut: frames before the cut; None is half of them.
        tolerance: within which audio of a clip is decoded in a batch as it is alone; 0 is exactly.
        lengths: samples of clips of which rows are compared; None is all that there are.
    """

    def __init__(
        self,
        make: Callable[[], AudioCodec],
        audio: np.ndarray,
        *,
        reach: tuple[int | None, int | None] = (0, 0),
        cut: int | None = None,
        tolerance: float = 0.0,
        lengths: tuple[int, ...] | None = None,
    ):
        self.make, self.audio, self.reach, self.tolerance = make, audio, reach, tolerance
        self.frames, rest = divmod(audio.shape[1], self.codec.hop_length)
        assert not rest
        self.cut = self.frames // 2 if cut is None else cut
        self.clips = [audio[:, :length] for length in lengths or (audio.shape[1],)]

    @cached_property
    def codec(self) -> AudioCodec:
        return self.make()

    @cached_property
    def tokens(self) -> np.ndarray:
        return np.asarray(encode(self.codec, self.audio))

    @cached_property
    def decoded(self) -> np.ndarray:
        return np.asarray(decode(self.codec, self.tokens))

    def assert_range(self, tokens: np.ndarray) -> None:
        assert tokens.dtype == np.int32
        assert 0 <= tokens.min() <= tokens.max() < self.codec.vocab_size

    def assert_audio(self, audio: np.ndarray, frames: int) -> None:
        assert audio.shape == (BATCH, frames * self.codec.hop_length, *self.audio.shape[2:])
        assert audio.dtype == np.float32
        assert np.abs(audio).max() <= 1


def frames_are_those_of_started_hops_and_clips_keep_their_length(case):
    hop, channels = case.codec.hop_length, case.audio.shape[2:]
    assert channels == (() if case.codec.audio_channels == 1 else (2,))
    for length in sorted({1, hop, hop + 1, 3 * hop - 1}):
        frames = -(-length // hop)
        tokens = jax.eval_shape(
            case.codec.encode, jax.ShapeDtypeStruct((BATCH, length, *channels), jnp.float32)
        )
        assert (tokens.shape, tokens.dtype) == ((BATCH, frames, case.codec.codebooks), jnp.int32)
    audio = jax.eval_shape(case.codec.decode, tokens)
    assert (audio.shape, audio.dtype) == ((BATCH, frames * hop, *channels), jnp.float32)


def tokens_are_in_range(case):
    case.assert_range(case.tokens)
    assert case.tokens.shape == (BATCH, case.frames, case.codec.codebooks)
    assert len(np.unique(case.tokens)) > 5, "tokens that hardly vary would hide a fault"
    assert 0 <= case.codec.start_token < case.codec.vocab_size


def audio_is_in_range(case):
    case.assert_audio(case.decoded, case.frames)
    assert np.abs(case.decoded).max() > 0


def the_shortest_clip_has_tokens_and_audio(case):
    tokens = np.asarray(encode(case.codec, case.audio[:, :1]))
    case.assert_range(tokens)
    case.assert_audio(np.asarray(decode(case.codec, tokens)), 1)


def the_last_frame_is_filled_up_with_zeros(case):
    silent = case.audio.copy()
    silent[:, -1] = 0
    np.testing.assert_array_equal(encode(case.codec, case.audio[:, :-1]), encode(case.codec, silent))


def a_row_is_coded_exactly_as_the_clip_alone(case):
    for clips in case.clips:
        tokens = encode(case.codec, clips)
        for row in range(BATCH):
            np.testing.assert_array_equal(encode(case.codec, clips[row : row + 1])[0], tokens[row])


def a_row_is_decoded_as_the_clip_alone(case):
    for clips in case.clips:
        tokens = encode(case.codec, clips)
        audio = decode(case.codec, tokens)
        for row in range(BATCH):
            alone = decode(case.codec, tokens[row : row + 1])[0]
            np.testing.assert_allclose(alone, audio[row], rtol=0, atol=case.tolerance)


def a_row_does_not_depend_on_the_others(case):
    """Exactly."""
    other = np.stack([case.audio[0], case.audio[1, ::-1]])
    tokens = np.asarray(encode(case.codec, other))
    np.testing.assert_array_equal(tokens[0], case.tokens[0])
    assert (tokens[1] != case.tokens[1]).any()
    audio = np.asarray(decode(case.codec, tokens))
    np.testing.assert_array_equal(audio[0], case.decoded[0])
    assert (audio[1] != case.decoded[1]).any()


def pieces_have_the_tokens_of_the_whole_out_of_reach_of_the_cut(case):
    """A piece after the cut has none where every frame looks back over it."""
    cut, (before, after) = case.cut, case.reach
    samples = cut * case.codec.hop_length
    assert before is not None
    assert before < cut
    first = encode(case.codec, case.audio[:, :samples])
    np.testing.assert_array_equal(first[:, : cut - before], case.tokens[:, : cut - before])
    if after is not None:
        assert cut + after < case.frames
        second = encode(case.codec, case.audio[:, samples:])
        np.testing.assert_array_equal(second[:, after:], case.tokens[:, cut + after :])


def a_codec_that_is_made_again_needs_no_other_compilation(case):
    """It goes into ``jax.jit`` as an argument."""
    ours, again = jax.tree.structure(case.codec), jax.tree.structure(case.make())
    assert ours == again
    assert hash(ours) == hash(again)


def channels_are_told_apart(case):
    swapped = case.audio[..., ::-1]
    assert (encode(case.codec, swapped) != case.tokens).any()
    assert (case.decoded[..., 0] != case.decoded[..., 1]).any()


def fewer_codebooks_are_the_first_ones(case):
    fewer = case.codec.with_codebooks(1)
    tokens = np.asarray(encode(fewer, case.audio))
    np.testing.assert_array_equal(tokens, case.tokens[..., :1])
    case.assert_audio(np.asarray(decode(fewer, tokens)), case.frames)
    for count in (0, case.codec.codebooks + 1):
        with pytest.raises(WavegenError, match=f"has {case.codec.codebooks} codebooks, {count} were asked"):
            case.codec.with_codebooks(count)


LAWS: tuple[Law, ...] = (
    frames_are_those_of_started_hops_and_clips_keep_their_length,
    tokens_are_in_range,
    audio_is_in_range,
    the_shortest_clip_has_tokens_and_audio,
    the_last_frame_is_filled_up_with_zeros,
    a_row_is_coded_exactly_as_the_clip_alone,
    a_row_is_decoded_as_the_clip_alone,
    a_row_does_not_depend_on_the_others,
    pieces_have_the_tokens_of_the_whole_out_of_reach_of_the_cut,
    a_codec_that_is_made_again_needs_no_other_compilation,
)
"""The laws that every audio codec obeys, each in at least one of its cases."""

OF_STEREO: tuple[Law, ...] = (channels_are_told_apart,)
"""More laws of codecs of two channels."""

OF_CODEBOOKS: tuple[Law, ...] = (fewer_codebooks_are_the_first_ones,)
"""More laws of frozen networks of several codebooks."""
