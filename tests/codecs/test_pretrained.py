"""Published codecs are opened by what their config.json says, and serve as the codec of an experiment."""

import json
import random
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws.cases.pretrained import DAC, ENCODEC, write_model

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
    [
        ({"model_type": "mimi"}, "expected model_type encodec or dac"),
        ({"hidden_size": 7}, "shape"),
        ({"hidden_size": 900}, r"the network has [\d,]+ weights or more, and the file holds [\d,]+;"),
        ({"upsampling_ratios": [2, 3]}, "the mirror of downsampling_ratios"),
    ],
)
def test_other_models_and_other_sizes_are_refused(folder, tmp_path, changes, text):
    (tmp_path / "config.json").write_text(json.dumps(DAC | changes))
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    with pytest.raises(WavegenError, match=text):
        load_pretrained(PretrainedCodecConfig(pretrained=str(tmp_path)))


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(WavegenError, match=r"expected model.safetensors in"):
        load_pretrained(PretrainedCodecConfig(pretrained=str(tmp_path / "nowhere")))


ODD = [
    *(None, True, "", "x", -1, 0, 1, 2, 7, 2**20, 2**31, 2**63, 10**30, 10**400, 0.5, 1e308, float("nan")),
    *(
        float("inf"),
        [],
        {},
        [[]],
        [0],
        [2] * 10,
        [2] * 20_000,
        [10**6] * 16,
        [3, 2, 1],
        {"a": 1},
        "2" * 9_000,
    ),
]


def damage(config: dict, drawn: random.Random) -> str:
    """A configuration with one or two values replaced, removed or renamed, or its text cut."""
    for _ in range(drawn.randint(1, 2)):
        key = drawn.choice(list(config))
        if drawn.random() < 0.8:
            config[key] = drawn.choice(ODD)
        else:
            value = config.pop(key)
            if drawn.random() < 0.5:
                config[key[1:]] = value
    text = json.dumps(config)
    if drawn.random() < 0.2:
        start = drawn.randrange(len(text))
        text = text[:start] + drawn.choice(("", "[" * 3000, "9" * 5000, "\0", "}")) + text[start + 1 :]
    return text


@pytest.mark.parametrize(("config", "tries"), [(DAC, 323), (ENCODEC, 100)], ids=["dac", "encodec"])
def test_damaged_configurations_are_refused_in_one_line(tmp_path, config, tries):
    write_model(tmp_path, config)
    messages = []
    for seed in range(tries):
        (tmp_path / "config.json").write_text(damage(dict(config), random.Random(seed)))
        try:
            codec = load_pretrained(PretrainedCodecConfig(pretrained=str(tmp_path)))
        except WavegenError as error:
            messages.append(str(error))
            continue
        # What was changed has no size: a rate, or a value that is the default.
        assert codec.vocab_size == config["codebook_size"]
        assert codec.hop_length == 6
    assert len(messages) > 0.7 * tries
    assert max(map(len, messages)) < 1100
    assert not any("\n" in message for message in messages)
