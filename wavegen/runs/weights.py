"""Trained weights on their own: one safetensors file with a card."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from flax import traverse_util
from jaxtyping import PyTree
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from wavegen.atomic import atomic_path
from wavegen.errors import WavegenError


def write_weights(
    path: str | Path, params: PyTree, card: dict[str, Any], exact: PyTree | None = None
) -> Path:
    """Writes parameters and their card.

    Args:
        path: ending in ``.safetensors``.
        params: nested dictionaries of arrays, written as float16: it keeps 11 bits of each weight, half the size at no
            loss that can be heard or measured here.
        card: JSON values that say what the weights are of.
        exact: more of them, written as float32: those of a codec, whose codes are to stay what they were.

    Returns:
        The path.

    Raises:
        WavegenError: another ending, a weight too large for its type, or a place that cannot be written.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise WavegenError(f"weights are written as NAME.safetensors, got {path.name}")
    with np.errstate(over="ignore"):
        flat = {
            ".".join(map(str, key)): np.asarray(value, dtype)
            for tree, dtype in ((params, np.float16), (exact or {}, np.float32))
            for key, value in traverse_util.flatten_dict(tree).items()
        }
    large = [name for name, value in flat.items() if not np.isfinite(value).all()]
    if large:
        raise WavegenError(
            f"the weight {large[0]} is not finite in {flat[large[0]].dtype}; train with a lower learning rate"
        )
    with atomic_path(path) as part:
        save_file(flat, part, metadata={"wavegen": json.dumps(card)})
    return path


def read_weights(path: Path) -> tuple[PyTree, dict[str, Any]]:
    """Reads what ``write_weights`` wrote.

    Raises:
        WavegenError: not a safetensors file of wavegen, or a damaged one.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            flat = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise WavegenError(f"{path} is not a readable safetensors file ({error}); export it again") from None
    if "wavegen" not in metadata:
        raise WavegenError(f"{path} holds tensors but no wavegen card; use a file of wavegen export")
    try:
        card = dict(json.loads(metadata["wavegen"]))
    except (ValueError, TypeError) as error:
        raise WavegenError(f"{path} holds a damaged wavegen card ({error}); export it again") from None
    named = {
        tuple(int(p) if p.isdigit() else p for p in name.split(".")): value for name, value in flat.items()
    }
    return traverse_util.unflatten_dict(named), card
