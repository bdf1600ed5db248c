"""``python -m wavegen`` is the command ``wavegen``."""

from wavegen.stopping import watch_signals


def run(arguments: list[str] | None = None) -> None:
    """Runs one command, of the process's own arguments unless others are given."""
    # Before the imports, which take a while: a signal in the middle of them would print a page.
    watch_signals()
    from wavegen.cli import main

    main(arguments)


if __name__ == "__main__":
    run()
