"""The laws of masked models, each as one check of a case."""

import jax
import jax.numpy as jnp
import numpy as np

from laws.registered import Law, without
from wavegen.networks.base import parameters, with_parameters

BATCH, FRAMES, CODEBOOKS, VOCAB = 3, 10, 2, 9
CLIP = 6
"""Frames of a clip in a padded batch."""


class Case:
    """A model whose every weight is random, something to feed it, and its methods compiled.

    Args:
        model: of ``CODEBOOKS`` and ``VOCAB``, with dropout; its weights are replaced. Its parameter ``embedding`` is
            [codebooks, values, width].
        labels: of the clips.
        firsts: frames of padding before a clip that has padding around it.
    """

    def __init__(self, model, labels=None, *, firsts=(0, 3)):
        self.graph, params = parameters(model)
        random = np.random.default_rng(1)
        # Fresh gains are 0 and a fresh head is small: nothing could go wrong in them.
        self.params = jax.tree.map(
            lambda x: x + jnp.asarray(0.3 * random.standard_normal(x.shape, np.float32)), params
        )
        # The mask is one of the values that are read.
        self.tokens = jnp.asarray(random.integers(VOCAB + 1, size=(BATCH, FRAMES, CODEBOOKS)), jnp.int32)
        self.labels, self.firsts = labels, firsts
        self.everywhere = jnp.ones((BATCH, FRAMES), bool)
        self.call, self.level_logits = map(self._compile, ("__call__", "level_logits"))

    def _compile(self, name):
        return jax.jit(lambda params, *given, **named: getattr(self.model(params), name)(*given, **named))

    def model(self, params=None):
        return with_parameters(self.graph, self.params if params is None else params)

    def outputs(self, tokens=None, *, labels=None, valid=None, rows=slice(None), params=None):
        tokens = self.tokens if tokens is None else tokens
        labels = self.labels if labels is None else labels
        valid = self.everywhere if valid is None else valid
        labels = None if labels is None else labels[rows]
        params = self.params if params is None else params
        return np.asarray(self.call(params, tokens[rows], labels, valid=valid[rows]))


def assert_same(actual, expected, tolerance=2e-5):
    np.testing.assert_allclose(actual, expected, atol=tolerance, rtol=0)


def outputs_are_finite_and_of_every_value_of_every_token(case):
    outputs = case.outputs()
    assert outputs.shape == (BATCH, FRAMES, CODEBOOKS, VOCAB)
    assert outputs.dtype == np.float32
    assert np.isfinite(outputs).all()
    assert outputs.std() > 0.1, "outputs that hardly vary would hide a fault"
    without_valid = case.call(case.params, case.tokens, case.labels)
    assert_same(without_valid, outputs)


def probabilities_sum_to_one(case):
    logits = jnp.asarray(case.outputs())
    model = case.model()
    every = [model.log_prob(logits, jnp.full_like(case.tokens, v), case.tokens) for v in range(VOCAB)]
    assert_same(np.exp(np.stack(every)).sum(0), 1)


def level_logits_are_a_column_of_the_whole(case):
    level = jnp.asarray([1, 0, 1])
    valid = case.everywhere.at[:, CLIP:].set(False)
    one = case.level_logits(case.params, case.tokens, level, case.labels, valid=valid)
    whole = case.outputs(valid=valid)[np.arange(BATCH), :, level]
    assert_same(np.asarray(one)[:, :CLIP], whole[:, :CLIP])


def frames_that_are_not_valid_reach_no_valid_one(case):
    """Exactly, whatever stands in them."""
    valid = case.everywhere.at[:, CLIP:].set(False).at[2, :2].set(False)
    other = jnp.where(valid[..., None], case.tokens, VOCAB - 1 - case.tokens % VOCAB)
    assert (other != case.tokens).any(axis=(1, 2)).all()
    before, after = case.outputs(valid=valid), case.outputs(other, valid=valid)
    np.testing.assert_array_equal(before[valid], after[valid])
    # Frames that are valid do reach the others.
    assert (case.outputs()[valid] != case.outputs(other)[valid]).any()


