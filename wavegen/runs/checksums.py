"""The manifest of a checkpoint: its arrays and the sha256 of every file, to find damage before use."""

import hashlib
import json
from typing import Any

import jax
from etils import epath
from jaxtyping import PyTree

_NAME = "manifest.json"
# Orbax's own notes beside the items: rewritten at commit, and not needed to restore.
_NOT_HASHED = {_NAME, "_CHECKPOINT_METADATA", "commit_success.txt"}


def write_manifest(folder: epath.Path, content: dict[str, Any]) -> None:
    """Write ``manifest.json`` over the files that now lie under ``folder``.

    Args:
        folder: of one step, whole.
        content: what JSON can hold, kept beside the sums; sealed by a sum of its own.
    """
    content = {**content, "files": _sums(folder)}
    (folder / _NAME).write_text(
        json.dumps({"content": content, "sha256": _seal(content)}, indent=1, sort_keys=True)
    )


def read_manifest(folder: epath.Path) -> dict[str, Any] | None:
    """Return the content of a manifest, or None where it is missing or damaged."""
    try:
        stored = json.loads((folder / _NAME).read_bytes())
        return stored["content"] if stored["sha256"] == _seal(stored["content"]) else None
    # A flipped byte can make it any bytes at all; each way of not being a manifest is the same answer.
    except (OSError, ValueError, KeyError, TypeError):
        return None


def find_damage(folder: epath.Path) -> str | None:
    """Return what is wrong with the step in ``folder``, naming the file; None when it is as written."""
    content = read_manifest(folder)
    if content is None:
        return f"{folder / _NAME} is missing or damaged"
    expected: dict[str, str] = content["files"]
    try:
        found = _sums(folder)
    except OSError as error:
        return f"{folder} cannot be read ({error})"
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            return f"{folder / name} is missing"
        if name in expected and found[name] != expected[name]:
            return f"{folder / name} does not have the sha256 it was written with"
    return None


def describe_arrays(state: PyTree) -> dict[str, str]:
    """Return ``{"params/dense/kernel": "float32[3,4]", ...}`` for every leaf, in the order of the tree."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): f"{x.dtype}[{','.join(map(str, x.shape))}]"
        for path, x in jax.tree.leaves_with_path(state)
    }


def _seal(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _sums(folder: epath.Path) -> dict[str, str]:
    """Return the sha256 of every hashed file, by its path under ``folder``."""
    sums: dict[str, str] = {}
    for path in folder.iterdir():
        if path.is_dir():
            sums |= {f"{path.name}/{name}": digest for name, digest in _sums(path).items()}
        elif path.name not in _NOT_HASHED:
            with path.open("rb") as file:
                sums[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return sums
