"""Locks that the system releases when their holder ends, however it ends.

They are those of ``flock``. On NFS they hold between hosts where the server has a lock service, which is usual; a
file system without locks is named in a warning, and then nothing keeps a second writer out.
"""

import errno
import fcntl
import json
import os
import socket
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from wavegen.errors import WavegenError

_NAME = ".lock"
_WITHOUT_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS}


@contextmanager
def locked(folder: str | Path, holds: str = "run") -> Iterator[None]:
    """Holds a folder for one writer, until the block ends or the process does.

    Args:
        folder: created if missing; it gets a file ``.lock``, which stays.
        holds: what the folder is, for the error.

    Raises:
        WavegenError: another process holds the folder, or it cannot be written.

    Example:
        >>> import tempfile
        >>> from wavegen.locks import locked
        >>> with tempfile.TemporaryDirectory() as folder, locked(folder):
        ...     pass
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / _NAME, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise WavegenError(
            f"cannot write the {holds} in {folder}: {error.strerror}; choose a folder you can write to"
        ) from error
    try:
        if not try_lock(descriptor):
            raise WavegenError(
                f"the {holds} in {folder} is being written by {_holder(descriptor)}; wait for it or stop it first"
            )
        holder = {
            "process": os.getpid(),
            "host": socket.gethostname(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        }
        _write_down(descriptor, json.dumps(holder))
        try:
            yield
        finally:
            # What stays does no harm: only a lock that is held is asked for its holder.
            with suppress(OSError):
                os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def try_lock(descriptor: int) -> bool:
    """Locks an open file if nobody else holds it; closing it, or the end of the process, releases it.

    Returns:
        Whether it is held now. On a file system without locks it counts as held, with a warning.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
        warnings.warn(
            f"this file system has no locks ({error.strerror}); nothing keeps a second writer out",
            stacklevel=2,
        )
    return True


def _write_down(descriptor: int, text: str) -> None:
    """Writes into the lock file who holds it; a full disk costs the words, not the lock."""
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode(), 0)
    except OSError as error:
        warnings.warn(f"the holder of a lock could not be written down ({error.strerror})", stacklevel=3)


def _holder(descriptor: int) -> str:
    try:
        holder = json.loads(os.pread(descriptor, 1000, 0))
        return f"process {holder['process']} on {holder['host']} since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
