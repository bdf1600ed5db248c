"""Writes a whole dataset: from clips in memory, or as a manifest over existing shards."""

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from pydantic import ValidationError

from wavegen.atomic import cannot_write
from wavegen.data.manifest import (
    MANIFEST,
    VERSION,
    Backend,
    FileName,
    Format,
    Manifest,
    Row,
    ShardRow,
    make_row,
    read_manifest,
    read_shard_row,
    vocabularies,
    write_row,
)
from wavegen.data.plan import digest
from wavegen.data.sealed_json import read_sealed_json
from wavegen.data.shards import Clip, shard_files, write_shard
from wavegen.errors import WavegenError

JOURNAL = "unfinished.json"
# A file on its way, under the name that ``wavegen.atomic`` gives it.
_PART = re.compile(r"\.(.+)\.\w+\.part")


def write_dataset(
    out: str | Path,
    clips: Iterable[Clip],
    sample_rate: int,
    feature_hop: int | None = None,
    *,
    channels: int = 1,
    backend: Backend = "memmap",
    shard_samples: int = 2**26,
    codec: str = "",
) -> Manifest:
    """Writes a dataset from clips.

    Args:
        out: folder of the dataset; an existing dataset is replaced.
        clips: the recordings, consumed one by one.
        sample_rate: sample rate in Hz.
        feature_hop: samples per feature frame; None if the clips have no features.
        channels: number of channels of every clip, C.
        backend: "memmap" or "array_record".
        shard_samples: length at which a shard is closed.
        codec: fingerprint of the codec whose tokens the features are.

    Returns:
        The manifest, as written.

    Raises:
        WavegenError: if there are no clips, clips do not fit each other, the folder holds something else than a
            dataset, or the disk is full or not writable.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from wavegen.data.shards import Clip
        >>> from wavegen.data.write import write_dataset
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     manifest = write_dataset(folder, [Clip("a", np.zeros(100, np.int16))], sample_rate=8000)
        >>> [(file.name, file.length, file.split) for file in manifest.files]
        [('a', 100, 'train')]
    """
    out = Path(out)
    format = make_row(
        Format,
        sample_rate=sample_rate,
        channels=channels,
        backend=backend,
        feature_hop=feature_hop,
        codec=codec,
    )
    begin(out, None, [])
    rows: list[ShardRow] = []
    remaining = iter(clips)
    while (first := next(remaining, None)) is not None:
        shard, name = _up_to(shard_samples, chain([first], remaining)), f"shard-{len(rows):05}"
        begin(out, None, shard_files(name, format))
        rows.append(write_shard(out, name, shard, format, inputs=""))
    return write_manifest(
        out, rows, format, inputs=digest([file.sha256 for row in rows for file in row.data])
    )


def _up_to(samples: int, clips: Iterator[Clip]) -> Iterator[Clip]:
    """Yields clips until their length reaches ``samples``."""
    total = 0
    for clip in clips:
        yield clip
        total += len(clip.pcm)
        if total >= samples:
            return


class _Journal(Row):
    """The files that a run writes, or will write, until the manifest lists them."""

    files: tuple[FileName, ...]


