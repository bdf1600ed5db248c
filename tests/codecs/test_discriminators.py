"""Discriminators and the losses of their game: shapes, gradients, what they learn, and figures by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from wavegen.codecs.waveform.adversarial import (
    adversarial_loss,
    balance,
    discriminator_loss,
    feature_matching_loss,
)
from wavegen.codecs.waveform.discriminators import Discriminators, WeightNormConvolution
from wavegen.errors import WavegenError

BATCH, SAMPLES = 4, 200
RANDOM = np.random.default_rng(0)


def make() -> Discriminators:
    return Discriminators(
        periods=(2,),
        windows=(32,),
        bands=(0.0, 0.4, 1.0),
        period_channels=(4, 8),
        band_channels=4,
        random=np.random.default_rng(0),
    )


def noise(random: np.random.Generator) -> jax.Array:
    return jnp.asarray(0.3 * random.standard_normal((BATCH, SAMPLES), np.float32))


def sines(random: np.random.Generator) -> jax.Array:
    pitch, phase = random.uniform(0.1, 0.5, (BATCH, 1)), random.uniform(0, 6, (BATCH, 1))
    return jnp.asarray(0.4 * np.sin(pitch * np.arange(SAMPLES) + phase), jnp.float32)


@jax.jit
def judge(discriminators, real, decoded):
    """The loss of the discriminators, their gradient, and that of the codec's losses to its audio."""

    def own(discriminators):
        judged = discriminators(real), discriminators(decoded)
        return discriminator_loss(*judged), judged

    def codec(decoded):
        judged = discriminators(decoded)
        return adversarial_loss(judged) + feature_matching_loss(discriminators(real), judged)

    (loss, judged), gradient = jax.value_and_grad(own, has_aux=True)(discriminators)
    return loss, judged, gradient, jax.grad(codec)(decoded)


def test_every_layer_is_returned_and_every_weight_and_sample_has_a_gradient() -> None:
    audio = sines(RANDOM)
    _, (judged, _), gradient, to_audio = judge(make(), audio, noise(RANDOM))
    assert [len(layers) for layers in judged] == [3, 2 * 5 + 1]
    # Two phases of 100 samples, of which the first layer takes every third; scores of each.
    assert judged[0][0].shape == (2 * BATCH, 34, 4)
    assert judged[0][-1].shape == (2 * BATCH, 34, 1)
    # 26 frames of 17 bins, cut at bin 6 and halved three times.
    assert judged[1][0].shape == (BATCH, 26, 6, 4)
    assert judged[1][-1].shape == (BATCH, 26, 1 + 2, 1)
    assert all(g.any() and jnp.isfinite(g).all() for g in jax.tree.leaves(gradient))
    assert (jnp.abs(to_audio) > 0).all()


def test_gradients_are_finite_at_silence() -> None:
    silence = jnp.zeros((BATCH, SAMPLES))
    _, _, *gradients = judge(make(), silence, silence)
    assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(gradients))


def test_channels_are_clips_of_their_own() -> None:
    audio = jnp.stack([sines(RANDOM), noise(RANDOM)], axis=2)
    apart = jnp.moveaxis(audio, 2, 1).reshape(2 * BATCH, SAMPLES)
    both = jax.eval_shape(make(), audio), jax.eval_shape(make(), apart)
    assert jax.tree.map(jnp.shape, both[0]) == jax.tree.map(jnp.shape, both[1])


def test_loudness_and_mean_are_not_heard() -> None:
    audio, discriminators = sines(RANDOM), make()
    _, (one, other), _, _ = judge(discriminators, audio, 0.1 * audio + 0.3)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), one, other)


