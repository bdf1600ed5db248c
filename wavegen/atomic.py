"""Whole files or none: a file is written under a temporary name in the same folder and then renamed."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from wavegen.errors import WavegenError


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path, which is renamed to ``path`` when the block ends without an error.

    Missing parent folders are created. The data reach the disk before the rename, so that a crash leaves the old file
    or the new one, never a partial one.

    Args:
        path: the file to create or replace.

    Yields:
        The path to write to, in the same folder; the block must close the file.

    Raises:
        WavegenError: if the disk is full or the folder is not writable.
    """
    path = Path(path)
    # The random part keeps two writers of the same file apart, on whatever machines they run.
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        # After a success the name is gone; under a parent that is no folder the unlink itself would fail.
        if path.parent.is_dir():
            part.unlink(missing_ok=True)


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


def cannot_write(path: str | Path, error: OSError) -> WavegenError:
    """Returns the one-line error of a failed write."""
    reason = error.strerror or str(error)
    return WavegenError(f"cannot write {path}: {reason}; free some space or choose a folder you can write to")
