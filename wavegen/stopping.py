"""What SIGINT, SIGTERM and SIGHUP do: a command ends at once, with one line, unless a piece of work answers for them.

A signal that becomes an exception breaks whatever line it meets: imports of native modules crash, callbacks swallow it,
and what escapes prints a page. Everything that wavegen writes outlives a kill, so a command has nothing to tidy up: a
thread of its own, which no long computation holds up, ends the process. Work that has something to finish answers for
them by a ``StopRequest``.

Long work of the library calls a ``ProgressCallback``, which may end it by raising ``Stopped``.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from types import FrameType, TracebackType
from typing import Any, TypeVar

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_Answer = Callable[[signal.Signals], bool]
# An answer returns False where a signal is to do what it would do without one.
_answers: list[_Answer] = []
_watching = False

_Block = TypeVar("_Block", bound=Any)

ProgressCallback = Callable[[str, int, int], None]
"""Called before the first step of some work and after each with what is done, how many steps are done, and of how many.

It may raise ``Stopped``.
"""


class Stopped(Exception):
    """Ends the work whose ``ProgressCallback`` raises it, between two steps.

    Functions that return something whole by then, such as the seconds, notes or sections so far, return it and say so;
    out of all others, and where there is nothing yet, it comes out as it was raised.
    """


def silent(what: str, done: int, total: int) -> None:
    """The ``ProgressCallback`` that does nothing."""


def followed(
    blocks: Iterable[_Block], total: int, progress: ProgressCallback, what: str = "drawing"
) -> Iterator[_Block]:
    """Yields arrays as they come, and ends where ``progress`` raises ``Stopped``.

    Args:
        blocks: arrays with time as the second axis.
        total: length of all.
        progress: called with the length so far.
        what: is done.

    Raises:
        Stopped: ``progress`` raised it before the first block.
    """
    progress(what, 0, total)
    done = 0
    for block in blocks:
        yield block
        done += block.shape[1]
        try:
            progress(what, min(done, total), total)
        except Stopped:
            return


def announced(steps: Collection[_Block], progress: ProgressCallback, what: str) -> Iterator[_Block]:
    """Yields steps, and calls ``progress`` before the first and after each.

    Raises:
        Stopped: ``progress`` raised it.
    """
    progress(what, 0, len(steps))
    for done, step in enumerate(steps, start=1):
        yield step
        progress(what, done, len(steps))


class StopRequest:
    """Turns the first signal into a question that a loop asks; the second one ends the program at once.

    Use it in the main thread.

    Args:
        unit: what is finished before the stop.

    Attributes:
        received: the signal, if one came.

    Example:
        >>> from wavegen.stopping import StopRequest
        >>> with StopRequest("step") as stop:
        ...     for step in range(3):
        ...         if stop.received:
        ...             break
        >>> stop.interrupt()
    """

    def __init__(self, unit: str) -> None:
        self.received: signal.Signals | None = None
        self._unit = unit
        self._answering = contextlib.ExitStack()

    def __enter__(self) -> "StopRequest":
        self._answering.enter_context(_answered_by(self._answer))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._answering.close()

    def interrupt(self) -> None:
        """Ends the program as the signal asks, if one came; for when everything is saved.

        Raises:
            KeyboardInterrupt: after SIGINT.
            SystemExit: after SIGTERM or SIGHUP, with status 143 or 129.
        """
        if self.received is not None:
            raise _interruption(self.received)

    def _answer(self, number: signal.Signals) -> bool:
        if self.received is not None:
            return False
        self.received = number
        # Not print: a signal may interrupt a print, and buffered streams refuse to be entered twice.
        with contextlib.suppress(OSError):  # A terminal that is gone takes no line.
            os.write(
                2, f"{number.name}: stopping after this {self._unit}; once more to stop at once\n".encode()
            )
        return True


def watch_signals() -> None:
    """Lets signals end this process with one line and the exit status 128 + number; for the start of a command.

    A signal that is ignored already (``nohup``, a job in the background of a script) stays ignored.
    """
    global _watching
    _watching = True
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _leave_to_the_thread)
    threading.Thread(target=_watch, args=(reader,), daemon=True).start()


@contextlib.contextmanager
def _answered_by(answer: _Answer) -> Iterator[None]:
    """Hands signals to ``answer`` while the block runs; in a program without ``watch_signals``, in its main thread."""
    if _watching:
        _answers.append(answer)
        try:
            yield
        finally:
            _answers.remove(answer)
        return

    def handle(number: int, frame: FrameType | None) -> None:
        del frame
        if not answer(signal.Signals(number)):
            restore()
            raise _interruption(signal.Signals(number))

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    previous = {n: signal.getsignal(n) for n in SIGNALS if signal.getsignal(n) != signal.SIG_IGN}
    for number in previous:
        signal.signal(number, handle)
    try:
        yield
    finally:
        restore()


def _interruption(number: signal.Signals) -> BaseException:
    return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)


def follow_parent() -> None:
    """Lets a worker process leave Ctrl-C to its parent, and end when the parent has ended, however it did."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None, "only worker processes follow"

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _leave_to_the_thread(number: int, frame: FrameType | None) -> None:
    """Replaces Python's own handler, which would raise."""


def _watch(reader: int) -> None:
    while received := os.read(reader, 1):
        if received[0] in SIGNALS:
            number = signal.Signals(received[0])
            if not _answers or not _answers[-1](number):
                _end(number)


def _end(number: signal.Signals) -> None:
    # The main thread may hold a stream's lock, blocked by a reader that does not read.
    flush = threading.Thread(target=_flush, daemon=True)
    flush.start()
    flush.join(timeout=0.5)
    show_cursor = "\x1b[?25h" if os.isatty(2) else ""  # which a progress bar hides
    line = f"wavegen: stopped by {number.name}; the files that are written are whole\n"
    with contextlib.suppress(OSError):  # A terminal that is gone takes no line.
        os.write(2, (show_cursor + line).encode())
    os._exit(128 + number)


def _flush() -> None:
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
