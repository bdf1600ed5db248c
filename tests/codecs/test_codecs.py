"""What each codec of samples promises on its own. The laws of audio codecs are in tests/laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wavegen.codecs.base import AudioCodec
from wavegen.codecs.samples import Linear, MuLaw, Sashimi
from wavegen.errors import WavegenError

INT16 = np.arange(-32768, 32768, dtype=np.int64)
FIXED_RANGE = [MuLaw(), MuLaw(levels=255), MuLaw(levels=1024), Linear(), Linear(levels=256)]
CODECS = [*FIXED_RANGE, Sashimi("linear"), Sashimi("mulaw")]


def noise(seed: int, *shape: int) -> np.ndarray:
    """Random 16-bit audio as float32 in [-1, 1)."""
    pcm = np.random.default_rng(seed).integers(-32768, 32768, shape)
    return (pcm / 32768).astype(np.float32)


def all_tokens(codec: AudioCodec) -> jax.Array:
    return jnp.arange(codec.vocab_size)[None, :, None]


@pytest.mark.parametrize("codec", CODECS, ids=repr)
def test_codes_are_the_same_without_a_compiler(codec: AudioCodec) -> None:
    audio = jnp.asarray(noise(0, 2, 1000))
    np.testing.assert_array_equal(jax.jit(codec.encode)(audio), codec.encode(audio))


@pytest.mark.parametrize("codec", FIXED_RANGE, ids=repr)
def test_tokens_survive_decoding(codec: AudioCodec) -> None:
    np.testing.assert_array_equal(codec.encode(codec.decode(all_tokens(codec))), all_tokens(codec))


@pytest.mark.parametrize("codec", FIXED_RANGE, ids=repr)
def test_codes_increase_with_amplitude(codec: AudioCodec) -> None:
    tokens = codec.encode(jnp.asarray(INT16 / 32768, jnp.float32)[None])[0, :, 0]
    assert (jnp.diff(tokens) >= 0).all()
    assert (jnp.diff(codec.decode(all_tokens(codec))[0]) > 0).all()


@pytest.mark.parametrize("codec", FIXED_RANGE, ids=repr)
def test_silence_is_the_start_token(codec: AudioCodec) -> None:
    assert codec.encode(jnp.zeros((1, 1)))[0, 0, 0] == codec.start_token == codec.vocab_size // 2


@pytest.mark.parametrize("codec", FIXED_RANGE, ids=repr)
def test_amplitudes_out_of_range_are_clipped(codec: AudioCodec) -> None:
    tokens = codec.encode(jnp.asarray([[-7.0, -1.0, 1.0, 7.0]]))[0, :, 0]
    np.testing.assert_array_equal(tokens, [0, 0, codec.vocab_size - 1, codec.vocab_size - 1])


def compress64(x: np.ndarray, mu: int) -> np.ndarray:
    return np.sign(x) * np.log(1 + mu * np.abs(x)) / np.log(1 + mu)


@pytest.mark.parametrize("levels", [16, 255, 256])
def test_mulaw_codes_of_all_16_bit_amplitudes_are_exact(levels: int) -> None:
    mu = levels - 1
    expected = np.floor((compress64(INT16 / 32768, mu) + 1) / 2 * mu + 0.5)
    got = MuLaw(levels).encode(jnp.asarray(INT16 / 32768, jnp.float32)[None])[0, :, 0]
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("levels", [16, 255, 256, 1024])
def test_mulaw_round_trip_is_within_half_a_step(levels: int) -> None:
    codec = MuLaw(levels)
    x = INT16 / 32768
    back = np.asarray(codec.decode(codec.encode(jnp.asarray(x, jnp.float32)[None]))[0], np.float64)
    assert np.abs(compress64(back, codec.mu) - compress64(x, codec.mu)).max() <= (1 + 1e-4) / codec.mu


def test_linear_keeps_16_bit_audio() -> None:
    audio = jnp.asarray(INT16 / 32768, jnp.float32)[None]
    tokens = Linear(65536).encode(audio)
    np.testing.assert_array_equal(tokens[0, :, 0], INT16 + 32768)
    np.testing.assert_array_equal(Linear(65536).decode(tokens), audio)


def test_linear_round_trip_is_within_half_a_step() -> None:
    x = INT16[:-128] / 32768  # the top half step has no point above it
    codec = Linear(256)
    back = codec.decode(codec.encode(jnp.asarray(x, jnp.float32)[None]))[0]
    assert np.abs(np.asarray(back) - x).max() <= 1 / 256


def published_codes(window: np.ndarray, quantization: str) -> np.ndarray:
    """The formulas of the SaShiMi paper's data loader, in its float32 steps."""
    one = np.float32(1)
    unit = (window - window.min()) / (window.max() - window.min() + np.float32(1e-6))
    if quantization == "mulaw":
        y = -one + (np.float32(2) * (window - window.min())) / (
            window.max() - window.min() + np.float32(1e-6)
        )
        magnitude = np.log1p(np.float32(255) * np.abs(y + np.float32(1e-8))) / np.log1p(np.float32(255))
        unit = (np.sign(y) * magnitude + one) / np.float32(2)
    return (unit * np.float32(256 - 0.01) + np.float32(0.01 / 2)).astype(np.int64)


@pytest.mark.parametrize("quantization", ["linear", "mulaw"])
def test_sashimi_codes_are_the_published_ones(quantization: str) -> None:
    windows = noise(3, 4, 16000) * np.float32([[1], [0.5], [0.01], [0.3]])
    windows[3] += 0.4  # an offset, which the stretch removes
    codec = Sashimi(quantization)
    tokens = np.asarray(codec.encode(jnp.asarray(windows))[..., 0])
    expected = np.stack([published_codes(window, quantization) for window in windows])
    assert expected.min() == 0
    assert expected.max() == 255
    # numpy's logarithm and XLA's differ in the last bit, which moves a sample that lies on an edge
    different = tokens != expected
    assert different.mean() < 1e-4
    assert np.abs(tokens - expected).max() <= 1
    if quantization == "linear":
        assert not different.any()


@pytest.mark.parametrize("quantization", ["linear", "mulaw"])
def test_sashimi_decodes_to_the_lower_edge(quantization: str) -> None:
    codec = Sashimi(quantization)
    u = np.arange(256) / 128 - 1
    expected = np.sign(u) * (256 ** np.abs(u) - 1) / 255 if quantization == "mulaw" else u
    np.testing.assert_allclose(codec.decode(all_tokens(codec))[0], expected, atol=1e-6)


def test_sashimi_codes_a_constant_window_as_token_zero() -> None:
    for quantization in ("linear", "mulaw"):
        assert (Sashimi(quantization).encode(jnp.full((1, 10), 0.3)) == 0).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MuLaw(levels=1), "mu-law needs 2 to 65536 levels, got 1"),
        (lambda: MuLaw(levels=65537), "got 65537; 256 is the usual choice"),
        (lambda: Linear(levels=255), "even number of 2 to 65536 levels, got 255"),
        (lambda: Sashimi("a-law"), 'quantization "linear" or "mulaw", got "a-law"'),
    ],
)
def test_bad_arguments_are_named(make, message) -> None:
    with pytest.raises(WavegenError, match=message):
        make()
