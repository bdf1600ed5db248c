"""Flat files: numbers one after the other, read through the page cache and checked by the block.

The samples of a shard are little-endian int16, its features float32. Each block of 64 KiB has a checksum in the
manifest, which is compared when the block is first read, and again once the file has been read 32 times over: what
does not fit into memory comes from the disk each time.
"""

import base64
import binascii
import hashlib
from pathlib import Path

import numpy as np
from jaxtyping import Int16, Shaped
from xxhash import xxh3_64_intdigest

from wavegen.errors import WavegenError

SUFFIX = ".pcm"
BLOCK = 1 << 16
_PASSES = 32
_SUM_BYTES = 8


class FlatWriter:
    """Writes the samples of one shard.

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


class FlatFile:
    """Rows of numbers in a file, none of which is returned before its block was found whole.

    Args:
        path: the file.
        dtype: of the numbers.
        columns: numbers per row.
        blocks: see ``checksums``; empty for a file that has none and is not checked.
    """

    def __init__(self, path: Path, dtype: str, columns: int, blocks: str):
        # A plain array, because slices of np.memmap objects take several times as long.
        self._bytes = np.asarray(np.memmap(path, np.uint8, mode="r"))
        self._view = self._bytes.data
        self._rows = self._bytes.view(dtype).reshape(-1, columns)
        self._path = path
        self._row_bytes = self._rows.itemsize * columns
        self._sums = decoded(blocks, len(self._bytes))
        self._unchecked = bytearray()
        self._left = 0

    def rows(self, start: int, stop: int) -> Shaped[np.ndarray, "N D"]:
        """Returns rows [start, stop).

        Raises:
            WavegenError: if a block that holds some of them is damaged.
        """
        first, last = start * self._row_bytes // BLOCK, -(-stop * self._row_bytes // BLOCK)
        if self._left <= 0:
            self._unchecked = bytearray(b"\1" * len(self._sums))
            self._left = _PASSES * len(self._bytes)
        self._left -= (stop - start) * self._row_bytes
        if self._unchecked.find(1, first, last) >= 0:
            self._check(first, last)
        return self._rows[start:stop]

    def _check(self, first: int, last: int) -> None:
        for block in range(first, last):
            part = self._view[block * BLOCK : (block + 1) * BLOCK]
            if self._unchecked[block] and xxh3_64_intdigest(part) != self._sums[block]:
                raise WavegenError(
                    f"{self._path} is damaged between the bytes {block * BLOCK} and {block * BLOCK + len(part)}; "
                    "delete it and prepare the dataset again"
                )
            self._unchecked[block] = 0


class FlatReader:
    """Random access to the samples of one shard.

    Args:
        path: the shard.
        channels: number of channels, C.
        blocks: see ``checksums``.
    """

    def __init__(self, path: Path, channels: int, blocks: str):
        self._file = FlatFile(path, "<i2", channels, blocks)

    def read(self, offset: int, length: int, start: int, stop: int) -> Int16[np.ndarray, "T C"]:
        """Returns samples [start, stop) of the recording that begins at ``offset`` and has ``length`` samples."""
        return self._file.rows(offset + start, offset + stop)


def checksums(path: Path) -> tuple[str, str]:
    """Returns the sha256 of a file in hexadecimal, and the checksums of its blocks.

    The checksums are XXH3 of 64 bits (https://xxhash.com), little-endian, in base64: a flipped bit is noticed except
    by a chance of 2^-64. They protect from accidents; the sha256 protects from intent.
    """
    whole, sums = hashlib.sha256(), []
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            whole.update(block)
            sums.append(xxh3_64_intdigest(block))
    return whole.hexdigest(), base64.b64encode(np.array(sums, "<u8").tobytes()).decode()


def decoded(blocks: str, size: int) -> list[int]:
    """Returns the checksums of a file's blocks; none if there are none.

    Args:
        blocks: see ``checksums``.
        size: of the file, in bytes.

    Raises:
        ValueError: they are not base64, or not one per block.
    """
    try:
        data = base64.b64decode(blocks, validate=True)
    except binascii.Error as error:
        raise ValueError(f"expected checksums in base64 ({error})") from None
    if data and len(data) != _SUM_BYTES * -(-size // BLOCK):
        raise ValueError(
            f"expected {-(-size // BLOCK)} checksums of {size} bytes, got {len(data) / _SUM_BYTES:g}"
        )
    return [int.from_bytes(data[at : at + _SUM_BYTES], "little") for at in range(0, len(data), _SUM_BYTES)]
