"""The contract of an embedding, and the pieces that clips are cut into."""

from abc import ABC, abstractmethod

import numpy as np
from jaxtyping import Float

from wavegen.audio import Audio


class Embedding(ABC):
    """Maps clips to vectors.

    Its laws: every clip has at least one row, all rows have the same width, and the rows of a clip depend on nothing
    but the clip.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """What the embedding is, for a table."""

    @abstractmethod
    def embed(self, clip: Audio) -> Float[np.ndarray, "P D"]:
        """Returns one vector per piece of a clip, of any rate, length and number of channels."""


def pieces(clip: Audio, seconds: float) -> list[Audio]:
    """Cuts a clip into pieces of this length, mixed to mono.

    A remainder of less than half a piece is left out, unless it is the whole clip.

    Example:
        >>> import numpy as np
        >>> from wavegen.audio import Audio
        >>> from wavegen.evaluation.embeddings.base import pieces
        >>> [piece.duration for piece in pieces(Audio(np.zeros(27000), 8000), 1.0)]
        [1.0, 1.0, 1.0]
        >>> [piece.duration for piece in pieces(Audio(np.zeros(2000), 8000), 1.0)]
        [0.25]
    """
    samples, size = clip.mono().samples, max(round(seconds * clip.sample_rate), 1)
    parts = [samples[start : start + size] for start in range(0, len(samples), size)]
    if len(parts) > 1 and len(parts[-1]) < size / 2:
        parts.pop()
    return [Audio(part, clip.sample_rate) for part in parts]
