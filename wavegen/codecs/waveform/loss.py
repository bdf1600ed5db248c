"""What a waveform codec is trained to lower before any discriminator joins in.

Spectra at many resolutions describe how it sounds; the waveform itself determines which of the many waveforms of
nearly those spectra is meant. Sources: Kumar et al. 2023, "High-Fidelity Audio Compression with Improved RVQGAN",
section 3.4 (mel); Yamamoto et al. 2020,
"Parallel WaveGAN", section 2.2 (STFT); Défossez et al. 2022, "High Fidelity Neural Audio Compression", section 3.4
(waveform); Steinmetz et al. 2020, "Automatic Multitrack Mixing with a Differentiable Mixing Console of Neural Audio
Effects" (stereo).
"""

from functools import cache

import jax.numpy as jnp
from jaxtyping import Array, Float

from wavegen.spectral import mel_filterbank, multi_resolution_stft_loss, multi_scale_mel_loss
from wavegen.spectral.losses import MEL_SCALES
from wavegen.types import AnyWaveform

LONGEST_WINDOW = 1 / 15
"""Seconds: beyond, a window of DAC's shows nothing that changes in its crops."""

STFT_SECONDS = ((0.025, 0.005), (0.05, 0.01), (0.01, 0.002))
"""Window and hop of the STFT loss: Parallel WaveGAN's, which are given in samples at 24 kHz."""


def audio_losses(estimate: AnyWaveform, target: AnyWaveform, sample_rate: int) -> dict[str, Float[Array, ""]]:
    """How far a reconstruction is from its recording, by name.

    "mel" and "stft": spectral distances, see ``wavegen.spectral``; "waveform": mean absolute difference.

    Stereo audio is compared as mid, (L + R) / 2, and side, (L - R) / 2. Magnitudes have no phase: with those of left
    and right both right, sounds can still be anywhere between the speakers. The side shows it, which is often
    far quieter than either. Mid and side share the denominator of spectral convergence, so that the silent side of a
    mono recording blows nothing up.

    Args:
        estimate: what the codec made of the audio.
        target: of the same shape, in [-1, 1].
        sample_rate: Hz.
    """
    ours, theirs = (_rows(x.astype(jnp.float32)) for x in (estimate, target))
    return {
        "mel": multi_scale_mel_loss(ours, theirs, sample_rate=sample_rate, scales=mel_scales(sample_rate)),
        "stft": multi_resolution_stft_loss(ours, theirs, resolutions=stft_resolutions(sample_rate)),
        "waveform": jnp.mean(jnp.abs(ours - theirs)),
    }


@cache
def mel_scales(sample_rate: int) -> tuple[tuple[int, int], ...]:
    """DAC's scales, for any sample rate: window in samples, and bands.

    DAC is trained at 44.1 kHz. Windows longer than ``LONGEST_WINDOW`` are left out, and bands are halved until none is
    so narrow that no bin of the spectrum lies in it: an empty band is always right, and would dilute the mean.

    Args:
        sample_rate: Hz.
    """
    scales = []
    for n_fft, n_mels in MEL_SCALES:
        if n_fft > LONGEST_WINDOW * sample_rate:
            break
        while not mel_filterbank(sample_rate=sample_rate, n_fft=n_fft, n_mels=n_mels).any(axis=0).all():
            n_mels //= 2
        scales.append((n_fft, n_mels))
    return tuple(scales)


def stft_resolutions(sample_rate: int) -> tuple[tuple[int, int, int], ...]:
    """Parallel WaveGAN's resolutions, for any sample rate: frame, hop and window in samples.

    Args:
        sample_rate: Hz.
    """
    lengths = ((round(window * sample_rate), round(hop * sample_rate)) for window, hop in STFT_SECONDS)
    return tuple((1 << (window - 1).bit_length(), hop, window) for window, hop in lengths)


def _rows(audio: AnyWaveform) -> Float[Array, "rows T"]:
    """Mono audio as it is, or mid and side of all clips."""
    if audio.ndim == 2:
        return audio
    left, right = audio[..., 0], audio[..., 1]
    return jnp.concatenate([left + right, left - right]) / 2
