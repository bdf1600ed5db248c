"""Log-mel frames and levels of clips, computed on the host: clips of all lengths cost no compilation."""

import numpy as np
from jaxtyping import Float

from wavegen.audio import Audio
from wavegen.spectral import mel_filterbank

FLOOR_DB = -80.0
"""What is fainter counts as this; the rounding of 16 bits is at -101 dB."""


def log_mel_frames(audio: Audio, *, window: float, hop: float, bands: int) -> Float[np.ndarray, "F D"]:
    """Returns the mean power in each mel band, in dB; white noise of mean square 1 has 0 dB in all bands.

    Args:
        audio: a clip, which is mixed to mono, and padded if it is shorter than a window.
        window: length of a frame in seconds.
        hop: seconds between frames.
        bands: number of mel bands, D, from 0 Hz to half the sample rate.

    Example:
        >>> import numpy as np
        >>> from wavegen.audio import Audio
        >>> from wavegen.evaluation.frames import log_mel_frames
        >>> noise = Audio(np.random.default_rng(0).normal(0, 0.1, 16000), 16000)
        >>> frames = log_mel_frames(noise, window=0.05, hop=0.02, bands=16)
        >>> frames.shape, round(float(np.mean(10 ** (frames / 10))), 3)
        ((48, 16), 0.01)
    """
    rate, wave = audio.sample_rate, audio.mono().samples[:, 0]
    size = max(2 * round(window * rate / 2), 2)
    wave = np.pad(wave, (0, max(0, size - len(wave))))
    frames = np.lib.stride_tricks.sliding_window_view(wave, size)[:: max(round(hop * rate), 1)]
    shape = np.hanning(size).astype(np.float32)
    power = np.abs(np.fft.rfft(frames * shape, axis=1)) ** 2 / np.sum(shape**2)
    weights = mel_filterbank(sample_rate=rate, n_fft=size, n_mels=bands)
    # A band that is narrower than a bin holds nothing, and stays at the floor.
    mel = power @ (weights / np.maximum(weights.sum(axis=0), 1e-12))
    return 10 * np.log10(np.maximum(mel, 10 ** (FLOOR_DB / 10)))


def levels(audio: Audio, seconds: float) -> Float[np.ndarray, "F"]:
    """Returns the level of consecutive frames in dB of full scale; a remainder is left out unless it is all.

    Args:
        audio: a clip, which is mixed to mono.
        seconds: length of a frame.
    """
    wave = audio.mono().samples[:, 0].astype(np.float64)
    size = max(round(seconds * audio.sample_rate), 1)
    count = len(wave) // size
    frames = wave[: count * size].reshape(count, size) if count else wave[None]
    return 10 * np.log10(np.maximum(np.mean(frames**2, axis=1), 10 ** (FLOOR_DB / 10)))
