"""The description of a prepared dataset: ``manifest.json``, and one row file per shard, each with a seal.

A dataset may come from anybody. Every number and name has bounds, shards are files of the folder, and recordings lie
in them one after the other, so that a manifest that passes can be followed without further checks.
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationError,
    model_validator,
)

from wavegen.data import array_record_shards, flat
from wavegen.data.sealed_json import read_sealed_json, write_sealed_json
from wavegen.errors import WavegenError

VERSION = 1
MANIFEST = "manifest.json"
FEATURES_SUFFIX = ".features"
Backend = Literal["memmap", "array_record"]

_SUFFIXES: dict[Backend, str] = {"memmap": flat.SUFFIX, "array_record": array_record_shards.SUFFIX}
_SAMPLE_BYTES, _FEATURE_BYTES = 2, 4

Count = Annotated[StrictInt, Field(ge=0, le=2**50)]
Size = Annotated[StrictInt, Field(ge=1, le=2**50)]
Width = Annotated[StrictInt, Field(ge=0, le=2**20)]
Text = Annotated[StrictStr, Field(max_length=2**16)]
FileName = Annotated[StrictStr, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}$")]
"""A file of the dataset's own folder: no separators, and no dot in front."""
Digest = Annotated[StrictStr, Field(pattern=r"^[0-9a-f]{64}$")]
Inputs = Annotated[StrictStr, Field(pattern=r"^([0-9a-f]{64})?$")]


class Row(BaseModel):
    """What all parts of a manifest are: frozen, and without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


AnyRow = TypeVar("AnyRow", bound=Row)


class Format(Row):
    """What all recordings of a dataset have in common."""

    sample_rate: Annotated[StrictInt, Field(ge=1, le=2**31 - 1)]
    """Sample rate in Hz."""
    channels: Annotated[StrictInt, Field(ge=1, le=2**16)] = 1
    backend: Backend = "memmap"
    feature_hop: Annotated[StrictInt, Field(ge=1, le=2**31 - 1)] | None = None
    """Samples per feature frame; None without features."""
    features: Text = ""
    """A description of the features by the code that made them; empty if it gave none."""
    codec: Text = ""
    """Fingerprint of the codec whose tokens the features, or the samples, are; empty if they are not tokens."""
    tokens: StrictBool = False
    """Whether the samples are tokens of a note codec, one channel per codebook; their rate is 1."""

    def data_files(self, shard: str) -> list[str]:
        """Returns the names of the files of a shard: its samples and, if there are any, its features."""
        features = [] if self.feature_hop is None else [shard + FEATURES_SUFFIX]
        return [shard + _SUFFIXES[self.backend], *features]

    def extent(self, length: int) -> int:
        """Returns how much of a shard a recording takes, in the unit of its offset."""
        if self.backend == "memmap":
            return length
        return array_record_shards.records(length, self.sample_rate)

    def frames(self, length: int) -> int:
        """Returns how many feature frames a recording has."""
        return 0 if self.feature_hop is None else -(-length // self.feature_hop)


class FileRow(Row):
    """One recording as stored."""

    name: Annotated[Text, Field(min_length=1)]
    """Path below the prepared folder, with forward slashes."""
    offset: Count
    """Where it begins in its shard: in samples (memmap), or as the number of its first record (ArrayRecord)."""
    length: Size
    """Samples per channel."""
    split: Text
    labels: dict[Text, Text]
    sha256: Digest
    """The sha256 of the stored samples: little-endian int16, channels interleaved."""
    losses: dict[Text, Count] = {}
    """What was skipped, cut, clipped or mixed away when it was read, by kind."""


class SkippedRow(Row):
    """One recording that was left out, and the reason."""

    name: Text
    reason: Text


class DataFile(Row):
    """One file of a shard."""

    name: FileName
    bytes: Count
    sha256: Digest
    blocks: StrictStr = ""
    """Checksums of its blocks, see ``flat.checksums``; empty in datasets of before there were any, which are read
    without a check but for ArrayRecord's own. Of an ArrayRecord file the first and the last block are compared."""

    @property
    def checked(self) -> bool:
        """Whether reading it notices damage."""
        return bool(self.blocks) or self.bytes == 0 or self.name.endswith(array_record_shards.SUFFIX)

    @model_validator(mode="after")
    def _every_block_has_a_checksum(self) -> "DataFile":
        flat.decoded(self.blocks, self.bytes)
        return self


