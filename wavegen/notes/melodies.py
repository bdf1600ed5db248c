"""The melodies that ship with the package: one text file each in ``wavegen/assets/melodies``.

Every tune is in the public domain: it was in print before 1930, and its composer is unknown or died before 1930. The
notes were written out for this package.
"""

from pathlib import Path

from wavegen.errors import WavegenError
from wavegen.notes.performance import Performance

FOLDER = Path(__file__).parents[1] / "assets" / "melodies"


def names() -> list[str]:
    """Returns the names of all melodies, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.txt"))


def melody(name: str) -> Performance:
    """Returns one melody as notated.

    Raises:
        WavegenError: if there is no melody of this name.

    Example:
        >>> from wavegen.notes.melodies import melody
        >>> len(melody("frere_jacques"))
        32
    """
    if name not in names():
        raise WavegenError(f"expected one of the melodies {', '.join(names())}, got {name!r}")
    return Performance.read(FOLDER / f"{name}.txt")
