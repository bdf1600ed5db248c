"""What is a window autoencoder's own, beside the laws of causal models: its encoder and its bound."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from laws.cases.window_vae import BAR, LATENT, WINDOW, build, make_case, prior
from laws.causal import BATCH, VOCAB, assert_same, shift

from wavegen.errors import WavegenError
from wavegen.models.window_vae import Posterior, evidence_bound
from wavegen.networks.base import parameters, with_parameters

SHORT = 11


def valid():
    """The second window ends early, in its second bar."""
    return jnp.arange(WINDOW)[None] < jnp.asarray([WINDOW, SHORT])[:, None]


@partial(jax.jit, static_argnums=0)
def encode(graph, params, tokens, valid):
    return with_parameters(graph, params).encode(tokens, valid)


def outcome(params, graph, tokens, options, key):
    examples = {"targets": tokens, "inputs": shift(tokens), "mask": valid()}
    result = evidence_bound(with_parameters(graph, params), examples, key, **options)
    return result.total, result


def evaluated(tokens, params=None):
    """The outcome without a key."""
    case = make_case()
    return evaluate(case.params if params is None else params, case.graph, tokens, {}, None)[1]


@cache
def trained(beta=1.0, free_nats=0.0, token_dropout=0.0):
    """Gradients and the outcome with a key."""
    case = make_case()
    options = {"beta": beta, "free_nats": free_nats, "token_dropout": token_dropout}
    return differentiate(case.params, case.graph, case.tokens, options, jax.random.key(4))


evaluate = jax.jit(outcome, static_argnums=1)
differentiate = jax.jit(jax.grad(outcome, has_aux=True), static_argnums=1)


def posterior(tokens=None, there=None):
    case = make_case()
    tokens = case.tokens if tokens is None else tokens
    return encode(case.graph, case.params, tokens, valid() if there is None else there)


def test_every_output_depends_on_the_latent():
    case = make_case()
    moved = case.forward(case.inputs, None, case.features.at[0].add(1.0))
    difference = np.abs(np.asarray(moved) - case.outputs()).max((2, 3))
    assert difference[0].min() > 1e-3
    assert difference[1].max() == 0


def test_every_place_is_conditioned_on_something_of_its_own():
    steered = np.asarray(make_case().start()["steered"])
    assert steered.shape == (BATCH, WINDOW, 8)
    apart = np.abs(steered[:, :, None] - steered[:, None]).max((0, 3))
    assert apart[~np.eye(WINDOW, dtype=bool)].min() > 1e-2


def test_a_window_is_encoded_as_it_is_alone_and_without_its_padding():
    case, both = make_case(), posterior()
    assert both.mean.shape == both.log_variance.shape == (BATCH, LATENT)
    noise = case.tokens.at[1, SHORT:].set(VOCAB - 1)
    jax.tree.map(np.testing.assert_array_equal, posterior(noise), both)
    alone = posterior(case.tokens[1:, :SHORT], jnp.ones((1, SHORT), bool))
    jax.tree.map(lambda ours, theirs: assert_same(ours[1], theirs[0], 1e-5), both, alone)
    # And every token that is there counts.
    for place in (0, SHORT - 1, SHORT, WINDOW - 1):
        changed = case.tokens.at[:, place].set((case.tokens[:, place] + 1) % VOCAB)
        moved = np.abs(np.asarray(posterior(changed).mean - both.mean)).max(1)
        assert moved[0] > 1e-4
        assert (moved[1] > 1e-4) == (place < SHORT)


def test_bars_that_are_not_there_have_the_prior_for_posterior():
    case = make_case()
    there = jnp.arange(WINDOW)[None] < jnp.asarray([WINDOW, BAR])[:, None]
    moved = jax.tree.map(lambda x: x + 0.5, case.params)  # a new model's biases are zero
    both = encode(case.graph, moved, case.tokens, there)
    for part in map(np.asarray, both):
        np.testing.assert_array_equal(part[1, LATENT // 2 :], 0)
        assert np.abs(part[1, : LATENT // 2]).min() > 0
        assert np.abs(part[0]).min() > 0


def test_the_divergence_is_that_of_the_closed_form():
    one = Posterior(jnp.asarray([[0.0, 0.0], [3.0, -1.0]]), jnp.log(jnp.asarray([[1.0, 1.0], [4.0, 0.25]])))
    expected = 0.5 * (9 + 1 + 4 + 0.25 - 2 - np.log(4) - np.log(0.25))
    np.testing.assert_allclose(one.divergence(), [0.0, expected], rtol=1e-6)


def test_the_divergence_is_the_mean_of_what_draws_say():
    mean, deviation = np.array([[1.5, -0.5]]), np.array([[0.5, 2.0]])
    one = Posterior(jnp.asarray(mean, jnp.float32), jnp.asarray(2 * np.log(deviation), jnp.float32))
    many = Posterior(*(jnp.repeat(x, 40_000, axis=0) for x in one))
    drawn = np.asarray(jax.jit(Posterior.draw)(many, jax.random.key(0)), np.float64)
    log_ratio = 0.5 * drawn**2 - 0.5 * ((drawn - mean) / deviation) ** 2 - np.log(deviation)
    np.testing.assert_allclose(one.divergence(), log_ratio.sum(1).mean(), rtol=0.02)


def test_latents_of_the_prior_are_normal_and_each_depends_on_its_row_alone():
    many = np.asarray(prior(jax.random.key(0), 500, LATENT))
    assert abs(many.mean()) < 0.05
    assert abs(many.std() - 1) < 0.05
    np.testing.assert_array_equal(prior(jax.random.key(0), 3, LATENT), many[:3])


def test_the_bound_is_nats_and_divergence_of_what_is_there():
    tokens = make_case().tokens
    total, scored, figures, *_ = evaluated(tokens)
    assert np.isfinite(total)
    assert scored == WINDOW + SHORT
    divergence = float(posterior().divergence().sum())
    np.testing.assert_allclose(figures["kl_per_window"], divergence * WINDOW, rtol=1e-5)
    np.testing.assert_allclose(total, figures["nats_per_token"] + divergence, rtol=1e-5)
    assert 0 <= figures["accuracy"] <= scored
    # Padding that moves no sum of the targets, from which z is drawn.
    noise = tokens.at[1, SHORT].add(-1).at[1, SHORT + 1].add(1)
    assert (np.asarray(noise) >= 0).all()
    jax.tree.map(np.testing.assert_array_equal, evaluated(noise).figures, figures)


def test_in_training_the_divergence_costs_what_is_asked():
    divergence = np.asarray(posterior().divergence(), np.float64)
    free = float(divergence.mean())
    plain = trained(beta=0.0)[1]
    np.testing.assert_allclose(plain.total, plain.figures["nats_per_token"], rtol=1e-6)
    paid = trained(beta=0.5, free_nats=free)[1]
    cost = 0.5 * np.maximum(divergence - free, 0).sum()
    assert 0 < cost < 0.5 * divergence.sum()
    np.testing.assert_allclose(paid.total - plain.total, cost, rtol=1e-3)
    hidden = trained(beta=0.0, token_dropout=0.9)[1]
    assert abs(float(hidden.total - plain.total)) > 1e-2


def test_a_gradient_reaches_every_weight():
    for path, gradient in jax.tree.leaves_with_path(trained()[0]):
        assert np.isfinite(gradient).all(), jax.tree_util.keystr(path)
        assert np.asarray(gradient).any(), jax.tree_util.keystr(path)


def test_bfloat16_parameters_give_a_float32_bound_near_that_of_float32():
    case = make_case()
    narrow = jax.tree.map(lambda x: x.astype(jnp.bfloat16), case.params)
    wide = evaluated(case.tokens)
    outcome = evaluated(case.tokens, narrow)
    assert outcome.total.dtype == jnp.float32
    np.testing.assert_allclose(outcome.total, wide.total, rtol=0.05)


def test_flops_grow_with_every_part():
    base = build().flops_per_frame(WINDOW)
    for more in ({"layers": 3}, {"encoder_layers": 2}, {"latent": 50}, {"width": 16}):
        assert build(**more).flops_per_frame(WINDOW) > base
    _, params = parameters(build())
    assert base > 2 * (ravel_pytree(params)[0].size // 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: build(window=20), "expected data.crop a multiple of the bar, 8 tokens"),
        (lambda: build(period=3), "use data.crop=16 and model.bar=0"),
        (lambda: build(latent=5), "a multiple of the window's 2 bars, got 5; use model.latent=6"),
        (
            lambda: make_case().model()(make_case().inputs),
            r"expected features \[2, 1, 6\], a latent for each window, got none",
        ),
        (
            lambda: make_case().model()(make_case().inputs, None, jnp.zeros((BATCH, 2, LATENT))),
            r"got \[2, 2, 6\]; draw them with prior_latents",
        ),
        (
            lambda: make_case().model()(make_case().inputs, jnp.zeros((BATCH, 1), int), make_case().features),
            "this model takes no labels",
        ),
        (
            lambda: make_case().model().encode(jnp.zeros((1, 17, 1), int), jnp.ones((1, 17), bool)),
            "expected at most 16 tokens, a window, got 17; give longer pieces window by window",
        ),
        (
            lambda: make_case().model()(jnp.zeros((BATCH, 17, 1), int), None, make_case().features),
            "expected at most 16 tokens, a window, got 17",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(call, message):
    with pytest.raises(WavegenError, match=message):
        call()