class ShardRow(Row):
    """One shard and its recordings; its file, such as ``shard-00000.json``, shows that the shard is complete."""

    name: FileName
    inputs: Inputs
    """The sha256 of everything the shard was made from; a shard of equal inputs need not be made again."""
    files: tuple[FileRow, ...]
    skipped: tuple[SkippedRow, ...]
    feature_width: Width
    """Columns of a feature frame; 0 without features."""
    data: tuple[DataFile, ...]

    def check(self, format: Format) -> None:
        """Checks that the recordings lie in the shard's files, one after the other.

        Raises:
            ValueError: they do not, or the files are not those of a shard of this format.
        """
        names = [file.name for file in self.data]
        if names != format.data_files(self.name):
            raise ValueError(f"expected the files {format.data_files(self.name)}, got {names}")
        end = frames = 0
        for file in self.files:
            # Of a recording that was cut by time, the record at a cut belongs to neither part.
            if file.offset < end or (file.offset > end and format.backend == "memmap"):
                raise ValueError(f"{file.name!r} begins at {file.offset}, the one before ends at {end}")
            end = file.offset + format.extent(file.length)
            frames += format.frames(file.length)
        sizes = [end * format.channels * _SAMPLE_BYTES, frames * self.feature_width * _FEATURE_BYTES]
        for stored, size in zip(self.data, sizes, strict=False):
            if stored.bytes != size and not stored.name.endswith(array_record_shards.SUFFIX):
                raise ValueError(f"{stored.name} has {stored.bytes} bytes, its recordings take {size}")


class Manifest(Row):
    """A prepared dataset."""

    version: Literal[1]
    format: Format
    feature_width: Width
    """Columns of a feature frame; 0 without features."""
    inputs: Inputs
    """The sha256 of everything the dataset was made from."""
    labels: dict[Text, tuple[Text, ...]]
    """The values of each label field, in the order of their integers."""
    shards: tuple[ShardRow, ...]

    @model_validator(mode="after")
    def _parts_agree(self) -> "Manifest":
        for what, names in (
            ("shard", [row.name for row in self.shards]),
            ("clip", [file.name for file in self.files]),
        ):
            if not names:
                raise ValueError(f"expected at least one {what}, got none")
            name, count = Counter(names).most_common(1)[0]
            if count > 1:
                raise ValueError(f"expected unique {what} names, got {name!r} {count} times")
        if widths := {row.feature_width for row in self.shards if row.files} - {self.feature_width}:
            raise ValueError(f"expected features of one width, got {sorted(widths | {self.feature_width})}")
        if (self.format.feature_hop is None) != (self.feature_width == 0):
            raise ValueError(
                f"expected features where there is a feature_hop, got {self.feature_width} columns of them with "
                f"feature_hop {self.format.feature_hop}"
            )
        known = {field: frozenset(values) for field, values in self.labels.items()}
        for row in self.shards:
            row.check(self.format)
            for file in row.files:
                if file.labels.keys() != known.keys() or any(
                    value not in known[field] for field, value in file.labels.items()
                ):
                    raise ValueError(f"{file.name!r} has other labels than the dataset")
        return self

    @property
    def files(self) -> Iterable[FileRow]:
        """Every file, in order."""
        return (file for shard in self.shards for file in shard.files)

    @property
    def skipped(self) -> Iterable[SkippedRow]:
        """Every file that was left out, in order."""
        return (row for shard in self.shards for row in shard.skipped)


def make_row(kind: type[AnyRow], **values: Any) -> AnyRow:
    """Makes a part of a manifest.

    Raises:
        WavegenError: if a value is outside its bounds.
    """
    try:
        return kind(**values)
    except ValidationError as error:
        raise WavegenError(f"cannot describe the dataset: {_reason(error)}; change it") from None


def read_manifest(folder: str | Path) -> Manifest:
    """Reads and checks the manifest of a prepared dataset.

    Raises:
        WavegenError: if there is no dataset, or its manifest is damaged, of another version, or does not fit itself.
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise WavegenError(
            f"expected a prepared dataset in {folder}, got no {MANIFEST} there; run `wavegen prepare`"
        )
    content = read_sealed_json(path, "a manifest", "prepare it again")
    if (version := content.get("version")) != VERSION:
        raise WavegenError(
            f"expected a manifest of version {VERSION} in {path}, got {version!r}; prepare it again"
        )
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        raise WavegenError(f"damaged manifest {path}: {_reason(error)}; prepare it again") from None


def read_shard_row(path: Path) -> ShardRow | None:
    """Reads the row in ``path``; returns None if there is none, it is damaged, or of a version with other rows."""
    try:
        return ShardRow.model_validate(read_sealed_json(path, "a shard's row", "prepare it again"))
    except (WavegenError, ValidationError):  # The same for all of them: the shard is made again.
        return None


def write_row(path: Path, row: Row) -> None:
    """Writes a manifest or a shard row with its seal, whole or not at all."""
    write_sealed_json(path, row.model_dump_json(indent=1))


def _reason(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    where = ".".join(map(str, first["loc"]))
    return first["msg"].removeprefix("Value error, ") + (f" at {where}" if where else "")


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
