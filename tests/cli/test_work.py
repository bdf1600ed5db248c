"""Long work of the library, shown on a line and stopped between two steps."""

import signal

import numpy as np
import pytest

from wavegen.cli.work import Work, stopping
from wavegen.progress import Progress
from wavegen.stopping import Stopped, announced, followed


@pytest.fixture(autouse=True)
def listening():
    """Ctrl-C is ignored in programs that a shell starts in the background."""
    outside = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, outside)


def test_a_signal_ends_work_of_which_nothing_is_whole_as_it_ends_a_command():
    seen = []

    def compose() -> None:
        with Progress(hidden=True) as lines, stopping("pass") as stop:
            for step in announced(range(5), Work(lines, "composing", stop), "drawing"):
                seen.append(step)
                if step == 1:
                    signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        compose()
    assert seen == [0, 1]


def test_what_is_whole_is_kept_and_the_command_ends_after_it():
    blocks = [np.zeros((2, 3))] * 4
    with Progress(hidden=True) as lines, stopping("block") as stop:
        kept = []
        for block in followed(blocks, 12, Work(lines, "composing", stop)):
            kept.append(block)
            if len(kept) == 2:
                signal.raise_signal(signal.SIGINT)
    assert len(kept) == 2
    with pytest.raises(KeyboardInterrupt):
        stop.interrupt()


def test_progress_is_called_before_the_first_step_and_after_each():
    calls = []
    assert [*announced("ab", lambda *call: calls.append(call), "reading")] == ["a", "b"]
    assert calls == [("reading", done, 2) for done in range(3)]
    calls.clear()
    blocks = [np.zeros((1, 3)), np.zeros((1, 3))]
    assert len([*followed(blocks, 5, lambda *call: calls.append(call))]) == 2
    assert calls == [("drawing", done, 5) for done in (0, 3, 5)]

    def at_once(*_):
        raise Stopped

    with pytest.raises(Stopped):
        next(followed(blocks, 5, at_once))
