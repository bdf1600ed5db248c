"""One writer per folder: a second one is refused, and the death of the first one frees it."""

import errno
import os
import re
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest

from wavegen.atomic import atomic_path, remove_left_overs
from wavegen.errors import WavegenError
from wavegen.locks import locked
from wavegen.runs.weights import write_weights

HOLD = """
import sys, time
from wavegen.locks import locked
from wavegen.atomic import atomic_path
with locked(sys.argv[1]), atomic_path(sys.argv[1] + "/a.txt"):
    print("held", flush=True)
    time.sleep(100)
"""


@pytest.fixture
def holder(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_writer_is_told_who_the_first_one_is(tmp_path, holder):
    line = (
        f"the run in {tmp_path} is being written by process {holder.pid} on {socket.gethostname()} since 20"
    )
    with pytest.raises(WavegenError, match=re.escape(line)), locked(tmp_path):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with locked(tmp_path):
        pass


def test_one_process_holds_a_folder_once(tmp_path):
    with (
        locked(tmp_path, "data set"),
        pytest.raises(WavegenError, match=f"the data set in .* process {os.getpid()} on"),
        locked(tmp_path, "data set"),
    ):
        pass
    with locked(tmp_path):
        pass


def test_a_disk_that_fills_while_a_lock_is_held_costs_no_words(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with locked(tmp_path):  # warnings of the package are errors in tests
        monkeypatch.setattr(os, "ftruncate", full)
    with pytest.warns(UserWarning, match="the holder of a lock could not be written down"), locked(tmp_path):
        pass


def test_left_overs_of_the_dead_are_removed_and_those_of_the_living_are_not(tmp_path, holder):
    (part,) = tmp_path.glob(".*.part")
    mine = tmp_path / ".notes.part"
    mine.write_text("a person's own")
    remove_left_overs(tmp_path)
    assert part.exists()
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    remove_left_overs.cache_clear()
    with atomic_path(tmp_path / "b.txt"):
        assert not part.exists()
    assert mine.exists()


def test_written_weights_can_be_read_by_others_as_any_file(tmp_path):
    before = os.umask(0o022)
    try:
        path = write_weights(tmp_path / "m.safetensors", {"bias": np.ones(2)}, {})
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o644
