"""What is the state-space model's own: oscillators, chunks, rates. Its laws are in tests/laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from laws.cases.ssm import VARIANTS, build, make_case
from laws.causal import BATCH, assert_same

from wavegen.config.models import SSMConfig
from wavegen.errors import WavegenError
from wavegen.models.layers.oscillators import Layer
from wavegen.models.ssm import Rate
from wavegen.networks.base import parameters, with_parameters


def test_the_place_in_the_period_is_that_of_the_token_to_be_predicted():
    case = make_case("labels, period, tied")
    places = case.params["vocabulary"]["places"]
    params = {**case.params, "vocabulary": {**case.params["vocabulary"], "places": places.at[2].add(1.0)}}
    # Weights that are given are no constants, which XLA folds with other roundings.
    moved = np.abs(case.outputs(params=params) - case.outputs(params=case.params)).max((0, 2, 3))
    assert moved[:2].max() == 0
    assert moved[2:].min() > 0


def test_a_layer_is_the_recurrence_of_its_equations():
    layer = Layer(width=2, state=3, longest=50, chunk=4, random=np.random.default_rng(0))
    x = np.random.default_rng(1).standard_normal((2, 1, 11))
    a, theta = np.exp(np.asarray(layer.decay[...], float)), np.exp(np.asarray(layer.phase[...], float))
    multiplier = np.exp(-a + 1j * theta)
    c = np.asarray(layer.output[...][0], float) + 1j * np.asarray(layer.output[...][1], float)
    hidden, expected = np.zeros((2, 3), complex), []
    for row in x[:, 0].T:
        hidden = multiplier * hidden + row[:, None]
        y = np.sum(np.sqrt(1 - np.abs(multiplier) ** 2) * c * hidden, axis=1).real
        expected.append(y + np.asarray(layer.through[...]) * row)
    assert_same(layer.filter(jnp.asarray(x, jnp.float32))[0][:, 0].T, np.stack(expected), 1e-5)


@pytest.mark.parametrize("chunk", [1, 3, 23, 64])
def test_chunks_of_any_length_give_the_same_outputs(chunk):
    name = "three rates, labels"
    case = make_case(name)
    graph, _ = parameters(build(**VARIANTS[name], chunk=chunk))
    outputs = jax.jit(lambda params: with_parameters(graph, params)(case.inputs, case.labels))(case.params)
    assert_same(outputs, case.outputs(), 1e-5)


def test_fresh_oscillators_decay_within_the_longest_time_and_have_outputs_of_the_size_of_a_white_input():
    layer = Layer(width=64, state=16, longest=50, chunk=32, random=np.random.default_rng(0))
    constants = np.exp(-np.asarray(layer.decay[...]))
    assert 1 <= constants.min() < 1.5
    assert 40 < constants.max() <= 50
    x = jnp.asarray(np.random.default_rng(1).standard_normal((64, 1, 2000)), jnp.float32)
    y = np.asarray(layer.filter(x)[0] - layer.through[...][:, None, None] * x)[:, :, 200:]
    assert 0.8 < np.sqrt(np.mean(y**2)) < 1.25


def test_a_row_reaches_the_lower_rate_when_its_frame_ends_and_no_sooner():
    rate = Rate((4,), width=8, layers=1, state=3, longest=20, chunk=4, random=np.random.default_rng(0))
    # Without layers at the upper rate, whatever reaches another row comes from the lower one.
    rate.layers = nnx.List([])
    x = jnp.zeros((8, 1, 12))
    moved = np.abs(rate(x.at[:, 0, 5].set(1.0), 0.0, None) - rate(x, 0.0, None)).max((0, 1))
    # Frames end at rows 0, 4 and 8: row 5 is in the one that ends at row 8.
    assert np.flatnonzero(moved).tolist() == [5, 8, 9, 10, 11]


def test_neighbouring_levels_start_out_alike_where_that_is_asked_for():
    table = build(vocab_size=256, smooth=True).vocabulary.embedding[...][0, :-1]
    near, far = np.std(table[1:] - table[:-1]), np.std(table[128:] - table[:-128])
    assert near < 0.1 * far


def test_dropout_is_drawn_from_its_key_and_off_without_one():
    name = "two rates, two codebooks"
    case = make_case(name)
    graph, _ = parameters(build(**VARIANTS[name], dropout=0.3))
    forward = jax.jit(lambda params, key: with_parameters(graph, params)(case.inputs, dropout_key=key))
    one, again, other = (np.asarray(forward(case.params, jax.random.key(s))) for s in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()
    assert_same(forward(case.params, None), case.outputs(), 1e-5)


def test_bfloat16_parameters_give_float32_logits_near_those_of_float32():
    case = make_case("two rates, two codebooks")
    narrow = jax.tree.map(lambda x: x.astype(jnp.bfloat16), case.params)
    outputs = case.outputs(params=narrow)
    assert outputs.dtype == np.float32
    # The same numbers, wide: what is left is the rounding of activations, not that of frequencies.
    rounded = jax.tree.map(lambda x: x.astype(jnp.float32), narrow)
    assert_same(outputs, case.outputs(params=rounded), 0.1)
    state = case.init_state(BATCH, params=narrow)
    for row in range(3):
        logits, state = case.step(case.inputs[:, row], state, params=narrow)
    assert logits.dtype == jnp.float32
    assert state["rate"]["layers"][0].dtype == jnp.float32


def test_a_fresh_model_knows_nothing():
    for options in ({}, {"tied": True}, {"pooling": (4,)}):
        model = build(vocab_size=64, width=64, **options)
        tokens = jnp.asarray(np.random.default_rng(0).integers(64, size=(2, 50, 1)), jnp.int32)
        nats_of = jax.jit(lambda x, y, m=model: -jnp.mean(m.log_prob(m(x), y, x)))
        nats = float(nats_of(tokens, jnp.roll(tokens, -1, 1)))
        assert abs(nats - np.log(64)) < 0.1


@pytest.mark.parametrize("pooling", [(), (2,)])
def test_flops_are_those_that_xla_counts(pooling):
    model = build(vocab_size=64, width=64, chunk=64, pooling=pooling)
    tokens = jax.ShapeDtypeStruct((1, 128, 1), jnp.int32)
    graph, params = parameters(model)
    compiled = jax.jit(lambda p, t: with_parameters(graph, p)(t)).lower(params, tokens).compile()
    counted = compiled.cost_analysis()["flops"] / 128
    assert model.flops_per_frame(128) == pytest.approx(counted, rel=0.15)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("three codebooks", (jnp.zeros((2, 3), jnp.int32),), "this model takes no labels"),
        ("three codebooks", (None, jnp.zeros((2, 3, 4))), "this model takes no features"),
        ("three rates, labels", (), "this model needs labels"),
    ],
)
def test_missing_and_unwanted_conditions_are_named(name, arguments, message):
    case = make_case(name)
    with pytest.raises(WavegenError, match=message):
        case.model()(case.inputs, *arguments)
    with pytest.raises(WavegenError, match=message):
        case.model().init_state(BATCH, *arguments)


def test_frames_of_less_than_two_rows_are_refused():
    with pytest.raises(ValueError, match=r"pooling must be at least 2 at each rate, got \(4, 1\)"):
        SSMConfig(pooling=(4, 1))
