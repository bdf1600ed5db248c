"""What a person asks for by name: instruments, pitches and fields."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

import numpy as np
from jaxtyping import Bool

from wavegen.codecs.base import Codec
from wavegen.codecs.notes.base import NoteCodec
from wavegen.errors import WavegenError

DRUMS = "drums"
FAMILIES = (
    "piano", "chromatic percussion", "organ", "guitar", "bass", "strings", "ensemble", "brass", "reed", "pipe",
    "synth lead", "synth pad", "synth effects", "ethnic", "percussive", "sound effects",
)  # fmt: skip
"""Of General MIDI, eight programs each."""


def allowed_values(
    codec: NoteCodec, instruments: Sequence[str] = (), pitches: tuple[int, int] | None = None
) -> Bool[np.ndarray, "places V"] | None:
    """The values that a token may take at each place in a period, see ``wavegen.models.base.Choice``.

    Args:
        codec: of the tokens.
        instruments: ``FAMILIES`` and "drums", in any case; none is all. For events.
        pitches: the lowest and the highest MIDI number; None is all. Drums keep to them too.

    Returns:
        None where every value may be.

    Raises:
        WavegenError: an instrument or pitch that is none, or that the codec does not write.
    """
    if not instruments and pitches is None:
        return codec.allowed
    every = np.ones((1, codec.vocab_size), bool) if codec.allowed is None else codec.allowed.copy()
    return codec.narrowed(every, instruments, pitches)


def family(name: str) -> str:
    """A family of General MIDI, or "drums", as it is written here.

    Raises:
        WavegenError: it is none.
    """
    names = (*FAMILIES, DRUMS)
    if name.lower() not in names:
        near = get_close_matches(name.lower(), names, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"
        raise WavegenError(f"expected an instrument, got {name!r}; {hint}")
    return name.lower()


def by_field(codec: Codec, values: Mapping[str, float], otherwise: float) -> tuple[float, ...]:
    """Values by the names of fields, in the order of the fields.

    Raises:
        WavegenError: another name, or the codec writes no fields one after the other.
    """
    fields = codec.plain.fields
    if not fields or codec.interleaving != len(fields):
        raise WavegenError(f"{codec} has no fields with names; give one number, or one for each voice")
    for name in values:
        if name not in fields:
            raise WavegenError(f"expected one of the fields {', '.join(fields)}, got {name!r}")
    return tuple(float(values.get(name, otherwise)) for name in fields)


def require_range(pitches: tuple[int, int], low: int, high: int) -> tuple[int, int]:
    """Checks a range of pitches against what a codec writes.

    Raises:
        WavegenError: it is empty, or lies outside ``low`` to ``high``.
    """
    if not low <= pitches[0] <= pitches[1] <= high:
        raise WavegenError(f"expected the lowest and the highest pitch within {low} to {high}, got {pitches}")
    return pitches
