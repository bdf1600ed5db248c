"""Training masks, the masked objective and the order-agnostic bound."""

import math
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from wavegen.models.base import MaskedModel
from wavegen.models.masking import SPAN, drop_labels, mask_classic, mask_levels, masked_token
from wavegen.samplers.bound import order_agnostic_bound

ROWS, FRAMES, CODEBOOKS, VOCAB = 400, 20, 3, 7
RANDOM = np.random.default_rng(0)
TOKENS = RANDOM.integers(VOCAB, size=(ROWS, FRAMES, CODEBOOKS), dtype=np.int32)
LENGTHS = RANDOM.integers(1, FRAMES + 1, size=ROWS)
VALID = np.arange(FRAMES)[None] < LENGTHS[:, None]
BATCH = {"targets": jnp.asarray(TOKENS), "mask": jnp.asarray(VALID)}


class Fixed(MaskedModel):
    """The same logits whatever is known, but for a label that is."""

    make = objective = None

    def __init__(self, logits):
        self.table = nnx.Param(jnp.asarray(logits, jnp.float32))
        self.codebooks, self.vocab_size = logits.shape

    def flops_per_frame(self, frames):
        return 0

    def __call__(self, tokens, labels=None, features=None, *, dropout_key=None, valid=None):
        known = 0 if labels is None else labels[:, :1, None, None] + 1
        shift = known * jnp.arange(self.vocab_size)[None, None, None]
        return jnp.broadcast_to(self.table[...][None, None], (*tokens.shape, self.vocab_size)) + shift

    def level_logits(self, tokens, level, labels=None, *, dropout_key=None, valid=None):
        logits = self(tokens, labels)
        return jnp.take_along_axis(logits, level[:, None, None, None], axis=2)[:, :, 0]


FIXED = Fixed(RANDOM.standard_normal((CODEBOOKS, VOCAB)))
LOG_P = np.asarray(jax.nn.log_softmax(FIXED.table[...]))


# The clips are an argument: from constants XLA would compute while it compiles.
@partial(jax.jit, static_argnames="masking")
def _draw(batch, key, masking):
    return masking(key, batch["targets"], batch["mask"], VOCAB)


draw = partial(_draw, BATCH)


@cache
def levels_with(spans, prompts):
    return partial(mask_levels, spans=spans, prompts=prompts)


def levels(seed=0, spans=1.0, prompts=0.0):
    """Inputs, scored tokens and levels, of ``ROWS`` clips."""
    drawn = draw(jax.random.key(seed), levels_with(spans, prompts))
    return [np.asarray(x) for x in drawn]


@pytest.mark.parametrize(("spans", "prompts"), [(1.0, 0.0), (0.5, 1.0)])
def test_one_codebook_is_scored_those_before_are_known_and_padding_is_untouched(spans, prompts):
    inputs, scored, level = levels(0, spans, prompts)
    masked = inputs == VOCAB
    np.testing.assert_array_equal(inputs[~masked], TOKENS[~masked])
    assert not masked[~VALID].any()
    ladder = np.arange(CODEBOOKS)[None, None]
    now = level[:, None, None]
    assert not (masked & (ladder < now)).any()
    np.testing.assert_array_equal(scored, masked & (ladder == now))
    # At least one token of every clip is scored, and what is scored is masked in all later codebooks too.
    assert (scored.sum((1, 2)) >= 1).all()
    assert masked[np.broadcast_to(scored.any(2, keepdims=True) & (ladder > now), masked.shape)].all()
    if not prompts:
        later = np.broadcast_to((ladder > now) & VALID[..., None], masked.shape)
        assert masked[later].all()
    assert np.bincount(level, minlength=CODEBOOKS).min() > ROWS / CODEBOOKS / 2


def test_share_of_masked_tokens_is_that_of_the_cosine():
    _, scored, _ = levels()
    full = LENGTHS > 10
    shares = scored.sum((1, 2))[full] / LENGTHS[full]
    # E cos(pi r / 2) = 2 / pi, and half a token for rounding up; P(share < x) = 1 - 2 arccos(x) / pi.
    assert shares.mean() == pytest.approx(2 / math.pi + 0.03, abs=0.05)
    assert np.mean(shares < 0.5) == pytest.approx(1 / 3, abs=0.08)


