"""Flat shards: little-endian int16 samples, one recording after the other, read through the page cache."""

from pathlib import Path

import numpy as np
from jaxtyping import Int16

SUFFIX = ".pcm"


class MemmapWriter:
    """Writes one flat shard.

    Args:
        path: the file to write.
    """

    def __init__(self, path: Path):
        self._file = open(path, "wb")  # noqa: SIM115 (until close)
        self._samples = 0

    def append(self, pcm: Int16[np.ndarray, "T C"]) -> int:
        """Stores a recording and returns its offset in samples."""
        offset = self._samples
        self._file.write(pcm.astype("<i2").tobytes())
        self._samples += len(pcm)
        return offset

    def close(self) -> None:
        """Writes what is still buffered and closes the file."""
        self._file.close()


class MemmapReader:
    """Random access to one flat shard.

    Args:
        path: the shard.
        channels: number of channels, C.
    """

    def __init__(self, path: Path, channels: int):
        # A plain array, because slices of np.memmap objects take several times as long.
        self._samples = np.asarray(np.memmap(path, "<i2", mode="r")).reshape(-1, channels)

    def read(self, offset: int, length: int, start: int, stop: int) -> Int16[np.ndarray, "T C"]:
        """Returns samples [start, stop) of the recording that begins at ``offset`` and has ``length`` samples."""
        return self._samples[offset + start : offset + stop]
