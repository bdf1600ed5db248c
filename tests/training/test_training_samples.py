"""A sample that training writes is what a person gets for the same weights and the same seed."""

import numpy as np
import pytest

import wavegen
from wavegen.audio import Audio
from wavegen.codecs.notes.grid import NoteGrid
from wavegen.config import resolve
from wavegen.data.prepare import Clip, write_dataset
from wavegen.notes.midi import read_midi, write_midi
from wavegen.training import loop

RATE, SEED, COUNT = 1000, 3, 2
SHORT = {
    "seed": SEED,
    "optimizer": {"learning_rate": 1e-2, "warmup_steps": 1},
    "sampling": {"temperature": 0.8, "masked": {"passes": [3, 1], "guidance": 2.0}},
    "training": {
        "steps": 2,
        "evaluate_every": 2,
        "checkpoint_every": 2,
        "sample_count": COUNT,
        "sample_seconds": 0.1,
    },
}
TINY = {
    "dilations": [1, 2],
    "cycles": 1,
    **{f"{name}_channels": 4 for name in ("residual", "gate", "skip", "head")},
}
LABELS = {"label_fields": ["note"]}
BERT = {"kind": "bert", "width": 8, "layers": 1, "heads": 1}
VAE = {"kind": "window_vae", "width": 8, "layers": 1, "heads": 2, "encoder_layers": 1, "latent": 4}


@pytest.fixture(scope="module")
def recordings(tmp_path_factory, one_device):
    """Two clips per split, with a label."""
    folder = tmp_path_factory.mktemp("recordings")
    random = np.random.default_rng(0)
    clips = [
        Clip(f"{split}{note}", random.integers(-9000, 9000, 300).astype(np.int16), {"note": note}, split)
        for split in ("train", "valid")
        for note in "ab"
    ]
    write_dataset(folder / "data", clips, RATE)
    codec = {"kind": "wave_vq", "strides": [2, 2], "width": 4, "decoder_width": 16}
    quantizer = {"kind": "ema", "codebooks": 2, "codebook_size": 8}
    data = {"path": str(folder / "data"), "sample_rate": RATE, "crop": 128, "batch_size": 2}
    tree = SHORT | {"data": data, "model": codec | {"quantizer": quantizer}}
    loop.train(resolve(tree), folder / "codec")
    return folder


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    """MIDI files of two voices."""
    folder = tmp_path_factory.mktemp("scores")
    random = np.random.default_rng(0)
    for split in ("train", "valid"):
        piece = NoteGrid(2, 60, 72, bar=4).decode(random.integers(1, 14, (16, 2)).repeat(2, axis=0))
        write_midi(folder / f"{split}_0.mid", piece)
    return folder


@pytest.mark.parametrize(
    ("model", "codec"),
    [
        (TINY | LABELS, "mulaw"),
        ({"kind": "lstm", "width": 4, "layers": 1} | LABELS, "mulaw"),
        (BERT | LABELS, "trained"),
    ],
)
def test_of_audio(recordings, one_device, tmp_path, model, codec):
    section = {"run": str(recordings / "codec")} if codec == "trained" else {"kind": codec}
    data = {"path": str(recordings / "data"), "sample_rate": RATE, "crop": 64, "batch_size": 2}
    loop.train(resolve(SHORT | {"data": data, "model": model, "codec": section}), tmp_path / "run")
    generator = wavegen.load(tmp_path / "run")
    written = sorted((tmp_path / "run" / "samples").glob("*.wav"))
    assert [path.stem for path in written] == ["0000002-valida", "0000002-validb"]
    for row, note in enumerate("ab"):
        clip = generator.generate(0.1, count=COUNT, seed=SEED, labels={"note": note})[row]
        clip.write(tmp_path / "clip.wav")
        np.testing.assert_array_equal(
            Audio.read(written[row]).samples, Audio.read(tmp_path / "clip.wav").samples
        )


@pytest.mark.parametrize("model", [{"kind": "lstm", "width": 4, "layers": 1}, BERT, VAE])
def test_of_notes(scores, one_device, tmp_path, model):
    data = {
        "path": str(scores),
        "cache": str(tmp_path),
        "crop": 16,
        "batch_size": 2,
        "label_pattern": "{split}_{n}",
    }
    data |= {"split": {"valid": "split=valid", "test": 0.0}}
    codec = {"kind": "note_grid", "voices": 2, "low": 60, "high": 72, "bar": 4}
    sampling = {"sampling": {"temperature": 0.8}}
    loop.train(resolve(SHORT | sampling | {"data": data, "model": model, "codec": codec}), tmp_path / "run")
    pieces = wavegen.load(tmp_path / "run").generate(8, count=COUNT, seed=SEED)
    written = sorted((tmp_path / "run" / "samples").glob("*.mid"))
    assert len(written) == COUNT
    for path, piece in zip(written, pieces, strict=True):
        assert read_midi(path).at_resolution(piece.ticks_per_quarter) == piece
