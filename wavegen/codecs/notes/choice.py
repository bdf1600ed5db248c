"""What a person says of events by name: instruments, pitches and fields."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

import numpy as np
from jaxtyping import Bool

from wavegen.codecs.notes.base import Interleaved, NoteCodec
from wavegen.codecs.notes.events import FAMILIES, FIELDS, NoteEvents
from wavegen.codecs.notes.grid import NoteGrid
from wavegen.errors import WavegenError

DRUMS = "drums"


def allowed_values(
    codec: NoteCodec, instruments: Sequence[str] = (), pitches: tuple[int, int] | None = None
) -> Bool[np.ndarray, "places V"] | None:
    """The values that a token may take at each place in a period, see ``wavegen.models.base.Choice``.

    Args:
        codec: of the tokens.
        instruments: families of General MIDI (``wavegen.codecs.notes.events.FAMILIES``) and "drums", in any case;
            none is all. For events.
        pitches: the lowest and the highest MIDI number; None is all. Drums keep to them too.

    Returns:
        None where every value may be.

    Raises:
        WavegenError: an instrument or pitch that is none, or that the codec does not write.
    """
    if not instruments and pitches is None:
        return codec.allowed
    plain = codec.codec if isinstance(codec, Interleaved) else codec
    if isinstance(plain, NoteEvents) and codec is plain:
        raise WavegenError(
            "instruments and pitches of one field a frame can be chosen; train with codec.interleave=true"
        )
    values = np.arange(codec.vocab_size)
    every = np.ones((1, codec.vocab_size), bool) if codec.allowed is None else codec.allowed
    allowed = every.copy()
    if isinstance(plain, NoteEvents):
        if instruments:
            allowed[FIELDS.index("instrument")] &= np.isin(values, _groups(plain, instruments))
        if pitches is not None:
            low, high = _range(pitches, 0, 127)
            allowed[FIELDS.index("pitch")] &= (values >= low) & (values <= high)
        return allowed
    assert isinstance(plain, NoteGrid)
    if instruments:
        raise WavegenError(
            "a grid of voices tells no instruments; leave them out, or use codec.kind=note_events"
        )
    if pitches is not None:
        low, high = _range(pitches, plain.low, plain.high)
        token = values + plain.low - 1
        allowed &= ((values == 0) | (token > plain.high) | ((token >= low) & (token <= high)))[None]
    return allowed


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


def by_field(codec: NoteCodec, values: Mapping[str, float], otherwise: float) -> tuple[float, ...]:
    """Values by the names of fields, in the order of the fields.

    Raises:
        WavegenError: another name, or the codec writes no fields one after the other.
    """
    if not isinstance(codec, Interleaved) or not isinstance(codec.codec, NoteEvents):
        raise WavegenError(f"{codec} has no fields with names; give one number, or one for each voice")
    for name in values:
        if name not in FIELDS:
            raise WavegenError(f"expected one of the fields {', '.join(FIELDS)}, got {name!r}")
    return tuple(float(values.get(name, otherwise)) for name in FIELDS)


def _groups(codec: NoteEvents, instruments: Sequence[str]) -> list[int]:
    """The tokens that decode to an instrument of these families."""
    drums = codec.sizes[FIELDS.index("instrument")] - 1
    names = [FAMILIES[group * codec.programs_per_group // 8] for group in range(drums)] + [DRUMS]
    groups = []
    for name in map(family, instruments):
        own = [group for group, its in enumerate(names) if its == name]
        if not own:
            raise WavegenError(
                f"groups of {codec.programs_per_group} programs do not tell {name}; there are "
                f"{', '.join(dict.fromkeys(names))}"
            )
        groups += own
    return groups


def _range(pitches: tuple[int, int], low: int, high: int) -> tuple[int, int]:
    if not low <= pitches[0] <= pitches[1] <= high:
        raise WavegenError(f"expected the lowest and the highest pitch within {low} to {high}, got {pitches}")
    return pitches
