"""What preparing a dataset came to, as a person reads it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from wavegen.data.manifest import MANIFEST, SkippedRow


@dataclass(frozen=True)
class Report:
    """What ``prepare`` did; ``print(report)`` shows a summary.

    Args:
        out: the dataset.
        files: number of recordings per split.
        seconds: their length per split; for notes the number of frames.
        skipped: the files that were left out, with reasons.
        shards_written: shards that this call wrote.
        shards_kept: shards of this machine that were complete already.
        shards_missing: shards of other machines that are not there yet; the dataset opens when it is 0.
        notes: whether MIDI files were prepared as tokens.
        losses: what was skipped, cut, clipped or mixed away in the files that are used, by kind: how much of it, and
            in how many files.
        duplicates: groups of files with the same samples, which share a split.
        empty: splits that were to have a fraction and got no file.
    """

    out: Path
    files: dict[str, int]
    seconds: dict[str, float]
    skipped: tuple[SkippedRow, ...]
    shards_written: int
    shards_kept: int
    shards_missing: int
    notes: bool = False
    losses: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    duplicates: tuple[tuple[str, ...], ...] = ()
    empty: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"{self.out}: {self.shards_written} shard(s) written, {self.shards_kept} already there"]
        for split in sorted(self.files):
            seconds = self.seconds[split]
            length = f"{seconds:>12,.0f} frames" if self.notes else f"{seconds / 60:>10,.1f} minutes"
            lines.append(f"  {split:<8}{self.files[split]:>9,} files  {length}")
        for name in self.empty:
            lines.append(
                f"  {name:<8} no files: add some, or choose them with --{name} 'PATTERN/*' or labels"
            )
        for kind, (count, files) in self.losses.items():
            lines.append(f"  {kind}: {count:,} in {files:,} file(s); see losses in {MANIFEST}")
        if self.duplicates:
            lines.append(f"  {len(self.duplicates)} recording(s) occur more than once, in one split each:")
            lines += [f"    {' = '.join(group[:4])}" for group in self.duplicates[:5]]
        if self.skipped:
            lines.append(f"  skipped {len(self.skipped)}:")
            lines += [f"    {row.name}: {row.reason}" for row in self.skipped[:20]]
        if len(self.skipped) > 20:
            lines.append(f"    and {len(self.skipped) - 20} more; see {MANIFEST}")
        if self.shards_missing:
            lines.append(f"  waiting for {self.shards_missing} shard(s) of other machines")
        return "\n".join(lines)