def test_noise_is_told_from_sines_after_few_steps() -> None:
    random, discriminators, optimizer = np.random.default_rng(1), make(), optax.adam(1e-2, 0.8, 0.99)

    @jax.jit
    def improve(discriminators, state, gradient):
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(discriminators, updates), state

    state = optimizer.init(discriminators)
    for _ in range(80):
        _, _, gradient, _ = judge(discriminators, sines(random), noise(random))
        discriminators, state = improve(discriminators, state, gradient)
    _, judged, _, _ = judge(discriminators, sines(random), noise(random))
    for real, decoded in zip(*judged, strict=True):
        assert real[-1].mean() > 0.65
        assert decoded[-1].mean() < 0.35


def test_games_by_hand() -> None:
    hidden = jnp.asarray([1.0, -2.0])
    real, decoded = [[hidden, jnp.asarray([2.0, 0.5])]], [[hidden + 3, jnp.asarray([-2.0, 0.5])]]
    np.testing.assert_allclose(discriminator_loss(real, decoded), (1 + 0.25) / 2 + (4 + 0.25) / 2)
    np.testing.assert_allclose(discriminator_loss(real, decoded, "hinge"), 0.5 / 2 + 1.5 / 2)
    np.testing.assert_allclose(adversarial_loss(decoded), (9 + 0.25) / 2)
    np.testing.assert_allclose(adversarial_loss(decoded, "hinge"), (3 + 0.5) / 2)
    np.testing.assert_allclose(feature_matching_loss(real, decoded), 3)
    assert not any(g.any() for g in jax.tree.leaves(jax.grad(feature_matching_loss)(real, decoded)))


def test_the_length_of_a_kernel_is_its_own_parameter() -> None:
    layer = WeightNormConvolution((5,), 2, 3, (1,), random=np.random.default_rng(0))
    x = noise(RANDOM).reshape(BATCH, -1, 2)
    before = layer(x)
    layer.direction[...] = 7 * layer.direction[...]
    np.testing.assert_allclose(layer(x), before, rtol=1e-4, atol=1e-5)
    layer.length[...] = 2 * layer.length[...]
    np.testing.assert_allclose(layer(x), 2 * before, rtol=1e-4, atol=1e-5)


def test_balanced_losses_have_their_shares_of_the_reference_whatever_their_scale() -> None:
    random, shares = np.random.default_rng(2), {"a": 3.0, "b": 1.0}
    first, second = ({name: noise(random) for name in ("reference", "a", "b")} for _ in range(2))

    def twice(scale: float) -> list[jax.Array]:
        averages, totals = {name: jnp.zeros(2) for name in first}, []
        for step in (first, second):
            gradients = {"a": scale * step["a"], "b": step["b"]}
            total, averages = balance(step["reference"], gradients, shares, averages, decay=0.5)
            totals.append(total)
        return totals

    def norm(gradient: jax.Array) -> float:
        return np.linalg.norm(gradient, axis=1).mean()

    # The second counts for two thirds of the averages.
    mean = {name: (norm(first[name]) + 2 * norm(second[name])) / 3 for name in first}
    one = {name: norm(first[name]) for name in first}
    for total, scaled, gradients, means in zip(
        twice(1.0), twice(100.0), (first, second), (one, mean), strict=True
    ):
        expected = sum(s * gradients[name] * means["reference"] / means[name] for name, s in shares.items())
        np.testing.assert_allclose(total, expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(scaled, total, rtol=1e-4, atol=1e-5)


def test_a_gradient_that_is_not_finite_does_not_stay_in_the_averages() -> None:
    before = {"reference": jnp.asarray([2.0, 1.0]), "a": jnp.asarray([4.0, 1.0])}
    bad = jnp.full((BATCH, SAMPLES), jnp.nan)
    total, after = balance(noise(RANDOM), {"a": bad}, {"a": 1.0}, before)
    assert not jnp.isfinite(total).any()
    np.testing.assert_array_equal(after["a"], before["a"])
    assert after["reference"][1] > 1


@pytest.mark.parametrize("bands", [(0.0,), (0.5, 0.2), (0.0, 1.5)])
def test_bands_out_of_order_are_named(bands: tuple[float, ...]) -> None:
    with pytest.raises(WavegenError, match="expected edges of bands"):
        Discriminators(bands=bands, random=RANDOM)
