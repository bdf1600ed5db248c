"""The share of a clip that repeats an earlier part of it nearly exactly."""

import numpy as np
from jaxtyping import Bool, Float

from wavegen.audio import Audio
from wavegen.evaluation.frames import FLOOR_DB, log_mel_frames

SECONDS = 0.5
"""Length of what is compared; no nearer repetition is sought."""
HOP, WINDOW, BANDS = 0.02, 0.128, 32
# Mean difference of the bands. The same sound, cut into frames at another moment, differs by less; the same note,
# played anew among others, by more.
SAME_DB = 1.0
QUIET_DB = 40.0  # below the loudest frame; silence resembles all silence


def repetition(audio: Audio) -> float | None:
    """Returns the share of the audible frames that belong to half a second that came before, 0 to 1.

    A steady tone repeats itself, and white noise does not. Music that is played by a sampler from a score with repeats
    repeats itself too, so compare with recordings.

    Args:
        audio: a clip, which is mixed to mono.

    Returns:
        The share, or None where the clip is shorter than two stretches of half a second.

    Example:
        >>> import numpy as np
        >>> from wavegen.audio import Audio
        >>> from wavegen.evaluation.repetition import repetition
        >>> noise = np.random.default_rng(0).normal(0, 0.1, 16000)
        >>> repetition(Audio(noise, 8000)), repetition(Audio(np.tile(noise[:8000], 4), 8000)) > 0.7
        (0.0, True)
    """
    frames = log_mel_frames(audio, window=WINDOW, hop=HOP, bands=BANDS).astype(np.float32)
    length = round(SECONDS / HOP)
    if len(frames) < 2 * length:
        return None
    loudest = frames.max(axis=1)
    audible = loudest > max(loudest.max() - QUIET_DB, FLOOR_DB)
    if not audible.any():
        return 0.0
    repeated = np.zeros(len(frames), bool)
    for lag in range(length, len(frames) - length + 1):
        difference = np.abs(frames[lag:] - frames[:-lag]).mean(axis=1)
        same = _means(difference, length) < SAME_DB
        for start in np.flatnonzero(same & (_means(audible[lag:], length) > 0.5)):
            repeated[lag + start : lag + start + length] = True
    return float((repeated & audible).sum() / audible.sum())


def _means(values: Float[np.ndarray, "F"] | Bool[np.ndarray, "F"], length: int) -> Float[np.ndarray, "N"]:
    """Returns the mean of every stretch of ``length`` values."""
    total = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    return (total[length:] - total[:-length]) / length
