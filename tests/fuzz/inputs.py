"""Small models in files, for fuzzers and fault injectors."""

from pathlib import Path
from typing import Any

from wavegen.config import resolve
from wavegen.runs.trained import Trained, open_codecs, save_trained
from wavegen.training.step import first_state

RATE = 8000
MODEL = {"dilations": [1, 2], "cycles": 1, "residual_channels": 4, "gate_channels": 4, "skip_channels": 4}
MODEL |= {"head_channels": 4, "dropout": 0.1}
CODEC = {
    "kind": "spectrogram_vq",
    "n_fft": 64,
    "hop_length": 32,
    "bands": 8,
    "width": 8,
    "depth": 1,
    "latent": 4,
}
CODEC |= {"quantizer": {"kind": "ema", "codebooks": 2, "codebook_size": 8}}


def write_model(path: Path, seed: int) -> None:
    """Writes an untrained WaveNet of samples."""
    _write(path, MODEL, seed)


def write_codec(path: Path, seed: int) -> None:
    """Writes an untrained codec of spectrograms."""
    _write(path, CODEC, seed)


def _write(path: Path, model: dict[str, Any], seed: int) -> None:
    config = resolve({"data": {"sample_rate": RATE}, "model": model, "seed": seed})
    codecs = open_codecs(config)
    _, state = first_state(config, {}, codecs)
    save_trained(path, Trained(config, {}, state["params"], codecs))
