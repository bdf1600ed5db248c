"""Random numbers, draws, and the heads' distributions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.random import threefry_2x32
from scipy import stats

from wavegen.kernels import WaveNetShape, draw
from wavegen.kernels.wavenet.companding import compress, expand
from wavegen.kernels.wavenet.head import choose_from_mixture, log_prob, mixture_parameters


def test_threefry_equals_jax(rng):
    key = jax.random.key(7)
    first, second = (jnp.asarray(rng.integers(0, 2**32, 50, dtype=np.uint32)) for _ in range(2))
    ours = jnp.concatenate(draw.threefry2x32(draw.key_words(key), first, second))
    np.testing.assert_array_equal(
        ours, threefry_2x32(jax.random.key_data(key), jnp.concatenate([first, second]))
    )


def test_uniforms_lie_inside_the_unit_interval(key):
    words = draw.key_words(key)
    first, second = draw.uniforms(words, jnp.int32(3), jnp.arange(200_000))
    for u in (first, second):
        assert 0 < u.min() < 1e-4
        assert 1 - 1e-4 < u.max() < 1
        assert stats.kstest(np.asarray(u), "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.01
    extremes = draw._to_unit(jnp.asarray([0, 2**32 - 1], jnp.uint32))
    assert extremes[0] > 0
    assert extremes[1] < 1


def test_index_of_no_weight_is_never_chosen():
    weights = jnp.asarray([[0.0, 3.0, 0.0, 5.0, 0.0]])
    for u in (2.0**-24, 0.375, 0.4, 1 - 2.0**-24):
        assert int(draw.choose_index(weights, jnp.asarray([u], jnp.float32))[0]) in (1, 3)


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(1.0, None, None), (0.5, None, None), (1.0, 5, None), (1.0, None, 0.7), (1.3, 12, 0.9)],
)
def test_draws_follow_the_softmax(rng, key, temperature, top_k, top_p):
    logits = rng.normal(size=32) * 1.5
    p = np.exp(logits / temperature)
    order = np.argsort(-p)
    p[order[top_k or 32 :]] = 0
    p /= p.sum()
    before = np.cumsum(p[order]) - p[order]
    p[order[before >= (top_p or 1.0)]] = 0
    p /= p.sum()
    count = 200_000
    u, _ = draw.uniforms(draw.key_words(key), jnp.int32(0), jnp.arange(count))
    row = draw.choose_token(jnp.asarray(logits[None], jnp.float32), u[:1], temperature, top_k, top_p)
    assert row.shape == (1,)
    tokens = draw.choose_token(
        jnp.tile(jnp.asarray(logits, jnp.float32)[None], (count, 1)), u, temperature, top_k, top_p
    )
    seen = np.bincount(tokens, minlength=32)
    assert (seen[p == 0] == 0).all()
    assert stats.chisquare(seen[p > 0], p[p > 0] * count).pvalue > 1e-3


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_mixture_draws_follow_the_mixture(key, temperature):
    logits, means, log_scales = (
        jnp.asarray([x]) for x in ([0.5, -0.2, 0.1], [-0.6, 0.1, 0.95], [-2.0, -4.0, -3.0])
    )
    count, vocab = 200_000, 64
    u = draw.uniforms(draw.key_words(key), jnp.int32(9), jnp.arange(count))
    many = [jnp.tile(x, (count, 1)) for x in (logits, means, log_scales)]
    seen = np.bincount(choose_from_mixture(*many, u, vocab, temperature), minlength=vocab)
    shape = WaveNetShape((1,), vocab_size=vocab, head="mixture", mixtures=3)
    tempered = [logits / temperature, means, log_scales + np.log(temperature)]
    outputs = jnp.tile(jnp.concatenate(tempered, -1)[None], (1, vocab, 1))
    p = np.exp(np.asarray(log_prob(outputs, shape, jnp.arange(vocab)[None])[0], np.float64))
    rare = p <= np.sort(p)[vocab // 4]  # in one bin, so that every expected count is large enough
    seen, expected = (np.append(x[~rare], x[rare].sum()) for x in (seen, p / p.sum() * count))
    assert expected.min() > 5
    assert stats.chisquare(seen, expected).pvalue > 1e-3


# heads


@pytest.mark.parametrize("order", [0, 4])
@pytest.mark.parametrize("vocab", [256, 65536])
def test_mixture_probabilities_sum_to_one(rng, order, vocab):
    mu = 255 if vocab == 256 else 0
    shape = WaveNetShape((1,), vocab, "mixture", 4, order, mu)
    outputs = jnp.asarray(rng.normal(size=(1, 1, shape.outputs)), jnp.float32)
    outputs = outputs.at[..., 8:12].add(jnp.asarray([-20.0, -9.0, -3.0, 1.0])[None, None])
    previous = jnp.asarray(rng.integers(0, vocab, (vocab, 6)))[:1].repeat(vocab, 0)
    outputs = jnp.broadcast_to(outputs, (vocab, 1, shape.outputs))
    p = jnp.exp(log_prob(outputs, shape, jnp.arange(vocab)[:, None], previous))
    assert p.min() >= 0
    assert abs(np.asarray(p, np.float64).sum() - 1) < 1e-3


def test_softmax_log_prob_is_the_log_softmax(rng):
    shape = WaveNetShape((1,), 16)
    outputs = jnp.asarray(rng.normal(size=(2, 5, 16)) * 3, jnp.float32)
    targets = jnp.asarray(rng.integers(0, 16, (2, 5)))
    expected = np.take_along_axis(jax.nn.log_softmax(outputs, -1), targets[..., None], -1)[..., 0]
    np.testing.assert_allclose(log_prob(outputs, shape, targets), expected, atol=1e-5)


def test_linear_prediction_shifts_means_to_the_predicted_amplitude(rng):
    shape = WaveNetShape((1,), head="mixture", mixtures=2, linear_prediction=3)
    outputs = jnp.zeros((4, shape.outputs)).at[:, 6:].set(jnp.asarray([0.5, -0.25, 0.125])[None])
    history = jnp.asarray(rng.uniform(-1, 1, (4, 3)), jnp.float32)
    _, means, _ = mixture_parameters(outputs, shape, history)
    expected = history @ jnp.asarray([0.5, -0.25, 0.125])
    np.testing.assert_allclose(expand(means[:, 0], 255), expected, atol=1e-5)


def test_fresh_predictor_and_extreme_targets_have_gradients():
    shape = WaveNetShape((1,), 65536, "mixture", 2, 3, mu=255)
    previous = jnp.asarray([[32768, 60000, 60000, 32768]])
    targets = jnp.asarray([[0, 65535, 32768, 1]])
    outputs = jnp.zeros((1, 4, shape.outputs))
    gradient = jax.grad(lambda o: log_prob(o, shape, targets, previous).sum())(outputs)
    assert jnp.isfinite(gradient).all()
    assert jnp.abs(gradient[..., 6:]).max() > 0, "coefficients that start at zero must learn"


def test_companding_round_trip():
    x = jnp.linspace(-1, 1, 1001)
    np.testing.assert_allclose(expand(compress(x, 255), 255), x, atol=1e-6)
    np.testing.assert_array_equal(compress(x, 0), x)
