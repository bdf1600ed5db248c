"""What is drawn anew where a piece is remixed: whole notes, only their pitches, or only their durations."""

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Bool, Int

from wavegen.errors import WavegenError
from wavegen.notes.score import Score

What = Literal["notes", "pitches", "durations"]


class Redrawing(NamedTuple):
    """A piece with gaps.

    Attributes:
        tokens: of the piece.
        hidden: which of them are drawn anew.
        allowed: values that those may take, within what the codec allows; None is all.
        rebuilt: from the tokens with the gaps filled to the new piece.
    """

    tokens: Int[np.ndarray, "N K"]
    hidden: Bool[np.ndarray, "N K"]
    allowed: Bool[np.ndarray, " V"] | None
    rebuilt: Callable[[Int[np.ndarray, "N K"]], Score]


def require_what(what: str) -> None:
    """Checks what is to be drawn anew.

    Raises:
        WavegenError: it is none of ``What``.
    """
    if what not in get_args(What):
        raise WavegenError(f"expected one of {', '.join(get_args(What))} to remix, got {what!r}")
