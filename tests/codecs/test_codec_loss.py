"""The losses of a codec: by hand, in stereo, at every preset's sample rate; and what an evaluation counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wavegen.codecs.quantizers import EMAResidualVQ
from wavegen.codecs.waveform.loss import audio_losses, mel_scales, stft_resolutions
from wavegen.codecs.waveform.network import PRESETS, Reconstruction, WaveVQ
from wavegen.spectral import mel_filterbank

RATE = 2000


def noise(seed: int, *shape: int) -> jax.Array:
    return 0.3 * jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


losses = jax.jit(lambda estimate, target: audio_losses(estimate, target, RATE))


def test_losses_by_hand() -> None:
    audio = noise(0, 2, 500)
    best = losses(audio, audio)
    assert set(best) == {"mel", "stft", "waveform"}
    for name in best:
        np.testing.assert_allclose(best[name], 0, atol=1e-5)
    louder = losses(10 * audio, audio)
    np.testing.assert_allclose(louder["mel"], len(mel_scales(RATE)), rtol=1e-3)
    np.testing.assert_allclose(louder["stft"], 9 + np.log(10), rtol=1e-3)
    np.testing.assert_allclose(louder["waveform"], 9 * jnp.mean(jnp.abs(audio)), rtol=1e-5)


def test_stereo_is_compared_as_mid_and_side() -> None:
    estimate, target = noise(1, 4, 500), noise(2, 4, 500)
    # Rows are the mid of both clips, then the side of both.
    stereo = [jnp.stack([x[:2] + x[2:], x[:2] - x[2:]], axis=2) for x in (estimate, target)]
    apart, together = losses(estimate, target), losses(*stereo)
    for name, value in apart.items():
        np.testing.assert_allclose(together[name], value, rtol=1e-5)


def test_a_sound_on_the_wrong_side_costs_what_magnitudes_of_left_and_right_cannot_see() -> None:
    """Turned over in one channel, every sound is between other speakers, and each magnitude what it was."""
    mid, side = noise(4, 2, 500), 0.1 * noise(5, 2, 500)
    stereo = jnp.stack([mid + side, mid - side], axis=2)
    turned = stereo * jnp.asarray([1.0, -1.0])[None, None]
    np.testing.assert_allclose(losses(turned[..., 1], stereo[..., 1])["stft"], 0, atol=1e-5)
    assert losses(turned, stereo)["stft"] > 1
    # The silent side of a mono clip is no denominator.
    twice = jnp.stack([mid, mid], axis=2)
    assert losses(twice + 1e-2 * stereo, twice)["stft"] < 2


def test_half_precision_audio_is_compared_in_float32() -> None:
    audio = noise(3, 1, 500).astype(jnp.bfloat16)
    assert all(loss.dtype == jnp.float32 for loss in jax.eval_shape(losses, -audio, audio).values())


@pytest.mark.parametrize("sample_rate", PRESETS)
def test_scales_are_of_like_seconds_at_every_rate_and_no_band_is_empty(sample_rate: int) -> None:
    scales = mel_scales(sample_rate)
    assert 1 / 30 < scales[-1][0] / sample_rate < 1 / 15
    for n_fft, n_mels in scales:
        assert mel_filterbank(sample_rate=sample_rate, n_fft=n_fft, n_mels=n_mels).any(axis=0).all()
    for n_fft, hop_length, window_length in stft_resolutions(sample_rate):
        assert 4 * hop_length < window_length <= n_fft < 2 * window_length + 1
    assert stft_resolutions(24000)[:2] == ((1024, 120, 600), (2048, 240, 1200))


CODES = jnp.asarray([[1, 2, 3, 3], [0, 0, 0, 2], [5, 5, 5, 5]])[..., None]


class Known(WaveVQ):
    """A codec that writes given codes."""

    def reconstruct(self, audio, *, codebooks=None):
        del codebooks
        statistics = {"counts": jnp.full((1, 8), 99, jnp.int32)}
        return Reconstruction(
            audio, CODES, dict.fromkeys(("commitment", "codebook"), jnp.float32(0)), statistics
        )


def test_codes_of_padding_are_not_counted_in_an_evaluation_by_hand() -> None:
    """Frames of 16 samples: the second one of the first clip is begun, the third clip fills up the batch."""
    random = np.random.default_rng(0)
    quantizer = EMAResidualVQ(4, codebooks=1, codebook_size=8, random=random)
    codec = Known(
        strides=(16,), width=1, decoder_width=2, quantizer=quantizer, sample_rate=RATE, random=random
    )
    examples = {"waveform": noise(6, 3, 64), "length": jnp.asarray([17, 64, 0])}
    evaluated = jax.jit(lambda examples: codec.objective(examples, None))(examples)
    np.testing.assert_array_equal(evaluated.statistics["counts"], [[3, 1, 2, 0, 0, 0, 0, 0]])
    assert evaluated.scored == 2
