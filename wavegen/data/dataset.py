"""A prepared dataset, opened for reading."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int16, Int32, Int64

from wavegen.data.flat import FlatFile
from wavegen.data.manifest import Manifest, read_manifest
from wavegen.data.shards import ShardReader, file_sha256, find_file, open_features, open_shard
from wavegen.errors import WavegenError


@dataclass(frozen=True, eq=False)
class Files:
    """The recordings of one split, one row per recording, in the order of the dataset.

    Attributes:
        names: paths below the prepared folder.
        shard: number of the shard.
        offset: where the recording begins in its shard, in the unit of the backend.
        length: length in samples.
        first_frame: where its features begin in those of the shard, in frames.
        labels: one integer per field, in the order of ``Dataset.labels``.
    """

    names: tuple[str, ...]
    shard: Int64[np.ndarray, "files"]
    offset: Int64[np.ndarray, "files"]
    length: Int64[np.ndarray, "files"]
    first_frame: Int64[np.ndarray, "files"]
    labels: Int32[np.ndarray, "files D"]

    def __len__(self) -> int:
        return len(self.names)


class Dataset:
    """Random access to a prepared dataset; created by ``Dataset.open``.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from wavegen.data.dataset import Dataset
        >>> from wavegen.data.shards import Clip
        >>> from wavegen.data.write import write_dataset
        >>> clips = [Clip("a", np.arange(5, dtype=np.int16), {"bird": "wren"})]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     manifest = write_dataset(folder, clips, sample_rate=16000)
        ...     dataset = Dataset.open(folder)
        ...     files = dataset.split("train")
        ...     dataset.labels, dataset.read(files, row=0, start=2, stop=4)[:, 0].tolist()
        ({'bird': ('wren',)}, [2, 3])
    """

    def __init__(self, path: Path, manifest: Manifest):
        self.path = path
        self.manifest = manifest
        self.sample_rate = manifest.format.sample_rate
        self.channels = manifest.format.channels
        self.labels = manifest.labels
        self.feature_hop = manifest.format.feature_hop
        self.feature_width = manifest.feature_width
        self.codec = manifest.format.codec
        self.holds_notes = manifest.format.tokens
        self._readers: dict[int, ShardReader] = {}
        self._features: dict[int, FlatFile] = {}

    @classmethod
    def open(cls, path: str | Path, verify: bool = False) -> "Dataset":
        """Opens a dataset.

        What is read of it later is checked when it is first read, against checksums of blocks. Datasets of before there
        were any are read without a check, and without a word: nothing is known to be wrong with them, and ``verify``
        checks them, too.

        Args:
            path: folder of the dataset.
            verify: whether to read every shard and compare its sha256, which takes about a second per gigabyte.

        Raises:
            WavegenError: if there is no dataset, its manifest is damaged, or a shard is missing, cut short, outside the
                folder or, with ``verify``, damaged.
        """
        dataset = cls(Path(path), read_manifest(path))
        for shard in dataset.manifest.shards:
            for expected in shard.data:
                file = find_file(dataset.path, expected)
                if verify and (digest := file_sha256(file)) != expected.sha256:
                    raise WavegenError(
                        f"expected sha256 {expected.sha256[:12]}... of {file}, got {digest[:12]}...: it is "
                        "damaged; delete it and prepare the dataset again"
                    )
        return dataset

    @classmethod
    def is_whole(cls, path: str | Path) -> bool:
        """Whether there is a dataset that ``open`` would open."""
        try:
            cls.open(path)
        except WavegenError:  # In all cases the answer is the same: it is to be prepared.
            return False
        return True

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits that contain recordings."""
        return tuple(sorted({file.split for file in self.manifest.files}))

    def split(self, name: str) -> Files:
        """Returns the recordings of a split.

        Raises:
            WavegenError: if the split has no recordings.
        """
        codes = {
            field: {value: code for code, value in enumerate(values)} for field, values in self.labels.items()
        }
        names, columns, labels = [], [], []
        for index, row in enumerate(self.manifest.shards):
            frames = 0
            for file in row.files:
                if file.split == name:
                    names.append(file.name)
                    columns.append((index, file.offset, file.length, frames))
                    labels.append([codes[field][file.labels[field]] for field in codes])
                frames += self.manifest.format.frames(file.length)
        if not names:
            raise WavegenError(
                f"expected recordings in split {name!r} of {self.path}, got none; it has "
                f"{', '.join(self.splits)}; prepare it with another split rule"
            )
        shard, offset, length, first_frame = np.array(columns, np.int64).T
        return Files(
            tuple(names),
            shard,
            offset,
            length,
            first_frame,
            np.array(labels, np.int32).reshape(len(names), len(codes)),
        )

    def label_columns(self, fields: Sequence[str] | None) -> list[int]:
        """Returns the columns of ``Files.labels`` for some fields; None is all of them.

        Raises:
            WavegenError: if the dataset does not have a field.
        """
        known = list(self.labels)
        for field in fields or ():
            if field not in known:
                raise WavegenError(f"expected label fields among {known} of {self.path}, got {field!r}")
        return [known.index(field) for field in (known if fields is None else fields)]

    def read(self, files: Files, row: int, start: int, stop: int) -> Int16[np.ndarray, "T C"]:
        """Returns samples [start, stop) of the recording in ``row``; 0 <= start <= stop <= its length.

        Raises:
            WavegenError: if the shard is damaged there, or missing.
        """
        shard = int(files.shard[row])
        if shard not in self._readers:
            row_of_shard = self.manifest.shards[shard]
            self._readers[shard] = open_shard(self.path, row_of_shard, self.manifest.format)
        return self._readers[shard].read(int(files.offset[row]), int(files.length[row]), start, stop)

    def read_features(self, files: Files, row: int, start: int, stop: int) -> Float32[np.ndarray, "F D"]:
        """Returns feature frames [start, stop) of the recording in ``row``.

        Raises:
            WavegenError: if the shard is damaged there, or missing.
        """
        shard = int(files.shard[row])
        if shard not in self._features:
            self._features[shard] = open_features(self.path, self.manifest.shards[shard])
        first = int(files.first_frame[row])
        return self._features[shard].rows(first + start, first + stop)
