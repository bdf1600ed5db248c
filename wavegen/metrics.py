"""The rows of a run's ``metrics.jsonl``, read and checked."""

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
        >>> from wavegen.metrics import read_row
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
