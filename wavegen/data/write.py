"""Writes a whole dataset: from clips in memory, or as a manifest over existing shards."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from wavegen.data.manifest import (
    MANIFEST,
    VERSION,
    Backend,
    Format,
    Manifest,
    ShardRow,
    read_manifest,
    vocabularies,
    write_row,
)
from wavegen.data.plan import digest
from wavegen.data.shards import Clip, write_shard
from wavegen.errors import WavegenError


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
        WavegenError: if there are no clips, clips do not fit each other, or the disk is full or not writable.

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
    forget_other_manifest(out, inputs=None)
    format = Format(
        sample_rate=sample_rate, channels=channels, backend=backend, feature_hop=feature_hop, codec=codec
    )
    rows: list[ShardRow] = []
    remaining = iter(clips)
    while (first := next(remaining, None)) is not None:
        shard = _up_to(shard_samples, chain([first], remaining))
        rows.append(write_shard(out, f"shard-{len(rows):05}", shard, format, inputs=""))
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


def forget_other_manifest(out: Path, inputs: str | None) -> None:
    """Removes the manifest of another dataset before its shards are overwritten: a dataset is whole or absent.

    Args:
        out: folder of the dataset.
        inputs: sha256 of what the new dataset is made from; None removes any manifest.
    """
    if not (out / MANIFEST).is_file():
        return
    try:
        same = read_manifest(out).inputs == inputs
    except WavegenError:  # A manifest that is damaged or of another version is to be replaced, too.
        same = False
    if not same:
        (out / MANIFEST).unlink()


def write_manifest(out: Path, rows: Sequence[ShardRow], format: Format, inputs: str) -> Manifest:
    """Makes shards a dataset: checks that they fit together, removes shards of an older one, and writes the manifest.

    Raises:
        WavegenError: if there are no recordings, a name occurs twice, or recordings differ in label fields or
            features.
    """
    manifest = Manifest(
        version=VERSION,
        format=format,
        feature_width=max((row.feature_width for row in rows), default=0),
        inputs=inputs,
        labels=vocabularies(file for row in rows for file in row.files),
        shards=tuple(rows),
    )
    names = Counter(file.name for file in manifest.files)
    if not names:
        first = next(iter(manifest.skipped), None)
        reason = (
            ""
            if first is None
            else f"; the first of {sum(1 for _ in manifest.skipped)}, {first.name}: {first.reason}"
        )
        raise WavegenError(f"expected at least one usable recording for {out}, got none{reason}")
    name, count = names.most_common(1)[0]
    if count > 1:
        raise WavegenError(f"expected unique clip names, got {name!r} {count} times")
    widths = {row.feature_width for row in rows if row.files}
    if len(widths) > 1:
        raise WavegenError(f"expected features of one width, got {sorted(widths)}")
    _remove_leftovers(
        out, {f"{row.name}.json" for row in rows} | {file.name for row in rows for file in row.data}
    )
    write_row(out / MANIFEST, manifest)
    return manifest


def _remove_leftovers(out: Path, keep: set[str]) -> None:
    """Removes shards of an older dataset, and files that a killed run left unfinished an hour ago or more."""
    for path in out.glob("shard-*"):
        if path.name not in keep:
            path.unlink()
    for path in out.glob(".shard-*.part"):
        if time.time() - path.stat().st_mtime > 3600:
            path.unlink()
