"""Writes and reads the shards of a prepared dataset, with either storage backend."""

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int16

from wavegen.atomic import atomic_path, atomic_write
from wavegen.bounded import expect_file, is_inside
from wavegen.data import array_record_shards, flat
from wavegen.data.manifest import DataFile, FileRow, Format, ShardRow, SkippedRow, make_row, write_row
from wavegen.errors import WavegenError


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


def shard_files(shard: str, format: Format) -> list[str]:
    """Returns the names of the files of a shard: its row, its samples and, if there are any, its features."""
    return [f"{shard}.json", *format.data_files(shard)]


def find_file(folder: Path, file: DataFile) -> Path:
    """Returns the path of a file of a shard, which is there, in the folder, and of its size.

    Raises:
        WavegenError: it is not; links to files outside the folder, too, are refused.
    """
    path = folder / file.name
    if path.is_symlink() and not is_inside(path, folder):
        raise WavegenError(
            f"{path} is a link to a file outside the dataset; replace it by a copy of {os.readlink(path)} "
            "if you trust the dataset"
        )
    size = expect_file(path, "a file of a dataset") if os.path.exists(path) else None
    if size != file.bytes:
        got = "no such file" if size is None else f"{size}"
        raise WavegenError(f"expected {file.bytes} bytes in {path}, got {got}; prepare the dataset again")
    return path


def open_shard(folder: Path, row: ShardRow, format: Format) -> ShardReader:
    """Opens the samples of one shard for reading.

    Raises:
        WavegenError: if the file is missing or damaged, or the backend is not installed.
    """
    samples = row.data[0]
    path = find_file(folder, samples)
    if format.backend == "memmap":
        return flat.FlatReader(path, format.channels, samples.blocks)
    if samples.blocks:
        # Records have their own hashes, but the whole file may be that of another dataset.
        shard = flat.FlatFile(path, "u1", 1, samples.blocks)
        for byte in {0, samples.bytes - 1}:
            shard.rows(byte, byte + 1)
    return array_record_shards.ArrayRecordReader(path, format.channels, format.sample_rate)


def open_features(folder: Path, row: ShardRow) -> flat.FlatFile:
    """Opens the feature frames of one shard for reading.

    Raises:
        WavegenError: if the file is missing.
    """
    features = row.data[1]
    return flat.FlatFile(find_file(folder, features), "<f4", row.feature_width, features.blocks)


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
    row_path, *paths = (folder / file for file in shard_files(name, format))
    frames: list[np.ndarray] = []
    with atomic_path(paths[0]) as part:
        row_path.unlink(missing_ok=True)  # so that a crash from here on leaves no row of the previous data
        writer = _open_writer(part, format)
        try:
            for clip in clips:
                if isinstance(clip, SkippedRow):
                    skipped.append(clip)
                    continue
                pcm = checked(clip, format)
                files.append(
                    make_row(
                        FileRow,
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
    if format.feature_hop is not None:
        with atomic_write(paths[1]) as features_file:
            for block in frames:
                features_file.write(block.astype("<f4").tobytes())
    row = make_row(
        ShardRow,
        name=name,
        inputs=inputs,
        files=tuple(files),
        skipped=tuple(skipped),
        feature_width=frames[0].shape[1] if frames else 0,
        data=tuple(_described(path) for path in paths),
    )
    write_row(row_path, row)
    return row


def _described(path: Path) -> DataFile:
    sha256, blocks = flat.checksums(path)
    # ArrayRecords hold checksums of their own.
    return make_row(DataFile, name=path.name, bytes=path.stat().st_size, sha256=sha256, blocks=blocks)


def file_sha256(path: Path) -> str:
    """Returns the sha256 of a file in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def samples_sha256(pcm: Int16[np.ndarray, "T C"]) -> str:
    """Returns the sha256 of samples as they are stored, in hexadecimal."""
    return hashlib.sha256(pcm.astype("<i2").tobytes()).hexdigest()


def _open_writer(path: Path, format: Format) -> ShardWriter:
    if format.backend == "memmap":
        return flat.FlatWriter(path)
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
