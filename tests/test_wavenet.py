"""The contract of causal models, checked for every kind of WaveNet that a configuration can describe."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wavegen.codecs import make_codec
from wavegen.config import resolve
from wavegen.models import make_model
from wavegen.models.base import Choice, parameters, with_parameters

LABELS = {"digit": ["0", "1", "2"], "speaker": ["a", "b"]}
SMALL = [
    *("model.dilations=[1, 2, 4]", "model.cycles=1", "model.residual_channels=8", "model.gate_channels=6"),
    *("model.skip_channels=10", "model.head_channels=8", "codec.levels=32", "data.crop=240"),
]
KINDS = {
    "kernel 2": ["model.kernel_size=2"],
    "kernel 3, labels": ["model.kernel_size=3", "model.global_fields=[digit, speaker]"],
    "kernel 2, notes and labels": [
        "model.kernel_size=2",
        "model.global_fields=[digit]",
        "model.local={kind: notes, hop_length: 8, channels: 4}",
    ],
    "kernel 3, features": [
        "model.kernel_size=3",
        "model.local={kind: features, width: 4, channels: 4, hop_length: 8, upsample: [2]}",
    ],
    "mixture": [
        "model.head={kind: mixture, components: 3}",
        "model.input=scalar",
        "model.input_kernel_size=2",
    ],
    "mixture with linear prediction": [
        "model.head={kind: mixture, components: 2, linear_prediction: 5}",
        "codec={kind: linear, levels: 32}",
    ],
}
BATCH, LENGTH, HOP = 2, 48, 8


@pytest.fixture(params=KINDS, scope="module")
def case(request):
    """A model and a batch that it takes."""
    config = resolve({}, [*SMALL, *KINDS[request.param]])
    codec = make_codec(config.codec)
    model = make_model(config, codec, LABELS)
    rng = np.random.default_rng(0)
    # Fresh output layers are near zero: larger ones let every path show.
    graph, params = parameters(model)
    params = jax.tree.map(lambda p: p + 0.1 * rng.standard_normal(p.shape).astype(p.dtype), params)
    model = with_parameters(graph, params)
    tokens = rng.integers(0, codec.vocab_size, (BATCH, LENGTH, 1)).astype(np.int32)
    tokens[:, 0] = codec.start_token
    conditions = {}
    if config.model.global_fields:
        fields = len(config.model.global_fields)
        conditions["labels"] = jnp.asarray(rng.integers(-1, 2, (BATCH, fields)), jnp.int32)
    if config.model.local is not None:
        frames = np.abs(rng.standard_normal((BATCH, LENGTH // HOP, 4))) * 50
        conditions["features"] = jnp.asarray(frames, jnp.float32)
    return model, jnp.asarray(tokens), conditions


def test_parallel_equals_stepwise(case):
    model, tokens, conditions = case
    parallel = model(tokens, **conditions)
    state, outputs = model.init_state(BATCH, **conditions), []
    step = jax.jit(lambda token, state: model.step(token, state))
    for t in range(LENGTH):
        logits, state = step(tokens[:, t], state)
        outputs.append(logits)
    np.testing.assert_allclose(jnp.stack(outputs, 1), parallel, atol=1e-4)


@pytest.mark.parametrize("split", [1, 30])
def test_prompt_may_be_split_anywhere(case, split):
    model, tokens, conditions = case
    heard = tokens[:, 1:]
    whole = model.read(heard, model.init_state(BATCH, **conditions))
    parts = model.read(heard[:, :split], model.init_state(BATCH, **conditions))
    parts = model.read(heard[:, split:], parts)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), whole, parts)
    key = jax.random.key(1)
    # The clip's conditions end with it: what follows the prompt is drawn from a state that has room.
    short = model.read(heard[:, :split], model.init_state(BATCH, **conditions))
    at_once, _ = model.draw(short, 12, key, choice=Choice())
    first, state = model.draw(short, 5, key, choice=Choice())
    second, _ = model.draw(state, 7, key, choice=Choice())
    np.testing.assert_array_equal(jnp.concatenate([first, second], 1), at_once)


def test_no_output_depends_on_later_tokens(case):
    model, tokens, conditions = case
    changed = tokens.at[:, 20:].set((tokens[:, 20:] + 5) % model.shape.vocab_size)
    before, after = model(tokens, **conditions), model(changed, **conditions)
    np.testing.assert_array_equal(before[:, :20], after[:, :20])
    assert not np.allclose(before[:, 20], after[:, 20])


def test_receptive_field_is_exact(case):
    model, tokens, conditions = case
    last = jax.jit(lambda tokens: model(tokens, **conditions)[:, -1])
    before = last(tokens)
    changed = [tokens.at[:, t].set((tokens[:, t] + 5) % model.shape.vocab_size) for t in range(LENGTH)]
    reached = [not np.allclose(last(each), before) for each in changed]
    assert LENGTH - reached.index(True) == model.receptive_field


def test_batch_row_equals_the_clip_alone(case):
    model, tokens, conditions = case
    alone = model(tokens[1:], **{name: rows[1:] for name, rows in conditions.items()})
    np.testing.assert_allclose(model(tokens, **conditions)[1:], alone, atol=1e-5)


def test_probabilities_sum_to_one(case):
    model, tokens, conditions = case
    logits = jax.jit(lambda tokens: model(tokens, **conditions))(tokens)
    log_prob = jax.jit(lambda targets: model.log_prob(logits, targets, tokens))
    levels = [jnp.full_like(tokens, level) for level in range(model.shape.vocab_size)]
    total = sum(np.exp(log_prob(level)) for level in levels)
    np.testing.assert_allclose(total, 1, atol=1e-4)


def test_missing_and_unwanted_conditions_are_named(case):
    model, tokens, conditions = case
    wrong = {} if conditions else {"labels": jnp.zeros((BATCH, 1), jnp.int32)}
    with pytest.raises(ValueError, match=r"this model (needs|takes no) (labels|features)"):
        model(tokens, **wrong)


def test_feature_frame_reaches_only_its_neighbours():
    config = resolve({}, [*SMALL, *KINDS["kernel 3, features"]])
    model = make_model(config, make_codec(config.codec), {})
    features = jnp.asarray(np.random.default_rng(0).standard_normal((1, 12, 4)), jnp.float32)
    changed = features.at[:, 6].add(1.0)
    different = np.any(model.encode(None, features) != model.encode(None, changed), axis=(0, 2))
    samples = np.flatnonzero(np.repeat(different, model.condition_hop))
    # Two convolutions over three frames each: two frames either side of the changed one, to the sample.
    assert samples.min() == 4 * HOP
    assert samples.max() == 9 * HOP - 1


def test_excitation_starts_at_the_onset_and_has_the_pitch():
    overrides = [
        "codec.levels=32",
        "data.sample_rate=8000",
        "data.crop=800",
        "model.local={kind: notes, hop_length: 80}",
    ]
    config = resolve({}, overrides)
    model = make_model(config, make_codec(config.codec), {})
    features = np.zeros((1, 10, 4), np.float32)
    features[0, 3:, 0], features[0, 3:, 1] = 69, np.arange(7) * 80
    wave = np.asarray(model.local.excitation(jnp.asarray(features), 0, 800))[0]
    assert not wave[:240].any()
    np.testing.assert_allclose(wave[240:, 0], np.sin(2 * np.pi * 440 * np.arange(560) / 8000), atol=1e-3)
    np.testing.assert_allclose(
        wave[300:310], np.asarray(model.local.excitation(jnp.asarray(features), 300, 10))[0]
    )
