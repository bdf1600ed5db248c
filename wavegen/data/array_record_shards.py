"""ArrayRecord shards: every record is a 2-second chunk of one recording, and chunks overlap by one second.

Any crop of up to a second therefore lies in one record. Records are neither grouped nor compressed: a reader decodes
a whole group to reach one record, which made crops a hundred times slower with groups of 16. Source:
https://github.com/google/array_record
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np
from jaxtyping import Int16

from wavegen.errors import WavegenError

SUFFIX = ".array_record"


class ArrayRecordWriter:
    """Writes one ArrayRecord shard.

    Args:
        path: the file to write.
        sample_rate: sample rate in Hz, which is also the hop between chunks in samples.
    """

    def __init__(self, path: Path, sample_rate: int):
        self._writer = _module().ArrayRecordWriter(str(path), "group_size:1,uncompressed")
        self._hop = sample_rate
        self._records = 0

    def append(self, pcm: Int16[np.ndarray, "T C"]) -> int:
        """Stores a recording and returns the number of its first record."""
        first = self._records
        for chunk in range(_chunks(len(pcm), self._hop)):
            part = pcm[chunk * self._hop : (chunk + 2) * self._hop]
            with _failed_writes():
                self._writer.write(part.astype("<i2").tobytes())
            self._records += 1
        return first

    def close(self) -> None:
        """Writes the index of records and closes the file."""
        with _failed_writes():
            self._writer.close()


class ArrayRecordReader:
    """Random access to one ArrayRecord shard.

    Args:
        path: the shard.
        channels: number of channels, C.
        sample_rate: sample rate in Hz, the same as the writer's.
    """

    def __init__(self, path: Path, channels: int, sample_rate: int):
        # By default the reader reads ahead to hide the latency of remote disks, which is wasted on random access.
        self._reader = _module().ArrayRecordReader(str(path), "readahead_buffer_size:0")
        self._channels = channels
        self._hop = sample_rate

    def read(self, offset: int, length: int, start: int, stop: int) -> Int16[np.ndarray, "T C"]:
        """Reads samples [start, stop) of the recording whose first record is ``offset``, of ``length`` samples."""
        last = _chunks(length, self._hop) - 1
        parts = [np.zeros((0, self._channels), np.int16)]
        while start < stop:
            chunk = min(start // self._hop, last)
            begin = chunk * self._hop
            (record,) = self._reader.read([offset + chunk])
            samples = np.frombuffer(record, "<i2").reshape(-1, self._channels)
            parts.append(samples[start - begin : stop - begin])
            start = begin + 2 * self._hop
        return np.concatenate(parts)


def _chunks(length: int, hop: int) -> int:
    """Returns how many chunks of two hops cover ``length`` samples."""
    return max(1, -(-length // hop) - 1)


@contextmanager
def _failed_writes() -> Iterator[None]:
    """Raises OSError for a full disk; the package raises RuntimeError, and only when it flushes."""
    try:
        yield
    except RuntimeError as error:
        raise OSError(str(error)) from error


def _module() -> ModuleType:
    try:
        from array_record.python import array_record_module
    except ImportError as error:
        raise WavegenError(
            "the array_record backend needs the array_record package; pip install 'wavegen[array-record]', "
            "or use the memmap backend"
        ) from error
    return array_record_module
