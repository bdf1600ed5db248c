"""The manifest of a checkpoint: its arrays and the sha256 of every file, to find damage before use."""

import hashlib
import json
from typing import Any

import jax
from etils import epath
from jaxtyping import PyTree
from pydantic import BaseModel, ConfigDict, Field, ValidationError

_NAME = "manifest.json"
# Orbax's own files next to the items: rewritten at commit, and not needed to restore.
_NOT_HASHED = {_NAME, "_CHECKPOINT_METADATA", "commit_success.txt"}


class Seal(BaseModel):
    """What a manifest says of its step.

    Attributes:
        step: number of updates; also the name of the folder.
        metric: by which the best steps are kept, if it was measured.
        arrays: dtype and shape of every array of the state, by its path in the tree.
        files: sha256 of every file, by its path in the folder.
    """

    model_config = ConfigDict(strict=True, frozen=True)

    step: int = Field(..., ge=0)
    metric: float | None
    arrays: dict[str, str]
    files: dict[str, str]


def write_seal(folder: epath.Path, content: dict[str, Any]) -> None:
    """Writes ``manifest.json`` for the files that are now under ``folder``.

    Args:
        folder: the complete folder of one step.
        content: JSON values to keep with the sums of the files; a sum of all of it seals the manifest.
    """
    content = {**content, "files": _sums(folder)}
    (folder / _NAME).write_text(
        json.dumps({"content": content, "sha256": _digest(content)}, indent=1, sort_keys=True)
    )


def read_seal(folder: epath.Path) -> Seal | None:
    """Returns the content of a manifest, or None where it is missing or damaged."""
    try:
        stored = json.loads((folder / _NAME).read_bytes())
        return Seal(**stored["content"]) if stored["sha256"] == _digest(stored["content"]) else None
    # Flipped bytes can turn it into anything, and every way of not being a manifest has the same answer.
    except (OSError, ValueError, KeyError, TypeError, RecursionError, ValidationError):
        return None


def find_damage(folder: epath.Path) -> str | None:
    """Returns what is wrong with the step in ``folder``, naming the file; None if nothing is."""
    content = read_seal(folder)
    if content is None:
        return f"{folder / _NAME} is missing or damaged"
    if str(content.step) != folder.name:
        return f"{folder} holds step {content.step}, under another step's name"
    expected = content.files
    try:
        found = _sums(folder)
    except OSError as error:
        return f"{folder} cannot be read ({error})"
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            return f"{folder / name} is missing"
        if name in expected and found[name] != expected[name]:
            return f"{folder / name} does not have the sha256 with which it was written"
    return None


def describe_arrays(state: PyTree) -> dict[str, str]:
    """Returns ``{"params/dense/kernel": "float32[3,4]", ...}`` for every leaf, in the order of the tree.

    Example:
        >>> import numpy as np
        >>> from wavegen.runs.checksums import describe_arrays
        >>> describe_arrays({"step": np.int32(0), "kernel": np.zeros((3, 4), np.float32)})
        {'kernel': 'float32[3,4]', 'step': 'int32[]'}
    """
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): f"{x.dtype}[{','.join(map(str, x.shape))}]"
        for path, x in jax.tree.leaves_with_path(state)
    }


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _sums(folder: epath.Path) -> dict[str, str]:
    """Returns the sha256 of every hashed file, by its path under ``folder``."""
    sums: dict[str, str] = {}
    for path in folder.iterdir():
        if path.is_dir():
            sums |= {f"{path.name}/{name}": digest for name, digest in _sums(path).items()}
        elif path.name not in _NOT_HASHED:
            with path.open("rb") as file:
                sums[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return sums
