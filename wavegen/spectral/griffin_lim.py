"""From magnitudes back to audio: fast Griffin-Lim.

A spectrogram without phases is made consistent step by step: to audio and back, and of the result only the phases are
kept. Sources: Griffin and Lim 1984, "Signal Estimation from Modified Short-Time Fourier Transform"; Perraudin, Balazs
and Sondergaard 2013, "A Fast Griffin-Lim Algorithm", algorithm 2 (momentum).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Complex, Float

from wavegen.errors import WavegenError
from wavegen.spectral.stft import hann, stft
from wavegen.types import Waveform


def istft(spectrum: Complex[Array, "B N D"], *, n_fft: int, hop_length: int) -> Waveform:
    """The audio whose spectrum is nearest, in least squares: the inverse of `stft` with `pad_mode="constant"`.

    Frames are windowed once more, added where they overlap, and divided by the sum of the squared windows.

    Args:
        spectrum: D = `n_fft // 2 + 1` bins.
        n_fft: samples of a frame, even.
        hop_length: samples between frames, at most half a frame.

    Returns:
        float32, `(N - 1) * hop_length` samples.

    Raises:
        WavegenError: fewer than two frames, or lengths do not fit.
    """
    frames, bins = spectrum.shape[1:]
    if n_fft % 2 or not 1 <= hop_length <= n_fft // 2 or bins != n_fft // 2 + 1 or frames < 2:
        raise WavegenError(
            f"expected an even n_fft, a hop_length of 1 to n_fft / 2 and at least 2 frames of n_fft / 2 + 1 bins, got "
            f"n_fft={n_fft}, hop_length={hop_length} and {list(spectrum.shape)}; use those of the stft"
        )
    window = hann(n_fft)
    pieces = jnp.fft.irfft(spectrum, n=n_fft) * window[None, None]
    squares = jnp.broadcast_to(window[None, None] ** 2, (1, frames, n_fft))
    start, length = n_fft // 2, (frames - 1) * hop_length
    audio, weight = (_overlap_add(x, hop_length)[:, start : start + length] for x in (pieces, squares))
    return audio / weight


def griffin_lim(
    magnitudes: Float[Array, "B N D"],
    *,
    n_fft: int,
    hop_length: int,
    iterations: int = 32,
    momentum: float = 0.99,
) -> Waveform:
    """Audio whose spectrum has these magnitudes, as nearly as can be.

    With P the magnitudes at given phases and G the consistent spectrum `stft(istft(.))`:

        c_i = G(P(t_{i-1})),   t_i = c_i + momentum (c_i - c_{i-1})

    The first phases are random, always the same for a number of frames, so that rows do not depend on their batch.

    Args:
        magnitudes: at least 0; D = `n_fft // 2 + 1` bins, frames centred as in `stft`.
        n_fft: samples of a frame, even.
        hop_length: samples between frames, at most half a frame; a quarter or less is good.
        iterations: of the algorithm; 0 leaves the first phases.
        momentum: 0 is the algorithm of 1984.

    Returns:
        float32, `(N - 1) * hop_length` samples.

    Raises:
        WavegenError: see `istft`.
    """
    magnitudes = magnitudes.astype(jnp.float32)
    turns = jax.random.uniform(jax.random.key(0), (1, *magnitudes.shape[1:]))

    def consistent(spectrum: Complex[Array, "B N D"]) -> Complex[Array, "B N D"]:
        audio = istft(spectrum, n_fft=n_fft, hop_length=hop_length)
        return stft(audio, n_fft=n_fft, hop_length=hop_length, pad_mode="constant")

    def iterate(_: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        guess, last = state
        now = consistent(guess)
        return _with_phases(magnitudes, now + momentum * (now - last)), now

    first = magnitudes * jnp.exp(2j * np.pi * turns)
    guess, _ = lax.fori_loop(0, iterations, iterate, (first, jnp.zeros_like(first)))
    return istft(guess, n_fft=n_fft, hop_length=hop_length)


def mel_to_power(
    mel: Float[Array, "B N V"], filterbank: Float[np.ndarray, "D V"], *, iterations: int = 32
) -> Float[Array, "B N D"]:
    """A power spectrum, at least 0, with these energies in its mel bands.

    Bands W hold fewer numbers than bins, so many spectra fit. From the bands spread evenly over their bins, each
    iteration corrects every bin by the ratios of its bands, weighted, and so lowers the Kullback-Leibler divergence:

        x <- x * (W (mel / (x W))) / (W 1)

    Sources: Richardson 1972; Lee and Seung 2001, "Algorithms for Non-negative Matrix Factorization", theorem 2. (Piano,
    128 bands of 1025 bins, and speech, 64 of 257: 20 iterations miss the bands by 0.01 and 0.07 dB; the same of their
    least-squares rule by 0.11 and 0.68, a pseudo-inverse with negatives cut off by 0.31 and 1.82.)

    Args:
        mel: energies, at least 0.
        filterbank: W, from `mel_filterbank`.
        iterations: of the correction.
    """
    tiny = np.finfo(np.float32).tiny
    spread = filterbank / np.maximum(filterbank.sum(axis=1, keepdims=True), tiny)
    # Bands that are narrower than a bin may have no weight: what they say is lost.
    total = filterbank.sum(axis=0)[None, None]
    share = np.where(total > 0, 1 / np.maximum(total, tiny), 0)

    def iterate(_: Array, power: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        bands = jnp.dot(power, filterbank, precision=lax.Precision.HIGHEST)
        ratio = mel / jnp.maximum(bands, 1e-20)
        return power * jnp.dot(ratio, spread.T, precision=lax.Precision.HIGHEST)

    first = jnp.dot(mel.astype(jnp.float32) * share, spread.T, precision=lax.Precision.HIGHEST)
    return lax.fori_loop(0, iterations, iterate, first)


def _with_phases(
    magnitudes: Float[Array, "B N D"], spectrum: Complex[Array, "B N D"]
) -> Complex[Array, "B N D"]:
    return magnitudes * spectrum / jnp.maximum(jnp.abs(spectrum), 1e-12)


def _overlap_add(pieces: Float[Array, "B N D"], hop_length: int) -> Float[Array, "B T"]:
    """The sum of pieces that begin `hop_length` apart: their hops side by side, each set shifted by one more."""
    batch, count, length = pieces.shape
    hops = -(-length // hop_length)
    pieces = jnp.pad(pieces, ((0, 0), (0, 0), (0, hops * hop_length - length)))
    pieces = pieces.reshape(batch, count, hops, hop_length)
    total = sum(jnp.pad(pieces[:, :, i], ((0, 0), (i, hops - 1 - i), (0, 0))) for i in range(hops))
    return jnp.reshape(total, (batch, -1))