def begin(out: Path, inputs: str | None, names: Sequence[str]) -> None:
    """Takes possession of a folder before a dataset is written to it.

    A journal lists the files of the dataset that is there and of the one that is written; nothing else is ever removed
    or replaced. The manifest of another dataset is removed before its shards are overwritten: a dataset is whole or
    absent.

    Args:
        out: folder of the dataset, created if it is missing.
        inputs: sha256 of what the new dataset is made from; None removes any manifest.
        names: the files that will be written.

    Raises:
        WavegenError: if the folder is neither empty nor a dataset, its journal is damaged, a file that is not the
            dataset's has a name that it needs, or the folder is not writable.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        present = sorted(path.name for path in out.iterdir())
    except OSError as error:
        raise cannot_write(out, error) from error
    owned = _owned(out, present)
    foreign = [name for name in present if name not in owned and not _PART.fullmatch(name)]
    if foreign and not owned:
        raise WavegenError(
            f"expected an empty folder or a dataset, got {out} with {foreign[0]} in it, which is no dataset; choose "
            "another folder"
        )
    if taken := sorted({*names, MANIFEST} & set(foreign)):
        raise WavegenError(
            f"{out / taken[0]} is not of this dataset, which needs the name; move it elsewhere"
        )
    if MANIFEST in present:
        try:
            same = read_manifest(out).inputs == inputs
        except WavegenError:  # A manifest that is damaged or of another version is to be replaced, too.
            same = False
        if same and set(names) <= set(present):
            return
    write_row(out / JOURNAL, _Journal(files=tuple(sorted({*owned, *names} - {MANIFEST, JOURNAL}))))
    if MANIFEST in present and not same:
        (out / MANIFEST).unlink()


def _owned(out: Path, present: Sequence[str]) -> set[str]:
    """Returns the names of the files that a manifest, a journal or the rows of shards in the folder list."""
    owned = {*_journal(out), JOURNAL} if JOURNAL in present else set[str]()
    rows = [
        row
        for name in present
        if name.endswith(".json") and name not in (MANIFEST, JOURNAL)
        if (row := read_shard_row(out / name)) is not None and f"{row.name}.json" == name
    ]
    if MANIFEST in present:
        try:
            rows += read_manifest(out).shards
            owned.add(MANIFEST)
        except WavegenError:
            # Damaged, or of another version: it is a dataset's if shards are there too, and otherwise unknown.
            owned |= {MANIFEST} if rows or owned else set()
    for row in rows:
        owned |= {f"{row.name}.json", *(file.name for file in row.data)}
    return owned


def _journal(out: Path) -> tuple[str, ...]:
    """Returns the files that the journal of a folder lists; none if there is no journal."""
    path = out / JOURNAL
    if not path.is_file():
        return ()
    mend = "delete the folder, if nothing in it is yours, and prepare again"
    try:
        return _Journal.model_validate(read_sealed_json(path, "a journal of `wavegen prepare`", mend)).files
    except ValidationError as error:
        raise WavegenError(f"{path} is damaged: {error.errors()[0]['msg']}; {mend}") from None


def write_manifest(out: Path, rows: Sequence[ShardRow], format: Format, inputs: str) -> Manifest:
    """Makes shards a dataset: checks that they fit together, removes shards of an older one, and writes the manifest.

    Raises:
        WavegenError: if there are no recordings, a name occurs twice, or recordings differ in label fields or
            features.
    """
    if not any(row.files for row in rows):
        skipped = [row for shard in rows for row in shard.skipped]
        reason = f"; the first of {len(skipped)}, {skipped[0].name}: {skipped[0].reason}" if skipped else ""
        raise WavegenError(f"expected at least one usable recording for {out}, got none{reason}")
    manifest = make_row(
        Manifest,
        version=VERSION,
        format=format,
        feature_width=max(row.feature_width for row in rows),
        inputs=inputs,
        labels=vocabularies(file for row in rows for file in row.files),
        shards=tuple(rows),
    )
    kept = {f"{row.name}.json" for row in rows} | {file.name for row in rows for file in row.data}
    listed = set(_journal(out))
    _remove_leftovers(out, listed - kept, listed | kept)
    write_row(out / MANIFEST, manifest)
    (out / JOURNAL).unlink(missing_ok=True)
    return manifest


def _remove_leftovers(out: Path, left: set[str], names: set[str]) -> None:
    """Removes shards of an older dataset, and files that a killed run left unfinished an hour ago or more."""
    for name in left:
        (out / name).unlink(missing_ok=True)
    for path in out.glob(".*.part"):
        found = _PART.fullmatch(path.name)
        if found and found[1] in names and time.time() - path.stat().st_mtime > 3600:
            path.unlink(missing_ok=True)
