"""What is an encoder and decoder's own, beside the laws of causal models: how the source is read."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws.cases.seq2seq import HOP, SOURCE_VOCAB, make_case
from laws.causal import BATCH, assert_same

from wavegen.errors import WavegenError
from wavegen.models.layers.transformer import CrossAttention


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
