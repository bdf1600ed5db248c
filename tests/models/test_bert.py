"""What is a BERT's own: positions, its layers, cost, refusals. The laws of masked models are in tests/laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws.cases.bert import SIZES, make_case
from laws.masked import BATCH, CODEBOOKS, FRAMES, VOCAB

from wavegen.errors import WavegenError
from wavegen.models.bert import Bert
from wavegen.models.layers.transformer import Attention, RMSNorm, attend, drop, rotate
from wavegen.networks.base import parameters, with_parameters

RANDOM = np.random.default_rng(1)
TOKENS = jnp.zeros((BATCH, FRAMES, CODEBOOKS), jnp.int32)
LABELS = jnp.zeros((BATCH, 2), jnp.int32)


def assert_same(actual, expected):
    np.testing.assert_allclose(actual, expected, atol=2e-5)


def test_frames_know_their_place_where_everything_is_masked():
    outputs = make_case("labels").outputs(jnp.full_like(TOKENS, VOCAB))[0]
    assert np.abs(outputs[3] - outputs[5]).max() > 1e-3


def test_the_place_in_the_period_is_told():
    bert = Bert(**SIZES | {"dropout": 0.0}, period=4, random=np.random.default_rng(0))
    masked = jnp.full((1, 12, CODEBOOKS), VOCAB)
    graph, params = parameters(bert)
    assert params["places"].shape == (4, 16)
    # Without attention a frame is what it reads of itself.
    params["blocks"] = jax.tree.map(jnp.zeros_like, params["blocks"])
    outputs = np.asarray(jax.jit(lambda p: with_parameters(graph, p)(masked))(params))[0, 1:-1]
    distance = np.abs(outputs[:, None] - outputs[None]).max((2, 3))
    place = np.arange(1, 11) % 4
    assert_same(distance[place[:, None] == place[None]], 0)
    assert distance[place[:, None] != place[None]].min() > 1e-3


def test_rotation_keeps_lengths_and_makes_products_depend_on_the_distance():
    q, k = jnp.asarray(RANDOM.standard_normal((2, 1, 1, 1, 8)), jnp.float32)
    positions = jnp.arange(6)
    queries, keys = (rotate(jnp.tile(x, (1, 6, 1, 1)), positions)[0, :, 0] for x in (q, k))
    assert_same(jnp.linalg.norm(queries, axis=1), float(jnp.linalg.norm(q)))
    products = np.asarray(queries @ keys.T)
    for distance in range(-5, 6):
        diagonal = np.diagonal(products, distance)
        assert_same(diagonal, diagonal[0])
    assert abs(products[0, 1] - products[0, 2]) > 1e-3


def test_rms_norm_scales_to_a_root_mean_square_of_one():
    x = RANDOM.standard_normal((2, 3, 8)).astype(np.float32)
    assert_same(RMSNorm(8)(jnp.asarray(x)), x / np.sqrt(np.mean(x**2, -1, keepdims=True)))


def test_attention_under_a_causal_mask_reads_no_later_frame():
    attention = Attention(8, 2, scale=1.0, random=np.random.default_rng(0))
    x = jnp.asarray(RANDOM.standard_normal((1, 5, 8)), jnp.float32)
    causal = jnp.tril(jnp.ones((5, 5), bool))[None, None]
    read = jax.jit(lambda x: attention(x, jnp.arange(5), causal))
    moved = np.abs(read(x.at[:, 3].add(1.0)) - read(x)).max((0, 2)) > 1e-6
    assert moved.tolist() == [False, False, False, True, True]


def test_flops_are_those_that_xla_counts():
    bert = Bert(vocab_size=64, codebooks=2, width=64, layers=1, heads=2, random=np.random.default_rng(0))
    graph, params = parameters(bert)
    tokens = jax.ShapeDtypeStruct((1, 128, 2), jnp.int32)
    compiled = jax.jit(lambda p, t: with_parameters(graph, p)(t)).lower(params, tokens).compile()
    assert bert.flops_per_frame(128) * 128 == pytest.approx(compiled.cost_analysis()["flops"], rel=0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((TOKENS, None), "this model needs labels"),
        ((TOKENS[..., :1], LABELS), r"expected tokens of 2 codebooks, got \[3, 10, 1\]"),
        ((TOKENS, LABELS, jnp.zeros((3, 4, 5))), "this model takes no features"),
    ],
)
def test_bad_input_is_told_in_one_line(arguments, message):
    with pytest.raises(WavegenError, match=message):
        make_case("labels").model()(*arguments)


def test_bad_sizes_and_labels_for_a_model_without_are_told():
    with pytest.raises(
        WavegenError, match="multiple of twice the heads, got width 16 and 3 heads; try width 18"
    ):
        Bert(**SIZES | {"heads": 3}, random=np.random.default_rng(0))
    with pytest.raises(WavegenError, match="this model takes no labels"):
        Bert(**SIZES, random=np.random.default_rng(0))(TOKENS, LABELS)


def test_attention_is_that_of_jax(key):
    queries, keys, values = jax.random.normal(key, (3, 2, 5, 2, 4))
    mask = jnp.arange(5)[None, None, None] < jnp.array([5, 3])[:, None, None, None]
    for given in (None, mask):
        expected = jax.nn.dot_product_attention(queries, keys, values, mask=given)
        np.testing.assert_allclose(attend(queries, keys, values, given), expected, atol=1e-6)


def test_turning_by_positions_turns_each_pair(key):
    x = jax.random.normal(key, (1, 3, 1, 4))
    pairs = np.asarray(x[..., :2] + 1j * x[..., 2:])
    angle = np.arange(3)[:, None, None] * np.array([1, 0.01])
    turned = pairs * np.exp(1j * angle)
    expected = np.concatenate([turned.real, turned.imag], axis=-1)
    np.testing.assert_allclose(rotate(x, jnp.arange(3)), expected, atol=1e-6)


@pytest.mark.parametrize("width", [7, 8])
def test_dropout_drops_its_share_and_keeps_the_mean(key, width):
    dropped = drop(jnp.ones((100, 100, width)), 0.1, key)
    assert set(np.unique(dropped).tolist()) == {0, np.float32(1 / 0.9)}
    assert jnp.mean(dropped == 0) == pytest.approx(0.1, abs=0.005)
