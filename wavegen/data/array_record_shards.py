"""ArrayRecord shards: every record is a 2-second chunk of one recording, and chunks overlap by one second.

Any crop of up to a second therefore lies in one record. Records are neither grouped nor compressed: a reader decodes
a whole group to reach one record, which made crops a hundred times slower with groups of 16. The format holds a hash of
every record, which its reader checks. Source: https://github.com/google/array_record
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
        for chunk in range(records(len(pcm), self._hop)):
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

    Raises:
        WavegenError: if the file is damaged, or the package is not installed.
    """

    def __init__(self, path: Path, channels: int, sample_rate: int):
        self._path = path
        self._channels = channels
        self._hop = sample_rate
        # By default the reader reads ahead to hide the latency of remote disks, which is wasted on random access.
        module = _module()
        with self._failed_reads():
            self._reader = module.ArrayRecordReader(str(path), "readahead_buffer_size:0")
            self._records = self._reader.num_records()

    def read(self, offset: int, length: int, start: int, stop: int) -> Int16[np.ndarray, "T C"]:
        """Reads samples [start, stop) of the recording whose first record is ``offset``, of ``length`` samples.

        Raises:
            WavegenError: if a record is missing, damaged, or of another length.
        """
        last, wanted = records(length, self._hop) - 1, stop - start
        parts = [np.zeros((0, self._channels), np.int16)]
        while start < stop:
            chunk = min(start // self._hop, last)
            begin = chunk * self._hop
            parts.append(self._record(offset + chunk)[start - begin : stop - begin])
            start = begin + 2 * self._hop
        samples = np.concatenate(parts)
        with self._failed_reads():
            if len(samples) != wanted:
                raise ValueError(
                    f"expected {wanted} samples in the records from {offset} on, got {len(samples)}"
                )
        return samples

    def _record(self, number: int) -> Int16[np.ndarray, "T C"]:
        with self._failed_reads():
            if number >= self._records:
                raise ValueError(f"expected a record {number}, it has {self._records}")
            (record,) = self._reader.read([number])
            return np.frombuffer(record, "<i2").reshape(-1, self._channels)

    @contextmanager
    def _failed_reads(self) -> Iterator[None]:
        """Turns the errors of the package, and of records of an odd length, into one line."""
        try:
            yield
        except (RuntimeError, ValueError) as error:
            raise WavegenError(
                f"{self._path} is damaged ({error}); delete it and prepare the dataset again"
            ) from None


def records(length: int, hop: int) -> int:
    """Returns how many records of two hops, one hop apart, cover ``length`` samples."""
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
