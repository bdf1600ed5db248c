"""``python -m wavegen`` is the command ``wavegen``."""

import os
import sys

from wavegen.stopping import watch_signals


def run(arguments: list[str] | None = None) -> None:
    """Runs one command, of the process's own arguments unless others are given."""
    # A closed output has no stream, and the next file to be opened would get its number and be written into.
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (until the end)
    # Before the imports, which take a while: a signal in the middle of them would print a page.
    watch_signals()
    from wavegen.cli import main

    main(arguments)


if __name__ == "__main__":
    run()
