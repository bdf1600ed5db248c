"""A run that begins with another run's weights."""

import jax
import numpy as np
import pytest

from wavegen.codecs.base import Codecs
from wavegen.config import resolve
from wavegen.data.prepare import Clip, write_dataset
from wavegen.errors import WavegenError
from wavegen.runs.trained import Trained, freeze_codec, open_codecs, open_trained, save_trained
from wavegen.training import loop
from wavegen.training.start_from import start_from
from wavegen.training.step import first_state

RATE = 1000
LABELS = {"note": ["a", "b"]}
WAVENET = {
    "dilations": [1, 2],
    "cycles": 1,
    "residual_channels": 4,
    "gate_channels": 4,
    "skip_channels": 4,
    "head_channels": 4,
    "label_fields": ["note"],
}
CODEC = {
    "kind": "spectrogram_vq",
    "n_fft": 32,
    "hop_length": 8,
    "bands": 4,
    "width": 4,
    "depth": 1,
    "latent": 4,
    "quantizer": {"kind": "ema", "codebooks": 2, "codebook_size": 8},
    "iterations": 2,
}
BERT = {"kind": "bert", "width": 8, "layers": 1, "heads": 1}
TRAINING = {"steps": 3, "evaluate_batches": 1, "sample_seconds": 0.01, "sample_count": 1}


def experiment(data, model, *overrides, **sections):
    tree = {
        "data": {"path": str(data), "sample_rate": RATE, "crop": 64, "batch_size": 2},
        "model": model,
        "optimizer": {"learning_rate": 1e-2, "warmup_steps": 1},
        "training": TRAINING,
        **sections,
    }
    return resolve(tree, overrides)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder, random = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    clips = [
        Clip(f"{split}-{n}", random.integers(-9000, 9000, 200).astype(np.int16), {"note": "ab"[n]}, split)
        for split in ("train", "valid")
        for n in range(2)
    ]
    write_dataset(folder, clips, RATE)
    return folder


def saved(path, config, seed=0, codecs=None):
    """A file of weights that no run begins with, and the weights."""
    config = config.model_copy(update={"seed": seed})
    codecs = codecs or open_codecs(config)
    params = jax.tree.map(lambda p: 1.01 * p + 0.01, first_state(config, LABELS, codecs)[1]["params"])
    return save_trained(path, Trained(config, LABELS, params, codecs)), params


def assert_close(ours, theirs):
    # Files of weights hold two bytes a number.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6), ours, theirs)


def test_a_run_goes_on_from_there_and_then_needs_its_source_no_more(data, tmp_path, one_device):
    source, expected = saved(tmp_path / "weights.safetensors", experiment(data, WAVENET))
    # A rate at which no weight moves, nor the average of what does not move.
    still = experiment(data, WAVENET, f"training.start_from={source}", "optimizer.learning_rate=1e-30")
    loop.train(still, tmp_path / "run")
    assert_close(open_trained(tmp_path / "run").params, expected)
    source.unlink()
    loop.train(still, tmp_path / "run")


def test_the_optimizer_and_the_step_are_new_and_codebooks_stay(data, tmp_path, one_device, monkeypatch):
    config = experiment(data, CODEC)
    source, expected = saved(tmp_path / "codec.safetensors", config)
    fresh = first_state(config, LABELS, open_codecs(config))[1]
    state = start_from(source, config, fresh, open_codecs(config))
    for name in ("params", "ema"):
        jax.tree.map(np.testing.assert_array_equal, state[name], expected)
    assert int(state["step"]) == 0
    jax.tree.map(np.testing.assert_array_equal, state["optimizer"], fresh["optimizer"])
    # Which would place them anew.
    monkeypatch.setattr(loop, "start_codec", None)
    loop.train(experiment(data, CODEC, f"training.start_from={source}"), tmp_path / "run")


@pytest.mark.parametrize(
    ("model", "sections", "text"),
    [
        (WAVENET | {"residual_channels": 8}, {}, r"expected weights\[.*\] of shape \(.*8.*\), .* has \("),
        (WAVENET | {"label_fields": []}, {}, r"of shape None, .* label fields those of that run"),
        (WAVENET | {"cycles": 2}, {}, r"of shape \(.* has "),
        (WAVENET, {"codec": {"kind": "linear", "levels": 256}}, r"another codec \(tokens\)"),
        ({"kind": "lstm", "width": 8, "layers": 1}, {}, "weights of model.kind=lstm .* has those of wavenet"),
    ],
)
def test_weights_that_do_not_fit_are_named(data, tmp_path, model, sections, text):
    source, _ = saved(tmp_path / "weights.safetensors", experiment(data, WAVENET))
    config = experiment(data, model, f"training.start_from={source}", **sections)
    with pytest.raises(WavegenError, match=text) as caught:
        loop.train(config, tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_tokens_of_another_codec_are_refused(data, tmp_path):
    """Weights of the same shapes, which mean nothing on its tokens."""
    codecs = []
    for seed in (0, 1):
        saved(tmp_path / f"{seed}.safetensors", experiment(data, CODEC), seed)
        codecs.append(Codecs(freeze_codec(open_trained(tmp_path / f"{seed}.safetensors"))))
    config = experiment(data, BERT, codec={"run": str(tmp_path / "0.safetensors")})
    source, expected = saved(tmp_path / "bert.safetensors", config, codecs=codecs[0])
    state = first_state(config, LABELS, codecs[0])[1]
    assert_close(start_from(source, config, state, codecs[0])["params"], expected)
    with pytest.raises(WavegenError, match=r"another codec \(tokens\); give this run the section codec"):
        start_from(source, config, state, codecs[1])


def test_a_missing_source_is_named(data, tmp_path):
    with pytest.raises(WavegenError, match=r"no run folder or \.safetensors file at nowhere"):
        loop.train(experiment(data, WAVENET, "training.start_from=nowhere"), tmp_path / "run")
