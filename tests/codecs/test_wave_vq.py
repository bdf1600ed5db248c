"""What is the waveform codec's own: its reach, pieces with a state, learning. The laws are in tests/laws."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from laws.cases.wave_vq import HOP, QUANTIZERS, WIDTH, build, noise

from wavegen.codecs.waveform.network import PRESETS, WaveVQ
from wavegen.errors import WavegenError

RANDOM = np.random.default_rng(0)
make = cache(build)
every_quantizer = pytest.mark.parametrize("name", QUANTIZERS)
every_form = pytest.mark.parametrize("causal", [False, True])


@jax.jit
def code(codec, audio):
    """Tokens, and the audio that they stand for: one compilation for both."""
    tokens = codec.encode(audio)
    return tokens, codec.decode(tokens)


@jax.jit
def code_chunk(codec, audio, states):
    tokens, state_in = codec.encode_chunk(audio, states[0])
    decoded, state_out = codec.decode_chunk(tokens, states[1])
    return tokens, decoded, (state_in, state_out)


def test_codes_of_fewer_levels_are_a_prefix() -> None:
    codec, audio = make(), noise(0, 2, 10 * HOP)
    assert (codec.hop_length, codec.codebooks, codec.mu) == (HOP, 3, 0)
    fewer = jax.jit(partial(codec.encode, codebooks=2))(audio)
    np.testing.assert_array_equal(fewer, code(codec, audio)[0][..., :2])


def test_a_reconstruction_has_the_length_of_the_audio() -> None:
    for length in (1, HOP + 1):
        audio = jax.ShapeDtypeStruct((2, length), jnp.float32)
        assert jax.eval_shape(make().reconstruct, audio).audio.shape == audio.shape


def test_causal_pieces_equal_the_whole() -> None:
    """Pieces shorter and longer than what layers remember."""
    codec = make(causal=True, channels=2)
    audio = noise(3, 2, 11 * HOP, 2)
    tokens, whole = code(codec, audio)
    states, coded, decoded = (codec.encoder_state(2), codec.decoder_state(2)), [], []
    for first, last in ((0, 4), (4, 5), (5, 6), (6, 10), (10, 11)):
        codes, samples, states = code_chunk(codec, audio[:, first * HOP : last * HOP], states)
        coded.append(codes)
        decoded.append(samples)
    np.testing.assert_array_equal(np.concatenate(coded, axis=1), tokens)
    np.testing.assert_allclose(np.concatenate(decoded, axis=1), whole, atol=1e-5)


@every_form
def test_a_frame_depends_on_its_receptive_field_alone(causal: bool) -> None:
    codec, frame = make(causal=causal), 20

    def latent(audio):
        latents, _ = codec.encoder(audio[..., None], codec.encoder.start(1))
        return jnp.sum(latents[:, frame])

    gradient = jax.jit(jax.grad(latent))(noise(4, 1, 40 * HOP))
    touched = np.flatnonzero(gradient[0])
    assert touched[-1] - touched[0] + 1 == codec.receptive_field
    if causal:
        assert touched[-1] == (frame + 1) * HOP - 1


@every_form
def test_a_sample_depends_on_no_later_frame_if_causal(causal: bool) -> None:
    codec, frame = make(causal=causal), 20

    def samples(latents):
        audio, _ = codec.decoder(latents, codec.decoder.start(1))
        return jnp.sum(audio[:, frame * HOP : (frame + 1) * HOP])

    gradient = jax.jit(jax.grad(samples))(noise(5, 1, 40, WIDTH))
    touched = np.flatnonzero(np.abs(gradient[0]).max(axis=-1))
    assert touched[0] < frame
    assert (touched[-1] == frame) == causal


@every_quantizer
def test_gradients_pass_the_quantizer_and_a_codec_learns(name: str) -> None:
    levels = jnp.asarray([3, 1])
    codec = build(name, strides=(2,), decoder_width=8, dilations=(1,))
    audio = 0.7 * jnp.sin(jnp.arange(100.0)[None] / jnp.asarray([[3.0], [5.0]]))
    graph, params, rest = nnx.split(codec, nnx.Param, ...)
    optimizer = optax.adam(1e-2)

    def loss(params):
        reconstruction = nnx.merge(graph, params, rest).reconstruct(audio, codebooks=levels)
        error = jnp.mean((reconstruction.audio - audio) ** 2)
        return error + sum(reconstruction.losses.values()), (error, reconstruction.statistics["counts"])

    @jax.jit
    def step(params, state):
        (_, (error, counts)), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state, error, counts, gradient

    state = optimizer.init(params)
    params, state, before, counts, gradient = step(params, state)
    assert counts.sum() == 50 * (3 + 1)
    assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(gradient))
    assert jnp.abs(gradient["encoder"]["layers"][0]["kernel"][...]).max() > 0
    for _ in range(60):
        params, state, error, _, _ = step(params, state)
    assert error < 0.5 * before


def test_half_precision_parameters_give_float32_audio_and_losses() -> None:
    graph, state = nnx.split(make())
    half = jax.tree.map(lambda p: p.astype(jnp.bfloat16), state)
    got = jax.eval_shape(
        lambda audio: nnx.merge(graph, half).reconstruct(audio), jnp.asarray(noise(7, 1, 30))
    )
    assert got.audio.dtype == jnp.float32
    assert all(loss.dtype == jnp.float32 for loss in got.losses.values())


def test_operations_by_hand() -> None:
    codec = build("EMA", strides=(2,), decoder_width=8, dilations=(1,))
    # A frame is two samples: 7 taps 1 -> 4, unit of 7 + 1 taps 4 -> 4, 4 taps 4 -> 8 of one frame, 3 taps 8 -> 8.
    assert codec.encode_flops_per_frame == 2 * (2 * (7 * 4 + 8 * 16) + 4 * 32 + 3 * 64)
    # 7 taps 8 -> 8 of one frame; 4 taps 8 -> 4, each frame in; the unit and 7 taps 4 -> 1 of two samples.
    assert codec.decode_flops_per_frame == 2 * (7 * 64 + 4 * 32 + 2 * (8 * 16 + 7 * 4))


def test_presets_have_frames_of_10_to_20_milliseconds() -> None:
    for sample_rate, strides in PRESETS.items():
        assert 50 <= sample_rate / np.prod(strides) < 90


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make().encode(jnp.zeros((1, 9, 2))), r"takes mono, \[B, T\] .* got \[1, 9, 2\]"),
        (lambda: make(channels=2).encode(jnp.zeros((1, 9))), r"takes stereo, \[B, T, 2\] .* got \[1, 9\]"),
        (lambda: make().encode(jnp.zeros((1, 0))), r"at least one sample, got \[1, 0\]"),
        (
            lambda: jax.eval_shape(partial(make().encode, codebooks=4), jnp.zeros((1, 9))),
            "expected 1 to 3 codebooks, got 4",
        ),
        (lambda: make().decode(jnp.zeros((1, 9, 4), jnp.int32)), "codes of 1 to 3 codebooks"),
        (lambda: make().encoder_state(1), "not causal has no state"),
        (lambda: make().decoder_state(1), "not causal has no state"),
        (lambda: WaveVQ(strides=(), quantizer=make().quantizer, random=RANDOM), r"strides=\(\)"),
        (lambda: WaveVQ(strides=(2, 0), quantizer=make().quantizer, random=RANDOM), r"strides=\(2, 0\)"),
        (
            lambda: WaveVQ(strides=(2,), audio_channels=3, quantizer=make().quantizer, random=RANDOM),
            "audio_channels=3",
        ),
        (
            lambda: WaveVQ(strides=(2, 2), decoder_width=6, quantizer=make().quantizer, random=RANDOM),
            "multiple of 4, got 6",
        ),
    ],
)
def test_bad_arguments_are_named(call, message: str) -> None:
    with pytest.raises(WavegenError, match=message):
        call()
