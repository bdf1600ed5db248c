"""Options that several commands share, and what they mean to the library.

A command takes a dataclass of options as ``Flat[...]``: every field becomes a flag of its own name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import tyro

from wavegen.cli.ranges import (
    TEMPERATURE,
    Count,
    Guidance,
    Passes,
    Pitch,
    Seed,
    Temperature,
    TopK,
    TopP,
)
from wavegen.errors import WavegenError

if TYPE_CHECKING:
    from wavegen.samplers.drawing import Drawing

_Options = TypeVar("_Options")

Flat = Annotated[_Options, tyro.conf.arg(name="")]
"""A dataclass whose fields are flags without a prefix."""

Out = Annotated[Path, tyro.conf.arg(aliases=["-o"])]
"""Where a command writes: ``--out`` or ``-o``."""


@dataclass(frozen=True)
class Ask:
    """How many results a command generates, and from which seed.

    Attributes:
        count: number of results.
        seed: the same seed gives the same results.
    """

    count: Count = 1
    seed: Seed = 0


@dataclass(frozen=True)
class LabelledAsk(Ask):
    """What a model with labels is asked for.

    Attributes:
        labels: values of the model's label fields, written field=value.
    """

    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class AudioDrawing:
    """How a model of audio draws its tokens.

    Attributes:
        temperature: below 1 the output is calmer, above 1 wilder, and 0 always takes the likeliest token; by default
            the experiment's own.
        top_k: draw among the k likeliest tokens; 0 means all. For causal models.
        top_p: draw among the likeliest tokens that together have this probability.
        passes: number of passes of a masked model for each codebook, the last number for all further ones; more passes
            are slower and better.
        guidance: how far a masked model's labels are exaggerated; 1 means not at all.
    """

    temperature: Temperature | None = None
    top_k: TopK | None = None
    top_p: TopP | None = None
    passes: tuple[Passes, ...] = ()
    guidance: Guidance | None = None

    def drawing(self) -> Drawing:
        """Returns the library's own form of these options."""
        from wavegen.samplers.drawing import Drawing

        return Drawing(
            self.temperature,
            self.top_k,
            self.top_p,
            passes=self.passes or None,
            guidance=self.guidance,
        )


@dataclass(frozen=True)
class VoiceDrawing:
    """How a model of notes draws voices that are added or changed.

    Attributes:
        temperature: below 1 the output is calmer, above 1 wilder; several numbers are for the codec's fields in order,
            or, with a codec of events, by name: pitch=1.1 duration=0.8.
        top_p: draw among the likeliest tokens that together have this probability.
    """

    temperature: tuple[str, ...] = ()
    top_p: TopP | None = None

    def drawing(self) -> Drawing:
        """Returns the library's own form of these options.

        Raises:
            WavegenError: a temperature is neither a number nor ``field=number``.
        """
        from wavegen.samplers.drawing import Drawing

        return Drawing(_temperature(self.temperature), top_p=self.top_p)


@dataclass(frozen=True)
class NoteDrawing(VoiceDrawing):
    """How a model of notes draws whole sections.

    Attributes:
        top_k: draw among the k likeliest tokens; 0 means all. For causal models.
    """

    top_k: TopK | None = None

    def drawing(self) -> Drawing:
        """Returns the library's own form of these options; see ``VoiceDrawing.drawing``."""
        from wavegen.samplers.drawing import Drawing

        return Drawing(_temperature(self.temperature), self.top_k, self.top_p)


@dataclass(frozen=True)
class PieceDrawing(NoteDrawing):
    """How a model of notes draws a piece of its own.

    Attributes:
        instruments: the only instruments that play, for example piano bass drums; for a codec of events.
        pitches: the lowest and the highest MIDI number.
    """

    instruments: tuple[str, ...] = ()
    pitches: tuple[Pitch, Pitch] | None = None

    def drawing(self) -> Drawing:
        """Returns the library's own form of these options; see ``VoiceDrawing.drawing``."""
        from dataclasses import replace

        return replace(super().drawing(), instruments=self.instruments, pitches=self.pitches)


def result_name(run: Path) -> str:
    """Returns what results of a run are named after: a file without its suffix, or the whole name of a folder.

    A folder has no suffix: ``exp-0.5`` and ``exp-0.25`` are two names.
    """
    path = run.resolve()
    return path.stem if path.suffix == ".safetensors" else path.name


def pairs(texts: Sequence[str]) -> dict[str, str]:
    """Returns labels that are written ``field=value`` by their fields.

    Raises:
        WavegenError: a label has no equals sign.
    """
    bad = [text for text in texts if "=" not in text]
    if bad:
        raise WavegenError(f"a label is written field=value, for example digit=3; got '{bad[0]}'")
    return dict(text.split("=", 1) for text in texts)


def span(text: str) -> tuple[float, float]:
    """Returns the two ends, in seconds, of a span that is written ``FIRST:LAST``.

    Raises:
        WavegenError: the text is not two numbers with a colon between them.
    """
    first, colon, last = text.partition(":")
    try:
        return float(first), float(last if colon else "")
    except ValueError:
        raise WavegenError(
            f"a span is written FIRST:LAST in seconds, for example 2.0:3.5; got '{text}'"
        ) from None


def refuse(what: str, **options: object) -> None:
    """Refuses options that were given but do not apply.

    Args:
        what: what takes no such option, for example "a WaveNet".
        options: the options by name; None, False and an empty tuple mean that one was not given.

    Raises:
        WavegenError: one of the options was given.
    """
    for name, value in options.items():
        if value is not None and value is not False and value != ():
            raise WavegenError(f"{what} takes no --{name.replace('_', '-')}; leave it out")


def _temperature(texts: tuple[str, ...]) -> float | tuple[float, ...] | dict[str, float] | None:
    try:
        if texts and all("=" in text for text in texts):
            named = {name: float(value) for name, value in pairs(texts).items()}
            numbers = tuple(named.values())
        else:
            named, numbers = {}, tuple(map(float, texts))
    except ValueError:
        raise WavegenError(
            "expected every temperature to be a number, or every one to be field=number, for example pitch=1.1; "
            f"got {' '.join(texts)}"
        ) from None
    for number in numbers:
        TEMPERATURE.check("--temperature", number)
    if named:
        return named
    if not numbers:
        return None
    return numbers[0] if len(numbers) == 1 else numbers
