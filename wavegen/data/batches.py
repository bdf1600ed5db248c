"""Batches for training and windows for evaluation, read on the host.

Audio stays int16 and tokens are int32. A training batch is a pure function of (seed, step) through a counter-based
generator. The step counter is therefore the whole position in the data, and every host of a run draws the same global
batch and reads only its own rows.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from wavegen.data.dataset import Dataset, Files
from wavegen.errors import WavegenError

Batch = dict[str, np.ndarray]


class _Source:
    """What training and evaluation share: a split, the rows of this host, and how a row is read."""

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        batch_size: int,
        fields: Sequence[str] | None,
        process_index: int,
        process_count: int,
        period: int = 1,
    ):
        if dataset.channels > 2 and not dataset.holds_notes:
            raise WavegenError(
                f"expected a mono or stereo dataset, got {dataset.channels} channels; prepare it with channels=2"
            )
        if not 0 <= process_index < process_count:
            raise WavegenError(f"expected 0 <= process_index < {process_count}, got {process_index}")
        if batch_size < 1 or batch_size % process_count:
            raise WavegenError(
                f"expected a batch size that {process_count} process(es) share evenly, got {batch_size}"
            )
        self.dataset = dataset
        self._unit = math.lcm(dataset.feature_hop or 1, period)
        self.files: Files = dataset.split(split)
        self.batch_size = batch_size
        self._labels = self.files.labels[:, dataset.label_columns(fields)]
        share = batch_size // process_count
        self._rows = slice(process_index * share, (process_index + 1) * share)

    def _check_frames(self, **samples: int) -> None:
        """Checks that lengths are whole numbers of feature frames, so that samples and features stay aligned."""
        for name, count in samples.items():
            if count < 0 or count % self._unit:
                notes = self.dataset.holds_notes
                unit = "the period, {} tokens" if notes else "the feature hop, {} samples"
                raise WavegenError(
                    f"expected {name} to be a multiple of {unit.format(self._unit)}, got {count}; "
                    f"use {-(-count // self._unit) * self._unit}"
                )

    def _read(
        self, file: np.ndarray, start: np.ndarray, length: np.ndarray, context: np.ndarray, span: int
    ) -> Batch:
        """Reads this host's rows of ``span`` samples, zeros after ``length``; file -1 is a row of zeros."""
        file, start, length, context = (array[self._rows] for array in (file, start, length, context))
        hop, notes = self.dataset.feature_hop, self.dataset.holds_notes
        stored = np.zeros((len(file), span, self.dataset.channels), np.int16)
        batch = {
            "file": file.astype(np.int32),
            "start": start.astype(np.int64),
            "length": length.astype(np.int32),
            "context": context.astype(np.int32),
            "labels": self._labels[file],
        }
        if hop is not None:
            features = np.zeros((len(file), span // hop, self.dataset.feature_width), np.float32)
        for row in range(len(file)):
            if file[row] < 0:
                continue
            index, begin, count = int(file[row]), int(start[row]), int(length[row])
            stored[row, :count] = self.dataset.read(self.files, index, begin, begin + count)
            if hop is not None:
                first, frames = begin // hop, -(-count // hop)
                features[row, :frames] = self.dataset.read_features(self.files, index, first, first + frames)
        if notes:
            return batch | {"tokens": stored.astype(np.int32)}
        batch["pcm"] = stored[:, :, 0] if self.dataset.channels == 1 else stored
        if self.dataset.codec:
            batch["tokens"] = features.astype(np.int32)
        elif hop is not None:
            batch["features"] = features
        return batch


class BatchSource(_Source):
    """Random crops: files are drawn in proportion to their length, and the place of a crop uniformly within its file.

    Args:
        dataset: mono, stereo, or of notes.
        split: name of the split, for instance "train".
        batch_size: B, over all processes.
        crop: length in samples, a multiple of the feature hop and of ``period``. Shorter files are padded with zeros.
        seed: at least 0.
        fields: the label fields to yield, in order; None is all.
        process_index: number of this process; it reads rows [index * B / count, (index + 1) * B / count).
        process_count: number of processes that share a batch.
        period: crops begin at multiples of it.

    Raises:
        WavegenError: if the split is empty, the processes cannot share the batch evenly, or the crop cuts a feature
            frame.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        *,
        batch_size: int,
        crop: int,
        seed: int,
        fields: Sequence[str] | None = None,
        process_index: int = 0,
        process_count: int = 1,
        period: int = 1,
    ):
        super().__init__(dataset, split, batch_size, fields, process_index, process_count, period)
        if seed < 0:
            raise WavegenError(f"expected a seed of at least 0, got {seed}")
        if crop < 1:
            raise WavegenError(f"expected a crop of at least 1 sample, got {crop}")
        self._check_frames(crop=crop)
        self.crop = crop
        self.seed = seed
        self._ends = np.cumsum(self.files.length)

    def batch(self, step: int) -> Batch:
        """Returns batch number ``step``.

        Returns:
            pcm: int16 [B, crop], or [B, crop, 2] from a stereo dataset; a dataset of notes has tokens, int32 [B,
                crop, K], instead.
            length: int32 [B], the number of valid samples; the rest is zero padding.
            context: int32 [B], the number of leading samples that are not scored: 0 here.
            start: int64 [B], where the crop begins in its file, in samples.
            file: int32 [B], row in the table of the split.
            labels: int32 [B, fields].
            features: float32 [B, crop / feature_hop, D], if the dataset has them. From a dataset that ``wavegen
                tokenize`` wrote they are int32 [B, N, K], and are named tokens.
        """
        random = np.random.Generator(np.random.Philox(key=[self.seed, step]))
        file = np.searchsorted(
            self._ends, random.integers(self._ends[-1], size=self.batch_size), side="right"
        )
        length = self.files.length[file]
        starts = np.maximum(length - self.crop, 0) // self._unit + 1
        start = (random.random(self.batch_size) * starts).astype(np.int64) * self._unit
        return self._read(file, start, np.minimum(length, self.crop), np.zeros_like(length), self.crop)


class EvaluationSource(_Source):
    """Windows in which every sample of a split is scored exactly once, with its left context.

    A file is cut into rows of ``context + window`` samples. The first row begins with the file and scores all its
    samples; later rows overlap the one before by ``context`` samples, which they do not score. With a context of at
    least the model's receptive field the sum over rows is the exact likelihood of the file. Rows are batched by
    length and padded to one of eight lengths: short files cost little, and few shapes are compiled.

    Args:
        dataset: mono, stereo, or of notes.
        split: name of the split, for instance "valid".
        batch_size: B, over all processes; the last batch of a length is filled with empty rows (file -1).
        window: new samples per row, a multiple of the feature hop and of ``period``.
        context: samples of context, a multiple of the same.
        fields: the label fields to yield, in order; None is all.
        process_index: see ``BatchSource``.
        process_count: see ``BatchSource``.
        period: windows begin at multiples of it.
        whole: leave out what is left of a file after its last whole window; a file of less than one is kept.

    Raises:
        WavegenError: see ``BatchSource``.
    """

    _LENGTHS = 8

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        *,
        batch_size: int,
        window: int,
        context: int,
        fields: Sequence[str] | None = None,
        process_index: int = 0,
        process_count: int = 1,
        period: int = 1,
        whole: bool = False,
    ):
        super().__init__(dataset, split, batch_size, fields, process_index, process_count, period)
        if window < 1:
            raise WavegenError(f"expected a window of at least 1 sample, got {window}")
        self._check_frames(window=window, context=context)
        # No context can be longer than the longest file.
        span = min(context, -(-int(self.files.length.max()) // self._unit) * self._unit) + window
        # Each file has one row for its first span, and one more for every window that begins after it.
        beyond = np.maximum(self.files.length - span, 0)
        later = beyond // window if whole else -(-beyond // window)
        file = np.repeat(np.arange(len(self.files)), later + 1)
        number = np.arange(len(file)) - np.repeat(np.cumsum(later + 1) - (later + 1), later + 1)
        start = number * window
        length = np.minimum(self.files.length[file] - start, span)
        unit = -(-span // self._LENGTHS)
        unit = -(-unit // self._unit) * self._unit
        padded = np.minimum(-(-length // unit) * unit, span)
        rows = np.stack([file, start, length, np.where(number > 0, context, 0)])
        self._batches = [
            (int(size), rows[:, chosen[first : first + batch_size]])
            for size in np.unique(padded)
            for chosen in [np.flatnonzero(padded == size)]
            for first in range(0, len(chosen), batch_size)
        ]

    def __len__(self) -> int:
        """Returns the number of batches."""
        return len(self._batches)

    def batch(self, step: int) -> Batch:
        """Returns batch number ``step`` of ``len(self)``, in the form of ``BatchSource.batch``.

        Row b scores its samples [context[b], length[b]); over all rows this is every sample of the split once.
        """
        span, rows = self._batches[step]
        empty = np.tile([[-1], [0], [0], [0]], self.batch_size - rows.shape[1])
        file, start, length, context = np.concatenate([rows, empty], axis=1)
        return self._read(file, start, length, context, span)


class _Steps:
    """Batches [first, last) as grain reads them: one element per batch, since Python's cost is per element."""

    def __init__(self, source: BatchSource | EvaluationSource, first: int, last: int):
        self._source = source
        self._first = first
        self._count = last - first

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Batch:
        return self._source.batch(self._first + index)


def iterator(
    source: BatchSource | EvaluationSource,
    start_step: int = 0,
    end_step: int | None = None,
    prefetch: int = 4,
) -> Iterator[Batch]:
    """Iterates over batches [start_step, end_step), which one thread reads ahead.

    Args:
        source: the batches.
        start_step: number of the first batch; a run that resumes gives its step counter.
        end_step: one after the last; None ends with the last batch of an evaluation, and never for training.
        prefetch: how many batches are read ahead; 0 reads in the caller's thread.
    """
    import grain

    if end_step is None:
        end_step = len(source) if isinstance(source, EvaluationSource) else 2**62
    dataset = grain.MapDataset.source(_Steps(source, start_step, end_step))
    threads = min(prefetch, 1)  # Worker processes would tie the position of a run to their number.
    return iter(
        dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch))
    )
