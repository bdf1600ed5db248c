"""Files are read whole only if they are files and small enough: a pipe, a device or a huge file costs one line."""

import os
import stat
from pathlib import Path

from wavegen.errors import WavegenError

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


def expect_file(path: str | Path, what: str) -> int:
    """Checks that there is a file, not a folder, pipe, device or socket, and returns its size in bytes.

    Args:
        path: the path to check; links are followed.
        what: what the file should hold, for the message: "a recording".

    Raises:
        WavegenError: if there is no file, or it cannot be examined.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        there = "a link to nothing" if os.path.islink(path) else "nothing"
        raise WavegenError(
            f"cannot read {path}: No such file or directory (expected {what}, got {there})"
        ) from None
    except (OSError, ValueError) as error:  # ValueError: a name that contains a null byte
        raise WavegenError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    if not stat.S_ISREG(status.st_mode):
        got = next((name for is_kind, name in _KINDS if is_kind(status.st_mode)), "a special file")
        raise WavegenError(f"cannot read {path}: expected {what}, got {got} at this path; give a file")
    return status.st_size


def read_bounded(path: str | Path, largest: int, what: str, mend: str) -> bytes:
    """Reads a whole file of at most ``largest`` bytes.

    Args:
        path: the file.
        largest: the most bytes that are read.
        what: what the file should hold, for messages: "a melody".
        mend: what to do about a larger file: "split it".

    Raises:
        WavegenError: if there is no file, it is larger, or it cannot be read.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from wavegen.bounded import read_bounded
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a.txt").write_text("C4 1")
        ...     read_bounded(f"{folder}/a.txt", 100, "a melody", "split it")
        b'C4 1'
    """
    size = expect_file(path, what)
    try:
        with open(path, "rb") as file:
            # One byte more than allowed: some files, in /proc for example, have a size of 0 and do not end.
            data = b"" if size > largest else file.read(largest + 1)
    except OSError as error:
        raise WavegenError(f"cannot read {path}: {error.strerror or error}") from error
    if max(size, len(data)) > largest:
        raise WavegenError(
            f"cannot read {path}: expected at most {largest} bytes, got {max(size, len(data))}: {mend}"
        )
    return data


def read_text(path: str | Path, largest: int, what: str, mend: str) -> str:
    """Reads a whole text in UTF-8, with or without a byte order mark; see ``read_bounded``.

    Raises:
        WavegenError: if there is no file, it is larger, cannot be read, or is not UTF-8.
    """
    data = read_bounded(path, largest, what, mend)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise WavegenError(
            f"cannot read {path}: expected {what} in UTF-8, got the byte {data[error.start]:#04x} at {error.start}; "
            "save it as UTF-8"
        ) from error


def is_inside(path: str | Path, folder: str | Path) -> bool:
    """Whether a path leads to a place in a folder, when all links are followed."""
    # Not Path.resolve, which raises where links form a circle.
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
