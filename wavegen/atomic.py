"""Whole files or none: a file is written under a temporary name in the same folder and then renamed."""

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import BinaryIO

from wavegen.errors import WavegenError
from wavegen.locks import try_lock

_PART = re.compile(r"\..+\.[0-9a-f]{8}\.part")


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path, which is renamed to ``path`` when the block ends without an error.

    Missing parent folders are created. The data reach the disk before the rename, and the rename before the return, so
    that a crash or a loss of power leaves the old file or the new one, never a partial one. Temporary files of
    processes that were killed are removed at the first write to their folder.

    Args:
        path: the file to create or replace.

    Yields:
        The path to write to, of an empty file in the same folder; the block must write to this file, not replace it,
        and close it.

    Raises:
        WavegenError: if the disk is full or the folder is not writable.
    """
    path = Path(path)
    part, descriptor = None, -1
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_left_overs(path.parent)
        part, descriptor = _begin(path)
        yield part
        os.fsync(descriptor)
        os.replace(part, path)
        flush_folder(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        if part is not None:
            part.unlink(missing_ok=True)  # After a success the name is gone.
            os.close(descriptor)


@contextmanager
def atomic_write(path: str | Path) -> Iterator[BinaryIO]:
    """Opens a binary file that becomes ``path`` when the block ends without an error; see ``atomic_path``.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from wavegen.atomic import atomic_write
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with atomic_write(f"{folder}/notes.txt") as file:
        ...         _ = file.write(b"C4 1")
        ...     [path.name for path in Path(folder).iterdir()]
        ['notes.txt']
    """
    with atomic_path(path) as part, open(part, "wb") as file:
        yield file


def _begin(path: Path) -> tuple[Path, int]:
    """Creates the temporary file and locks it: as long as the lock is held, its writer lives."""
    while True:
        # The random part keeps two writers of the same file apart, on whatever machines they run.
        part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        # Between these two lines another process may take it for a left-over.
        if try_lock(descriptor) and os.fstat(descriptor).st_nlink:
            return part, descriptor
        os.close(descriptor)


@cache
def remove_left_overs(folder: Path) -> None:
    """Removes the temporary files in a folder whose writers have ended; looks once per process and folder."""
    with os.scandir(folder) as entries:
        parts = [Path(entry.path) for entry in entries if _PART.fullmatch(entry.name) and entry.is_file()]
    for part in parts:
        try:
            descriptor = os.open(part, os.O_RDWR)
        except OSError:  # Its writer has just finished, or it belongs to somebody else.
            continue
        try:
            if try_lock(descriptor):
                part.unlink(missing_ok=True)
        finally:
            os.close(descriptor)


def flush_folder(folder: str | os.PathLike[str]) -> None:
    """Writes a folder's list of files to the disk, so that a rename in it outlives a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_tree(folder: str | os.PathLike[str]) -> None:
    """Writes every file under a folder to the disk, and the folders."""
    for place, _, names in os.walk(folder):
        for name in names:
            descriptor = os.open(os.path.join(place, name), os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        flush_folder(place)


def cannot_write(path: str | Path, error: OSError) -> WavegenError:
    """Returns the one-line error of a failed write."""
    reason = error.strerror or str(error)
    return WavegenError(f"cannot write {path}: {reason}; free some space or choose a folder you can write to")
