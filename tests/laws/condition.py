"""The laws of local conditions, each as one check of a case."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from laws.registered import Law
from wavegen.codecs.base import Codecs
from wavegen.errors import WavegenError
from wavegen.models.conditions.base import LocalCondition
from wavegen.networks.base import parameters, with_parameters
from wavegen.notes.performance import Performance

BATCH, FRAMES = 2, 14
FRAME = 6
"""One in the middle, which is changed."""
MELODY = Performance(np.array([60, 64]), np.array([0.0, 0.01]), np.array([0.01, 0.02]), np.array([0.5, 0.8]))
HIGH = Performance(np.array([72]), np.array([0.005]), np.array([0.03]), np.array([0.7]))
PLAYED = [MELODY, HIGH]
"""Pieces of a melody each, at 8000 Hz of some 240 samples."""
SILENCE = jnp.zeros((BATCH, 8))


class Case:
    """A condition whose every weight is random, with features to be conditioned on.

    Args:
        condition: whose weights are replaced.
        channels: of what it returns.
        reach: samples to either side of its own that a frame of features reaches.
        features: of ``BATCH`` clips of ``FRAMES`` frames, which differ in ``FRAME``; None are those of what is given.
        codec: that a condition on recordings reads through.
    """

    def __init__(self, condition: LocalCondition, channels: int, reach: int, features=None, codec=None):
        graph, params = parameters(condition)
        random = np.random.default_rng(1)
        # Fresh biases are zero: nothing could go wrong in them.
        params = jax.tree.map(lambda x: x + 0.3 * random.standard_normal(x.shape, np.float32), params)
        self.condition: LocalCondition = with_parameters(graph, params)
        self.channels, self.reach, self.codec = channels, reach, codec
        self.recordings = jnp.asarray(
            random.uniform(-1, 1, (BATCH, FRAMES * condition.input_hop)), jnp.float32
        )
        self.call = jax.jit(lambda features, valid=None: self.condition(features, valid))
        self.excite = jax.jit(lambda *given: self.condition.excitation(*given), static_argnums=2)
        self.record = jax.jit(lambda codec, waveform: self.condition.of_recording(waveform, codec))
        features = self.given(self.samples) if features is None else features
        self.features = jnp.asarray(features, jnp.float32)
        assert (self.features[0, FRAME] != self.features[1, FRAME]).any()

    @property
    def samples(self) -> int:
        return FRAMES * self.condition.input_hop

    def given(self, samples: int, rows: slice = slice(None)):
        """The features of the beginnings of notes, or of recordings."""
        if self.condition.takes == "recording":
            return self.record(self.codec, self.recordings[rows, :samples])
        return self.condition.of_notes(PLAYED[rows], samples)

    def results(self, features) -> list[np.ndarray]:
        """All that it makes of features: frames, and an excitation if there is one."""
        results = [np.asarray(self.call(features))]
        if self.condition.waves:
            results.append(np.asarray(self.excite(features, 0, self.samples)))
        return results


def frames_are_finite_and_divide_those_of_the_features(case):
    hop, finer = case.condition.input_hop, case.condition.hop_length
    frames = np.asarray(case.call(case.features))
    assert hop % finer == 0
    assert frames.shape == (BATCH, FRAMES * hop // finer, case.channels)
    assert frames.dtype == np.float32
    assert np.isfinite(frames).all()
    assert frames.std() > 0.1, "frames that hardly vary would hide a fault"


def a_row_equals_the_clip_alone(case):
    whole = case.results(case.features)
    for row in range(BATCH):
        for alone, batch in zip(case.results(case.features[row : row + 1]), whole, strict=True):
            np.testing.assert_allclose(alone[0], batch[row], atol=1e-5, rtol=0)


def a_row_does_not_depend_on_the_others(case):
    """Exactly."""
    other = case.features.at[1].set(case.features[1, ::-1])
    for before, after in zip(case.results(case.features), case.results(other), strict=True):
        np.testing.assert_array_equal(before[0], after[0])
        assert (before[1] != after[1]).any()


def a_frame_reaches_the_samples_within_its_reach_and_no_others(case):
    """Exactly; in the excitation those of the frame alone."""
    hop, finer = case.condition.input_hop, case.condition.hop_length
    other = case.features.at[0, FRAME].set(case.features[1, FRAME])
    frames, *excitation = (
        np.flatnonzero((before[0] != after[0]).any(axis=1))
        for before, after in zip(case.results(case.features), case.results(other), strict=True)
    )
    first, last = FRAME * hop - case.reach, (FRAME + 1) * hop + case.reach
    assert first > 0
    assert last < case.samples
    np.testing.assert_array_equal(frames, np.arange(first // finer, last // finer))
    for samples in excitation:
        assert FRAME * hop <= samples[0] <= samples[-1] < (FRAME + 1) * hop


def frames_that_are_not_valid_are_as_if_not_there(case):
    """Whatever stands in them, before the clip and after it; and its reach says how many frames matter."""
    condition, before, after = case.condition, 3, 2
    assert condition.reach == -(-case.reach // condition.input_hop)
    other = np.asarray(case.features)[:, ::-1]
    longer = np.concatenate([other[:, :before], case.features, other[:, :after]], axis=1)
    valid = (np.arange(before + FRAMES + after) >= before) & (
        np.arange(before + FRAMES + after) < before + FRAMES
    )
    finer = condition.input_hop // condition.hop_length
    frames = np.asarray(case.call(jnp.asarray(longer), jnp.asarray(valid)))
    np.testing.assert_allclose(
        frames[:, before * finer : (before + FRAMES) * finer], case.call(case.features), atol=1e-5
    )


def frames_of_a_window_are_those_of_the_whole(case):
    condition, features = case.condition, np.asarray(case.features)
    hop, finer = condition.input_hop, condition.input_hop // condition.hop_length
    whole = np.asarray(case.call(case.features))
    for position in (0, 5 * hop + 3, (FRAMES - 2) * hop):
        window = condition.window(features, position, 2 * hop)
        frames = np.asarray(case.call(jnp.asarray(window.features), window.valid))
        first, start = position // hop, condition.reach
        count = min(2, FRAMES - first)
        np.testing.assert_allclose(
            frames[:, start * finer : (start + count) * finer],
            whole[:, first * finer : (first + count) * finer],
            atol=1e-5,
        )


def features_are_those_of_started_frames(case):
    hop, width = case.condition.input_hop, case.features.shape[2]
    for samples in (1, hop, hop + 1, case.samples - 1):
        shape = jax.eval_shape(lambda samples=samples: case.given(samples)).shape
        assert shape == (BATCH, -(-samples // hop), width)


def features_of_a_clip_in_a_batch_are_those_of_the_clip_alone(case):
    whole = case.given(case.samples)
    for row in range(BATCH):
        alone = case.given(case.samples, slice(row, row + 1))
        np.testing.assert_allclose(alone[0], whole[row], atol=1e-5, rtol=0)


def what_it_does_not_take_is_refused(case):
    """What takes no recordings reads the features of a batch as they are, and what does computes them."""
    condition = case.condition
    if condition.takes not in ("melody", "chords"):
        with pytest.raises(WavegenError, match="this model is not conditioned on notes; leave them out"):
            condition.of_notes(PLAYED, 100)
    if condition.takes != "recording":
        with pytest.raises(WavegenError, match="this model is not conditioned on a recording; leave it out"):
            condition.of_recording(SILENCE, None)
        assert condition.features({"features": case.features}, Codecs(None)) is case.features
    else:
        read = jax.jit(lambda codec, examples: condition.features(examples, Codecs(None, codec)))
        features = read(case.codec, {"waveform": case.recordings})
        np.testing.assert_array_equal(features, case.given(case.samples))


def the_excitation_in_windows_is_that_of_the_whole(case):
    hop, waves = case.condition.input_hop, case.condition.waves
    whole = np.asarray(case.excite(case.features, 0, case.samples))
    assert whole.shape == (BATCH, case.samples, waves)
    assert whole.std() > 0.1
    for samples in (1, hop - 1, 3 * hop + 1):
        for offset in (0, hop - 1, 4 * hop + 3, case.samples - samples):
            window = case.excite(case.features, offset, samples)
            np.testing.assert_allclose(window, whole[:, offset : offset + samples], atol=1e-5)


def features_of_the_beginning_are_those_of_the_whole(case):
    """Exactly."""
    whole, hop = case.given(case.samples), case.condition.input_hop
    for samples in (1, 3 * hop + 1):
        frames = -(-samples // hop)
        np.testing.assert_array_equal(case.given(samples), whole[:, :frames])


LAWS: tuple[Law, ...] = (
    frames_are_finite_and_divide_those_of_the_features,
    a_row_equals_the_clip_alone,
    a_row_does_not_depend_on_the_others,
    a_frame_reaches_the_samples_within_its_reach_and_no_others,
    frames_that_are_not_valid_are_as_if_not_there,
    frames_of_a_window_are_those_of_the_whole,
    features_are_those_of_started_frames,
    features_of_a_clip_in_a_batch_are_those_of_the_clip_alone,
    what_it_does_not_take_is_refused,
)
"""The laws that every local condition obeys, each in at least one of its cases."""

OF_NOTES: tuple[Law, ...] = (
    the_excitation_in_windows_is_that_of_the_whole,
    features_of_the_beginning_are_those_of_the_whole,
)
"""More laws of conditions on notes, which have an excitation."""
