"""What long work shows on the terminal: one line per task, with a bar and the time that is left."""

import errno
import os
import sys

from rich import progress as bars
from rich.console import Console
from rich.table import Column


class Progress:
    """One line per task on the terminal: a text, a bar, and the time that is left or, at the end, was taken.

    Args:
        aside: write to the error output and erase the lines at the end, for commands whose output is a table.
        hidden: show nothing.
        console: where the lines are shown; None is the standard output, or the error output if ``aside``.

    Example:
        >>> from wavegen.progress import Progress
        >>> with Progress(aside=True) as progress:
        ...     line = progress.line("encoding", total=2)
        ...     line.update("encoding the second file", done=1)
    """

    def __init__(self, aside: bool = False, hidden: bool = False, console: Console | None = None) -> None:
        # The stream of this moment follows a redirection of the standard output.
        console = console or TerminalConsole(file=sys.stderr if aside else sys.stdout)
        self._lines = bars.Progress(
            bars.TextColumn("{task.description}", markup=False, table_column=Column(min_width=28)),
            bars.BarColumn(),
            bars.TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
            transient=aside,
            # What is erased at the end is not for a file, where it would leave empty lines.
            disable=hidden or (aside and not console.is_terminal),
        )

    def __enter__(self) -> "Progress":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> "Progress":
        """Shows the lines, and returns itself; ``with`` does so at its beginning."""
        self._lines.start()
        return self

    def stop(self) -> None:
        """Leaves the lines as they are; ``with`` does so at its end."""
        self._lines.stop()

    def line(self, text: str, total: float | None = None, done: float = 0) -> "Line":
        """Adds a line.

        Args:
            text: what is done.
            total: how much there is to do, in any unit; None means that it is not known.
            done: how much of it has been done already.
        """
        return Line(self._lines, text, total, done)


class Line:
    """A line of a ``Progress``.

    Args:
        lines: all lines.
        text: see ``Progress.line``.
        total: see ``Progress.line``.
        done: see ``Progress.line``.
    """

    def __init__(self, lines: bars.Progress, text: str, total: float | None, done: float = 0) -> None:
        self._lines, self._task = lines, lines.add_task(text, total=total)
        lines.update(self._task, completed=done)

    def update(self, text: str | None = None, done: float | None = None, total: float | None = None) -> None:
        """Changes what the line shows; None leaves a part as it is.

        Args:
            text: what is done now.
            done: how much has been done, in the unit of the total.
            total: see ``Progress.line``.
        """
        self._lines.update(self._task, description=text, completed=done, total=total)


class TerminalConsole(Console):
    """A console that raises ``BrokenPipeError`` where its output is closed; rich's own would end the program."""

    def on_broken_pipe(self) -> None:
        """Leaves it to the caller to end."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
