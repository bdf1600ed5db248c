"""The share of a clip that is a burst of noise: loud although its spectrum is flat."""

import numpy as np

from wavegen.audio import Audio

FRAME = 0.05  # seconds
FLATNESS = 0.05
"""Geometric over arithmetic mean of the power spectrum, above which a frame is flat; loud notes lie far below."""
LOUD_DB = -30.0  # of full scale


def noise_share(audio: Audio) -> float:
    """Returns the share of frames of 50 ms that are loud and whose spectrum is flat, 0 to 1.

    Hissing consonants count, too, so that recordings of speech are above 0: compare with them.

    Args:
        audio: a clip, which is mixed to mono; one shorter than a frame is one frame.

    Example:
        >>> import numpy as np
        >>> from wavegen.audio import Audio
        >>> from wavegen.evaluation.noise import noise_share
        >>> tone = 0.3 * np.sin(np.arange(8000) / 3)
        >>> tone[4000:] = np.random.default_rng(0).normal(0, 0.3, 4000)
        >>> noise_share(Audio(tone, 8000))
        0.5
    """
    wave = audio.mono().samples[:, 0].astype(np.float64)
    size = min(round(FRAME * audio.sample_rate), len(wave))
    frames = wave[: len(wave) // size * size].reshape(-1, size)
    power = np.abs(np.fft.rfft(frames * np.hanning(size), axis=1)) ** 2 + 1e-12
    flatness = np.exp(np.log(power).mean(axis=1)) / power.mean(axis=1)
    level = 10 * np.log10(np.mean(frames**2, axis=1) + 1e-12)
    return float(np.mean((flatness > FLATNESS) & (level > LOUD_DB)))
