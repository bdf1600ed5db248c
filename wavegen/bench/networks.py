"""Codecs and masked models to time: named shapes with random weights, and trained runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from wavegen.codecs.base import Codecs
from wavegen.config import resolve
from wavegen.errors import WavegenError
from wavegen.generation.codec import Reconstructor
from wavegen.generation.load import load
from wavegen.generation.masked import MaskedGenerator
from wavegen.models.kinds import make_model
from wavegen.networks.base import parameters
from wavegen.runs.trained import Trained

CODECS: dict[str, dict[str, Any]] = {
    "wave_vq-8k": {
        "data": {"sample_rate": 8000, "crop": 2400, "batch_size": 4},
        "model": {
            "kind": "wave_vq",
            "width": 12,
            "decoder_width": 192,
            "quantizer": {"kind": "gradient", "codebook_size": 512},
        },
    },
    "wave_vq-16k": {
        "data": {"sample_rate": 16000, "crop": 6400, "batch_size": 4},
        "model": {"kind": "wave_vq"},
    },
    "wave_vq-44k": {
        "data": {"sample_rate": 44100, "crop": 16384, "batch_size": 1},
        "model": {
            "kind": "wave_vq",
            "width": 64,
            "decoder_width": 1536,
            "quantizer": {"kind": "gradient", "codebooks": 9},
        },
    },
}
"""Experiments by the shape of their codec: a small one at 8 kHz, the default one, and that of DAC at 44.1 kHz."""

MODELS: dict[str, dict[str, Any]] = {
    "bert-small": {"model": {"kind": "bert"}, "data": {"batch_size": 4}},
    "bert-base": {
        "model": {"kind": "bert", "width": 768, "layers": 12, "heads": 12},
        "data": {"batch_size": 1},
    },
}
"""Masked models by their shape: the default one, and that of BERT-base. Their window is ten seconds."""
_WINDOW = 10


def open_codec(name: str) -> Reconstructor:
    """Returns an untrained codec of ``CODECS``, or the codec of a run.

    Raises:
        WavegenError: if there is neither, or the run is not that of a codec.
    """
    if name in CODECS:
        config = resolve(CODECS[name])
        fresh = parameters(make_model(config, Codecs(None), {}))[1]
        return Reconstructor.open(Trained(config, {}, jax.tree.map(np.asarray, fresh), Codecs(None)))
    model = _open_run(name, CODECS)
    if not isinstance(model, Reconstructor):
        raise WavegenError(f"expected the run of a codec, got {name} with {_kind(model)}; try --model {name}")
    return model


def open_model(name: str, codec: Reconstructor | None) -> MaskedGenerator:
    """Returns an untrained masked model of ``MODELS``, or the model of a run.

    Args:
        name: name of the shape, or path of the run.
        codec: the codec whose tokens a model of ``MODELS`` reads; a run has its own.

    Raises:
        WavegenError: if there is neither, the run is not that of a masked model, or a codec is missing or
            superfluous.
    """
    if name not in MODELS:
        model = _open_run(name, MODELS)
        if not isinstance(model, MaskedGenerator):
            raise WavegenError(f"expected the run of a masked model, got {name} with {_kind(model)}")
        if codec is not None:
            raise WavegenError("a run has a codec of its own; leave --codec out")
        return model
    if codec is None:
        raise WavegenError(f"{name} reads the tokens of a codec; name one, for example --codec wave_vq-16k")
    data = {"sample_rate": codec.sample_rate, "crop": _WINDOW * codec.sample_rate}
    sections = MODELS[name]
    # The codec is passed as an object; its path is never opened.
    config = resolve({**sections, "data": sections["data"] | data, "codec": {"run": "codec"}})
    graph, params = parameters(make_model(config, Codecs(codec.codec), {}))
    return MaskedGenerator(config, {}, graph, params, codec.codec)


def _open_run(name: str, known: Mapping[str, Any]) -> Any:
    if not Path(name).exists():
        raise WavegenError(
            f"expected one of {', '.join(known)}, or the folder of a run, got '{name}', which does not exist"
        )
    return load(name)


def _kind(model: Any) -> str:
    return f"model.kind={model.config.model.kind}"
