"""The embedding that needs nothing: statistics of log-mel frames."""

import numpy as np
from jaxtyping import Float

from wavegen.audio import Audio
from wavegen.evaluation.embeddings.base import Embedding, pieces
from wavegen.evaluation.frames import log_mel_frames

SECONDS = 1.0
WINDOW, HOP, BANDS = 0.032, 0.01, 32
RATE = 16000
"""Hz, at most; at higher rates the bands would lie elsewhere, and most music and speech lies below 8 kHz."""


class LogMelStatistics(Embedding):
    """Mean, standard deviation and mean step from frame to frame of each log-mel band, in dB, per second of a clip.

    It reads loudness, timbre, noise and how fast the spectrum moves; it does not read pitch beyond its bands, words, or
    any order in time longer than a frame.

    Args:
        sample_rate: Hz, to which all clips are resampled, so that bands mean the same in both sets.
    """

    name = "log-mel statistics"

    def __init__(self, sample_rate: int = RATE) -> None:
        self.sample_rate = sample_rate

    def embed(self, clip: Audio) -> Float[np.ndarray, "P D"]:
        """Returns 96 numbers per second."""
        clip = clip.resample(self.sample_rate)
        return np.stack([_statistics(piece) for piece in pieces(clip, SECONDS)])


def _statistics(piece: Audio) -> Float[np.ndarray, "D"]:
    frames = log_mel_frames(piece, window=WINDOW, hop=HOP, bands=BANDS)
    # A single frame has no steps.
    steps = np.abs(np.diff(frames, axis=0, prepend=frames[:1])).mean(axis=0)
    return np.concatenate([frames.mean(axis=0), frames.std(axis=0), steps])
