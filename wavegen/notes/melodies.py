"""The melodies that ship with the package: one text file each in ``wavegen/assets/melodies``.

Every tune is in the public domain: in print before 1930, its composer unknown or dead since before 1930. The notes
were written out for this package.
"""

from pathlib import Path

from wavegen.errors import WavegenError
from wavegen.notes.performance import Performance

FOLDER = Path(__file__).parents[1] / "assets" / "melodies"


def names() -> list[str]:
    """The names of all melodies, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.txt"))


def melody(name: str) -> Performance:
    """One melody, as it is written.

    Raises:
        WavegenError: there is no melody of this name.

    Example:
        >>> len(melody("frere_jacques"))
        32
    """
    if name not in names():
        raise WavegenError(f"expected one of the melodies {', '.join(names())}, got {name!r}")
    return Performance.read(FOLDER / f"{name}.txt")
