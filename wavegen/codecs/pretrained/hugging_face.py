"""Reads model folders in the layout of Hugging Face: ``config.json`` and ``model.safetensors``."""

import json
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open

from wavegen.bounded import read_text
from wavegen.errors import WavegenError

Tensors = dict[str, Float[np.ndarray, "..."]]
"""Weights by their names in the file, float32, in PyTorch's layouts."""

Size = Annotated[int, Field(ge=1, le=2**20)]
"""A number of channels, taps, samples or entries."""
Few = Annotated[int, Field(ge=1, le=2**8)]
"""A number of layers or codebooks."""
Strides = Annotated[tuple[Size, ...], Field(min_length=1, max_length=16)]
"""Strides of the stages."""

_LARGEST_CONFIG = 1 << 20

_WEIGHT_NORMS = (
    ("weight_g", "weight_v"),
    ("parametrizations.weight.original0", "parametrizations.weight.original1"),
)
"""Name endings of magnitude and direction: PyTorch's two spellings, before and since its version 2.0."""


class Sizes(BaseModel):
    """What a codec needs of ``config.json``, by the names there; other keys are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


AnySizes = TypeVar("AnySizes", bound=Sizes)


def read_sizes(kind: type[AnySizes], values: dict[str, Any]) -> AnySizes:
    """Checks the sizes in a configuration.

    Raises:
        WavegenError: if one is missing, of another type or out of bounds.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "a size"
        got = "" if isinstance(first["input"], dict) else f", got {first['input']!r}"
        message = first["msg"].removeprefix("Value error, ")
        raise WavegenError(f"{place} of config.json: {message}{got}; download it again") from None


def read_hugging_face(path: str | Path) -> tuple[dict[str, Any], Tensors]:
    """Reads a model's configuration and weights.

    Weight normalization (Salimans and Kingma 2016) is folded: ``g v / |v|`` is named ``weight``, whichever way the
    file spells it.

    Args:
        path: a folder with ``config.json`` and ``model.safetensors``, or a safetensors file with ``config.json`` in
            its folder.

    Returns:
        The configuration and the weights.

    Raises:
        WavegenError: if a file is missing or damaged, a weight is not finite, or half of a normalized weight is
            missing.
    """
    file = _weights_file(path)
    return read_config(path), _fold(_read_tensors(file))


def read_config(path: str | Path) -> dict[str, Any]:
    """Reads ``config.json`` alone; see ``read_hugging_face``."""
    return _read_json(_weights_file(path).with_name("config.json"))


def _weights_file(path: str | Path) -> Path:
    path = Path(path)
    file = path / "model.safetensors" if path.is_dir() else path
    if not file.is_file():
        raise WavegenError(
            f"expected model.safetensors in {path.parent if file == path else path}, got none; "
            "convert weights of other formats with transformers' save_pretrained"
        )
    return file


def take_tensor(tensors: Tensors, name: str, shape: tuple[int, ...]) -> Float[np.ndarray, "..."]:
    """Removes one tensor and returns it, so that the tensors that remain at the end are those that the model lacks.

    Raises:
        WavegenError: if there is none of this name, or it has another shape.
    """
    if name not in tensors:
        raise WavegenError(
            f"expected a tensor {name} {list(shape)}, got none; the weights do not belong to this config.json"
        )
    tensor = tensors.pop(name)
    if tensor.shape != shape:
        raise WavegenError(
            f"expected {name} of shape {list(shape)}, got {list(tensor.shape)}; "
            "the weights do not belong to this config.json"
        )
    return tensor


def expect_no_more(tensors: Tensors) -> None:
    """Checks that every tensor was taken.

    Raises:
        WavegenError: if some were not.
    """
    if tensors:
        raise WavegenError(
            f"expected no more tensors than the model has, got {len(tensors)} more, such as {min(tensors)}; "
            "the weights do not belong to this config.json"
        )


def _read_json(file: Path) -> dict[str, Any]:
    text = read_text(file, _LARGEST_CONFIG, "the model's config.json", "download it again")
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WavegenError(f"{file} is not JSON ({error}); download it again") from None
    if not isinstance(config, dict):
        raise WavegenError(
            f"expected a JSON object in {file}, got {type(config).__name__}; download it again"
        )
    return config


def _read_tensors(file: Path) -> Tensors:
    try:
        with safe_open(file, framework="numpy") as opened:
            names = opened.keys()
            tensors = {name: opened.get_tensor(name).astype(np.float32) for name in names}
    except (SafetensorError, OSError, TypeError) as error:
        raise WavegenError(f"{file} is not a whole safetensors file ({error}); download it again") from None
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise WavegenError(f"expected finite weights in {file}, got others in {name}; download it again")
    return tensors


def _fold(tensors: Tensors) -> Tensors:
    folded = dict(tensors)
    for endings in _WEIGHT_NORMS:
        layers = {name.removesuffix(e) for name in tensors for e in endings if name.endswith(f".{e}")}
        for layer in sorted(layers):
            for ending in endings:
                if layer + ending not in tensors:
                    raise WavegenError(
                        f"expected a tensor {layer}{ending}, got none; download the weights again"
                    )
            g, v = (folded.pop(layer + ending) for ending in endings)
            folded[f"{layer}weight"] = _normalized(f"{layer}weight", g, v)
    return folded


def _normalized(
    name: str, g: Float[np.ndarray, "..."], v: Float[np.ndarray, "..."]
) -> Float[np.ndarray, "..."]:
    # The norm is over all axes but the first, which is that of the inputs in a transposed convolution.
    expected = (*v.shape[:1], *(1 for _ in v.shape[1:]))
    if g.shape != expected:
        raise WavegenError(
            f"expected magnitudes of {name} of shape {list(expected)}, got {list(g.shape)}; "
            "download the weights again"
        )
    norm = np.sqrt(np.sum(v.astype(np.float64) ** 2, axis=tuple(range(1, v.ndim)), keepdims=True))
    # A filter of zeros stays zero.
    return (g * (v / np.maximum(norm, np.finfo(np.float32).tiny))).astype(np.float32)
