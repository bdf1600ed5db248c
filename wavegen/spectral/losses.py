"""How far spectra are apart, at several resolutions at once: one window cannot tell both when and what.

Sources: Yamamoto et al. 2020, "Parallel WaveGAN", section 2.2 (STFT); Kumar et al. 2023, "High-Fidelity Audio
Compression with Improved RVQGAN", section 3.4 (mel).
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

from wavegen.spectral.mel import log_mel, mel_spectrogram
from wavegen.spectral.stft import magnitude, stft
from wavegen.types import Waveform

RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))
"""Parallel WaveGAN's: frame, hop and window, in samples."""

MEL_SCALES = ((32, 5), (64, 10), (128, 20), (256, 40), (512, 80), (1024, 160), (2048, 320))
"""DAC's: window in samples, bands."""


def multi_resolution_stft_loss(
    estimate: Waveform, target: Waveform, *, resolutions: Sequence[tuple[int, int, int]] = RESOLUTIONS
) -> Float[Array, ""]:
    """Spectral convergence and log magnitude, added, averaged over resolutions.

    With magnitudes S of the target and E of the estimate, at least 1e-4, over the whole batch:

        |S - E|_F / |S|_F + mean |ln S - ln E|

    Args:
        estimate: what is to come closer.
        target: of the same shape.
        resolutions: frame, hop and window of each, in samples.
    """
    total = jnp.zeros((), jnp.float32)
    for n_fft, hop_length, window_length in resolutions:
        ours, theirs = (
            magnitude(stft(x, n_fft=n_fft, hop_length=hop_length, window_length=window_length), floor=1e-4)
            for x in (estimate, target)
        )
        # Kept from 0, where the root's gradient is not finite: nothing is left to learn there.
        difference = jnp.sqrt(jnp.maximum(jnp.sum((theirs - ours) ** 2), 1e-12))
        convergence = difference / jnp.sqrt(jnp.sum(theirs**2))
        total = total + convergence + jnp.mean(jnp.abs(jnp.log(theirs) - jnp.log(ours)))
    return total / len(resolutions)


def multi_scale_mel_loss(
    estimate: Waveform,
    target: Waveform,
    *,
    sample_rate: float,
    scales: Sequence[tuple[int, int]] = MEL_SCALES,
) -> Float[Array, ""]:
    """The mean distance of log-mel spectrograms, in factors of ten, summed over scales.

    Bands hold magnitudes, at least 1e-5; windows overlap by three quarters.

    Args:
        estimate: what is to come closer.
        target: of the same shape.
        sample_rate: Hz.
        scales: window in samples, and bands, of each.
    """
    total = jnp.zeros((), jnp.float32)
    for n_fft, n_mels in scales:
        ours, theirs = (
            log_mel(
                mel_spectrogram(
                    x,
                    sample_rate=sample_rate,
                    n_fft=n_fft,
                    hop_length=n_fft // 4,
                    n_mels=n_mels,
                    squared=False,
                    pad_mode="reflect",
                )
            )
            for x in (estimate, target)
        )
        total = total + jnp.mean(jnp.abs(ours - theirs))
    return total
