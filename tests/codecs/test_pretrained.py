"""Published codecs are opened by what their config.json says, and serve as the codec of an experiment."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws.cases.pretrained import DAC, write_model

from wavegen.codecs.pretrained.load import load_pretrained
from wavegen.config import resolve
from wavegen.config.codecs import PretrainedCodecConfig
from wavegen.errors import WavegenError
from wavegen.runs.trained import open_codecs


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A DAC of random weights, in the layout of Hugging Face."""
    folder = tmp_path_factory.mktemp("dac")
    write_model(folder, DAC)
    return folder


def test_a_dac_serves_as_the_codec_of_a_masked_model(folder):
    tree = {
        "data": {"sample_rate": 8000},
        "codec": {"pretrained": str(folder), "codebooks": 2},
        "model": {"kind": "bert"},
    }
    codec = open_codecs(resolve(tree)).tokens
    assert codec is not None
    audio = 0.3 * jnp.asarray(np.random.default_rng(1).standard_normal((2, 50), np.float32))
    tokens = jax.jit(lambda codec, audio: codec.encode(audio))(codec, audio)
    assert tokens.shape == (2, 9, 2)
    assert (int(tokens.min()), int(tokens.max())) >= (0, 1)
    assert int(tokens.max()) < 16
    audio = jax.jit(lambda codec, tokens: codec.decode(tokens))(codec, tokens)
    assert audio.shape == (2, 54)
    assert np.isfinite(audio).all()


@pytest.mark.parametrize(
    ("changes", "text"),
    [({"model_type": "mimi"}, "expected model_type encodec or dac"), ({"hidden_size": 9}, "shape")],
)
def test_other_models_and_other_sizes_are_refused(folder, tmp_path, changes, text):
    (tmp_path / "config.json").write_text(json.dumps(DAC | changes))
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    with pytest.raises(WavegenError, match=text):
        load_pretrained(PretrainedCodecConfig(pretrained=str(tmp_path)))


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(WavegenError, match=r"expected model.safetensors in"):
        load_pretrained(PretrainedCodecConfig(pretrained=str(tmp_path / "nowhere")))
