"""Trained weights without a training state: one safetensors file with a card."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from jaxtyping import PyTree

from wavegen.errors import WavegenError
from wavegen.sealed import read_sealed, write_sealed

_DEEPEST = 64


def write_weights(
    path: str | Path, params: PyTree, card: dict[str, Any], exact: PyTree | None = None
) -> Path:
    """Writes parameters and their card.

    Args:
        path: path of the file, ending in ``.safetensors``.
        params: nested dictionaries of arrays, written as float16, which keeps 11 bits of each weight: half the size,
            with no loss that was audible or measurable here.
        card: JSON values that describe the model.
        exact: further arrays, written as float32: those of a codec, whose codes must not change.

    Returns:
        The path.

    Raises:
        WavegenError: if the name has another ending, a weight is too large for its type, or the path is not writable.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from wavegen.runs.weights import read_weights, write_weights
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = write_weights(f"{folder}/m.safetensors", {"bias": np.ones(2)}, {"name": "m"})
        ...     params, card = read_weights(path)
        >>> params["bias"].tolist(), params["bias"].dtype.name, card
        ([1.0, 1.0], 'float16', {'name': 'm'})
    """
    path = Path(path)
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
    write_sealed(path, flat, card)
    return path


def read_weights(path: Path) -> tuple[PyTree, dict[str, Any]]:
    """Reads a file of ``write_weights``.

    Returns:
        The parameters, and the card.

    Raises:
        WavegenError: if it is not a safetensors file of wavegen, or is damaged.
    """
    flat, card = read_sealed(path)
    try:
        named = {_place(name): value for name, value in flat.items()}
        tree = traverse_util.unflatten_dict(named)
        jax.tree.structure(tree)
    except (ValueError, TypeError, IndexError) as error:
        raise WavegenError(
            f"{path} is damaged: the names of its tensors form no tree ({error}); export it again"
        ) from None
    return tree, card


def _place(name: str) -> tuple[int | str, ...]:
    parts = name.split(".")
    if len(parts) > _DEEPEST:  # JAX crashes on trees of some hundred levels.
        raise ValueError(f"a name of {len(parts)} parts")
    return tuple(int(part) if part.isdigit() else part for part in parts)