def nan_in_frames_that_are_not_valid_reaches_no_gradient(case):
    poison = 5
    tokens, valid = case.tokens % poison, case.everywhere.at[:, CLIP:].set(False)
    poisoned = {**case.params, "embedding": case.params["embedding"].at[:, poison].set(jnp.nan)}

    @jax.jit
    @jax.grad
    def gradient(params, tokens):
        return jnp.sum(case.model(params)(tokens, case.labels, valid=valid)[:, :CLIP] ** 2)

    expected = gradient(case.params, tokens)
    actual = gradient(poisoned, tokens.at[:, CLIP:].set(poison))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), actual, expected)


def a_clip_in_a_padded_batch_equals_the_clip_alone(case):
    for first in case.firsts:
        clip = slice(first, first + CLIP)
        padded = case.outputs(valid=jnp.zeros_like(case.everywhere).at[:, clip].set(True))
        alone = case.outputs(case.tokens[:, clip], valid=case.everywhere[:, clip], rows=slice(1, 2))
        assert_same(padded[1, clip], alone[0])


def a_row_equals_the_clip_alone(case):
    whole = case.outputs()
    for row in range(BATCH):
        assert_same(case.outputs(rows=slice(row, row + 1))[0], whole[row])


def a_row_does_not_depend_on_the_others(case):
    """Exactly: neither on their tokens, nor on how long they are."""
    before = case.outputs()
    changed = case.tokens.at[1].set((case.tokens[1] + 1) % VOCAB)
    after = case.outputs(changed, valid=case.everywhere.at[1, CLIP:].set(False))
    np.testing.assert_array_equal(before[[0, 2]], after[[0, 2]])
    assert (before[1] != after[1]).any()


def every_frame_reads_both_sides(case):
    middle = FRAMES // 2
    changed = case.tokens.at[0, middle, 0].set((case.tokens[0, middle, 0] + 1) % VOCAB)
    difference = np.abs(case.outputs(changed) - case.outputs()).max((2, 3))
    assert difference[0].min() > 1e-4
    assert difference[1:].max() == 0


def dropout_is_drawn_from_its_key_and_off_without_one(case):
    first, again, other = (
        np.asarray(case.call(case.params, case.tokens, case.labels, dropout_key=jax.random.key(seed)))
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-2
    assert np.abs(first - case.outputs()).max() > 1e-2


def bfloat16_parameters_give_float32_logits_near_those_of_float32(case):
    narrow = case.outputs(params=jax.tree.map(lambda x: x.astype(jnp.bfloat16), case.params))
    assert narrow.dtype == np.float32
    wide = case.outputs()
    assert np.abs(narrow - wide).max() < 0.05 * np.abs(wide).max()


def labels_steer_each_clip_on_its_own(case):
    """The null label -1 of a clip is another label than those that it can have."""
    before = case.outputs()
    for label in (2, -1):
        changed = case.outputs(labels=case.labels.at[0, 0].set(label))
        difference = np.abs(changed - before).max((1, 2, 3))
        assert difference[0] > 1e-3
        assert difference[1:].max() == 0


LAWS: tuple[Law, ...] = (
    outputs_are_finite_and_of_every_value_of_every_token,
    probabilities_sum_to_one,
    level_logits_are_a_column_of_the_whole,
    frames_that_are_not_valid_reach_no_valid_one,
    nan_in_frames_that_are_not_valid_reaches_no_gradient,
    a_clip_in_a_padded_batch_equals_the_clip_alone,
    a_row_equals_the_clip_alone,
    a_row_does_not_depend_on_the_others,
    every_frame_reads_both_sides,
    dropout_is_drawn_from_its_key_and_off_without_one,
    bfloat16_parameters_give_float32_logits_near_those_of_float32,
    labels_steer_each_clip_on_its_own,
)
"""The laws that every masked model obeys, each in at least one of its cases."""

WITHOUT_LABELS = without(LAWS, labels_steer_each_clip_on_its_own)
"""Those of a case without labels."""
