"""What a reader skipped, cut, clipped or mixed away, counted by kind and said in one line."""

import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

Losses = Counter[str]
"""How much of each kind was lost: ``Counter({"damaged metres skipped": 2})``."""


class LossWarning(UserWarning):
    """Says that a file was read, but not all of it, or not as it was."""


def described(losses: Mapping[str, int]) -> str:
    """Returns the losses as one line, in the order in which they were found.

    Example:
        >>> from wavegen.losses import Losses, described
        >>> described(Losses({"damaged metres skipped": 2, "chunks missing": 1}))
        'damaged metres skipped: 2, chunks missing: 1'
    """
    return ", ".join(f"{kind}: {count:,}" for kind, count in losses.items())


def warn_of(path: str | Path, losses: Mapping[str, int]) -> None:
    """Warns of what was lost in reading a file, unless nothing was."""
    if losses:
        warnings.warn(f"{path}: {described(losses)}", LossWarning, stacklevel=3)
