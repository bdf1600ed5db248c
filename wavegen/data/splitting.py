"""The splits of a whole dataset, which depend on all of its recordings: no empty split, and no copy on two sides."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from wavegen.config.splits import SplitRule
from wavegen.data.manifest import FileRow, Format, ShardRow
from wavegen.data.plan import Settings
from wavegen.data.shards import open_shard, samples_sha256

TRAIN = "train"


def duplicates(rows: Sequence[ShardRow]) -> tuple[tuple[str, ...], ...]:
    """Returns the names of recordings with the same samples, in groups of two or more."""
    names: defaultdict[str, list[str]] = defaultdict(list)
    for row in rows:
        for file in row.files:
            names[file.sha256].append(file.name)
    return tuple(tuple(group) for group in names.values() if len(group) > 1)


def with_final_splits(out: Path, rows: Sequence[ShardRow], settings: Settings) -> list[ShardRow]:
    """Returns the rows of a complete dataset with the splits of its recordings.

    Recordings of one group (``SplitRule.group``) and recordings with the same samples share a split: the one that a
    rule on labels or paths gives, else that of the first one. A split with a fraction that got no recording takes one
    from the training split, if that keeps another; so does an empty training split. A recording that is longer than
    all others together is cut by time.

    Args:
        out: folder of the dataset, whose shards are complete.
        rows: the rows of all shards.
        settings: the settings of the dataset.
    """
    rule = SplitRule(settings.split, settings.split_by)
    files = [file for row in rows for file in row.files]
    clusters = _clusters(files, rule)
    splits, order = _of_clusters(clusters, rule)
    wanted = sorted(rule.shares, key=lambda name: name != "valid")
    if sum(rule.shares.values()) < 1:
        wanted.append(TRAIN)
    alone = {
        cluster[0].name
        for cluster, place in zip(clusters, order, strict=True)
        if place is not None and len(cluster) == 1
    }
    parts: dict[str, list[FileRow]] = {}
    if settings.split_by is None and not settings.format.tokens and rule.shares:
        half = sum(file.length for file in files) / 2
        for row in rows:
            for file in row.files:
                if file.length > half and file.name in alone:
                    parts[file.name] = list(_cut(out, row, file, rule, settings.format))
    if not any(len(cut) > 1 for cut in parts.values()):
        _fill_empty(splits, order, wanted)
    split_of = {file.name: split for cluster, split in zip(clusters, splits, strict=True) for file in cluster}
    return [
        row.model_copy(
            update={
                "files": tuple(
                    part
                    if len(parts.get(file.name, ())) > 1
                    else part.model_copy(update={"split": split_of[file.name]})
                    for file in row.files
                    for part in parts.get(file.name, [file])
                )
            }
        )
        for row in rows
    ]


def _clusters(files: Sequence[FileRow], rule: SplitRule) -> list[list[FileRow]]:
    """Returns the recordings that must share a split, in the order of their first ones."""
    parent = list(range(len(files)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = index = parent[parent[index]]
        return index

    seen: dict[tuple[str, str], int] = {}
    for index, file in enumerate(files):
        for key in (("group", rule.group(file.name, file.labels)), ("sha256", file.sha256)):
            one, two = root(seen.setdefault(key, index)), root(index)
            parent[max(one, two)] = min(one, two)
    clusters: defaultdict[int, list[FileRow]] = defaultdict(list)
    for index, file in enumerate(files):
        clusters[root(index)].append(file)
    return list(clusters.values())


def _of_clusters(
    clusters: Sequence[Sequence[FileRow]], rule: SplitRule
) -> tuple[list[str], list[float | None]]:
    """Returns the split of each cluster, and its place in the order of moves; None where a rule holds it."""
    splits: list[str] = []
    order: list[float | None] = []
    for cluster in clusters:
        ruled = next(
            (split for file in cluster if (split := rule.ruled(file.name, file.labels)) is not None), None
        )
        group = rule.group(cluster[0].name, cluster[0].labels)
        splits.append(rule.drawn(group) if ruled is None else ruled)
        order.append(rule.position(group) if ruled is None else None)
    return splits, order


def _fill_empty(splits: list[str], order: Sequence[float | None], wanted: Sequence[str]) -> None:
    """Gives each empty split that is wanted a cluster of another that has two or more, training data first."""
    for name in wanted:
        if name in splits:
            continue
        for giver in (TRAIN, *wanted):
            movable = [
                (place, index)
                for index, place in enumerate(order)
                if place is not None and splits[index] == giver
            ]
            if splits.count(giver) > 1 and movable:
                splits[min(movable)[1]] = name
                break


def _cut(out: Path, shard: ShardRow, file: FileRow, rule: SplitRule, format: Format) -> Iterator[FileRow]:
    """Yields the parts of a recording: the training part first, then one per fraction."""
    hop = format.feature_hop or 1
    # A part begins with a frame of features and, in an ArrayRecord, with a record, which are one second apart.
    unit = hop if format.backend == "memmap" else math.lcm(hop, format.sample_rate)
    units = file.length // unit
    shares = dict(rule.shares)
    if sum(shares.values()) < 1:
        shares = {TRAIN: 1 - sum(shares.values()), **shares}
    if units < 2 * len(shares):
        yield file
        return
    sizes = {name: max(1, round(share * units)) for name, share in shares.items()}
    largest = max(sizes, key=lambda name: sizes[name])
    sizes[largest] += units - sum(sizes.values())
    reader, start = open_shard(out, shard, format), 0
    names = list(sizes)
    for name in names:
        stop = file.length if name == names[-1] else start + sizes[name] * unit
        pcm = reader.read(file.offset, file.length, start, stop)
        yield file.model_copy(
            update={
                "name": f"{file.name}#{name}",
                "offset": file.offset
                + (start if format.backend == "memmap" else start // format.sample_rate),
                "length": stop - start,
                "split": name,
                "sha256": samples_sha256(pcm),
                "losses": file.losses if start == 0 else {},
            }
        )
        start = stop
