"""Commands of wavegen, each in a process of its own, with a fault at a chosen call by which it changes its folder.

A process that has imported everything forks one per command, so that a try takes as long as the command's own work. The
library ``faults.c``, loaded before all others, counts the calls ``write``, ``fsync``, ``rename``, ``unlink``, ``mkdir``
and their kin on files below one folder, and strikes at one of them: kills, fails or sends a signal.
"""

import atexit
import ctypes
import faulthandler
import hashlib
import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

Command = Sequence[str] | Callable[[], object]
"""Arguments of wavegen, or a function that does the same."""
LIBRARY = "WAVEGEN_FAULTS_LIBRARY"
SETTINGS = {
    "JAX_PLATFORMS": "cpu",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
    "MPLBACKEND": "agg",
    "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
}


@dataclass(frozen=True)
class Fault:
    """What happens at which call.

    Attributes:
        what: "count" (nothing), "kill", "kill-leader" (in a pool of processes, the command's own), "signal:15" or
            "error:28", with the number of a signal or of an errno.
        call: number of the call, from 1.
        lasting: whether all later calls fail, too.
    """

    what: str = "count"
    call: int = 0
    lasting: bool = False


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        status: its exit status, or the negative number of the signal that killed it.
        out: what it printed.
        errors: what it printed as errors.
        calls: how often it changed its folder.
        left: processes of its own that did not end within ten seconds.
    """

    status: int
    out: str
    errors: str
    calls: int
    left: int

    @property
    def clean(self) -> bool:
        """Whether there are at most two lines of errors, each of them one of wavegen's own."""
        lines = self.errors.splitlines()
        return len(lines) <= 2 and all(line.startswith(("wavegen: ", "SIG")) for line in lines)

    def __str__(self) -> str:
        return f"status {self.status}, {self.left} processes left, {' | '.join(self.errors.splitlines()[-4:])[-600:]!r}"


def start_again_with_library(workshop: Path) -> None:
    """Executes this program anew, with ``faults.c`` loaded first; returns in a program that has it."""
    if LIBRARY in os.environ:
        return
    workshop.mkdir(parents=True, exist_ok=True)
    source = Path(__file__).with_suffix(".c")
    library = workshop / f"faults-{hashlib.sha256(source.read_bytes()).hexdigest()[:12]}.so"
    if not library.exists():  # One that another program has loaded must not be written.
        subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    cache = {"JAX_COMPILATION_CACHE_DIR": str(workshop / "compiled")}
    environment = os.environ | SETTINGS | cache | {LIBRARY: str(library), "LD_PRELOAD": str(library)}
    os.execve(sys.executable, [sys.executable, *sys.argv], environment)


@contextmanager
def workshop_folder(given: Path | None) -> Iterator[Path]:
    """Yields the folder for inputs and results, which is kept if it was given; removes a temporary one at the end."""
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given.resolve()
        return
    # Not TemporaryDirectory: it would remove the folder at the end of each forked process, too.
    kept = os.environ.get("WAVEGEN_WORKSHOP")
    folder = Path(kept or tempfile.mkdtemp())
    os.environ["WAVEGEN_WORKSHOP"] = str(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Running:
    """A command that has been started.

    Args:
        command: arguments of wavegen, or a function.
        folder: whose changes count.
        fault: what is to happen.

    Attributes:
        pid: of its process, which leads a session of its own.
    """

    def __init__(self, command: Command, folder: Path, fault: Fault = Fault()) -> None:
        self._place = Path(os.environ[LIBRARY]).parent / "processes" / secrets.token_hex(4)
        self._place.mkdir(parents=True)
        (self._place / "calls").write_bytes(bytes(8))
        self.pid = os.fork()
        if self.pid == 0:
            _become(command, self._place, folder, fault)

    def wait(self, timeout: float = 900) -> Ended:
        """Waits for the end of the command; one that has hung is ended, and says so in its errors."""
        descriptor = os.pidfd_open(self.pid)
        ready, _, _ = select.select([descriptor], [], [], timeout)
        os.close(descriptor)
        if not ready:
            os.kill(self.pid, signal.SIGABRT)  # which prints where it hangs
        _, status = os.waitpid(self.pid, 0)
        errors = (self._place / "errors").read_text(errors="replace")
        ended = Ended(
            os.waitstatus_to_exitcode(status),
            (self._place / "out").read_text(errors="replace"),
            errors if ready else f"{errors}\nhung for {timeout} s",
            int.from_bytes((self._place / "calls").read_bytes(), "little"),
            _orphans(self.pid),
        )
        shutil.rmtree(self._place)
        return ended


def run(command: Command, folder: Path, fault: Fault = Fault(), timeout: float = 900) -> Ended:
    """Runs a command to its end; see ``Running``."""
    return Running(command, folder, fault).wait(timeout)


def _become(command: Command, place: Path, folder: Path, fault: Fault) -> None:
    """Turns a forked process into the command, and ends it as Python ends."""
    status = 1
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, name in ((1, "out"), (2, "errors")):
            os.dup2(os.open(place / name, os.O_WRONLY | os.O_CREAT), number)
        faulthandler.enable()
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        lines = (folder, place / "calls", fault.what, fault.call, int(fault.lasting))
        os.environ["WAVEGEN_FAULT"] = "\n".join(map(str, lines))
        ctypes.CDLL(os.environ[LIBRARY]).wavegen_faults_arm()
        status = _status(command)
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
    finally:
        os._exit(status)


def _status(command: Command) -> int:
    from wavegen.__main__ import run as wavegen

    try:
        if callable(command):
            command()
        else:
            wavegen(list(command))
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _orphans(session: int) -> int:
    """Waits until no process of a session lives, for at most ten seconds; returns how many do, and ends them."""
    deadline = time.monotonic() + 10
    while living := [int(p.name) for p in Path("/proc").glob("[0-9]*") if _session(p) == session]:
        if time.monotonic() > deadline:
            for number in living:
                os.kill(number, signal.SIGKILL)
            break
        time.sleep(0.02)
    return len(living)


def _session(process: Path) -> int | None:
    try:
        state, _, _, session = (process / "stat").read_text().rpartition(") ")[2].split()[:4]
    except OSError:  # It has just ended.
        return None
    return None if state == "Z" else int(session)
