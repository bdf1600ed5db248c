"""Figures of training runs: loss curves from their metrics."""

import json
from pathlib import Path
from typing import Any

from wavegen.errors import WavegenError


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """Reads the rows of a run's ``metrics.jsonl``.

    Returns:
        For each row "step", "time" and figures by name; a figure is None where it was not finite.

    Raises:
        WavegenError: if the file cannot be read or a line is not a row.
    """
    try:
        lines = Path(path).read_bytes().splitlines()
    except OSError as error:
        raise WavegenError(f"cannot read {path}: {error.strerror or error}") from error
    return [read_row(line, number, path) for number, line in enumerate(lines, start=1)]


def read_row(line: bytes, number: int, path: str | Path) -> dict[str, Any]:
    """Reads one row of a run's ``metrics.jsonl``.

    Args:
        line: the row.
        number: of the line, from 1, for the error.
        path: of the file, for the error.

    Raises:
        WavegenError: if the line is not a JSON object of numbers with a step.

    Example:
        >>> from wavegen.pictures.runs import read_row
        >>> read_row(b'{"step": 1, "loss": null}', 1, "metrics.jsonl")
        {'step': 1, 'loss': None}
    """
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if (
        not isinstance(row, dict)
        or type(row.get("step")) is not int
        or not all(value is None or type(value) in (int, float) for value in row.values())
    ):
        got = repr(line[:60].decode(errors="replace"))
        raise WavegenError(
            f'expected a row like {{"step": 1, ...}} in line {number} of {path}, got {got}; '
            "delete that line or start the run in another folder"
        )
    return row


def loss_curve(metrics: str | Path, path: str | Path) -> Path:
    """Draws the losses of a run over its steps.

    Args:
        metrics: ``metrics.jsonl`` of a run: one JSON object per line, with "step" and numbers by name.
        path: the PNG file to write.

    Returns:
        The path.

    Raises:
        WavegenError: if the file cannot be read, or contains neither bits nor a loss.
    """
    from matplotlib.figure import Figure

    rows = read_metrics(metrics)
    names = list(dict.fromkeys(name for row in rows for name in row))
    shown = [name for name in names if "bits_per_" in name] or [name for name in names if "loss" in name]
    if not shown:
        raise WavegenError(f"expected a loss in {metrics}, got only {', '.join(names) or 'an empty file'}")
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for name in shown:
        points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
        # The many noisy rows of training become a line; the few evaluations get markers.
        marker = "o" if len(points) <= 30 else None
        axes.plot(
            *zip(*points, strict=True),
            label=name.replace("_", " "),
            marker=marker,
            markersize=4,
            linewidth=1.4,
        )
    axes.set_xlabel("step")
    axes.set_ylabel(shown[0].rpartition("/")[2].replace("_", " ") if "bits_per_" in shown[0] else "loss")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110)
    return Path(path)
