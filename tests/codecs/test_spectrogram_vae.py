"""The learned spectrogram codec: what its losses are, and that it learns. The laws are in tests/laws."""

from collections.abc import Callable
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from laws.cases.spectrogram import FRAMES, HOP, QUANTIZERS, build, tones

from wavegen.codecs.quantizers import Average, code_usage
from wavegen.codecs.spectrogram.network import SpectrogramVQ
from wavegen.errors import WavegenError
from wavegen.networks.base import Outcome

CLIP = 20 * HOP
make = cache(build)


def notes(seed: int, batch: int, length: int) -> jax.Array:
    return jnp.asarray(tones(seed, batch, length))


encode = jax.jit(lambda codec, audio: codec.encode(audio))
reconstruct = jax.jit(lambda codec, audio: codec.reconstruct(audio))


def objective(codec: SpectrogramVQ, audio: jax.Array, length: jax.Array) -> Outcome:
    """Of the weights that a configuration has by itself, without quantizer dropout."""
    examples = {"waveform": audio, "length": length}
    return codec.objective(examples, None)


@jax.jit
def losses(
    codec: SpectrogramVQ, audio: jax.Array, length: jax.Array
) -> tuple[dict[str, jax.Array], jax.Array]:
    """Sums over clips, and how many clips count."""
    outcome = objective(codec, audio, length)
    return outcome.figures, outcome.scored


def test_losses_of_a_reconstruction_are_as_written_over_the_frames_of_each_clip() -> None:
    codec, audio, length = make(), notes(3, 3, CLIP), jnp.asarray([CLIP, CLIP // 2 + 1, 0])
    figures, scored = losses(codec, audio, length)
    assert scored == 2
    decoded, rows, target, codes, _, statistics = reconstruct(codec, audio)
    assert decoded is None
    np.testing.assert_array_equal(codes, encode(codec, audio))
    np.testing.assert_allclose(rows, codec.rows(codes), atol=1e-3)
    assert statistics["counts"].sum() == codes.size
    ours, theirs = np.asarray(rows, np.float64), np.asarray(FRAMES.from_audio(audio), np.float64)
    np.testing.assert_allclose(target, theirs, atol=1e-3)
    mel = convergence = 0.0
    for row, frames in enumerate((CLIP // HOP, CLIP // HOP // 2 + 1)):
        low, high = np.minimum(ours[row], theirs[row].max() + 10)[:frames], theirs[row, :frames]
        mel += np.abs(ours[row, :frames] - high).mean()
        low, high = 10 ** (low / 20), 10 ** (high / 20)
        convergence += np.linalg.norm(low - high) / np.linalg.norm(high)
    np.testing.assert_allclose(figures["mel"], mel, rtol=1e-4)
    np.testing.assert_allclose(figures["convergence"], convergence, rtol=1e-4)


@cache
def gradients(name: str) -> Callable:
    """Of the loss, by the parameters; and the outcome."""
    graph = nnx.split(make(name), nnx.Param, Average)[0]

    def loss(params, averages, audio):
        outcome = objective(nnx.merge(graph, params, averages), audio, jnp.full(len(audio), audio.shape[1]))
        return outcome.total / outcome.scored, outcome

    return jax.jit(jax.grad(loss, has_aux=True))


def test_losses_and_gradients_are_finite_in_silence() -> None:
    _, params, averages = nnx.split(make(), nnx.Param, Average)
    gradient, outcome = gradients("EMA")(params, averages, jnp.zeros((8, 2 * CLIP)))
    assert all(jnp.isfinite(figure) for figure in outcome.figures.values())
    assert outcome.figures["convergence"] < 8
    assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(gradient))


def test_no_gradient_reaches_the_scales_of_bands() -> None:
    graph, params = nnx.split(make())
    audio = notes(3, 1, CLIP)
    gradient = jax.grad(lambda p: jnp.sum(nnx.merge(graph, p).reconstruct(audio).rows))(params)
    assert jax.tree.leaves(gradient["last"])[0].any()
    for name in ("mean", "deviation"):
        assert not jax.tree.leaves(gradient[name])[0].any()


@pytest.mark.parametrize("name", ["EMA", "gradient"])
def test_it_learns_by_averages_and_by_gradient(name: str) -> None:
    graph, params, averages = nnx.split(make(name), nnx.Param, Average)
    optimizer = optax.adam(3e-3)
    audio = notes(4, 8, 2 * CLIP)

    @jax.jit
    def step(params, averages, state, gradient, statistics):
        updates, state = optimizer.update(gradient, state)
        model = nnx.merge(graph, optax.apply_updates(params, updates), averages)
        model.quantizer.update(statistics)
        return *nnx.state(model, nnx.Param, Average), state

    state, history = optimizer.init(params), []
    for _ in range(150):
        gradient, outcome = gradients(name)(params, averages, audio)
        params, averages, state = step(params, averages, state, gradient, outcome.statistics)
        history.append(outcome.figures)
    for loss in ("mel", "convergence"):
        assert history[-1][loss] < 0.5 * history[0][loss]
    assert code_usage(outcome.statistics["counts"]).perplexity[0] > 3  # of 4 pitches


def test_bad_arguments_are_named() -> None:
    random = np.random.default_rng(0)
    with pytest.raises(WavegenError, match="at least 1, got 0, 8 and 1"):
        SpectrogramVQ(
            frames=FRAMES, stride=0, width=8, depth=1, quantizer=QUANTIZERS["FSQ"](random), random=random
        )
    with pytest.raises(WavegenError, match="1 to 2 codebooks, got 3"):
        make().encode(notes(0, 1, 100), codebooks=3)
