"""Spectra against librosa and against sums written out; losses by their laws."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wavegen.errors import WavegenError
from wavegen.spectral import (
    log_mel,
    mel_filterbank,
    mel_spectrogram,
    multi_resolution_stft_loss,
    multi_scale_mel_loss,
    si_sdr,
    stft,
)

RATE = 8000
FEW = ((64, 16, 64), (128, 30, 100))
SCALES = ((32, 5), (128, 20))
LOSSES = {
    "stft": partial(multi_resolution_stft_loss, resolutions=FEW),
    "mel": partial(multi_scale_mel_loss, sample_rate=RATE, scales=SCALES),
    "si-sdr": lambda estimate, target: -jnp.mean(si_sdr(estimate, target)),
}
every_loss = pytest.mark.parametrize("name", LOSSES)


@cache
def value_and_gradients(name: str):
    return jax.jit(jax.value_and_grad(LOSSES[name], argnums=(0, 1)))


def measure(name: str, estimate, target) -> float:
    return float(value_and_gradients(name)(estimate, target)[0])


def noise(seed: int, *shape: int) -> np.ndarray:
    return 0.3 * np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
    ("length", "n_fft", "hop_length", "window_length", "pad_mode"),
    [
        (500, 64, 16, None, "reflect"),
        (501, 60, 13, 31, "reflect"),
        (499, 64, 50, 40, "constant"),
        (3, 16, 4, None, "constant"),
        (1, 16, 5, None, "constant"),
        (100, 15, 20, 14, "constant"),
    ],
)
def test_stft_is_the_sum_written_out(length, n_fft, hop_length, window_length, pad_mode) -> None:
    audio = noise(length, 2, length)
    size = n_fft if window_length is None else window_length
    window, left = np.zeros(n_fft), (n_fft - size) // 2
    window[left : left + size] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    padded = np.pad(audio.astype(np.float64), ((0, 0), (n_fft // 2, n_fft // 2)), mode=pad_mode)
    waves = np.exp(-2j * np.pi * np.outer(np.arange(n_fft), np.arange(n_fft // 2 + 1)) / n_fft)
    starts = range(0, padded.shape[1] - n_fft + 1, hop_length)
    expected = np.stack([(padded[:, s : s + n_fft] * window) @ waves for s in starts], axis=1)
    got = stft(
        jnp.asarray(audio), n_fft=n_fft, hop_length=hop_length, window_length=window_length, pad_mode=pad_mode
    )
    assert got.dtype == jnp.complex64
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, atol=2e-5)


def test_stft_is_that_of_librosa() -> None:
    librosa = pytest.importorskip("librosa")
    audio = noise(0, 2, 3000)
    for pad_mode in ("reflect", "constant"):
        got = stft(jnp.asarray(audio), n_fft=512, hop_length=120, window_length=400, pad_mode=pad_mode)
        expected = librosa.stft(audio, n_fft=512, hop_length=120, win_length=400, pad_mode=pad_mode)
        np.testing.assert_allclose(got, expected.swapaxes(1, 2), atol=2e-5)


@pytest.mark.parametrize(
    ("sample_rate", "n_fft", "n_mels", "f_min", "f_max"),
    [
        (8000, 512, 40, 0, None),
        (44100, 2048, 320, 0, None),
        (16000, 1024, 80, 50.0, 7600.0),
        (22050, 256, 5, 0, 900.0),
    ],
)
def test_mel_filterbank_is_that_of_librosa(sample_rate, n_fft, n_mels, f_min, f_max) -> None:
    librosa = pytest.importorskip("librosa")
    got = mel_filterbank(sample_rate=sample_rate, n_fft=n_fft, n_mels=n_mels, f_min=f_min, f_max=f_max)
    expected = librosa.filters.mel(sr=sample_rate, n_fft=n_fft, n_mels=n_mels, fmin=f_min, fmax=f_max)
    np.testing.assert_allclose(got, expected.T, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("squared", [True, False])
def test_log_mel_is_that_of_librosa(squared: bool) -> None:
    librosa = pytest.importorskip("librosa")
    audio = noise(1, 2, 4000)
    sizes = {"n_fft": 512, "hop_length": 128, "n_mels": 64}
    got = mel_spectrogram(jnp.asarray(audio), sample_rate=RATE, squared=squared, **sizes)
    expected = librosa.feature.melspectrogram(y=audio, sr=RATE, power=2 if squared else 1, **sizes)
    np.testing.assert_allclose(got, expected.swapaxes(1, 2), rtol=1e-4, atol=1e-6)
    decibel = librosa.power_to_db(expected, amin=1e-5, top_db=None).swapaxes(1, 2)
    np.testing.assert_allclose(10 * log_mel(got, floor=1e-5), decibel, atol=1e-3)


def test_bands_have_area_one_and_a_tone_lies_in_its_band() -> None:
    bands = mel_filterbank(sample_rate=RATE, n_fft=4096, n_mels=20)
    np.testing.assert_allclose(bands.sum(axis=0) * RATE / 4096, 1, rtol=0.01)
    seconds = np.arange(RATE) / RATE
    for hertz in (300.0, 1000.0, 2500.0):
        tone = jnp.asarray(np.sin(2 * np.pi * hertz * seconds), jnp.float32)[None]
        mel = mel_spectrogram(tone, sample_rate=RATE, n_fft=1024, hop_length=256, n_mels=20)
        assert mel[0, 10].argmax() == bands[round(hertz * 4096 / RATE)].argmax()


@every_loss
def test_losses_are_least_at_the_target(name: str) -> None:
    target = noise(2, 2, 400)
    best = measure(name, target, target)
    worse = [measure(name, target + share * noise(3, 2, 400), target) for share in (0.01, 0.1, 1.0)]
    assert best < worse[0] < worse[1] < worse[2]
    if name != "si-sdr":
        np.testing.assert_allclose(best, 0, atol=1e-5)


@every_loss
def test_losses_and_gradients_are_finite_at_silence(name: str) -> None:
    silence, sound = np.zeros((2, 400), np.float32), noise(4, 2, 400)
    for estimate in (silence, sound):
        for target in (silence, sound):
            value, gradients = value_and_gradients(name)(estimate, target)
            assert value.dtype == jnp.float32
            assert jnp.isfinite(value)
            assert all(jnp.isfinite(g).all() for g in gradients)


@every_loss
def test_gradients_lead_to_the_target(name: str) -> None:
    target = noise(5, 2, 400)
    estimate = target + 0.3 * noise(6, 2, 400)
    value, (gradient, _) = value_and_gradients(name)(estimate, target)
    step = np.asarray(1e-3 * gradient / jnp.linalg.norm(gradient))
    lower = measure(name, estimate - step, target)
    np.testing.assert_allclose(value - lower, np.sum(step * gradient), rtol=0.2)


def test_half_precision_audio_is_measured_in_float32() -> None:
    audio = jnp.asarray(noise(7, 1, 300), jnp.bfloat16)
    for loss in LOSSES.values():
        assert jax.eval_shape(loss, audio, -audio).dtype == jnp.float32


def test_stft_loss_by_hand() -> None:
    """An estimate twice as loud: convergence 1, log magnitudes ln 2 apart."""
    target = noise(8, 2, 400)
    np.testing.assert_allclose(measure("stft", 2 * target, target), 1 + np.log(2), rtol=1e-4)


def test_mel_loss_by_hand() -> None:
    """An estimate ten times as loud: one factor of ten in every scale."""
    target = noise(9, 2, 400)
    np.testing.assert_allclose(measure("mel", 10 * target, target), 2, rtol=1e-4)


def test_si_sdr_by_hand() -> None:
    tone = np.sin(2 * np.pi * np.arange(400) / 40)
    other = np.cos(2 * np.pi * np.arange(400) / 40)
    target = jnp.asarray(np.stack([tone, tone, 0 * tone]), jnp.float32)
    estimate = jnp.asarray(np.stack([tone + 0.1 * other, -3 * tone + 3 * other + 7, tone]), jnp.float32)
    np.testing.assert_allclose(jax.jit(si_sdr)(estimate, target), [20, 0, -80], atol=1e-3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stft(jnp.zeros((1, 9)), n_fft=8, hop_length=0), "hop_length=0; lengths are in samples"),
        (lambda: stft(jnp.zeros((1, 9)), n_fft=8, hop_length=2, window_length=9), "window_length=9, n_fft=8"),
        (lambda: stft(jnp.zeros((1, 0)), n_fft=8, hop_length=2), "at least one sample"),
        (
            lambda: mel_filterbank(sample_rate=RATE, n_fft=64, n_mels=4, f_max=5000.0),
            "<= 4000 Hz, got n_mels=4",
        ),
        (lambda: mel_filterbank(sample_rate=RATE, n_fft=64, n_mels=0), "n_mels=0"),
    ],
)
def test_bad_arguments_are_named(call, message: str) -> None:
    with pytest.raises(WavegenError, match=message):
        call()
