"""Docstrings as the library writes them, for Sphinx: indented formulas and Markdown tables become reStructuredText."""

import re
from typing import Any

from sphinx.application import Sphinx

_SECTION = re.compile(r"(Args|Attributes|Example|Examples|Raises|Returns|Yields):$")
_CELL = re.compile(r"\s*\|\s*")


def _table(rows: list[str]) -> list[str]:
    cells = [_CELL.split(row.strip().strip("|").strip()) for row in rows if not re.fullmatch(r"[|\s-]+", row)]
    lines = ["", ".. list-table::", "   :header-rows: 1", ""]
    for row in cells:
        lines += [f"   {'* -' if column == 0 else '  -'} {cell}" for column, cell in enumerate(row)]
    return [*lines, ""]


def prepared(lines: list[str]) -> list[str]:
    """The lines of a docstring with its indented blocks as literal ones and its tables as reStructuredText's.

    What is indented below ``Args:`` and the like, or belongs to an item of a list, stays as it is.
    """
    out: list[str] = []
    table: list[str] = []
    above = ""  # the last line that is not indented
    for line in [*lines, ""]:
        if line.startswith("|"):
            table.append(line)
            continue
        if table:
            out += _table(table)
            table = []
        begins = line.startswith("    ") and out and not out[-1].strip()
        if begins and not (_SECTION.match(above) or above.startswith("- ") or above.endswith("::")):
            out += ["::", ""]
            above = "::"
        if line.strip() and not line.startswith(" "):
            above = line.rstrip()
        out.append(line)
    return out[:-1]


def _prepare(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    del app, what, name, obj, options
    lines[:] = prepared(lines)


def setup(app: Sphinx) -> dict[str, Any]:
    """Registers the step before napoleon's."""
    app.connect("autodoc-process-docstring", _prepare, priority=400)
    return {"parallel_read_safe": True}
