"""The command line: ``wavegen sample | train | evaluate | prepare | ...``.

Each command is a function; its flags and their help come from the signature and the docstring.
"""

import os
import signal
import sys
import warnings
from collections.abc import Callable
from typing import NoReturn

import tyro

from wavegen import __version__
from wavegen.cli.arguments import arranged
from wavegen.cli.audio import sample
from wavegen.cli.codecs import fit_codebook, interpolate, reconstruct, tokenize
from wavegen.cli.compare import compare, listen_test, train_listener
from wavegen.cli.data import prepare
from wavegen.cli.machine import bench, info
from wavegen.cli.notes import compose, harmonise, remix, render
from wavegen.cli.ranges import within_ranges
from wavegen.cli.runs import configs, evaluate, export, models, report, study, train
from wavegen.cli.song import song
from wavegen.errors import WavegenError

GROUPS: dict[str, tuple[Callable[..., None], ...]] = {
    "Listen": (models, sample, compose, song, render, harmonise, remix, interpolate, reconstruct),
    "Learn": (train, study, configs, export),
    "Measure": (evaluate, report, compare, listen_test, train_listener, bench, info),
    "Prepare": (prepare, tokenize, fit_codebook),
}
"""The commands by what they are for."""


def _name(command: Callable[..., None]) -> str:
    return command.__name__.replace("_", "-")


COMMANDS = {_name(f): f for group in GROUPS.values() for f in group}


def _show_warning(message: Warning | str, category: type[Warning], *where: object, **more: object) -> None:
    """Prints this package's warnings as one line, and those of other kinds as Python does."""
    if issubclass(category, UserWarning):
        print(f"wavegen: {message}", file=sys.stderr)
    else:
        _python_shows(message, category, *where, **more)


_python_shows: Callable[..., None] = warnings.showwarning


def main(arguments: list[str] | None = None) -> None:
    """Runs one command; bad input is one line on the error output and exit status 2."""
    groups = (f"{name}: {', '.join(_name(f) for f in group)}." for name, group in GROUPS.items())
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments == ["--version"]:
        print(__version__)
        return
    if arguments and arguments[0] in COMMANDS:
        arguments[1:] = arranged(COMMANDS[arguments[0]], arguments[1:])
    description = "\n\n".join(["wavegen learns from recordings and scores, and generates new ones.", *groups])
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            tyro.extras.subcommand_cli_from_dict(
                {name: within_ranges(command) for name, command in COMMANDS.items()},
                prog="wavegen",
                description=description,
                args=arguments,
            )
            sys.stdout.flush()
    except BrokenPipeError:  # The reader has had enough, as head has.
        _write_no_more()
        raise SystemExit(128 + signal.SIGPIPE) from None
    except (WavegenError, NotImplementedError) as error:  # the latter: a kernel that cannot run here
        _fail(str(error))
    except OSError as error:
        _write_no_more()
        _fail(
            f"cannot use {error.filename or 'the output'}: {error.strerror or error}; correct the path, or free space"
        )
    except MemoryError:
        _fail(_MEMORY)
    except Exception as error:
        if "RESOURCE_EXHAUSTED" in str(error):  # the word of XLA, on a device as on the host
            _fail(_MEMORY)
        if reason := _without_device():
            _fail(reason)
        raise
    except KeyboardInterrupt:  # a training that has said what it saved
        raise SystemExit(130) from None


_MEMORY = "there is not enough memory; make the model, the batch, the crop or what is generated smaller"


def _without_device() -> str | None:
    """What to say where JAX finds no device, which it reports by errors of several types."""
    platforms = os.environ.get("JAX_PLATFORMS")
    if not platforms or "jax" not in sys.modules:
        return None
    try:
        sys.modules["jax"].devices()
    except (RuntimeError, AssertionError):
        return f"JAX_PLATFORMS={platforms} names no device of this machine; unset it, or install the extra for it"
    return None


def _write_no_more() -> None:
    """Leaves out what is still to be printed where that fails, or Python would try again at its end, and complain."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(line: str) -> NoReturn:
    print(f"wavegen: {line}", file=sys.stderr)
    raise SystemExit(2) from None
