"""The description of a prepared dataset: ``manifest.json``, and one row file per shard."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from wavegen.atomic import atomic_write
from wavegen.errors import WavegenError

VERSION = 1
MANIFEST = "manifest.json"
Backend = Literal["memmap", "array_record"]


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Format(_Row):
    """What all recordings of a dataset have in common."""

    sample_rate: int
    """Sample rate in Hz."""
    channels: int = 1
    backend: Backend = "memmap"
    feature_hop: int | None = None
    """Samples per feature frame; None without features."""
    features: str = ""
    """A description of the features by the code that made them; empty if it gave none."""
    codec: str = ""
    """Fingerprint of the codec whose tokens the features, or the samples, are; empty if they are not tokens."""
    tokens: bool = False
    """Whether the samples are tokens of a note codec, one channel per codebook; their rate is 1."""


class FileRow(_Row):
    """One recording as stored."""

    name: str
    """Path below the prepared folder, with forward slashes."""
    offset: int
    """Where it begins in its shard: in samples (memmap), or as the number of its first record (ArrayRecord)."""
    length: int
    """Samples per channel, above 0."""
    split: str
    labels: dict[str, str]
    sha256: str
    """The sha256 of the stored samples: little-endian int16, channels interleaved."""
    losses: dict[str, int] = {}
    """What was skipped, cut, clipped or mixed away when it was read, by kind."""


class SkippedRow(_Row):
    """One recording that was left out, and the reason."""

    name: str
    reason: str


class DataFile(_Row):
    """One file of a shard."""

    name: str
    bytes: int
    sha256: str


class ShardRow(_Row):
    """One shard and its recordings; its file, such as ``shard-00000.json``, shows that the shard is complete."""

    name: str
    inputs: str
    """The sha256 of everything the shard was made from; a shard of equal inputs need not be made again."""
    files: tuple[FileRow, ...]
    skipped: tuple[SkippedRow, ...]
    feature_width: int
    """Columns of a feature frame; 0 without features."""
    data: tuple[DataFile, ...]


class Manifest(_Row):
    """A prepared dataset."""

    version: int
    format: Format
    feature_width: int
    """Columns of a feature frame; 0 without features."""
    inputs: str
    """The sha256 of everything the dataset was made from."""
    labels: dict[str, tuple[str, ...]]
    """The values of each label field, in the order of their integers."""
    shards: tuple[ShardRow, ...]

    @property
    def files(self) -> Iterable[FileRow]:
        """Every file, in order."""
        return (file for shard in self.shards for file in shard.files)

    @property
    def skipped(self) -> Iterable[SkippedRow]:
        """Every file that was left out, in order."""
        return (row for shard in self.shards for row in shard.skipped)


def read_manifest(folder: str | Path) -> Manifest:
    """Reads and checks the manifest of a prepared dataset.

    Raises:
        WavegenError: if there is no dataset, or its manifest is damaged or of another version.
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise WavegenError(
            f"expected a prepared dataset in {folder}, got no {MANIFEST} there; run `wavegen prepare`"
        )
    try:
        content = json.loads(path.read_bytes())
        version = content["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise WavegenError(
            f"expected a manifest in {path}, got damaged JSON ({error}); prepare it again"
        ) from error
    if version != VERSION:
        raise WavegenError(
            f"expected a manifest of version {VERSION} in {path}, got {version}; prepare it again"
        )
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise WavegenError(f"damaged manifest {path}: {first['msg']} at {where}; prepare it again") from error


def read_shard_row(path: Path) -> ShardRow | None:
    """Reads the row in ``path``; returns None if there is none or it was not written by this version."""
    try:
        return ShardRow.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def write_row(path: Path, row: BaseModel) -> None:
    """Writes a manifest or a shard row, whole or not at all."""
    with atomic_write(path) as file:
        file.write(row.model_dump_json(indent=1).encode())


def vocabularies(files: Iterable[FileRow]) -> dict[str, tuple[str, ...]]:
    """Returns the values of each label field, sorted as numbers if all are whole numbers, else alphabetically.

    Raises:
        WavegenError: if two files have different label fields.
    """
    values: dict[str, set[str]] = {}
    first = None
    for file in files:
        if first is None:
            first, values = file, {field: set() for field in file.labels}
        if file.labels.keys() != values.keys():
            raise WavegenError(
                f"expected the label fields {sorted(values)} of {first.name}, got {sorted(file.labels)} in "
                f"{file.name}; give every file the same fields"
            )
        for field, value in file.labels.items():
            values[field].add(value)
    return {field: tuple(sorted(seen, key=_number_order(seen))) for field, seen in values.items()}


def _number_order(values: set[str]):
    if all(value.isdecimal() for value in values):
        return lambda value: (int(value), value)
    return lambda value: value
