"""The range of every number that a person can set on the command line, and the one check of all of them.

A command, or a dataclass of options, annotates each of its numbers with a type from here. The ranges are those that
make sense with any model; what a model and a machine can do with a number inside is checked by the library.
"""

from __future__ import annotations

import inspect
import math
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import wraps
from typing import Annotated, Any

from tyro.constructors import PrimitiveConstructorSpec

from wavegen.errors import WavegenError


class _UnreadInt(int):
    """A text that is no whole number, until the check of all options refuses it by the name of its option."""

    text: str


class _UnreadFloat(float):
    """A text that is no finite number; see ``_UnreadInt``."""

    text: str


class Range(PrimitiveConstructorSpec[Any]):
    """What a number may be; as an annotation it is also how tyro reads the number.

    Attributes:
        low: the least value.
        high: the greatest value.
        whole: whether only whole numbers are in the range.
        above: whether the range begins above ``low``, not at it.

    Example:
        >>> from wavegen.cli.ranges import Range
        >>> print(Range(1, 1000))
        a whole number from 1 to 1,000
        >>> print(Range(0, 1, whole=False, above=True))
        a number above 0 and up to 1
    """

    low: float
    high: float
    whole: bool
    above: bool

    def __init__(self, low: float, high: float, *, whole: bool = True, above: bool = False) -> None:
        kinds = (int,) if whole else (int, float)
        super().__init__(
            nargs=1,
            metavar="INT" if whole else "FLOAT",
            instance_from_str=lambda texts: self.read(texts[0]),
            is_instance=lambda value: isinstance(value, kinds),
            str_from_instance=lambda value: [str(value)],
        )
        for name, value in {"low": low, "high": high, "whole": whole, "above": above}.items():
            object.__setattr__(self, name, value)

    def read(self, text: str) -> float:
        """Returns the number that a text is; what is none is left to ``check``, which knows the name of its option."""
        try:
            number = int(text) if self.whole else float(text)
            if math.isfinite(number):
                return number
        except (ValueError, OverflowError):  # the latter: a whole number beyond all floats
            pass
        unread: _UnreadInt | _UnreadFloat = _UnreadInt() if self.whole else _UnreadFloat()
        unread.text = text
        return unread

    def check(self, name: str, value: float) -> None:
        """Checks a number.

        Args:
            name: of the option, as it is written: "--count".
            value: what was given.

        Raises:
            WavegenError: it was no number, or is outside the range.
        """
        text = getattr(value, "text", None)
        if text is None and self.low <= value <= self.high and not (self.above and value == self.low):
            return
        given = repr(value if text is None else text)
        if len(given) > 40:
            given = f"{given[:20]}... ({len(given)} characters)"
        raise WavegenError(f"{name} must be {self}, got {given}")

    def __str__(self) -> str:
        what = "a whole number" if self.whole else "a number"
        low, high = (f"{end:,}" for end in (self.low, self.high))
        return f"{what} above {low} and up to {high}" if self.above else f"{what} from {low} to {high}"


Count = Annotated[int, Range(1, 1000)]
Seed = Annotated[int, Range(0, 2**32 - 1)]
Seconds = Annotated[float, Range(0, 86_400, whole=False, above=True)]
Length = Annotated[int, Range(1, 100_000)]
Bars = Annotated[int, Range(1, 10_000)]
Steps = Annotated[int, Range(2, 1000)]

TEMPERATURE = Range(0, 10, whole=False)
Temperature = Annotated[float, TEMPERATURE]
TopK = Annotated[int, Range(0, 2**20)]
TopP = Annotated[float, Range(0, 1, whole=False, above=True)]
Passes = Annotated[int, Range(1, 1000)]
Guidance = Annotated[float, Range(0, 20, whole=False)]
Share = Annotated[float, Range(0, 1, whole=False)]
Period = Annotated[int, Range(1, 100_000)]
Codebooks = Annotated[int, Range(1, 64)]

Voice = Annotated[int, Range(0, 63)]
Pitch = Annotated[int, Range(0, 127)]
Tempo = Annotated[float, Range(4, 1000, whole=False)]

Rate = Annotated[int, Range(1000, 384_000)]
Hertz = Annotated[float, Range(0, 192_000, whole=False)]
Decibels = Annotated[float, Range(0, 300, whole=False, above=True)]
Window = Annotated[int, Range(2, 2**17)]
Hop = Annotated[int, Range(1, 2**17)]
Bands = Annotated[int, Range(1, 1024)]
Entries = Annotated[int, Range(1, 65_536)]

Clips = Annotated[int, Range(2, 100_000)]
TrainingSteps = Annotated[int, Range(1, 1_000_000)]
Batches = Annotated[int, Range(1, 1_000_000)]
Orders = Annotated[int, Range(1, 100_000)]
Workers = Annotated[int, Range(1, 1024)]
Machine = Annotated[int, Range(0, 9999)]
Machines = Annotated[int, Range(1, 10_000)]

Streams = Annotated[int, Range(1, 65_536)]
Threads = Annotated[int, Range(1, 1024)]
TimedSteps = Annotated[int, Range(1, 1_000_000_000)]
Rounds = Annotated[int, Range(1, 10_000)]


def within_ranges(command: Callable[..., None]) -> Callable[..., None]:
    """Returns a command that checks its numbers before it begins.

    Raises:
        WavegenError: when the command is called with a number outside its range.
    """
    signature = inspect.signature(command)

    @wraps(command)
    def checked(*values: Any, **named: Any) -> None:
        given = signature.bind(*values, **named).arguments
        for name, within, value in numbers(command, given):
            for number in value if isinstance(value, tuple) else (value,):
                if number is not None:
                    within.check(name, number)
        command(*values, **named)

    return checked


def numbers(command: Callable[..., None], given: Mapping[str, Any]) -> Iterator[tuple[str, Range, Any]]:
    """Yields each option of a command that takes numbers: its name, its range and what it was given.

    Args:
        command: a function, whose dataclasses of options are looked into.
        given: values by the names of its parameters; others have None.

    Raises:
        TypeError: an option takes numbers and has no range.
    """
    for name, hint in typing.get_type_hints(command, include_extras=True).items():
        yield from _numbers(name, hint, given.get(name))


def _numbers(name: str, hint: Any, value: Any) -> Iterator[tuple[str, Range, Any]]:
    options = typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint
    if is_dataclass(options):
        hints = typing.get_type_hints(options, include_extras=True)
        for field in fields(options):
            yield from _numbers(field.name, hints[field.name], getattr(value, field.name, None))
        return
    flag = f"--{name.replace('_', '-')}"
    ranges = set(_ranges(hint))
    if len(ranges) > 1 or (not ranges and _takes_numbers(hint)):
        raise TypeError(f"{flag} takes numbers: annotate it with one type of wavegen.cli.ranges, got {hint}")
    for within in ranges:
        yield flag, within, value


def _ranges(hint: Any) -> Iterator[Range]:
    for part in getattr(hint, "__metadata__", ()):
        if isinstance(part, Range):
            yield part
    for part in typing.get_args(hint):
        yield from _ranges(part)


def _takes_numbers(hint: Any) -> bool:
    return hint in (int, float) or any(map(_takes_numbers, typing.get_args(hint)))