def test_spans_mask_neighbours_together():
    _, scored, _ = levels()
    for row, length in zip(scored.any(2), LENGTHS, strict=True):
        starts = np.flatnonzero(np.diff(np.concatenate([[0], row[:length], [0]])) == 1)
        ends = np.flatnonzero(np.diff(np.concatenate([[0], row[:length], [0]])) == -1)
        inner = [(e - s) % SPAN for s, e in zip(starts, ends, strict=True) if s > 0 and e < length]
        # The count of masked frames may cut one span.
        assert sum(rest != 0 for rest in inner) <= 1


def test_prompts_keep_frames_in_all_codebooks_and_leave_something_to_find():
    inputs, _, level = levels(spans=0.5, prompts=1.0)
    first = (level == 0) & (LENGTHS > 14)
    last = inputs[first, :, -1] == VOCAB
    known = VALID[first] & ~last
    assert last.any(1).all()
    assert (inputs[first][known] != VOCAB).all()
    gaps = [np.diff(np.flatnonzero(row)) for row in known if row.sum() > 2]
    # Beginnings, periodic prompts and holes.
    assert any((gap == 1).all() for gap in gaps)
    assert any(gap[0] > 1 and (gap == gap[0]).all() for gap in gaps)
    assert any((gap != gap[0]).any() for gap in gaps)


def test_masks_follow_the_key_alone():
    for first, again in zip(levels(3), levels(3), strict=True):
        np.testing.assert_array_equal(first, again)
    assert (levels(3)[0] != levels(4)[0]).any()


def test_classic_masks_pick_15_percent_of_all_and_mask_80_percent_of_those():
    inputs, scored, level = draw(jax.random.key(0), mask_classic)
    inputs, scored = np.asarray(inputs), np.asarray(scored)
    assert level is None
    np.testing.assert_array_equal(inputs[~scored], TOKENS[~scored])
    assert not scored[~VALID].any()
    assert scored[VALID].mean() == pytest.approx(0.15, abs=0.02)
    assert (inputs[scored] == VOCAB).mean() == pytest.approx(0.8, abs=0.04)
    # A random token is the same one in a seventh of the cases.
    assert (inputs[scored] == TOKENS[scored]).mean() == pytest.approx(0.1 + 0.1 / VOCAB, abs=0.03)


def test_labels_are_dropped_by_whole_rows():
    labels = jnp.asarray(RANDOM.integers(5, size=(ROWS, 2)), jnp.int32)
    dropped = np.asarray(drop_labels(jax.random.key(0), labels, 0.2))
    gone = (dropped == -1).all(1)
    np.testing.assert_array_equal(dropped[~gone], labels[~gone])
    assert gone.mean() == pytest.approx(0.2, abs=0.05)


# --- the objective -----------------------------------------------------------------------------------------


UNKNOWN = jnp.full((ROWS, 1), -1, jnp.int32)


@partial(jax.jit, static_argnames=("masking", "label_smoothing", "label_dropout"))
def _loss(examples, key, **options):
    return masked_token(FIXED, examples, key, **options)[:2]


def loss(key, labels=UNKNOWN, **options):
    return _loss(BATCH | {"labels": labels}, key, **options)


def scored_by(key, masking):
    return np.asarray(draw(jax.random.split(key, 3)[0], masking).scored)


def nats_of(scored):
    return -LOG_P[np.arange(CODEBOOKS), TOKENS][scored].sum()


TRAINING = {"label_smoothing": 0.2, "label_dropout": 1.0}


def test_evaluation_sums_nats_of_fixed_masks_and_keeps_labels():
    nats, count = loss(None, **TRAINING)
    scored = scored_by(jax.random.fold_in(jax.random.key(0), TOKENS.sum()), mask_levels)
    assert count == scored.sum()
    assert nats == pytest.approx(nats_of(scored), rel=1e-5)
    assert abs(nats - loss(None, UNKNOWN + 1, **TRAINING)[0]) > 1


