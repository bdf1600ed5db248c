"""Write a whole dataset: from clips made on the spot, or the manifest over shards that are there."""

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
    """Write a dataset from clips made on the spot.

    Args:
        out: the dataset's folder; a dataset there is replaced.
        clips: consumed one by one.
        sample_rate: in Hz.
        feature_hop: samples a feature frame; None if the clips have no features.
        channels: C of every clip.
        backend: "memmap" or "array_record".
        shard_samples: close a shard when it reaches this length.
        codec: fingerprint of the codec whose tokens the features are.

    Returns:
        The manifest, as written.

    Raises:
        WavegenError: no clips, clips that do not fit each other, or a disk that cannot be written.
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
    """Clips until their length reaches `samples`."""
    total = 0
    for clip in clips:
        yield clip
        total += len(clip.pcm)
        if total >= samples:
            return


def forget_other_manifest(out: Path, inputs: str | None) -> None:
    """Remove the manifest of another dataset before its shards are overwritten: a dataset is whole or absent.

    Args:
        out: the dataset's folder.
        inputs: sha256 of what the new dataset is made from; None removes any manifest.
    """
    if not (out / MANIFEST).is_file():
        return
    try:
        same = read_manifest(out).inputs == inputs
    except WavegenError:  # damaged, or of another version: whatever it was, it is to be replaced
        same = False
    if not same:
        (out / MANIFEST).unlink()


def write_manifest(out: Path, rows: Sequence[ShardRow], format: Format, inputs: str) -> Manifest:
    """Make shards a dataset: check that they fit together, drop shards of an older one, write the manifest.

    Raises:
        WavegenError: no recordings, a name twice, or labels or features that differ between recordings.
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
    """Remove shards of an older dataset, and parts that a killed run left an hour ago or more."""
    for path in out.glob("shard-*"):
        if path.name not in keep:
            path.unlink()
    for path in out.glob(".shard-*.part"):
        if time.time() - path.stat().st_mtime > 3600:
            path.unlink()
