"""Spectra of audio and measures of them: float32, on the device, with gradients."""

from wavegen.spectral.griffin_lim import griffin_lim, istft, mel_to_power
from wavegen.spectral.losses import multi_resolution_stft_loss, multi_scale_mel_loss
from wavegen.spectral.mel import log_mel, mel_filterbank, mel_spectrogram
from wavegen.spectral.si_sdr import si_sdr
from wavegen.spectral.stft import magnitude, stft

__all__ = [
    "griffin_lim",
    "istft",
    "log_mel",
    "magnitude",
    "mel_filterbank",
    "mel_spectrogram",
    "mel_to_power",
    "multi_resolution_stft_loss",
    "multi_scale_mel_loss",
    "si_sdr",
    "stft",
]
