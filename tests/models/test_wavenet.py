"""The laws of causal models, for every way a WaveNet can be built; and what is its own: reach and alignment."""

import math
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wavegen.codecs.base import Codecs
from wavegen.codecs.make import make_codec
from wavegen.config import resolve
from wavegen.config.data import DataConfig
from wavegen.config.models import FeatureConditionConfig, WaveNetConfig
from wavegen.errors import WavegenError
from wavegen.kernels import wavenet_forward
from wavegen.models.base import Choice
from wavegen.models.conditions.make import make_condition
from wavegen.models.conditions.melody import NoteCondition
from wavegen.models.kinds import make_model
from wavegen.models.wavenet import WaveNet
from wavegen.networks.base import Given, parameters, with_parameters
from wavegen.notes.performance import Performance
from wavegen.notes.roll import roll_features

BATCH, FRAMES, HOP = 2, 48, 8
# Vocabulary, companding and start token of mu-law, of 16 bits, and of notes on a grid, whose start is not the middle.
MULAW, LINEAR16, GRID = (256, 255, 128), (65536, 0, 32768), (47, 0, 3)
FEATURES = {"kind": "features", "width": 3, "channels": 6, "hop_length": HOP}
NOTES = {"kind": "notes", "channels": 6, "hop_length": HOP, "harmonics": 2}
ROLL = {"kind": "piano_roll", "channels": 6, "hop_length": HOP, "low": 60, "high": 72}
ROLL |= {"harmonics": 2, "voices": 2}
MIXTURE = {"kind": "mixture", "components": 4}
PREDICTION = {"kind": "mixture", "components": 3, "linear_prediction": 4}

VARIANTS = {
    "plain": (MULAW, {}),
    "kernel 3": (MULAW, {"kernel_size": 3}),
    "kernel 4, wide input": (MULAW, {"kernel_size": 4, "input_kernel_size": 3}),
    "labels": (MULAW, {"label_fields": ("digit", "speaker")}),
    "features, upsampled": (MULAW, {"local": {**FEATURES, "upsample": (2, 2)}}),
    "labels and features": (MULAW, {"label_fields": ("digit",), "local": FEATURES}),
    "kernel 3, labels and features": (
        MULAW,
        {"kernel_size": 3, "label_fields": ("digit",), "local": {**FEATURES, "upsample": (8,)}},
    ),
    "notes": (MULAW, {"kernel_size": 3, "local": NOTES}),
    "piano roll": (MULAW, {"kernel_size": 3, "local": ROLL}),
    "period, notes": (MULAW, {"period": 5, "local": NOTES}),
    "start token that is not the middle": (GRID, {"period": 4, "kernel_size": 3}),
    "start token that is not the middle, scalar": (GRID, {"input": "scalar", "input_kernel_size": 2}),
    "scalar": (MULAW, {"input": "scalar", "input_kernel_size": 2}),
    "mixture": (LINEAR16, {"input": "scalar", "head": MIXTURE, "label_fields": ("digit",)}),
    "linear prediction": (MULAW, {"input": "scalar", "head": PREDICTION, "local": NOTES}),
    "linear prediction, linear codes": (LINEAR16, {"input": "scalar", "head": PREDICTION}),
}
every_variant = pytest.mark.parametrize("name", VARIANTS)


class Case:
    """A model whose every weight is random, something to feed it, and its methods compiled.

    ``inputs`` begin with the start token.
    """

    def __init__(self, model, inputs, labels, features):
        graph, self.params = parameters(model)
        self.model, self.inputs, self.labels, self.features = model, inputs, labels, features

        def method(name):
            def call(params, *arguments):
                return getattr(with_parameters(graph, params), name)(*arguments)

            return jax.jit(call, static_argnums=1 if name == "init_state" else ())

        self.forward, self.log_prob, self.init_state, self.step, self.read = map(
            method, ("__call__", "log_prob", "init_state", "step", "read")
        )

    def outputs(self, inputs=None) -> np.ndarray:
        inputs = self.inputs if inputs is None else inputs
        return np.asarray(self.forward(self.params, inputs, self.labels, self.features))[:, :, 0]

    def start(self):
        return self.init_state(self.params, BATCH, self.labels, self.features)

    def run_steps(self, state, first: int) -> np.ndarray:
        """Outputs from position ``first`` on, one step at a time."""
        outputs = []
        for n in range(first, FRAMES):
            logits, state = self.step(self.params, self.inputs[:, n], state)
            outputs.append(np.asarray(logits)[:, 0])
        return np.stack(outputs, axis=1)


