"""Mel spectrograms with the defaults of librosa: scale and normalised triangles of Slaney 1998, Auditory Toolbox."""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from wavegen.errors import WavegenError
from wavegen.spectral.stft import PadMode, magnitude, power, stft
from wavegen.types import Waveform

# The scale is linear up to 1 kHz, which is 15 mel, and logarithmic above: 27 mel for every factor of 6.4.
BREAK_HERTZ, BREAK_MEL, MEL_PER_LOG = 1000.0, 15.0, 27 / np.log(6.4)


def mel_filterbank(
    *, sample_rate: float, n_fft: int, n_mels: int, f_min: float = 0.0, f_max: float | None = None
) -> Float[np.ndarray, "D V"]:
    """Returns the weights from the D = ``n_fft // 2 + 1`` bins of a spectrum to ``n_mels`` bands, float32.

    Bands are triangles, evenly spaced in mel, each of area 1 over frequency in Hz. Bands that are narrower than a bin
    may be empty.

    Args:
        sample_rate: sample rate in Hz.
        n_fft: samples per frame.
        n_mels: number of bands, V.
        f_min: frequency in Hz at which the first band begins.
        f_max: frequency in Hz at which the last band ends; None is half the sample rate.

    Raises:
        WavegenError: if there are no bands, or the frequencies are out of order or above half the sample rate.

    Example:
        >>> from wavegen.spectral import mel_filterbank
        >>> weights = mel_filterbank(sample_rate=16000, n_fft=512, n_mels=40)
        >>> weights.shape, round(float(weights[:, 39].sum() * 16000 / 512), 2)  # the area of the last band
        ((257, 40), 1.0)
    """
    f_max = sample_rate / 2 if f_max is None else f_max
    if n_mels < 1 or not 0 <= f_min < f_max <= sample_rate / 2:
        raise WavegenError(
            f"expected at least one band and 0 <= f_min < f_max <= {sample_rate / 2:g} Hz, got n_mels={n_mels}, "
            f"f_min={f_min:g}, f_max={f_max:g}; half the sample rate is the highest possible frequency"
        )
    bins = np.linspace(0, sample_rate / 2, n_fft // 2 + 1)[:, None]
    edges = _hertz(np.linspace(_mel(f_min), _mel(f_max), n_mels + 2))[None]
    low, middle, high = edges[:, :-2], edges[:, 1:-1], edges[:, 2:]
    triangles = np.minimum((bins - low) / (middle - low), (high - bins) / (high - middle))
    return (np.maximum(triangles, 0) * 2 / (high - low)).astype(np.float32)


def mel_spectrogram(
    audio: Waveform,
    *,
    sample_rate: float,
    n_fft: int,
    hop_length: int,
    n_mels: int,
    f_min: float = 0.0,
    f_max: float | None = None,
    squared: bool = True,
    pad_mode: PadMode = "constant",
) -> Float[Array, "B N D"]:
    """Returns the energy, or the amplitude, in each mel band.

    Args:
        audio: mono.
        sample_rate: sample rate in Hz.
        n_fft: samples per frame.
        hop_length: samples between frames.
        n_mels: number of bands, D.
        f_min: frequency in Hz at which the first band begins.
        f_max: frequency in Hz at which the last band ends; None is half the sample rate.
        squared: whether bands sum squared magnitudes, the default of librosa, or magnitudes, as losses do.
        pad_mode: the continuation of the signal beyond its ends.

    Returns:
        float32, at least 0; frames as in ``stft``.

    Raises:
        WavegenError: see ``stft`` and ``mel_filterbank``.

    Example:
        >>> import jax.numpy as jnp
        >>> from wavegen.spectral import log_mel, mel_spectrogram
        >>> tone = jnp.sin(2 * jnp.pi * 1000 / 8000 * jnp.arange(2048))[None]
        >>> mel = mel_spectrogram(tone, sample_rate=8000, n_fft=512, hop_length=128, n_mels=20)
        >>> mel.shape, int(log_mel(mel)[0, 8].argmax())
        ((1, 17, 20), 8)
    """
    spectrum = stft(audio, n_fft=n_fft, hop_length=hop_length, pad_mode=pad_mode)
    values = power(spectrum) if squared else magnitude(spectrum, floor=1e-7)
    bands = mel_filterbank(sample_rate=sample_rate, n_fft=n_fft, n_mels=n_mels, f_min=f_min, f_max=f_max)
    return jnp.dot(values, bands, precision=lax.Precision.HIGHEST)


def log_mel(mel: Float[Array, "B N D"], *, floor: float = 1e-5) -> Float[Array, "B N D"]:
    """Returns the common logarithm of a mel spectrogram, with values below ``floor`` raised to it."""
    return jnp.log10(jnp.maximum(mel, floor))


def _mel(hertz: float) -> float:
    if hertz < BREAK_HERTZ:
        return hertz * BREAK_MEL / BREAK_HERTZ
    return BREAK_MEL + MEL_PER_LOG * float(np.log(hertz / BREAK_HERTZ))


def _hertz(mel: Float[np.ndarray, "V"]) -> Float[np.ndarray, "V"]:
    above = BREAK_HERTZ * np.exp((mel - BREAK_MEL) / MEL_PER_LOG)
    return np.where(mel < BREAK_MEL, mel * BREAK_HERTZ / BREAK_MEL, above)
