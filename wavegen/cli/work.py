"""How commands show the library's long work, and stop it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from wavegen.progress import Progress
from wavegen.stopping import Stopped, StopRequest


class Work:
    """Shows work on one line of the terminal; called as the library's ``ProgressCallback``.

    Args:
        lines: where the line is shown.
        what: is done, as "composing".
        stop: a request to stop, after which the work ends; None leaves signals as they are.
    """

    def __init__(self, lines: Progress, what: str, stop: StopRequest | None = None) -> None:
        self._what, self._line, self._stop = what, lines.line(what), stop

    def __call__(self, step: str, done: int, total: int) -> None:
        """Shows how far the work is.

        Raises:
            Stopped: a signal came.
        """
        self._line.update(f"{self._what}: {step}", done, total)
        if self._stop is not None and self._stop.received:
            raise Stopped


@contextmanager
def shown(what: str) -> Iterator[Work]:
    """Shows work on a line that is erased at the end; a signal ends the command at once."""
    with Progress(aside=True) as lines:
        yield Work(lines, what)


@contextmanager
def stopping(unit: str) -> Iterator[StopRequest]:
    """Lets a signal end work after the next ``unit``, so that what is whole is kept; a second one ends it at once.

    When that is saved, call ``StopRequest.interrupt``.

    Raises:
        KeyboardInterrupt: a signal came before anything was whole; ``SystemExit`` after SIGTERM or SIGHUP.
    """
    with StopRequest(unit) as stop:
        try:
            yield stop
        except Stopped:
            stop.interrupt()
            raise
