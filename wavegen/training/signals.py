"""Stopping a run: the first signal asks, the second insists."""

import os
import signal
from types import FrameType, TracebackType
from typing import Any

import jax
from jax.experimental import multihost_utils


class StopRequest:
    """Turn SIGTERM and SIGINT into a question that the training loop asks after every step.

    With one process, the first signal sets ``requested`` and the second interrupts at once. With several,
    JAX's preemption service carries a SIGTERM that reached any of them to all, and names one step at which
    all of them stop; SIGINT then interrupts as usual, because no step could be agreed on. Use it in the main
    thread.

    Example::

        with StopRequest() as stop:
            for step in range(start, total):
                ...
                if stop.reached(step):
                    break
    """

    _SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopRequest":
        # JAX's service has its own SIGTERM handler, which ours would displace.
        if jax.process_count() == 1:
            self._previous = {number: signal.signal(number, self._handle) for number in self._SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def reached(self, step: int) -> bool:
        """Return whether to save and stop after ``step``; with several processes all get the same answer."""
        if jax.process_count() == 1:
            return self.requested
        return multihost_utils.reached_preemption_sync_point(step)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            self._restore()
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            raise SystemExit(128 + number)
        self.requested = True
        # Not print: a handler may interrupt a print, and buffered streams refuse to be entered twice.
        os.write(
            2,
            f"{signal.Signals(number).name}: stopping after this step; once more to stop at once\n".encode(),
        )

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