@pytest.mark.parametrize("masking", [mask_levels, mask_classic])
def test_training_smooths_targets_and_masks_anew(masking):
    for seed in (5, 6):
        nats, count = loss(jax.random.key(seed), masking=masking, **TRAINING)
        scored = scored_by(jax.random.key(seed), masking)
        even = -LOG_P.mean(1)[np.nonzero(scored)[2]].sum()
        assert count == scored.sum()
        assert nats == pytest.approx(0.8 * nats_of(scored) + 0.2 * even, rel=1e-5)


def test_training_drops_labels():
    key = jax.random.key(0)
    assert loss(key, **TRAINING)[0] == loss(key, UNKNOWN + 1, **TRAINING)[0]


# --- the bound ---------------------------------------------------------------------------------------------


class Pair(MaskedModel):
    """Two frames of one bit each; ln p of a bit given the other by a table: other unknown, 0 or 1."""

    make = objective = None

    codebooks, vocab_size = 1, 2

    def __init__(self, first, second):
        self.first, self.second = nnx.Param(jnp.log(first)), nnx.Param(jnp.log(second))

    def flops_per_frame(self, frames):
        return 0

    def __call__(self, tokens, labels=None, features=None, *, dropout_key=None, valid=None):
        return self.level_logits(tokens, None)[:, :, None]

    def level_logits(self, tokens, level, labels=None, *, dropout_key=None, valid=None):
        of_first, of_second = self.first[...][tokens[:, 1, 0]], self.second[...][tokens[:, 0, 0]]
        return jnp.stack([of_first, of_second], axis=1)


def bound_of_pair(joint, first, second, clip):
    """Nats per clip by the bound, and under the mixture of both orders."""
    model = Pair(jnp.asarray(first), jnp.asarray(second))
    tokens = jnp.tile(jnp.asarray(clip, jnp.int32)[None, :, None], (2000, 1, 1))
    bound = jax.jit(order_agnostic_bound, static_argnums=(3, 5))
    nats = bound(model, tokens, jnp.ones((2000, 2), bool), None, jax.random.key(0), 2)
    a, b = clip
    exact = -math.log(0.5 * first[2][a] * second[a][b] + 0.5 * second[2][b] * first[b][a])
    if joint is not None:
        assert exact == pytest.approx(-math.log(joint[a][b]))
    return 2 * float(nats.mean()), exact


def test_bound_is_the_truth_for_conditionals_of_one_distribution():
    joint = np.asarray([[0.4, 0.1], [0.2, 0.3]])
    first = [*(joint / joint.sum(0)).T, joint.sum(1)]
    second = [*(joint / joint.sum(1, keepdims=True)), joint.sum(0)]
    bound, exact = bound_of_pair(joint, np.asarray(first), np.asarray(second), (0, 1))
    assert bound == pytest.approx(exact, abs=0.02)


def test_bound_lies_above_where_orders_disagree():
    first = np.asarray([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1]])
    second = np.asarray([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9]])
    bound, exact = bound_of_pair(None, first, second, (0, 0))
    both = -0.5 * math.log(0.9 * 0.9) - 0.5 * math.log(0.1 * 0.9)
    assert bound == pytest.approx(both, abs=0.05)
    assert bound > exact + 0.3


def test_bound_of_independent_tokens_is_exact_for_every_length():
    clips = np.broadcast_to(np.asarray([2, 5, 1], np.int32), (4, FRAMES, CODEBOOKS))
    valid = np.arange(FRAMES)[None] < np.asarray([[FRAMES], [1], [7], [2]])
    nats = order_agnostic_bound(FIXED, jnp.asarray(clips), jnp.asarray(valid), None, jax.random.key(0), 3)
    truth = -LOG_P[np.arange(CODEBOOKS), [2, 5, 1]]
    np.testing.assert_allclose(nats, np.broadcast_to(truth, (4, CODEBOOKS)), rtol=1e-5)