def build(config: dict, vocab_size=256, mu=255, start_token=128, **sizes) -> WaveNet:
    small = {"dilations": (1, 2, 4), "cycles": 1, "residual_channels": 8, "gate_channels": 6}
    small |= {"skip_channels": 10, "head_channels": 7, "label_channels": 5}
    period = config.get("period", 0)
    settings = {name: value for name, value in config.items() if name != "period"}
    section, random = WaveNetConfig(**small | sizes | settings), np.random.default_rng(0)
    given = Given(DataConfig(sample_rate=8000))
    return WaveNet(
        section,
        vocab_size=vocab_size,
        period=period,
        mu=mu,
        start_token=start_token,
        label_sizes=(10, 4)[: len(config.get("label_fields", ()))],
        local=lambda: None if section.local is None else make_condition(section.local, given, random),
        random=random,
    )


def stir(model: WaveNet) -> WaveNet:
    """Fresh biases are zero and the fresh output is small: nothing could go wrong in them."""
    graph, params = parameters(model)
    random = np.random.default_rng(1)
    params = jax.tree.map(lambda x: x + 0.3 * random.standard_normal(x.shape, np.float32), params)
    return with_parameters(graph, jax.tree.map(jnp.asarray, params))


@cache
def make_case(name: str) -> Case:
    (vocab_size, mu, start_token), config = VARIANTS[name]
    random = np.random.default_rng(0)
    tokens = random.integers(vocab_size, size=(BATCH, FRAMES, 1), dtype=np.int32)
    tokens[:, 0] = start_token
    labels = features = None
    if fields := config.get("label_fields"):
        labels = jnp.asarray([[3, 1], [7, -1]][:BATCH], jnp.int32)[:, : len(fields)]
    if local := config.get("local"):
        made = {"notes": make_notes, "piano_roll": make_rolls}
        plain = partial(random.standard_normal, (BATCH, FRAMES // HOP, 3))
        features = made.get(local["kind"], plain)()
        features = jnp.asarray(features, jnp.float32)
    return Case(stir(build(config, vocab_size, mu, start_token)), jnp.asarray(tokens), labels, features)


def make_notes() -> np.ndarray:
    """Frames of two melodies: A4 from frame 0, a rest, then C5; and one long C4."""
    rows = np.zeros((BATCH, FRAMES // HOP, 4), np.float32)
    for clip, pitch, first, last in ((0, 69, 0, 2), (0, 72, 3, 6), (1, 60, 0, 6)):
        for frame in range(first, last):
            rows[clip, frame] = pitch, (frame - first) * HOP, (last - frame) * HOP, 0.7
    return rows


def make_rolls() -> np.ndarray:
    """Piano rolls of two clips: three notes at once, one of them struck again; and a note after a rest."""
    frame = HOP / 8000
    clips = (
        Performance(
            np.array([60, 64, 67, 60]),
            frame * np.array([0, 1, 1, 3]),
            frame * np.array([3, 3, 5, 2]),
            np.array([0.9, 0.4, 0.6, 0.5]),
        ),
        Performance(np.array([72]), frame * np.array([2]), frame * np.array([4]), np.array([0.7])),
    )
    return np.stack([roll_features(clip, 8000, HOP, FRAMES, 60, 72) for clip in clips])


def assert_same(actual, expected, tolerance=1e-4):
    """Within a tolerance of the largest output: a mixture's raw outputs are not of unit size."""
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(actual, expected, atol=tolerance * scale, rtol=0)


# --- the laws of causal models ----------------------------------------------------------------------------


@every_variant
def test_steps_equal_the_parallel_form_wherever_the_prompt_is_cut(name):
    case = make_case(name)
    parallel = case.outputs()
    assert parallel.std() > 0.1, "outputs that hardly vary would hide a fault"
    assert_same(case.run_steps(case.start(), 0), parallel)
    prompt = case.inputs[:, 1:]
    for cuts in ((1,), (13,), (13, 26), (1, 14, 15, 28)):
        state, heard = case.start(), 0
        for cut in cuts:
            state = case.read(case.params, prompt[:, heard:cut], state)
            heard = cut
        assert_same(case.run_steps(state, heard), parallel[:, heard:])


@every_variant
def test_no_output_depends_on_later_tokens(name):
    case = make_case(name)
    n, levels = FRAMES // 2, case.model.shape.vocab_size
    before = case.outputs()
    after = case.outputs((case.inputs.at[:, n + 1 :].add(levels // 3)) % levels)
    np.testing.assert_array_equal(before[:, : n + 1], after[:, : n + 1])
    assert (before[:, n + 1] != after[:, n + 1]).any()


@every_variant
def test_a_row_of_a_batch_does_not_depend_on_the_others(name):
    case = make_case(name)
    levels = case.model.shape.vocab_size
    changed = case.inputs.at[1].add(levels // 3) % levels
    before, after = case.outputs(), case.outputs(changed)
    np.testing.assert_array_equal(before[0], after[0])
    assert (before[1] != after[1]).any()


@pytest.mark.parametrize("name", ["plain", "kernel 3, labels and features", "linear prediction"])
def test_a_row_of_a_batch_equals_the_clip_alone(name):
    case = make_case(name)
    whole = case.outputs()
    for row in range(BATCH):
        conditions = [x if x is None else x[row : row + 1] for x in (case.labels, case.features)]
        alone = case.forward(case.params, case.inputs[row : row + 1], *conditions)
        assert_same(np.asarray(alone)[0, :, 0], whole[row], 1e-5)


@pytest.mark.parametrize("name", ["kernel 3, labels and features", "period, notes"])
def test_choices_by_place_draw_what_the_kernel_draws_and_nothing_that_is_not_allowed(name):
    case = make_case(name)
    key, start = jax.random.key(5), case.read(case.params, case.inputs[:, 1:14], case.start())

    def drawn(*frames, choice):
        state, pieces = start, []
        for count in frames:
            piece, state = case.model.draw(state, count, key, choice=choice)
            pieces.append(piece)
        return np.concatenate(pieces, axis=1)[..., 0]

    np.testing.assert_array_equal(drawn(4, 4, choice=Choice(jnp.full(3, 0.7))), drawn(8, choice=Choice(0.7)))
    allowed = jnp.asarray(np.arange(256)[None] % 2 == np.arange(2)[:, None])
    # 13 frames are heard: the first one that is drawn is odd.
    np.testing.assert_array_equal(drawn(4, 4, choice=Choice(1.0, allowed=allowed)) % 2, [[1, 0] * 4] * BATCH)


def test_choices_by_place_are_refused_where_they_cannot_be_had():
    for name, implementation in (("mixture", None), ("plain", "xla")):
        case = make_case(name)
        with pytest.raises(WavegenError, match="needs a softmax head and no implementation"):
            case.model.draw(
                case.start(), 1, jax.random.key(0), choice=Choice(jnp.ones(2)), implementation=implementation
            )


def test_the_place_in_the_period_is_that_of_the_sample_to_be_predicted():
    case = make_case("period, notes")
    params = {**case.params, "places": case.params["places"].at[3].add(1.0)}
    outputs = case.forward(params, case.inputs, case.labels, case.features)
    moved = np.abs(np.asarray(outputs)[:, :, 0] - case.outputs()).max((0, 2))
    assert moved[:3].max() == 0
    assert moved[3] > 0


@pytest.mark.parametrize(
    "name", ["kernel 3, labels and features", "notes", "piano roll", "mixture", "linear prediction"]
)
def test_pieces_drawn_one_by_one_equal_one_draw(name):
    case = make_case(name)
    key, choice = jax.random.key(5), Choice(1.0)
    whole, _ = case.model.draw(case.start(), 21, key, choice=choice)
    state, pieces = case.start(), []
    for _ in range(3):
        piece, state = case.model.draw(state, 7, key, choice=choice)
        pieces.append(piece)
    np.testing.assert_array_equal(np.concatenate(pieces, axis=1), whole)


@pytest.mark.parametrize("name", ["kernel 3, labels and features", "notes", "piano roll"])
def test_cold_draws_after_a_prompt_are_the_likeliest_tokens_of_the_parallel_form(name):
    case = make_case(name)
    state = case.read(case.params, case.inputs[:, 1:14], case.start())
    drawn, _ = case.model.draw(state, 7, jax.random.key(0), choice=Choice(0.0))
    played = case.inputs.at[:, 14:21].set(drawn)
    np.testing.assert_array_equal(drawn[..., 0], case.outputs(played)[:, 13:20].argmax(-1))


@every_variant
def test_probabilities_sum_to_one(name):
    case = make_case(name)
    levels = case.model.shape.vocab_size
    # The batch axis runs over all values of the targets of the first positions.
    outputs, inputs = case.outputs()[:1, :3, None], np.asarray(case.inputs[:1, :3])
    targets = np.broadcast_to(np.arange(levels, dtype=np.int32)[:, None, None], (levels, 3, 1))
    log_prob = case.log_prob(
        case.params,
        jnp.asarray(np.broadcast_to(outputs, (levels, *outputs.shape[1:]))),
        jnp.asarray(targets),
        jnp.asarray(np.broadcast_to(inputs, targets.shape)),
    )
    np.testing.assert_allclose(np.exp(np.asarray(log_prob, np.float64)).sum(0), 1, atol=1e-4)


@pytest.mark.parametrize("name", ["kernel 3, labels and features", "notes"])
def test_bfloat16_weights_give_nearly_the_same_float32_outputs(name):
    case = make_case(name)
    rounded = jax.tree.map(lambda p: p.astype(jnp.bfloat16), case.params)
    exact = jax.tree.map(lambda p: p.astype(jnp.float32), rounded)
    low, high = (case.forward(p, case.inputs, case.labels, case.features) for p in (rounded, exact))
    assert low.dtype == jnp.float32
    assert_same(np.asarray(low), np.asarray(high), 0.1)
    model = with_parameters(parameters(case.model)[0], rounded)
    state = model.init_state(BATCH, case.labels, case.features)
    tokens, state = model.draw(state, 4, jax.random.key(0), choice=Choice())
    assert tokens.shape == (BATCH, 4, 1)
    assert state["network"]["rings"].dtype == jnp.bfloat16


# --- what is a WaveNet's own --------------------------------------------------------------------------------


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
    model = stir(build(config))
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
        case.model(case.inputs, *arguments)
    with pytest.raises(WavegenError, match=f"this model {message}; "):
        case.model.init_state(BATCH, *arguments)


def test_an_unknown_label_adds_nothing():
    case = make_case("labels")
    unknown = case.model.labels(jnp.full((1, 2), -1))
    np.testing.assert_array_equal(unknown, np.zeros((1, 1, 5)))
    tables = [np.asarray(table[...]) for table in case.model.labels.tables]
    np.testing.assert_allclose(
        case.model.labels(jnp.array([[3, 1]]))[0, 0], tables[0][3] + tables[1][1], rtol=1e-6
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
    model = stir(build({"local": local}))
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
    rows = np.asarray(case.model.encode(None, level)).reshape(BATCH, 12, -1)
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
