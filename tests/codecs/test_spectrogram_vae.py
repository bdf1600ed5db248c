"""The learned spectrogram codec: the codec's laws, what its losses are, and that it learns."""

import math
from collections.abc import Callable
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from wavegen.codecs.quantizers import FSQ, Average, EMAResidualVQ, GradientVQ, code_usage
from wavegen.codecs.spectrogram.frames import MelFrames
from wavegen.codecs.spectrogram.network import SpectrogramVQ
from wavegen.errors import WavegenError
from wavegen.networks.base import Outcome

RATE, HOP, BANDS, STRIDE, LATENT = 8000, 32, 10, 2, 4
CLIP = 20 * HOP
FRAMES = MelFrames(RATE, n_fft=128, hop_length=HOP, bands=BANDS)
QUANTIZERS = {
    "EMA": lambda random: EMAResidualVQ(LATENT, codebooks=2, codebook_size=16, random=random),
    "residual VQ": lambda random: GradientVQ(LATENT, codebooks=2, codebook_size=16, random=random),
    "FSQ": lambda random: FSQ(LATENT, sizes=(4, 4), codebooks=2, random=random),
}
encode = jax.jit(lambda codec, audio: codec.encode(audio))
decode = jax.jit(lambda codec, tokens: codec.decode(tokens))
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


def notes(seed: int, batch: int, length: int) -> jax.Array:
    """Tones of half a thousand samples, one of four pitches each."""
    random = np.random.default_rng(seed)
    pitch = np.repeat(random.choice([250, 500, 1000, 2000], (batch, -(-length // 500))), 500, axis=1)
    phase = 2 * np.pi * np.cumsum(pitch[:, :length], axis=1) / RATE
    return jnp.asarray(0.3 * np.sin(phase) + 0.003 * random.standard_normal((batch, length)), jnp.float32)


@cache
def make(name: str = "EMA") -> SpectrogramVQ:
    random = np.random.default_rng(0)
    codec = SpectrogramVQ(
        frames=FRAMES, stride=STRIDE, width=16, depth=1, quantizer=QUANTIZERS[name](random), random=random
    )
    codec.standardise(np.asarray(jax.jit(FRAMES.from_audio)(notes(9, 1, 100 * HOP)))[0])
    return codec


def test_every_length_is_kept_up_to_the_hop() -> None:
    hop = HOP * STRIDE
    assert make().hop_length == hop
    for frames in (1, 2, 3):
        for length in ((frames - 1) * hop + 1, (frames - 1) * hop + HOP, frames * hop - 1, frames * hop):
            tokens = jax.eval_shape(make().encode, jax.ShapeDtypeStruct((2, length), jnp.float32))
            assert (tokens.shape, tokens.dtype) == ((2, frames, 2), jnp.int32)
        audio = jax.eval_shape(make().decode, tokens)
        assert (audio.shape, audio.dtype) == ((2, frames * hop), jnp.float32)


@pytest.mark.parametrize("name", QUANTIZERS)
def test_codes_and_audio_are_in_range(name: str) -> None:
    tokens = encode(make(name), notes(0, 2, CLIP))
    assert 0 <= tokens.min() <= tokens.max() < make(name).vocab_size == 16
    # Below the quantizer all is the same.
    audio = decode(make(), tokens)
    assert 0 < jnp.abs(audio).max() <= 1


def test_a_row_of_a_batch_equals_the_clip_alone() -> None:
    audio = notes(1, 2, CLIP)
    tokens = encode(make(), audio)
    rows = make().rows(tokens)
    for row in (0, 1):
        np.testing.assert_array_equal(encode(make(), audio[row : row + 1]), tokens[row : row + 1])
        np.testing.assert_allclose(make().rows(tokens[row : row + 1])[0], rows[row], atol=1e-3)


def test_pieces_have_the_codes_of_the_whole_out_of_reach_of_the_cut() -> None:
    audio, cut = notes(2, 1, 40 * HOP), 10
    window = FRAMES.n_fft // 2 // HOP
    out_of_reach = math.ceil((make().reach + window) / STRIDE)
    whole = encode(make(), audio)
    before = encode(make(), audio[:, : cut * make().hop_length])
    np.testing.assert_array_equal(before[:, : cut - out_of_reach], whole[:, : cut - out_of_reach])
    after = encode(make(), audio[:, cut * make().hop_length :])
    np.testing.assert_array_equal(after[:, out_of_reach:], whole[:, cut + out_of_reach :])


def test_losses_of_a_reconstruction_are_as_written_over_the_frames_of_each_clip() -> None:
    codec, audio, length = make(), notes(3, 3, CLIP), jnp.asarray([CLIP, CLIP // 2 + 1, 0])
    figures, scored = losses(codec, audio, length)
    assert scored == 2
    rows, target, codes, _, statistics = reconstruct(codec, audio)
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


@pytest.mark.parametrize("name", ["EMA", "residual VQ"])
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
    with pytest.raises(WavegenError, match=r"rows of 10 values, got \[5, 9\]"):
        make().standardise(np.zeros((5, 9), np.float32))
    with pytest.raises(WavegenError, match="1 to 2 levels, got 3"):
        make().encode(notes(0, 1, 100), levels=3)
