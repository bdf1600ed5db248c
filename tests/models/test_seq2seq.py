"""The laws of causal models, for the encoder and decoder; and what is its own: how the source is read."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws import causal
from laws.causal import BATCH, START, VOCAB, Case, assert_same

from wavegen.errors import WavegenError
from wavegen.models.layers.memory import Reach
from wavegen.models.layers.transformer import CrossAttention
from wavegen.models.seq2seq import Seq2Seq

FRAMES, HOP, SOURCE_VOCAB = 14, 2, 6


def build(**options):
    sizes = {"vocab_size": VOCAB, "width": 8, "layers": 1, "heads": 2, "hidden": 12, "start_token": START}
    sizes |= {"source_vocab_size": SOURCE_VOCAB, "source_codebooks": 2, "encoder_layers": 1}
    sizes |= {"source_hop": HOP, "period": HOP, "label_sizes": (4,), "reach": Reach(8, 8)}
    return Seq2Seq(**sizes | options, random=np.random.default_rng(0))


@cache
def make_case():
    features = np.random.default_rng(2).integers(SOURCE_VOCAB, size=(BATCH, FRAMES // HOP, 2))
    features[1, 5:] = -1
    return Case(build(), FRAMES, jnp.asarray([[3], [0]]), jnp.asarray(features, jnp.float32))


def test_steps_equal_the_parallel_form():
    causal.steps_equal_the_parallel_form(make_case())


def test_scores_are_those_of_the_parallel_form_wherever_the_prompt_is_cut():
    causal.scores_are_those_of_the_parallel_form_wherever_the_prompt_is_cut(make_case(), (5, 10))


def test_no_output_depends_on_later_rows():
    causal.no_output_depends_on_later_rows(make_case(), 6)


def test_a_row_of_a_batch_equals_the_clip_alone():
    causal.a_row_equals_the_clip_alone(make_case())


def test_probabilities_sum_to_one():
    causal.probabilities_sum_to_one(make_case())


def test_pieces_drawn_one_by_one_equal_one_draw():
    causal.pieces_drawn_one_by_one_equal_one_draw(make_case(), 6)


def test_cold_draws_after_a_prompt_are_the_likeliest_tokens_of_the_parallel_form():
    causal.cold_draws_after_a_prompt_are_the_likeliest_tokens_of_the_parallel_form(make_case(), 5, 6)


def test_draws_keep_to_what_is_allowed_at_each_place():
    causal.draws_keep_to_what_is_allowed_at_each_place(make_case(), 6)


def test_every_output_reads_all_of_the_source_and_no_padding():
    case = make_case()
    features = np.array(case.features)
    features[0, -1] = (features[0, -1] + 1) % SOURCE_VOCAB
    outputs = np.asarray(case.forward(case.inputs, case.labels, jnp.asarray(features)))
    moved = np.abs(outputs - case.outputs()).max((2, 3))
    assert moved[0].min() > 1e-5
    assert moved[1].max() == 0
    short = case.forward(case.inputs[1:], case.labels[1:], case.features[1:, :5])
    assert_same(short[0], case.outputs()[1], 1e-5)


def test_what_is_read_of_the_source_depends_on_distances_alone():
    random = np.random.default_rng(3)
    attention = CrossAttention(8, 2, scale=1.0, random=random)
    x, source = (jnp.asarray(random.standard_normal((1, n, 8)), jnp.float32) for n in (4, 3))

    @jax.jit
    def read(target, origin):
        keys, values = attention.keys_values(source, origin + HOP * jnp.arange(3))
        return attention(x, target + jnp.arange(4), keys, values, jnp.ones((1, 1, 1, 3), bool))

    assert_same(read(7, 7), read(0, 0), 1e-5)
    assert np.abs(read(7, 0) - read(0, 0)).max() > 1e-2


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (None, "this model needs features, the tokens of its source"),
        (jnp.zeros((BATCH, 7, 3)), r"expected tokens of 2 codebooks, got \[2, 7, 3\]"),
    ],
)
def test_a_source_that_does_not_fit_is_named(features, message):
    case = make_case()
    with pytest.raises(WavegenError, match=message):
        case.model()(case.inputs, case.labels, features)
