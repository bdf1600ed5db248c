"""Writes and reads the shards of a prepared dataset, with either storage backend."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int16

from wavegen.atomic import atomic_path, atomic_write
from wavegen.data import array_record_shards, memmap
from wavegen.data.manifest import Backend, DataFile, FileRow, Format, ShardRow, SkippedRow, write_row
from wavegen.errors import WavegenError

FEATURES_SUFFIX = ".features"


@dataclass(frozen=True, eq=False)
class Clip:
    """One recording on its way into a dataset.

    Args:
        name: a name that is unique within the dataset, with forward slashes.
        pcm: int16, [T] or [T, C].
        labels: value by label field; every clip of a dataset has the same fields.
        split: "train", "valid", "test" or any other name.
        features: float32 [ceil(T / feature_hop), D]; frame f describes samples [f * hop, (f + 1) * hop).
        losses: what was skipped, cut, clipped or mixed away when it was read, by kind.
    """

    name: str
    pcm: Int16[np.ndarray, "T *C"]
    labels: Mapping[str, str] = field(default_factory=dict)
    split: str = "train"
    features: Float32[np.ndarray, "F D"] | None = None
    losses: Mapping[str, int] = field(default_factory=dict)


@runtime_checkable
class ShardWriter(Protocol):
    """Stores recordings one after the other."""

    def append(self, pcm: Int16[np.ndarray, "T C"]) -> int:
        """Stores a recording and returns its offset."""

    def close(self) -> None:
        """Finishes the file."""


@runtime_checkable
class ShardReader(Protocol):
    """Reads any part of any recording of one shard."""

    def read(self, offset: int, length: int, start: int, stop: int) -> Int16[np.ndarray, "T C"]:
        """Reads samples [start, stop) of the recording at ``offset``, which has ``length`` samples."""


def data_path(folder: Path, shard: str, backend: Backend) -> Path:
    """Returns the path of the file that contains the samples of a shard."""
    suffix = memmap.SUFFIX if backend == "memmap" else array_record_shards.SUFFIX
    return folder / (shard + suffix)


def shard_files(shard: str, format: Format) -> list[str]:
    """Returns the names of the files of a shard: its row, its samples and, if there are any, its features."""
    features = [] if format.feature_hop is None else [shard + FEATURES_SUFFIX]
    return [f"{shard}.json", data_path(Path(), shard, format.backend).name, *features]


def open_shard(folder: Path, shard: str, format: Format) -> ShardReader:
    """Opens one shard for reading.

    Raises:
        WavegenError: if the file is missing, or the backend is not installed.
    """
    path = data_path(folder, shard, format.backend)
    if not path.is_file():
        raise WavegenError(f"expected the shard {path}, got no such file; prepare the dataset again")
    if format.backend == "memmap":
        return memmap.MemmapReader(path, format.channels)
    return array_record_shards.ArrayRecordReader(path, format.channels, format.sample_rate)


def write_shard(
    folder: Path, name: str, clips: Iterable[Clip | SkippedRow], format: Format, inputs: str
) -> ShardRow:
    """Writes the data files of one shard and, last, its row file; a shard without one is incomplete.

    Args:
        folder: the folder of the dataset.
        name: name of the shard, without a suffix.
        clips: the recordings to store; rows of skipped files are copied into the shard's row.
        format: format of the dataset.
        inputs: sha256 of what the shard is made from.

    Returns:
        The row, as written.

    Raises:
        WavegenError: if a clip does not fit the dataset, or the disk is full or not writable.
    """
    files: list[FileRow] = []
    skipped: list[SkippedRow] = []
    row_path, path = folder / f"{name}.json", data_path(folder, name, format.backend)
    frames: list[np.ndarray] = []
    with atomic_path(path) as part:
        row_path.unlink(missing_ok=True)  # so that a crash from here on leaves no row of the previous data
        writer = _open_writer(part, format)
        try:
            for clip in clips:
                if isinstance(clip, SkippedRow):
                    skipped.append(clip)
                    continue
                pcm = checked(clip, format)
                files.append(
                    FileRow(
                        name=clip.name,
                        offset=writer.append(pcm),
                        length=len(pcm),
                        split=clip.split,
                        labels=dict(clip.labels),
                        sha256=samples_sha256(pcm),
                        losses=dict(clip.losses),
                    )
                )
                if clip.features is not None:
                    frames.append(clip.features)
                    if clip.features.shape[1] != frames[0].shape[1]:
                        raise WavegenError(
                            f"expected {frames[0].shape[1]} feature columns in clip {clip.name}, "
                            f"got {clip.features.shape[1]}"
                        )
        finally:
            writer.close()
    data_files = [path]
    if format.feature_hop is not None:
        data_files.append(folder / (name + FEATURES_SUFFIX))
        with atomic_write(data_files[-1]) as features_file:
            for block in frames:
                features_file.write(block.astype("<f4").tobytes())
    row = ShardRow(
        name=name,
        inputs=inputs,
        files=tuple(files),
        skipped=tuple(skipped),
        feature_width=frames[0].shape[1] if frames else 0,
        data=tuple(
            DataFile(name=file.name, bytes=file.stat().st_size, sha256=file_sha256(file))
            for file in data_files
        ),
    )
    write_row(row_path, row)
    return row


def file_sha256(path: Path) -> str:
    """Returns the sha256 of a file in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def samples_sha256(pcm: Int16[np.ndarray, "T C"]) -> str:
    """Returns the sha256 of samples as they are stored, in hexadecimal."""
    return hashlib.sha256(pcm.astype("<i2").tobytes()).hexdigest()


def _open_writer(path: Path, format: Format) -> ShardWriter:
    if format.backend == "memmap":
        return memmap.MemmapWriter(path)
    return array_record_shards.ArrayRecordWriter(path, format.sample_rate)


def checked(clip: Clip, format: Format) -> Int16[np.ndarray, "T C"]:
    """Returns the samples of a clip as [T, C], after checking that the clip fits its dataset.

    Raises:
        WavegenError: if it has no samples, or other channels or features than the dataset.
    """
    pcm = clip.pcm[:, None] if clip.pcm.ndim == 1 else clip.pcm
    if pcm.dtype != np.int16 or pcm.ndim != 2 or pcm.shape[1] != format.channels or len(pcm) == 0:
        raise WavegenError(
            f"expected int16 samples [T above 0, {format.channels}] in clip {clip.name}, "
            f"got {pcm.dtype} {list(pcm.shape)}"
        )
    frames = None if format.feature_hop is None else -(-len(pcm) // format.feature_hop)
    got = None if clip.features is None else len(clip.features)
    if frames != got:
        raise WavegenError(
            f"expected {frames} feature frames in clip {clip.name} of {len(pcm)} samples, got {got}; "
            "a clip needs ceil(samples / feature_hop) frames, or none in a dataset without a feature_hop"
        )
    return pcm
