"""The trained models that come with the package, by name."""

from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parents[1] / "assets" / "models"
"""``NAME.safetensors`` and its model card, ``NAME.md``."""
INSTRUMENT = "piano"
"""The model that is meant where none is named."""


class Card(NamedTuple):
    """What the model card of a shipped model says.

    Attributes:
        what: its first sentence.
        made_by: the commands that made it.
        licence: of the weights.
    """

    what: str
    made_by: str
    licence: str


def shipped() -> dict[str, Path]:
    """Returns the files of the shipped models by name.

    Example:
        >>> from wavegen.runs.shipped import shipped
        >>> "piano" in shipped()
        True
    """
    return {path.stem: path for path in sorted(FOLDER.glob("*.safetensors"))}


def find(path: str | Path | None) -> Path:
    """Returns the run or file that is meant: the path itself if it exists or is no name of a shipped model.

    Args:
        path: a path, the name of a shipped model, or None for the instrument.
    """
    if path is None:
        return shipped()[INSTRUMENT]
    path = Path(path)
    return path if path.exists() else shipped().get(str(path), path)


def read_card(model: Path) -> Card:
    """Reads the model card beside a shipped model."""
    text = model.with_suffix(".md").read_text(encoding="utf-8")
    paragraphs = [" ".join(part.split()) for part in text.replace("\n- **", "\n\n- **").split("\n\n")]
    points = dict(part.removeprefix("- **").split("**", 1) for part in paragraphs if part.startswith("- **"))
    what = paragraphs[1].split(". ")[0].rstrip(".")
    return Card(f"{what}.", points["Made by"].strip(" :"), points["Licence"].strip(" :"))
