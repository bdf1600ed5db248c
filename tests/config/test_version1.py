"""Runs, exported models and configurations of version 1 still open, and generate what they generated."""

import tarfile
from pathlib import Path

import numpy as np
import pytest

import wavegen
from wavegen.config import VERSION, load_config, resolve
from wavegen.errors import WavegenError

ARCHIVE = Path(__file__).parents[1] / "archives" / "version1.tar.gz"


@pytest.fixture(scope="module")
def old(tmp_path_factory) -> Path:
    """A run folder and exported models, written by tests/archives/make_version1.py with the code of then."""
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.mark.parametrize(("name", "labels"), [("wavenet", {"note": "b"}), ("decoder.safetensors", None)])
def test_what_was_generated_then_is_generated_now(old, name, labels):
    clip = wavegen.load(old / name).generate(0.05, seed=1, labels=labels)[0]
    np.testing.assert_allclose(clip.samples, np.load(old / f"{Path(name).stem}.npy"), atol=1e-6)


def test_settings_have_todays_names(old):
    run, bert, decoder, codec = (
        wavegen.load(old / name).config
        for name in ("wavenet", "bert.safetensors", "decoder.safetensors", "codec.safetensors")
    )
    assert run == load_config(old / "wavenet" / "config.yaml")
    assert run.version == bert.version == VERSION == 2
    assert (run.model.label_fields, run.model.label_channels) == (("note",), 3)
    assert (bert.model.label_fields, bert.model.label_dropout, bert.codec.codebooks) == (("note",), 0.2, 1)
    assert decoder.model.memory_loss == 0.5
    assert codec.model.quantizer.kind == "gradient"


def test_a_masked_model_and_its_codec_come_in_one_file(old):
    model = wavegen.load(old / "bert.safetensors")
    assert model.codec.codebooks == 1
    assert len(model.generate(0.05, seed=0, labels={"note": "a"})[0].samples) == 50


def test_a_file_by_hand_may_use_the_old_names_unless_it_names_the_new_version():
    tree = {"model": {"kind": "wavenet", "global_fields": ["digit"]}}
    assert resolve(tree).model.label_fields == ("digit",)
    assert resolve(tree, ["model.global_fields=[speaker]"]).model.label_fields == ("speaker",)
    with pytest.raises(WavegenError, match=r"unknown configuration key 'model\.global_fields'"):
        resolve({**tree, "version": 2})
    with pytest.raises(WavegenError, match="version 3, this wavegen reads versions 1 to 2; update wavegen"):
        resolve({**tree, "version": 3})
