"""The command line: ``wavegen prepare | train | sample | reconstruct | evaluate | ...``.

Each command is a function; its arguments and their help come from the signature and the docstring.
"""

import sys

import tyro

from wavegen.cli.audio import reconstruct, sample
from wavegen.cli.data import fit_codebook, prepare, tokenize
from wavegen.cli.machine import bench, info
from wavegen.cli.notes import compose, harmonise, interpolate, remix, render
from wavegen.cli.runs import evaluate, export, report, train
from wavegen.cli.song import song
from wavegen.cli.study import study
from wavegen.errors import WavegenError

COMMANDS = {
    f.__name__.replace("_", "-"): f
    for f in (
        *(prepare, tokenize, fit_codebook, train, study, sample, reconstruct),
        *(compose, harmonise, remix, interpolate, render, song),
        *(evaluate, report, export, bench, info),
    )
}


def main(arguments: list[str] | None = None) -> None:
    """Runs one command; bad input is one line on the error output and exit status 2."""
    try:
        tyro.extras.subcommand_cli_from_dict(COMMANDS, prog="wavegen", args=arguments)
    except (WavegenError, NotImplementedError) as error:  # the latter: a kernel that cannot run here
        print(f"wavegen: {error}", file=sys.stderr)
        raise SystemExit(2) from None
