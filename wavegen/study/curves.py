"""The losses of a study over training steps, as CSV and as a picture: a panel a dataset."""

import csv
import io
import math
import statistics
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from wavegen.atomic import atomic_path, atomic_write
from wavegen.config import Config
from wavegen.config.study import Cell
from wavegen.metrics import read_metrics
from wavegen.study.measure import unit_of
from wavegen.training.step import metric_of


class Point(NamedTuple):
    """A loss of a run: on training batches, with dropout and augmentation, or on the validation split, without."""

    dataset: str
    model: str
    setting: str
    seed: int
    split: str
    step: int
    value: float


def write_curves(cells: Sequence[Cell], runs: Path, out: Path) -> None:
    """Writes ``curves.csv`` and ``curves.png`` from the ``metrics.jsonl`` of the runs that have begun.

    Args:
        cells: of the study.
        runs: folder of the runs.
        out: folder of the files.

    Raises:
        WavegenError: the metrics cannot be read, or the files not written.
    """
    begun = [cell for cell in cells if (runs / cell.config.name / "metrics.jsonl").exists()]
    points = [p for cell in begun for p in _points(cell, runs / cell.config.name / "metrics.jsonl")]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(Point._fields)
    table.writerows([*point[:-1], f"{point.value:.6g}"] for point in points)
    with atomic_write(out / "curves.csv") as file:
        file.write(text.getvalue().encode())
    if points:
        units = {cell.dataset: unit_of(cell.config)[0] for cell in begun}
        with atomic_path(out / "curves.png") as part:
            _draw(points, units, part)


def _points(cell: Cell, path: Path) -> Iterator[Point]:
    name, _ = metric_of(cell.config)
    # Runs of earlier versions call the figures of every model bits.
    earlier = name[name.index("bits") :]
    _, factor = unit_of(cell.config)
    for row in read_metrics(path):
        for split, prefix in (("train", ""), ("valid", "valid/")):
            value = row.get(prefix + name, row.get(prefix + earlier))
            if value is not None:
                value = (value - _added(cell.config, row)) * factor
                yield Point(cell.dataset, cell.model, cell.setting, cell.seed, split, row["step"], value)


def _added(config: Config, row: dict[str, Any]) -> float:
    """What a row of earlier versions has on top of the likelihood, in bits: the loss that compression learns from."""
    if "loss" in row:
        return 0.0
    weight = getattr(config.model, "memory_loss", 0.0)
    return weight * (row.get("memory_loss") or row.get("reconstruction") or 0.0) / math.log(2)


def _draw(points: Sequence[Point], units: dict[str, str], path: Path) -> None:
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import LogLocator

    figure = Figure(figsize=(1 + 5.5 * len(units), 4.5), layout="constrained")
    comparable = len(set(units.values())) == 1
    panels = figure.subplots(1, len(units), squeeze=False, sharey=comparable)[0]
    variants = list(dict.fromkeys((p.model, p.setting) for p in points))
    colours = {variant: colormaps["tab10"](number % 10) for number, variant in enumerate(variants)}
    for axes, (dataset, unit) in zip(panels, units.items(), strict=True):
        for variant, colour in colours.items():
            for split, style in (("train", {"linewidth": 0.8, "alpha": 0.5}), ("valid", {"linewidth": 1.8})):
                here = [p for p in points if p[:3] == (dataset, *variant) and p.split == split]
                if not here:
                    continue
                steps, means, deviations = _over_seeds(here)
                axes.plot(steps, means, color=colour, **style)
                if split == "valid":
                    low, high = ([m + s * d for m, d in zip(means, deviations, strict=True)] for s in (-1, 1))
                    axes.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.set_title(dataset, loc="left", fontsize=10)
        axes.set_xlabel("step")
        axes.set_ylabel(unit)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        low, high = axes.get_ylim()
        # Over more than a decade labels of 6 to 9 would overlap.
        axes.yaxis.set_minor_locator(LogLocator(subs=(2, 3, 5) if high > 10 * low else range(2, 10)))
        axes.yaxis.set_minor_formatter("{x:g}")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3, which="both")
    several = len({setting for _, setting in variants}) > 1
    handles = [
        Line2D([], [], color=colour, label=f"{model}, {setting}" if several else model)
        for (model, setting), colour in colours.items()
    ]
    title = "validation; faint: training batches"
    panels[0].legend(handles=handles, frameon=False, title=title, fontsize=9, title_fontsize=9)
    figure.savefig(path, dpi=110, format="png")


def _over_seeds(points: Sequence[Point]) -> tuple[list[int], list[float], list[float]]:
    """Steps, and mean and standard deviation over the seeds that have come there."""
    ordered = sorted(points, key=lambda point: point.step)
    grouped = {
        step: [p.value for p in group] for step, group in groupby(ordered, key=lambda point: point.step)
    }
    deviations = [statistics.stdev(values) if len(values) > 1 else 0.0 for values in grouped.values()]
    return list(grouped), [statistics.fmean(values) for values in grouped.values()], deviations
