"""Distances of spectra at several resolutions: one window cannot resolve both time and frequency.

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
"""The resolutions of Parallel WaveGAN: frame, hop and window in samples."""

MEL_SCALES = ((32, 5), (64, 10), (128, 20), (256, 40), (512, 80), (1024, 160), (2048, 320))
"""The scales of DAC: window in samples, and number of bands."""


def multi_resolution_stft_loss(
    estimate: Waveform, target: Waveform, *, resolutions: Sequence[tuple[int, int, int]] = RESOLUTIONS
) -> Float[Array, ""]:
    """Returns spectral convergence plus log-magnitude distance, averaged over resolutions.

    With magnitudes S of the target and E of the estimate, at least 1e-4, over the whole batch:

        |S - E|_F / |S|_F + mean |ln S - ln E|

    Args:
        estimate: the audio to be brought closer to the target.
        target: audio of the same shape.
        resolutions: frame, hop and window of each resolution, in samples.

    Example:
        >>> import jax.numpy as jnp
        >>> from wavegen.spectral import multi_resolution_stft_loss
        >>> audio = jnp.sin(0.1 * jnp.arange(2048.0))[None]
        >>> float(multi_resolution_stft_loss(audio, audio, resolutions=((512, 128, 512),))) < 1e-6
        True
        >>> float(multi_resolution_stft_loss(0.5 * audio, audio, resolutions=((512, 128, 512),))) > 0.5
        True
    """
    total = jnp.zeros((), jnp.float32)
    for n_fft, hop_length, window_length in resolutions:
        ours, theirs = (
            magnitude(stft(x, n_fft=n_fft, hop_length=hop_length, window_length=window_length), floor=1e-4)
            for x in (estimate, target)
        )
        # At least 1e-12: the gradient of the root is not finite at 0, where nothing is left to learn.
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
    """Returns the mean absolute difference of log10-mel spectrograms, summed over scales.

    Bands contain magnitudes, at least 1e-5; windows overlap by three quarters.

    Args:
        estimate: the audio to be brought closer to the target.
        target: audio of the same shape.
        sample_rate: sample rate in Hz.
        scales: window in samples and number of bands, of each scale.

    Example:
        >>> import jax
        >>> from wavegen.spectral import multi_scale_mel_loss
        >>> noise = jax.random.normal(jax.random.key(0), (1, 2048))
        >>> loss = multi_scale_mel_loss(0.1 * noise, noise, sample_rate=8000, scales=((256, 16),))
        >>> round(float(loss), 3)  # every band is lower by one factor of ten
        1.0
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
