"""Small models in files, for fuzzers and fault injectors."""

from pathlib import Path
from typing import Any

import numpy as np

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
NOTES = {"kind": "bert", "width": 8, "layers": 1, "heads": 2}


def tone(rng: np.random.Generator, samples: int) -> np.ndarray:
    """A sine with some noise, [T, 1]."""
    wave = np.sin(np.arange(samples) * rng.uniform(0.1, 1)) + 0.1 * rng.standard_normal(samples)
    return (0.3 * wave[:, None]).astype(np.float32)


def pcm(rng: np.random.Generator, samples: int) -> np.ndarray:
    return (tone(rng, samples)[:, 0] * 32767).astype(np.int16)


def write_model(path: Path, seed: int) -> None:
    """Writes an untrained WaveNet of samples."""
    _write(path, MODEL, seed)


def write_codec(path: Path, seed: int) -> None:
    """Writes an untrained codec of spectrograms."""
    _write(path, CODEC, seed)


def write_model_of_notes(path: Path, seed: int) -> None:
    """Writes an untrained masked model of a grid of voices, which composes and remixes."""
    _write(path, NOTES, seed, {"kind": "note_grid", "voices": 2, "bar": 4})


def _write(path: Path, model: dict[str, Any], seed: int, codec: dict[str, Any] | None = None) -> None:
    tree = {"data": {"sample_rate": RATE, "crop": 64}, "model": model, "seed": seed}
    config = resolve(tree if codec is None else {**tree, "codec": codec})
    codecs = open_codecs(config)
    _, state = first_state(config, {}, codecs)
    save_trained(path, Trained(config, {}, state["params"], codecs))
