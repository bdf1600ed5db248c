"""The tables of a study: a row an experiment, mean and spread over seeds, and every model on every dataset."""

import csv
import io
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from wavegen.atomic import atomic_write
from wavegen.config.study import Cell
from wavegen.study.measure import Figures

FIGURES = {
    "train": "train",
    "valid": "valid",
    "test": "test",
    "accuracy": "accuracy",
    "best_step": "best step",
    "steps_per_second": "steps/s",
    "tokens_per_second": "tokens/s drawn",
    "repetition": "repeated 4-grams",
    "test_repetition": "of the test data",
}
"""What is averaged over seeds, and how it is called in the summary."""

KEYS = ("dataset", "model", "setting")


class Row(NamedTuple):
    """An experiment that was come to.

    Attributes:
        cell: what it was.
        figures: what it came to; None if it failed.
        error: why it failed.
    """

    cell: Cell
    figures: Figures | None
    error: str = ""


class Spread(NamedTuple):
    """Mean and sample standard deviation, None of a single value."""

    mean: float
    deviation: float | None

    def __str__(self) -> str:
        deviation = "" if self.deviation is None else f" ± {self.deviation:.2g}"
        return f"{self.mean:.4g}{deviation}"


def spread(values: Iterable[float | None]) -> Spread | None:
    """Mean and deviation of the values that are there; None without any."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    return Spread(statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None)


def write_tables(rows: Sequence[Row], out: Path) -> None:
    """Writes ``table.csv``, ``across.csv``, ``summary.csv`` and ``summary.md``.

    Raises:
        WavegenError: they cannot be written.
    """
    _write_csv(
        out / "table.csv",
        [*KEYS, "seed", "parameters", "unit", *FIGURES, "error"],
        ([*_keys(cell), cell.seed, *_row(figures), error] for cell, figures, error in rows),
    )
    groups = _groups(rows)
    datasets = _tested(groups)
    _write_csv(
        out / "across.csv",
        [*KEYS, "seed", "unit", *datasets],
        ([*_keys(c), c.seed, f.unit, *map(f.across.get, datasets)] for c, f, _ in rows if f is not None),
    )
    _write_csv(
        out / "summary.csv",
        [*KEYS, "seeds", "parameters", "unit", *(n for name in FIGURES for n in (name, f"{name}_sd"))],
        (
            [*key, len(group), group[0].parameters, group[0].unit]
            + [x for name in FIGURES for x in _spread(group, name) or (None, None)]
            for key, group in groups.items()
        ),
    )
    with atomic_write(out / "summary.md") as file:
        file.write(summary(rows).encode())


def summary(rows: Sequence[Row]) -> str:
    """The summary as Markdown: mean ± standard deviation over seeds, every model on every dataset, and failures."""
    groups = _groups(rows)
    datasets = _tested(groups)
    lines = [
        "Mean ± sample standard deviation over seeds, each at its best step on the validation split.",
        "",
    ]
    lines += _markdown(
        [*KEYS, "seeds", "parameters", "unit", *FIGURES.values()],
        (
            [*key, len(group), f"{group[0].parameters:,}", group[0].unit]
            + [_spread(group, name) for name in FIGURES]
            for key, group in groups.items()
        ),
    )
    if len(datasets) > 1:
        lines += ["", "Test splits of all datasets with the same tokens, in the same units:", ""]
        lines += _markdown(
            [*KEYS, *(f"on {name}" for name in datasets)],
            (
                [*key, *(spread(figures.across.get(name) for figures in group) for name in datasets)]
                for key, group in groups.items()
            ),
        )
    failed = [f"- {cell.config.name}: {error}" for cell, figures, error in rows if figures is None]
    if failed:
        lines += ["", "Failed:", "", *failed]
    return "\n".join(lines) + "\n"


def _groups(rows: Sequence[Row]) -> dict[tuple[str, str, str], list[Figures]]:
    """The figures of all seeds of each dataset, model and setting."""
    groups: dict[tuple[str, str, str], list[Figures]] = {}
    for cell, figures, _ in rows:
        if figures is not None:
            groups.setdefault(_keys(cell), []).append(figures)
    return groups


def _tested(groups: Mapping[tuple[str, str, str], Sequence[Figures]]) -> list[str]:
    """The datasets that models were tested on."""
    return list(dict.fromkeys(name for group in groups.values() for f in group for name in f.across))


def _spread(group: Sequence[Figures], name: str) -> Spread | None:
    return spread(getattr(figures, name) for figures in group)


def _keys(cell: Cell) -> tuple[str, str, str]:
    return cell.dataset, cell.model, cell.setting


def _row(figures: Figures | None) -> list[object]:
    names = ("parameters", "unit", *FIGURES)
    return [None if figures is None else getattr(figures, name) for name in names]


def _markdown(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    table = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join("" if cell is None else str(cell) for cell in row) + " |" for row in table]


def _write_csv(path: Path, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(head)
    table.writerows([f"{x:.6g}" if isinstance(x, float) else x for x in row] for row in rows)
    with atomic_write(path) as file:
        file.write(text.getvalue().encode())
