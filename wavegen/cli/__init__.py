"""The command line: ``wavegen sample | train | evaluate | prepare | ...``.

Each command is a function; its flags and their help come from the signature and the docstring.
"""

import sys
import warnings
from collections.abc import Callable

import tyro

from wavegen.cli.audio import sample
from wavegen.cli.codecs import fit_codebook, interpolate, reconstruct, tokenize
from wavegen.cli.data import prepare
from wavegen.cli.machine import bench, info
from wavegen.cli.notes import compose, harmonise, remix, render
from wavegen.cli.runs import evaluate, export, report, study, train
from wavegen.cli.song import song
from wavegen.errors import WavegenError
from wavegen.losses import LossWarning

GROUPS: dict[str, tuple[Callable[..., None], ...]] = {
    "Listen": (sample, compose, song, render, harmonise, remix, interpolate, reconstruct),
    "Learn": (train, study, export),
    "Measure": (evaluate, report, bench, info),
    "Prepare": (prepare, tokenize, fit_codebook),
}
"""The commands by what they are for."""


def _name(command: Callable[..., None]) -> str:
    return command.__name__.replace("_", "-")


COMMANDS = {_name(f): f for group in GROUPS.values() for f in group}


def _show_warning(message: Warning | str, category: type[Warning], *where: object, **more: object) -> None:
    """Prints what was lost in reading a file as one line, and any other warning as Python does."""
    if issubclass(category, LossWarning):
        print(f"wavegen: {message}", file=sys.stderr)
    else:
        _python_shows(message, category, *where, **more)


_python_shows: Callable[..., None] = warnings.showwarning


def main(arguments: list[str] | None = None) -> None:
    """Runs one command; bad input is one line on the error output and exit status 2."""
    groups = (f"{name}: {', '.join(_name(f) for f in group)}." for name, group in GROUPS.items())
    description = "\n\n".join(["wavegen learns from recordings and scores, and generates new ones.", *groups])
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            tyro.extras.subcommand_cli_from_dict(
                COMMANDS, prog="wavegen", description=description, args=arguments
            )
    except (WavegenError, NotImplementedError) as error:  # the latter: a kernel that cannot run here
        print(f"wavegen: {error}", file=sys.stderr)
        raise SystemExit(2) from None
