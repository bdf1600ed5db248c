"""Trained weights on their own: one safetensors file, or the newest sound checkpoint of a run."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from jaxtyping import PyTree
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from wavegen.config import resolve
from wavegen.errors import WavegenError
from wavegen.training.checkpoints import Checkpoints
from wavegen.training.step import first_state


def write_weights(path: str | Path, params: PyTree, card: dict[str, Any]) -> Path:
    """Writes parameters, as float16, and their card.

    float16 keeps 11 bits of each weight: half the size at no loss that can be heard or measured here.

    Args:
        path: ending in ``.safetensors``.
        params: nested dictionaries of arrays.
        card: JSON values; the configuration and label vocabularies.

    Returns:
        The path.

    Raises:
        WavegenError: another ending, a weight too large for float16, or a place that cannot be written.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise WavegenError(f"weights are written as NAME.safetensors, got {path.name}")
    with np.errstate(over="ignore"):
        flat = {
            ".".join(map(str, key)): np.asarray(value, np.float16)
            for key, value in traverse_util.flatten_dict(params).items()
        }
    large = [name for name, value in flat.items() if not np.isfinite(value).all()]
    if large:
        raise WavegenError(
            f"the weight {large[0]} is not finite in float16; train with a lower learning rate"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(flat, path, metadata={"wavegen": json.dumps(card)})
    except OSError as error:
        raise WavegenError(f"{path} cannot be written ({error.strerror}); choose another place") from None
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
        raise WavegenError(f"{path} holds tensors but no wavegen card; use a file that Generator.save wrote")
    card = _card(path, metadata["wavegen"])
    named = {
        tuple(int(p) if p.isdigit() else p for p in name.split(".")): value for name, value in flat.items()
    }
    return traverse_util.unflatten_dict(named), card


def _card(path: Path, text: str) -> dict[str, Any]:
    try:
        card = json.loads(text)
        return {"config": dict(card["config"]), "labels": dict(card["labels"])}
    except (ValueError, KeyError, TypeError) as error:
        raise WavegenError(f"{path} holds a damaged wavegen card ({error}); export it again") from None


def read_run(folder: Path) -> tuple[PyTree, dict[str, Any]]:
    """Reads the averaged weights (or, without an average, the last ones) of a run's newest sound checkpoint.

    Raises:
        WavegenError: the folder is no run, or has no sound checkpoint.
    """
    if not (folder / "checkpoints").is_dir():
        raise WavegenError(
            f"{folder} is not a run folder (it has no checkpoints); give the folder that train.py named"
        )
    with Checkpoints(folder / "checkpoints") as checkpoints:
        card = checkpoints.config()
        config = resolve(card["config"])
        state = jax.eval_shape(lambda: first_state(config, card["labels"])[1])
        state, _, card = checkpoints.restore(state)
    return jax.tree.map(np.asarray, state["ema"] or state["params"]), card
