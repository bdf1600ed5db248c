"""What is a WaveNet's own beside the laws of causal models: reach, alignment, places and conditions."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws.cases.wavenet import LINEAR16, MIXTURE, MULAW, PREDICTION, build, make_case
from laws.causal import BATCH, stirred

from wavegen.codecs.base import Codecs
from wavegen.codecs.make import make_codec
from wavegen.config import resolve
from wavegen.config.conditions import FeatureConditionConfig
from wavegen.errors import WavegenError
from wavegen.kernels import wavenet_forward
from wavegen.models.base import Choice
from wavegen.models.conditions.melody import NoteCondition
from wavegen.models.kinds import make_model


@pytest.mark.parametrize("name", ["kernel 3, labels and features", "period, notes"])
def test_choices_by_place_draw_what_the_kernel_draws_and_nothing_that_is_not_allowed(name):
    case = make_case(name)
    key, start = jax.random.key(5), case.prompted((13,))

    def drawn(*frames, choice):
        state, pieces = start, []
        for count in frames:
            piece, state = case.model().draw(state, count, key, choice=choice)
            pieces.append(piece)
        return np.concatenate(pieces, axis=1)[..., 0]

    np.testing.assert_array_equal(drawn(4, 4, choice=Choice(jnp.full(3, 0.7))), drawn(8, choice=Choice(0.7)))
    allowed = jnp.asarray(np.arange(256)[None] % 2 == np.arange(2)[:, None])
    # The prompt has 13 frames: the first one that is drawn is odd.
    np.testing.assert_array_equal(drawn(4, 4, choice=Choice(1.0, allowed=allowed)) % 2, [[1, 0] * 4] * BATCH)


def test_choices_by_place_are_refused_where_they_cannot_be_had():
    for name, implementation in (("mixture", None), ("plain", "xla")):
        case = make_case(name)
        with pytest.raises(WavegenError, match="needs a softmax head and no implementation"):
            case.model().draw(
                case.start(), 1, jax.random.key(0), choice=Choice(jnp.ones(2)), implementation=implementation
            )


def test_the_place_in_the_period_is_that_of_the_sample_to_be_predicted():
    case = make_case("period, notes")
    params = {**case.params, "places": case.params["places"].at[3].add(1.0)}
    moved = np.abs(case.outputs(params=params) - case.outputs()).max((0, 2, 3))
    assert moved[:3].max() == 0
    assert moved[3] > 0


@pytest.mark.parametrize("name", ["kernel 3, labels and features", "notes"])
def test_bfloat16_weights_give_nearly_the_same_float32_outputs(name):
    case = make_case(name)
    rounded = jax.tree.map(lambda p: p.astype(jnp.bfloat16), case.params)
    exact = jax.tree.map(lambda p: p.astype(jnp.float32), rounded)
    low, high = (case.outputs(params=params) for params in (rounded, exact))
    assert low.dtype == np.float32
    case.assert_same(low, high, 0.1)
    model = case.model(rounded)
    state = model.init_state(BATCH, case.labels, case.features)
    tokens, state = model.draw(state, 4, jax.random.key(0), choice=Choice())
    assert tokens.shape == (BATCH, 4, 1)
    assert state["network"]["rings"].dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("config", "reach"),
    [
        ({"kernel_size": 2}, 8),
        ({"kernel_size": 3}, 15),
        ({"kernel_size": 4, "input_kernel_size": 3}, 24),
        ({"kernel_size": 2, "dilations": (1, 3), "cycles": 2}, 9),
        ({"kernel_size": 2, "head": {**PREDICTION, "linear_prediction": 20}}, 20),
    ],
)
def test_the_receptive_field_is_exact(config, reach):
    model = stirred(build(config))
    assert model.receptive_field == reach
    tokens = jnp.full((40, 40, 1), 128, jnp.int32)

    @jax.jit
    def last(inputs):
        outputs = model(inputs)
        log_prob = model.log_prob(outputs, jnp.full_like(inputs, 90), inputs)
        return jnp.concatenate([outputs[:, -1, 0], log_prob[:, -1]], axis=1)

    # Each row has one token changed.
    rows = jnp.where(jnp.eye(40, dtype=bool)[..., None], 3, tokens)
    changed = np.flatnonzero((np.asarray(last(rows)) != np.asarray(last(tokens))).any(axis=1))
    np.testing.assert_array_equal(changed[[0, -1]], [40 - reach, 39])


@pytest.mark.parametrize("kernel_size", [2, 3])
def test_gradients_reach_the_receptive_field_and_no_further(kernel_size):
    model = build({"kernel_size": kernel_size})
    tokens = jnp.full((1, 40), 128, jnp.int32)

    def output(inputs, n):
        return wavenet_forward(model.weights(), model.shape, tokens, inputs)[0, n].sum()

    gradient_at = jax.jit(jax.grad(output))
    for n in (20, 39):
        gradient = gradient_at(jnp.zeros((1, 40, 8)), n)
        reached = np.flatnonzero(np.abs(np.asarray(gradient))[0].sum(-1))
        np.testing.assert_array_equal(reached[[0, -1]], [n - model.receptive_field + 1, n])


def test_a_fresh_model_knows_nothing():
    random = np.random.default_rng(0)
    for head, sizes in (({"kind": "softmax"}, MULAW), (MIXTURE, LINEAR16)):
        model, vocab_size = build({"head": head, "input": "scalar"}, *sizes), sizes[0]
        tokens = random.integers(vocab_size, size=(4, 200, 1), dtype=np.int32)
        bits_of = jax.jit(lambda x, y, m=model: -jnp.mean(m.log_prob(m(x), y, x)) / math.log(2))
        bits = float(bits_of(jnp.asarray(tokens), jnp.asarray(np.roll(tokens, -1, axis=1))))
        assert abs(bits - math.log2(vocab_size)) < 0.3


def test_dropout_is_drawn_from_its_key_and_off_without_one():
    model = build({"dropout": 0.3})
    tokens = make_case("plain").inputs
    plain, one, again, other = (
        np.asarray(model(tokens, dropout_key=key))
        for key in (None, jax.random.key(1), jax.random.key(1), jax.random.key(2))
    )
    np.testing.assert_array_equal(plain, model(tokens))
    np.testing.assert_array_equal(one, again)
    assert (one != plain).any()
    assert (one != other).any()
    np.testing.assert_array_equal(
        build({"dropout": 0.0})(tokens, dropout_key=jax.random.key(1)), build({})(tokens)
    )


@pytest.mark.parametrize(
    ("name", "labels", "features", "message"),
    [
        ("labels", False, False, "needs labels"),
        ("features, upsampled", False, False, "needs features"),
        ("labels and features", True, False, "needs features"),
        ("notes", False, False, "needs features"),
        ("plain", True, False, "takes no labels"),
        ("labels", True, True, "takes no features"),
    ],
)
def test_missing_and_unwanted_conditions_are_named(name, labels, features, message):
    case = make_case(name)
    given = make_case("labels and features")
    arguments = (given.labels if labels else None, given.features if features else None)
    with pytest.raises(WavegenError, match=f"this model {message}; "):
        case.model()(case.inputs, *arguments)
    with pytest.raises(WavegenError, match=f"this model {message}; "):
        case.model().init_state(BATCH, *arguments)


def test_an_unknown_label_adds_nothing():
    case = make_case("labels")
    unknown = case.model().labels(jnp.full((1, 2), -1))
    np.testing.assert_array_equal(unknown, np.zeros((1, 1, 5)))
    tables = [np.asarray(table[...]) for table in case.model().labels.tables]
    np.testing.assert_allclose(
        case.model().labels(jnp.array([[3, 1]]))[0, 0], tables[0][3] + tables[1][1], rtol=1e-6
    )


def test_a_field_that_the_data_lacks_is_named():
    config = resolve({"model": {"label_fields": ["digit"]}})
    with pytest.raises(
        WavegenError, match=r"names 'digit', the dataset has label fields: none; set data\.label"
    ):
        make_model(config, Codecs(make_codec(config.codec)), {})


@pytest.mark.parametrize(
    ("upsample", "reach"),
    [((), 16), ((2,), 16 + 16), ((2, 4), 16 + 16 + 8), ((16,), 16 + 16)],
)
def test_a_feature_frame_touches_the_samples_of_its_reach_and_no_others(upsample, reach):
    hop, frame = 16, 6
    local = FeatureConditionConfig(width=3, channels=4, hop_length=hop, upsample=upsample)
    model = stirred(build({"local": local}))
    features = jnp.asarray(np.random.default_rng(0).standard_normal((1, 14, 3), np.float32))
    tokens = jnp.full((1, 14 * hop, 1), 128, jnp.int32)
    nudged = features.at[0, frame].add(1)

    def changed(function):
        difference = np.asarray(function(nudged)) != np.asarray(function(features))
        return np.flatnonzero(difference.any(axis=tuple(range(2, difference.ndim)))[0])

    finest = model.condition_hop
    rows = changed(jax.jit(lambda x: model.encode(None, x)))
    np.testing.assert_array_equal(
        rows, np.arange((frame * hop - reach) // finest, ((frame + 1) * hop + reach) // finest)
    )
    outputs = changed(jax.jit(lambda x: model(tokens, None, x)))
    # Behind the last frame's samples the causal network remembers it; the first layer's taps are not conditioned.
    memory = (model.kernel_size - 1) * sum(model.shape.dilations[1:])
    np.testing.assert_array_equal(
        outputs[[0, -1]], [frame * hop - reach, (frame + 1) * hop + reach + memory - 1]
    )


def test_a_local_condition_is_a_constant_where_nothing_changes():
    case = make_case("features, upsampled")
    level = jnp.broadcast_to(case.features[:, :1], (BATCH, 12, 3))
    rows = np.asarray(case.model().encode(None, level)).reshape(BATCH, 12, -1)
    np.testing.assert_allclose(rows[:, 3:-3], np.broadcast_to(rows[:, 3:4], rows[:, 3:-3].shape), rtol=1e-5)


def test_the_excitation_is_the_notes_sine_with_its_phase_from_the_onset():
    rate, hop, onsets = 16000, 80, (3, 10)
    condition = NoteCondition(4, hop, 2, rate, random=np.random.default_rng(0))
    rows = np.zeros((1, 20, 4), np.float32)
    expected = np.zeros((20 * hop, 4))
    for onset, end, pitch in ((3, 10, 69), (10, 18, 64)):
        hertz = 440 * 2 ** ((pitch - 69) / 12)
        time = np.arange((end - onset) * hop) / rate
        for column, (wave, harmonic) in enumerate(((np.sin, 1), (np.cos, 1), (np.sin, 2), (np.cos, 2))):
            expected[onset * hop : end * hop, column] = wave(2 * np.pi * hertz * harmonic * time)
        for frame in range(onset, end):
            rows[0, frame] = pitch, (frame - onset) * hop, (end - frame) * hop, 1.0
    excite = jax.jit(condition.excitation, static_argnums=2)
    waves = np.asarray(excite(jnp.asarray(rows), 0, 20 * hop))[0]
    np.testing.assert_allclose(waves, expected, atol=2e-3)
    for onset in onsets:
        np.testing.assert_allclose(waves[onset * hop], [0, 1, 0, 1], atol=1e-6)
    window = excite(jnp.asarray(rows), 333, 500)
    np.testing.assert_allclose(window[0], waves[333:833], atol=1e-5)


def test_the_excitation_of_a_long_note_stays_in_tune():
    rate, hop = 16000, 80
    condition = NoteCondition(4, hop, 1, rate, random=np.random.default_rng(0))
    age = 60 * rate
    rows = np.broadcast_to(np.array([96, age, 800, 1], np.float32), (1, 1, 4))
    waves = np.asarray(condition.excitation(jnp.asarray(rows), 0, hop))[0]
    cycles = 440 * 2 ** (27 / 12) * (age + np.arange(hop, dtype=np.float64)) / rate
    # After a minute of C7 a float32 still knows the phase to a hundredth of a cycle.
    np.testing.assert_allclose(waves[:, 0], np.sin(2 * np.pi * cycles), atol=0.1)
