"""The configurations and studies that come with the package, by name."""

import re
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

_PACKAGE = Path(__file__).parents[1]
# A wheel carries the files inside the package; in a clone they lie beside it.
_INSTALLED, _CLONE = _PACKAGE / "assets" / "configs", _PACKAGE.parent / "configs"
FOLDER = _INSTALLED if _INSTALLED.is_dir() else _CLONE
"""Where they are; studies lie in its folder ``studies``."""


def shipped(kind: str = "") -> dict[str, Path]:
    """Returns the files by name, which is that of the file without ``.yaml``.

    Args:
        kind: "studies" for the studies; by default the experiments.

    Example:
        >>> from wavegen.config.shipped import shipped
        >>> "quickstart" in shipped(), "dropout" in shipped("studies")
        (True, True)
    """
    return {path.stem: path for path in sorted((FOLDER / kind).glob("*.yaml"))}


def find(path: str | Path, kind: str = "") -> Path:
    """Returns the file that is meant: the path itself if it exists or is no plain name, else the shipped file.

    Args:
        path: of a file, or a name as in ``shipped``.
        kind: see ``shipped``.
    """
    path = Path(path)
    return path if path.exists() else shipped(kind).get(str(path), path)


class Description(NamedTuple):
    """What the header of a shipped configuration says.

    Attributes:
        task: what is trained, on what.
        cost: parameters and time.
        expect: the figure that it reaches.
    """

    task: str
    cost: str
    expect: str


def describe(path: Path) -> Description:
    """Reads the header of a shipped configuration.

    Example:
        >>> from wavegen.config.shipped import describe, shipped
        >>> describe(shipped()["fsdd-ssm"]).cost
        '0.42 M parameters, 25 minutes on one core.'
    """
    lines = takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines())
    text = "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines)
    task, cost, expect = re.split(r"^(?:Cost|Expect): ", text, flags=re.MULTILINE)
    # The commands of the header are indented.
    first = re.split(
        r"(?<=[.:])\s+(?=[A-Z])", " ".join(takewhile(lambda line: line[:1] != " ", task.splitlines()))
    )[0]
    return Description(first.rstrip(".:") + ".", " ".join(cost.split()), " ".join(expect.split()))
