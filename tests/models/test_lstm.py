"""What is an LSTM's own, beside the laws of causal models: cost, conditions, places in a period."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws import causal
from laws.cases.lstm import VARIANTS, build, make_case
from laws.causal import BATCH, VOCAB, assert_same

from wavegen.errors import WavegenError
from wavegen.models.lstm import recur
from wavegen.networks.base import parameters, with_parameters


@pytest.mark.parametrize("name", VARIANTS)
def test_nan_in_later_rows_reaches_no_output(name):
    case = make_case(name)
    marked, before = case.marked(6)
    embedding = case.params["vocabulary"]["embedding"].at[:, VOCAB - 1].set(jnp.nan)
    poisoned = {**case.params, "vocabulary": {**case.params["vocabulary"], "embedding": embedding}}
    outputs = case.outputs(marked, params=poisoned)[..., : VOCAB - 1]
    assert np.isfinite(outputs[:, before]).all()
    assert np.isnan(outputs[:, ~before]).any()


def test_an_implementation_is_refused():
    causal.an_implementation_is_refused(make_case("three codebooks"))


def test_the_place_in_the_period_is_that_of_the_token_to_be_predicted():
    case = make_case("labels, period, tied")
    places = case.params["vocabulary"]["places"]
    assert places.shape == (4, 8)
    params = {**case.params, "vocabulary": {**case.params["vocabulary"], "places": places.at[2].add(1.0)}}
    moved = np.abs(case.outputs(params=params) - case.outputs()).max((0, 2, 3))
    assert moved[:2].max() == 0
    assert moved[2:].min() > 0


def test_dropout_is_drawn_from_its_key_and_off_without_one():
    case = make_case("three codebooks")
    graph, _ = parameters(build(**VARIANTS["three codebooks"], dropout=0.3))
    forward = jax.jit(lambda params, key: with_parameters(graph, params)(case.inputs, dropout_key=key))
    one, again, other = (np.asarray(forward(case.params, jax.random.key(s))) for s in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()
    assert_same(forward(case.params, None), case.outputs(), 1e-6)


def test_bfloat16_parameters_give_float32_logits_near_those_of_float32():
    case = make_case("three codebooks")
    narrow = jax.tree.map(lambda x: x.astype(jnp.bfloat16), case.params)
    outputs = case.outputs(params=narrow)
    assert outputs.dtype == np.float32
    assert_same(outputs, case.outputs(), 0.1)
    state = case.init_state(BATCH, params=narrow)
    logits, state = case.step(case.inputs[:, 0], state, params=narrow)
    assert (logits.dtype, state["cell"].dtype) == (jnp.float32, jnp.float32)


def test_the_derivative_of_the_cells_is_that_of_their_arithmetic():
    random = np.random.default_rng(0)
    shapes = ((5, 2, 12), (3, 12), (2, 3), (2, 3))
    arguments = [jnp.asarray(random.standard_normal(shape), jnp.float32) for shape in shapes]
    with jax.enable_x64(True):
        wide = [jnp.asarray(x, jnp.float64) for x in arguments]

        def plain(told, recurrent, hidden, cell):
            hiddens, cells = [], []
            for row in told:
                i, f, g, o = jnp.split(row + hidden @ recurrent, 4, axis=-1)
                cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
                hidden = jax.nn.sigmoid(o) * jnp.tanh(cell)
                hiddens.append(hidden)
                cells.append(cell)
            return jnp.stack(hiddens), jnp.stack(cells)

        values, pull = jax.vjp(plain, *wide)
        slopes = [random.standard_normal((5, 2, 3)) for _ in range(2)]
        expected = (values, pull(tuple(map(jnp.asarray, slopes))))

    @jax.jit
    def own(*arguments):
        values, pull = jax.vjp(recur, *arguments)
        return values, pull(tuple(jnp.asarray(slope, jnp.float32) for slope in slopes))

    jax.tree.map(lambda ours, theirs: assert_same(ours, theirs, 1e-5), own(*arguments), expected)


def test_a_fresh_model_knows_nothing():
    for tied in (False, True):
        model = build(vocab_size=64, width=64, tied=tied)
        tokens = jnp.asarray(np.random.default_rng(0).integers(64, size=(2, 50, 1)), jnp.int32)
        nats_of = jax.jit(lambda x, y, m=model: -jnp.mean(m.log_prob(m(x), y, x)))
        nats = float(nats_of(tokens, jnp.roll(tokens, -1, 1)))
        assert abs(nats - np.log(64)) < 0.1


def test_flops_are_those_that_xla_counts():
    model = build(vocab_size=64, width=64)
    # XLA counts the body of a loop once: a clip of one frame.
    tokens = jax.ShapeDtypeStruct((1, 1, 1), jnp.int32)
    graph, params = parameters(model)
    compiled = jax.jit(lambda p, t: with_parameters(graph, p)(t)).lower(params, tokens).compile()
    assert model.flops_per_frame(1) == pytest.approx(compiled.cost_analysis()["flops"], rel=0.1)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("three codebooks", (jnp.zeros((2, 3), jnp.int32),), "this model takes no labels"),
        ("three codebooks", (None, jnp.zeros((2, 3, 4))), "this model takes no features"),
        ("labels, period, tied", (), "this model needs labels"),
    ],
)
def test_missing_and_unwanted_conditions_are_named(name, arguments, message):
    case = make_case(name)
    with pytest.raises(WavegenError, match=message):
        case.model()(case.inputs, *arguments)
    with pytest.raises(WavegenError, match=message):
        case.model().init_state(BATCH, *arguments)


def test_tokens_of_another_codec_are_named():
    with pytest.raises(WavegenError, match=r"expected tokens of 3 codebooks, got \[2, 14, 1\]"):
        make_case("three codebooks").model()(make_case("labels, period, tied").inputs)
