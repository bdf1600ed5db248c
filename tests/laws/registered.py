"""Tables of cases by the section of their member, and that no member lacks a case for a law."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import pytest

Law = Callable[[Any], None]


class Registered(NamedTuple):
    """A case by what makes it, and the laws that are tested on it."""

    make: Callable[[], Any]
    laws: tuple[Law, ...]


Cases = Mapping[type, Mapping[str, Registered]]
"""The cases of each member, by its section of the configuration and a name."""


def registered(
    make_case: Callable[[str], Any], names: Iterable[str], laws: Iterable[Law]
) -> Mapping[str, Registered]:
    """Cases of these names on which the same laws are tested."""
    return {name: Registered(partial(make_case, name), tuple(laws)) for name in names}


def without(laws: tuple[Law, ...], *others: Law) -> tuple[Law, ...]:
    """The laws but for some, which must be among them."""
    assert set(others) <= set(laws)
    return tuple(law for law in laws if law not in others)


def checks(cases: Cases) -> list:
    """Parameters ``make_case`` and ``law``: a test for each law of each case."""
    return [
        pytest.param(case.make, law, id=f"{section.__name__.removesuffix('Config')}: {name}: {law.__name__}")
        for section, own in cases.items()
        for name, case in own.items()
        for law in case.laws
    ]


def assert_covered(
    cases: Cases,
    members: Iterable[type],
    laws: Iterable[Law],
    exceptions: Mapping[tuple[type, Law], str] | None = None,
) -> None:
    """Every member has a case for each law, or an exception with its reason, and never both."""
    exceptions, members, laws = exceptions or {}, set(members), set(laws)
    assert set(cases) == members
    assert all(exceptions.values()), "an exception needs a reason"
    for section, own in cases.items():
        tested = {law for case in own.values() for law in case.laws}
        excepted = {law for member, law in exceptions if member is section}
        missing = laws - tested
        assert missing == excepted, f"{section.__name__} lacks cases of {missing - excepted}"
