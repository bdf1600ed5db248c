"""Log-mel frames of a whole split in random order, in batches that are a pure function of seed and number."""

from collections.abc import Iterator

import jax
import numpy as np
from jaxtyping import Array, Float, Int64

from wavegen.codecs.spectrogram.frames import MelFrames
from wavegen.data.dataset import Dataset
from wavegen.errors import WavegenError
from wavegen.types import Waveform

PIECE = 64
"""Frames that are read together: neighbours are alike, so that a batch should consist of many short pieces."""


class FrameBatches:
    """The frames of all recordings, as ``MelFrames.from_audio`` computes them.

    Recordings are cut into pieces of ``PIECE`` frames, which are read with the samples around them, so that frames at
    a cut are those of the whole recording. The pieces form an endless sequence, in which all of them come once in
    random order, then once in another, and so on; batches are cut from this sequence.

    Args:
        dataset: mono, prepared at the sample rate of ``frames``.
        split: name of the split, for instance "train".
        frames: how frames are computed.
        batch_size: frames per batch.
        seed: seed of the order, at least 0.

    Raises:
        WavegenError: if the split is empty, or the dataset has another sample rate or more than one channel.
    """

    def __init__(
        self, dataset: Dataset, split: str, frames: MelFrames, *, batch_size: int = 8192, seed: int = 0
    ) -> None:
        if (dataset.sample_rate, dataset.channels) != (frames.sample_rate, 1):
            raise WavegenError(
                f"expected a mono dataset at {frames.sample_rate} Hz, got {dataset.channels} channel(s) at "
                f"{dataset.sample_rate} Hz; prepare it so, or describe frames of its rate"
            )
        self.dataset, self.frames, self.batch_size, self.seed = dataset, frames, batch_size, seed
        self.files = dataset.split(split)
        counts = -(-self.files.length // frames.hop_length)
        pieces = -(-counts // PIECE)
        self._file = np.repeat(np.arange(len(counts)), pieces)
        self._first = PIECE * (np.arange(len(self._file)) - np.repeat(np.cumsum(pieces) - pieces, pieces))
        self._count = np.minimum(counts[self._file] - self._first, PIECE)
        self._context = -(-frames.n_fft // 2 // frames.hop_length)
        self._rows = jax.jit(self._rows_of_piece)

    def __len__(self) -> int:
        """Returns the number of frames of the split."""
        return int(self._count.sum())

    def batch(self, number: int) -> Float[np.ndarray, "N D"]:
        """Returns batch ``number``, counted from 0; float32 in dB."""
        position, end = number * self.batch_size, (number + 1) * self.batch_size
        rows = []
        while position < end:
            epoch, skip = divmod(position, len(self))
            order = self._order(epoch)
            ends = np.cumsum(self._count[order])
            place = int(np.searchsorted(ends, skip, side="right"))
            while position < end and place < len(order):
                piece = int(order[place])
                begin = int(self._count[piece] - (ends[place] - skip))
                stop = min(int(self._count[piece]), begin + end - position)
                rows.append(self._read(piece)[begin:stop])
                position, skip, place = position + stop - begin, skip + stop - begin, place + 1
        return np.concatenate(rows)

    def iterate(self, first: int, last: int) -> Iterator[Float[np.ndarray, "N D"]]:
        """Yields batches [first, last)."""
        return (self.batch(number) for number in range(first, last))

    def _order(self, epoch: int) -> Int64[np.ndarray, "pieces"]:
        return np.random.Generator(np.random.Philox(key=[self.seed, epoch])).permutation(len(self._file))

    def _read(self, piece: int) -> Float[np.ndarray, "N D"]:
        """Returns the frames of a piece."""
        file, hop = int(self._file[piece]), self.frames.hop_length
        start = (int(self._first[piece]) - self._context) * hop
        audio = np.zeros((PIECE + 2 * self._context) * hop, np.float32)
        begin = max(start, 0)
        stop = min(start + len(audio), int(self.files.length[file]))
        audio[begin - start : stop - start] = self.dataset.read(self.files, file, begin, stop)[:, 0] / 32768
        return np.asarray(self._rows(audio[None]))[0, : self._count[piece]]

    def _rows_of_piece(self, audio: Waveform) -> Float[Array, "B N D"]:
        return self.frames.from_audio(audio)[:, self._context : self._context + PIECE]
