"""JSON files that end with a sha256 of all their other bytes, which no flipped bit leaves whole."""

import hashlib
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from wavegen.atomic import atomic_write
from wavegen.bounded import read_bounded
from wavegen.errors import WavegenError

_LARGEST = 512 << 20  # bytes, over a million recordings
_SEAL = re.compile(rb',\n "sha256": "([0-9a-f]{64})"\n\}\Z')
_SEAL_BYTES = 84


def write_sealed_json(path: Path, text: str) -> None:
    """Writes a JSON object, whole or not at all, with its seal as the last key.

    Args:
        path: the file to create or replace.
        text: the object, of one key or more, indented by one space.

    Raises:
        WavegenError: if the disk is full or the folder is not writable.
    """
    body = text.encode()
    seal = f',\n "sha256": "{hashlib.sha256(body).hexdigest()}"\n}}'
    with atomic_write(path) as file:
        file.write(body.removesuffix(b"\n}") + seal.encode())


def read_sealed_json(path: Path, what: str, mend: str) -> dict[str, Any]:
    """Reads an object of ``write_sealed_json``, without the seal.

    One that an older version wrote has no seal and is read without the check; the schema of what it holds must refuse
    unknown keys, so that a seal whose own key or shape was damaged is noticed as such a key.

    Args:
        path: the file.
        what: what it should hold, for messages: "a manifest".
        mend: what to do about a damaged file: "prepare it again".

    Raises:
        WavegenError: if there is no file, it is too large, does not have its sha256, or is no JSON object, or an
            object in it names a key twice.
    """
    data = read_bounded(path, _LARGEST, what, "prepare it as several datasets")
    seal = _SEAL.search(data, max(len(data) - _SEAL_BYTES, 0))
    if seal is not None:
        data = data[: seal.start()] + b"\n}"
        if hashlib.sha256(data).hexdigest().encode() != seal[1]:
            raise WavegenError(
                f"{path} is damaged: it does not have the sha256 with which it was written; {mend}"
            )
    try:
        content = json.loads(data, object_pairs_hook=_unique)
        if not isinstance(content, dict):
            raise TypeError(f"expected an object, got {type(content).__name__}")
    except (ValueError, TypeError, RecursionError) as error:
        raise WavegenError(f"expected {what} in {path}, got damaged JSON ({error}); {mend}") from None
    return content


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        (name, count), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the key {name!r} occurs {count} times")
    return values
