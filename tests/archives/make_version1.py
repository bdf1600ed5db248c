"""Wrote version1.tar.gz with the code of version 0.1, whose configurations had version 1.

    python make_version1.py FOLDER
    tar -czf version1.tar.gz -C FOLDER wavenet codec.safetensors bert.safetensors decoder.safetensors \
        wavenet.npy decoder.npy

It is kept to show what the archive holds; the settings have other names today.
"""

import os
import sys
from pathlib import Path

import numpy as np

import wavegen
from wavegen.config import resolve
from wavegen.data.prepare import Clip, write_dataset
from wavegen.training import loop

HERE, RATE = Path(sys.argv[1]), 1000
SHORT = {
    "optimizer": {"learning_rate": 1e-2, "warmup_steps": 1},
    "training": {
        "steps": 2,
        "evaluate_every": 2,
        "checkpoint_every": 2,
        "sample_count": 1,
        "sample_seconds": 0.02,
    },
}
CHANNELS = {f"{name}_channels": 4 for name in ("residual", "gate", "skip", "head")}
MODELS = {
    "wavenet": {
        "dilations": [1, 2],
        "cycles": 1,
        **CHANNELS,
        "global_fields": ["note"],
        "global_channels": 3,
    },
    "codec": {
        "kind": "wave_vq",
        "strides": [2, 2],
        "width": 4,
        "decoder_width": 16,
        "quantizer": {"kind": "residual", "codebooks": 2, "codebook_size": 8, "codebook_width": 2},
    },
    "bert": {
        "kind": "bert",
        "width": 8,
        "layers": 1,
        "heads": 1,
        "global_fields": ["note"],
        "condition_dropout": 0.2,
    },
    "decoder": {
        "kind": "decoder",
        "width": 8,
        "layers": 1,
        "heads": 1,
        "reach": {"segment": 8, "memory": 8, "compressed": 4, "rate": 2},
        "reconstruction": 0.5,
    },
}

random = np.random.default_rng(0)
clips = [
    Clip(f"{split}{note}", random.integers(-9000, 9000, 300).astype(np.int16), {"note": note}, split)
    for split in ("train", "valid")
    for note in "ab"
]
write_dataset(HERE / "data", clips, RATE)
os.chdir(HERE)
for name, model in MODELS.items():
    data = {"path": "data", "sample_rate": RATE, "crop": 64, "batch_size": 2}
    codec = {"codec": {"run": "codec", "levels": 1}} if name == "bert" else {}
    loop.train(resolve({**SHORT, "name": name, "data": data, "model": model, **codec}), HERE / name)
    wavegen.load(HERE / name).save(HERE / f"{name}.safetensors")
for name, labels in (("wavenet", {"note": "b"}), ("decoder", None)):
    clip = wavegen.load(HERE / name).generate(0.05, seed=1, labels=labels)[0]
    np.save(HERE / f"{name}.npy", clip.samples.astype(np.float32))
