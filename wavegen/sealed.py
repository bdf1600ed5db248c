"""Safetensors files with a card, JSON that says what they hold, and a seal, which no flipped bit leaves whole."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from wavegen.atomic import atomic_write
from wavegen.errors import WavegenError

_LARGEST_CARD = 16 << 20


def write_sealed(path: str | Path, arrays: Mapping[str, np.ndarray], card: Mapping[str, Any]) -> None:
    """Writes named arrays and their card, sealed by a sha256 of both.

    Raises:
        WavegenError: the file has another ending than ``.safetensors``, or cannot be written.
    """
    if Path(path).suffix != ".safetensors":
        raise WavegenError(f"expected a file named NAME.safetensors, got {Path(path).name}; rename it")
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    # One key of metadata: safetensors writes several in any order, and equal contents are to give equal files.
    text = json.dumps({**card, "sha256": _seal(whole, dict(card))})
    content = save(whole, metadata={"wavegen": text})
    with atomic_write(path) as file:
        file.write(content)


def read_sealed(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads a file of ``write_sealed``; one that an older version wrote has no seal, and is read without a check.

    Returns:
        The arrays by name, and the card.

    Raises:
        WavegenError: it is no safetensors file, has no card of wavegen, is damaged, or holds NaN or infinity.
    """
    path = Path(path)
    if not path.is_file():
        raise WavegenError(f"expected a safetensors file at {path}, got none; correct the path")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError, TypeError) as error:
        raise WavegenError(f"{path} is not a readable safetensors file ({error}); export it again") from None
    text = metadata.get("wavegen")
    if text is None:
        raise WavegenError(f"{path} holds tensors but no wavegen card; use a file that wavegen wrote")
    try:
        if len(text) > _LARGEST_CARD:
            raise ValueError(f"{len(text):,} characters")
        card = json.loads(text)
        if not isinstance(card, dict):
            raise TypeError(f"expected an object, got {type(card).__name__}")
        seal = _seal(arrays, {name: value for name, value in card.items() if name != "sha256"})
    except (ValueError, TypeError, RecursionError) as error:
        raise WavegenError(f"{path} holds a damaged wavegen card ({error}); export it again") from None
    if card.pop("sha256", seal) != seal:
        raise WavegenError(
            f"{path} is damaged: it does not have the sha256 with which it was written; copy or export it again"
        )
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise WavegenError(
                f"{path} is damaged: {name} holds numbers that are not finite; export it again"
            )
    return arrays, card


def _seal(arrays: Mapping[str, np.ndarray], card: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(card, sort_keys=True).encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"\0{name} {array.dtype} {array.shape}\0".encode())
        digest.update(np.ascontiguousarray(array).view(np.uint8).data if array.size else b"")
    return digest.hexdigest()
