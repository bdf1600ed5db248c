"""The inverse transform against librosa's; Griffin-Lim and the way back from mel by what they reach."""

from functools import partial
from inspect import signature

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wavegen.errors import WavegenError
from wavegen.spectral import griffin_lim, istft, mel_filterbank, mel_to_power, stft

RATE, SIZE, HOP = 8000, 256, 64
SHAPE = {"n_fft": SIZE, "hop_length": HOP}
transform = jax.jit(partial(stft, **SHAPE, pad_mode="constant"))
inverse = jax.jit(partial(istft, **SHAPE))
rebuild = jax.jit(partial(griffin_lim, **SHAPE), static_argnames=("iterations", "momentum"))


def noise(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(0.3 * np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def chirp(seconds: float = 0.5) -> jax.Array:
    """A tone that rises from 200 to 1200 Hz, with an overtone."""
    t = np.arange(int(seconds * RATE)) / RATE
    phase = 2 * np.pi * (200 * t + 1000 * t**2)
    audio = 0.3 * np.sin(phase) + 0.1 * np.sin(2 * phase)
    return jnp.asarray(audio[None, : len(audio) // HOP * HOP], jnp.float32)


def convergence(audio: jax.Array, magnitudes: jax.Array) -> float:
    return float(jnp.linalg.norm(jnp.abs(transform(audio)) - magnitudes) / jnp.linalg.norm(magnitudes))


@pytest.mark.parametrize(("n_fft", "hop_length"), [(256, 64), (256, 128), (60, 13)])
def test_inverse_returns_the_signal(n_fft: int, hop_length: int) -> None:
    audio = noise(0, 2, 9 * hop_length)
    shape = {"n_fft": n_fft, "hop_length": hop_length}
    there_and_back = jax.jit(lambda x: istft(stft(x, **shape, pad_mode="constant"), **shape))
    # Where half a frame is the hop, the ends of two windows meet and little of the signal is left there.
    tolerance = 1e-3 if 2 * hop_length == n_fft else 1e-6
    np.testing.assert_allclose(there_and_back(audio), audio, atol=tolerance)


def test_inverse_is_that_of_librosa() -> None:
    """Of a spectrum that no signal has, where least squares matter."""
    librosa = pytest.importorskip("librosa")
    spectrum = jax.lax.complex(noise(1, 2, 12, SIZE // 2 + 1), noise(2, 2, 12, SIZE // 2 + 1))
    expected = librosa.istft(np.asarray(spectrum).swapaxes(1, 2), n_fft=SIZE, hop_length=HOP)
    np.testing.assert_allclose(inverse(spectrum), expected, atol=1e-5)


def test_more_iterations_come_closer_and_momentum_helps() -> None:
    magnitudes = jnp.abs(transform(chirp()))
    reached = [convergence(rebuild(magnitudes, iterations=n), magnitudes) for n in (0, 4, 32)]
    assert reached[0] > 1.5 * reached[1] > 2 * reached[2]
    plain = convergence(rebuild(magnitudes, iterations=32, momentum=0.0), magnitudes)
    assert reached[2] < 0.9 * plain


def test_griffin_lim_is_no_worse_than_that_of_librosa() -> None:
    librosa = pytest.importorskip("librosa")
    magnitudes = jnp.abs(transform(chirp()))
    # librosa 1.0 renamed the seed.
    seed = {"rng" if "rng" in signature(librosa.griffinlim).parameters else "random_state": 0}
    theirs = librosa.griffinlim(
        np.asarray(magnitudes[0]).T, n_iter=32, hop_length=HOP, n_fft=SIZE, momentum=0.99, **seed
    )
    ours = rebuild(magnitudes, iterations=32)
    assert convergence(ours, magnitudes) < 1.2 * convergence(jnp.asarray(theirs[None]), magnitudes)


def test_a_sine_keeps_its_pitch_and_level() -> None:
    tone = jnp.asarray(0.5 * np.sin(2 * np.pi * 440 * np.arange(0, 62 * HOP) / RATE)[None], jnp.float32)
    back = np.asarray(rebuild(jnp.abs(transform(tone)), iterations=32))[0]
    spectrum = np.abs(np.fft.rfft(back * np.hanning(len(back)), 8 * RATE))
    assert abs(spectrum.argmax() / 8 - 440) < RATE / SIZE / 8  # an eighth of a bin
    assert abs(np.std(back[SIZE:-SIZE]) / (0.5 / np.sqrt(2)) - 1) < 0.02


def test_rows_of_a_batch_equal_each_alone() -> None:
    magnitudes = jnp.abs(noise(3, 2, 20, SIZE // 2 + 1))
    both = rebuild(magnitudes, iterations=4)
    for row in (0, 1):
        np.testing.assert_allclose(rebuild(magnitudes[row : row + 1], iterations=4)[0], both[row], atol=1e-4)


def test_silence_stays_silent() -> None:
    assert not rebuild(jnp.zeros((1, 20, SIZE // 2 + 1)), iterations=4).any()


def test_power_from_mel_has_the_energies_of_the_bands() -> None:
    filterbank = mel_filterbank(sample_rate=RATE, n_fft=SIZE, n_mels=30)
    power = jnp.abs(transform(chirp())) ** 2
    mel = power @ filterbank
    back = mel_to_power(mel, filterbank)
    assert back.min() >= 0
    loud = mel > 1e-4 * mel.max()
    difference = jnp.abs(jnp.log10(jnp.where(loud, back @ filterbank / mel, 1)))
    assert 10 * difference.sum() / loud.sum() < 0.3  # dB
    pseudo = jnp.maximum(mel @ np.linalg.pinv(filterbank), 0)
    assert jnp.linalg.norm(jnp.sqrt(back) - jnp.sqrt(power)) < 0.8 * jnp.linalg.norm(
        jnp.sqrt(pseudo) - jnp.sqrt(power)
    )


def test_bands_without_weight_and_silence_are_passed_over() -> None:
    filterbank = mel_filterbank(sample_rate=RATE, n_fft=64, n_mels=40)
    empty = ~filterbank.any(axis=0)
    assert empty.any()
    mel = jnp.where(jnp.asarray(empty)[None, None], 1.0, jnp.zeros((1, 3, 40)))
    assert not mel_to_power(mel, filterbank).any()


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((1, 1, 129), SHAPE),
        ((1, 4, 128), SHAPE),
        ((1, 4, 129), {"n_fft": 256, "hop_length": 129}),
        ((1, 4, 128), {"n_fft": 255, "hop_length": 64}),
    ],
)
def test_spectra_that_do_not_fit_are_named(shape: tuple[int, ...], options: dict[str, int]) -> None:
    with pytest.raises(WavegenError, match=r"hop_length=.*use those of the stft"):
        istft(jnp.zeros(shape, jnp.complex64), **options)
