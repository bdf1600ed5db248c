"""Every number that a person can set has a range, and what is outside is one line that names it."""

import inspect
import typing
from dataclasses import fields, is_dataclass

import pytest

from wavegen.cli import COMMANDS, main
from wavegen.cli.ranges import Range, numbers
from wavegen.errors import WavegenError

ABSURD = (
    "nan",
    "inf",
    "-inf",
    "1e400",
    "-1e400",
    "1" * 30,
    "9" * 5000,
    "-" + "1" * 30,
    "soon",
    "0x10",
    "1;2",
    "",
)


def options(command: str) -> dict[str, tuple[Range, int]]:
    """The options of a command that take numbers: their ranges, and how many numbers each takes."""
    found = {}
    for flag, within, _ in numbers(COMMANDS[command], {}):
        found[flag] = (within, 2 if flag == "--pitches" else 1)
    return found


def positionals(command: str) -> list[str]:
    """Something for every positional argument; the ranges are checked before it is looked at."""
    parameters = inspect.signature(COMMANDS[command]).parameters.values()
    needed = [p for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_ONLY]
    named = [p for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    flags = [
        text for p in named if "Positional" not in str(p.annotation) for text in (f"--{p.name}", "nowhere")
    ]
    return ["nowhere"] * (len(needed) + len(named) - len(flags) // 2) + flags


CASES = [(command, flag) for command in COMMANDS for flag in options(command)]


def said(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    assert caught.value.code == 2
    output = capsys.readouterr()
    (line,) = output.err.splitlines()
    return line


@pytest.mark.parametrize(("command", "flag"), CASES)
def test_a_number_outside_its_range_is_one_line(command, flag, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    within, takes = options(command)[flag]
    step = 1 if within.whole else 0.001
    outside = [within.low if within.above else within.low - step, within.high + step]
    outside = [*outside, 1.5] if within.whole else [float(end) for end in outside]
    # Reading arguments takes 20 ms: one option of each kind sees all texts.
    some = (
        ABSURD if (command, flag) in (("sample", "--count"), ("sample", "--seconds")) else ("1e400", "soon")
    )
    for text in (*map(str, outside), *some):
        line = said(capsys, command, *positionals(command), flag, *[text] * takes)
        option, _, came = line.partition(", got ")
        assert option == f"wavegen: {flag} must be {within}"
        assert text[:15] in came or float(came) == float(text)
        assert len(line) < 200
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("command", "flag"), CASES)
def test_the_ends_of_a_range_are_inside(command, flag):
    within, _ = options(command)[flag]
    for value in (within.low + 1e-6 if within.above else within.low, within.high):
        within.check(flag, value)
    parameters = {**inspect.signature(COMMANDS[command]).parameters}
    usual = [p.default for p in parameters.values() if p.name == flag[2:].replace("-", "_")]
    for value in usual:
        for number in value if isinstance(value, tuple) else (value,):
            if number not in (None, inspect.Parameter.empty):
                within.check(flag, number)


def test_a_command_whose_number_has_no_range_is_noticed():
    def command(count: int = 1) -> None: ...

    with pytest.raises(TypeError, match="--count takes numbers"):
        list(numbers(command, {}))


def test_all_options_of_all_commands_are_looked_at():
    """By another walk than that of the check."""

    def leaves(hints):
        for name, hint in hints.items():
            plain = typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint
            if is_dataclass(plain):
                inner = typing.get_type_hints(plain)
                yield from leaves({field.name: inner[field.name] for field in fields(plain)})
            else:
                yield name, str(hint)

    for name, command in COMMANDS.items():
        takes = {
            f"--{n.replace('_', '-')}"
            for n, text in leaves(typing.get_type_hints(command))
            if "int" in text or "float" in text
        }
        literal = {"--precision"}  # names, one of which has "float" in it
        assert takes - literal == set(options(name)) - literal


def test_temperatures_of_fields_have_the_range_too(capsys):
    from wavegen.cli.options import VoiceDrawing

    for text in ("nan", "-1", "1e400", "pitch=11", "pitch=inf"):
        with pytest.raises(WavegenError, match="--temperature must be a number from 0 to 10"):
            VoiceDrawing((text,)).drawing()
    assert VoiceDrawing(("pitch=1.5", "duration=0")).drawing().temperature == {"pitch": 1.5, "duration": 0}
