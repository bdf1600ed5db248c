"""The short-time Fourier transform, with the conventions of librosa and ``torch.stft``."""

from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from wavegen.errors import WavegenError
from wavegen.types import Waveform

PadMode = Literal["reflect", "constant"]
"""The continuation of the signal beyond its ends: its mirror image (as in torch), or silence (as in librosa)."""


def stft(
    audio: Waveform,
    *,
    n_fft: int,
    hop_length: int,
    window_length: int | None = None,
    pad_mode: PadMode = "reflect",
) -> Complex[Array, "B N D"]:
    """Returns the spectrum of a periodic Hann window that moves over the signal.

    Frame n is centred on sample ``n * hop_length``; ``n_fft // 2`` samples are added at either end.

    Args:
        audio: mono.
        n_fft: samples per frame.
        hop_length: samples between frames.
        window_length: samples of the window, in the middle of the frame; None is ``n_fft``.
        pad_mode: the samples that are added at the ends.

    Returns:
        complex64, N = ``1 + T // hop_length`` frames for even ``n_fft``, D = ``n_fft // 2 + 1`` bins.

    Raises:
        WavegenError: if the audio has no samples or a length does not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> from wavegen.spectral import stft
        >>> tone = jnp.cos(2 * jnp.pi * 8 / 64 * jnp.arange(256))[None]  # 8 periods in a frame of 64
        >>> spectrum = stft(tone, n_fft=64, hop_length=16)
        >>> spectrum.shape, spectrum.dtype.name, int(jnp.abs(spectrum[0, 8]).argmax())
        ((1, 17, 33), 'complex64', 8)
    """
    window_length = n_fft if window_length is None else window_length
    if not 1 <= window_length <= n_fft or hop_length < 1:
        raise WavegenError(
            f"expected 1 <= window_length <= n_fft and hop_length of at least 1, got window_length={window_length}, "
            f"n_fft={n_fft}, hop_length={hop_length}; lengths are in samples"
        )
    if audio.shape[1] < 1:
        raise WavegenError("expected at least one sample, got an empty clip; leave it out")
    left = (n_fft - window_length) // 2
    window = np.pad(hann(window_length), (left, n_fft - window_length - left))
    padded = jnp.pad(audio.astype(jnp.float32), ((0, 0), (n_fft // 2, n_fft // 2)), mode=pad_mode)
    return jnp.fft.rfft(_frames(padded, n_fft, hop_length) * window[None, None])


def magnitude(spectrum: Complex[Array, "B N D"], *, floor: float) -> Float[Array, "B N D"]:
    """Returns absolute values, at least ``floor``.

    Below the floor the gradient is 0; that of a plain root is not finite at 0.

    Example:
        >>> import jax.numpy as jnp
        >>> from wavegen.spectral import magnitude
        >>> magnitude(jnp.array([[[3 + 4j, 0j]]]), floor=1e-4).round(5).tolist()
        [[[5.0, 9.999999747378752e-05]]]
    """
    return jnp.sqrt(jnp.maximum(power(spectrum), floor**2))


def power(spectrum: Complex[Array, "B N D"]) -> Float[Array, "B N D"]:
    """Returns squared absolute values."""
    return jnp.real(spectrum) ** 2 + jnp.imag(spectrum) ** 2


def hann(length: int) -> Float[np.ndarray, "D"]:
    """Returns the periodic Hann window, ``sin^2(pi n / length)``, float32."""
    return (np.sin(np.pi * np.arange(length) / length) ** 2).astype(np.float32)


def _frames(audio: Waveform, length: int, hop_length: int) -> Float[Array, "B N D"]:
    """Cuts overlapping frames hop by hop: slices are faster than a gather, above all in the gradient."""
    count = 1 + (audio.shape[1] - length) // hop_length
    hops = -(-length // hop_length)
    end = (count + hops - 1) * hop_length
    audio = jnp.pad(audio, ((0, 0), (0, max(end - audio.shape[1], 0))))[:, :end]
    pieces = audio.reshape(len(audio), -1, hop_length)
    return jnp.concatenate([pieces[:, i : i + count] for i in range(hops)], axis=2)[..., :length]
