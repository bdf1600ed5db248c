"""Files from somebody else: no path that they name is opened or written, and no size that they claim is believed."""

import copy
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wavegen import Audio
from wavegen.cli import main
from wavegen.config import Config, resolve
from wavegen.config.splits import resolved_splits
from wavegen.data.open import open_dataset
from wavegen.errors import WavegenError
from wavegen.models.kinds import make_model
from wavegen.networks.base import parameters
from wavegen.runs.trained import Trained, open_codecs, open_trained, rebuild, save_trained
from wavegen.runs.weights import read_weights, write_weights
from wavegen.sealed import write_sealed

RATE = 8000
SMALL = {
    "dilations": [1, 2],
    "cycles": 1,
    "residual_channels": 4,
    "gate_channels": 4,
    "skip_channels": 4,
    "head_channels": 4,
}


def config_of(**data: Any) -> Config:
    return resolve({"data": {"sample_rate": RATE, "crop": 64, "batch_size": 8, **data}, "model": SMALL})


def write_model(path: Path, config: Config) -> Path:
    codecs = open_codecs(config)
    return save_trained(path, Trained(config, {}, parameters(make_model(config, codecs, {}))[1], codecs))


@pytest.fixture
def wavs(tmp_path) -> Path:
    for n in range(4):
        samples = np.random.default_rng(n).uniform(-0.5, 0.5, 300).astype(np.float32)
        Audio(samples, RATE).write(tmp_path / "wavs" / f"{n}.wav")
    return tmp_path / "wavs"


def test_evaluating_a_file_opens_and_writes_no_path_of_its_card(tmp_path, wavs, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    split = {"test": 0.5, "valid": 0.0}
    model = write_model(
        tmp_path / "m.safetensors",
        config_of(path=str(tmp_path / "theirs"), cache=str(tmp_path / "written"), split=split),
    )
    with pytest.raises(SystemExit):
        main(["evaluate", str(model)])
    said = capsys.readouterr().err
    assert "give them, or others, with --data FOLDER" in said
    assert "theirs" not in said
    main(["evaluate", str(model), "--data", str(wavs)])
    assert "test split, 900 tokens of 3 files" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"wavs", "m.safetensors", "cache"}


def test_a_file_does_not_say_where_its_maker_keeps_things(tmp_path):
    here = str(tmp_path)
    config = resolve(
        {
            "data": {"sample_rate": RATE, "crop": 64, "path": f"{here}/recordings", "cache": f"{here}/cache"},
            "model": SMALL,
            "training": {"start_from": f"{here}/runs/first"},
        }
    )
    file = write_model(tmp_path / "m.safetensors", config)
    assert here.encode() not in file.read_bytes()
    assert open_trained(file).config.data.path == "recordings"


def test_a_cache_of_somebody_else_is_read_and_not_written(tmp_path, wavs):
    config = config_of(path=str(wavs), cache=str(tmp_path / "theirs"))
    mine = open_dataset(config, new_in=tmp_path / "mine").path
    assert mine.parent == tmp_path / "mine"
    assert not (tmp_path / "theirs").exists()
    theirs = open_dataset(config).path
    assert theirs.parent == tmp_path / "theirs"
    assert open_dataset(config, new_in=tmp_path / "other").path == theirs
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    "codec",
    [
        {"kind": "trained", "run": "HERE"},
        {"kind": "pretrained", "pretrained": "HERE"},
        {"kind": "spectrogram", "codebook": "HERE"},
    ],
)
def test_a_file_without_its_codec_opens_none_from_elsewhere(tmp_path, monkeypatch, codec):
    secret = write_model(tmp_path / "secret.safetensors", config_of())
    tree = {"data": {"sample_rate": RATE}, "codec": codec, "model": {"kind": "bert"}}
    named = json.loads(json.dumps(tree).replace("HERE", str(secret)))
    write_weights(tmp_path / "m.safetensors", {"x": np.ones(1)}, {"config": named, "labels": {}})
    opened: list[str] = []
    original = Path.open

    def watched(self: Path, *arguments: Any, **options: Any) -> Any:
        opened.append(str(self))
        return original(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", watched)
    with pytest.raises(WavegenError, match="lacks the codec that its model reads through; export it again"):
        open_trained(tmp_path / "m.safetensors")
    assert str(secret) not in opened


@pytest.mark.parametrize("place", ["../list.txt", "/etc/hostname", "link.txt"])
def test_a_list_of_names_lies_in_the_folder(tmp_path, place):
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "list.txt").write_text("a.wav")
    (folder / "link.txt").symlink_to(tmp_path / "list.txt")
    with pytest.raises(WavegenError, match="copy it into the folder"):
        resolved_splits({"test": f"list:{place}"}, ["a.wav"], folder)
    (folder / "list.txt").write_text("a.wav")
    assert resolved_splits({"test": "list:list.txt"}, ["a.wav"], folder) == {"test": ["a.wav"]}


@pytest.mark.parametrize("name", ["..", ".", ".ssh", "a/b", "", "a\n"])
def test_the_name_of_a_run_is_no_path(name):
    with pytest.raises(WavegenError, match="configuration error at name"):
        resolve({"name": name})


# Cards that ask for more than their file holds

ODD = [
    *(None, True, "", "x", -1, 0, 1, 2, 3, 64, 2**16, 2**20, 2**31, 2**32 - 1, 2**63, 10**30, 10**400),
    *(0.5, 1e308, float("nan"), float("inf"), [], {}, [[]], [1] * 1000, [2**16] * 1000, [2**31], {"a": 1}),
    *("x" * 100_000, [1] * 100_000),
]
MODELS: dict[str, dict[str, Any]] = {
    "wavenet": {"model": SMALL},
    "lstm": {"model": {"kind": "lstm", "width": 4, "layers": 1}},
    "bert": {
        "codec": {"kind": "note_grid", "voices": 2, "interleave": False},
        "model": {"kind": "bert", "width": 8, "layers": 1, "heads": 2, "label_fields": []},
    },
    "ssm": {"model": {"kind": "ssm", "width": 4, "layers": 1, "state": 2}},
    "wave_vq": {
        "model": {
            "kind": "wave_vq",
            "strides": [2, 4],
            "width": 2,
            "decoder_width": 16,
            "quantizer": {"codebooks": 2, "codebook_size": 4},
        }
    },
    "learned tokens": {"model": {"kind": "bert", "width": 8, "layers": 1, "heads": 2}},
}


def write_kind(folder: Path, kind: str) -> Path:
    tree = {"data": {"sample_rate": RATE, "crop": 64}, **copy.deepcopy(MODELS[kind])}
    if kind == "learned tokens":
        write_kind(folder, "wave_vq").rename(folder / "codec.safetensors")
        tree["codec"] = {"kind": "trained", "run": str(folder / "codec.safetensors")}
    return write_model(folder / "m.safetensors", resolve(tree))


def places(node: Any) -> list[tuple[Any, Any]]:
    inner = node.items() if isinstance(node, dict) else enumerate(node)
    return [
        place
        for key, value in list(inner)
        for place in [(node, key), *(places(value) if isinstance(value, dict | list) else [])]
    ]


def hostile(card: dict[str, Any], drawn: random.Random) -> dict[str, Any]:
    """A card with one to three values replaced, removed or renamed."""
    card = copy.deepcopy(card)
    for _ in range(drawn.randint(1, 3)):
        of_network = places(card["config"]["model"]) if drawn.random() < 0.7 and "config" in card else []
        node, key = drawn.choice(of_network or places(card))
        match drawn.randrange(6):
            case 0 if isinstance(node, dict):
                node[f"{key}_"] = node.pop(key)
            case 1:
                del node[key]
            case _:
                node[key] = copy.deepcopy(drawn.choice(ODD))
        if not isinstance(card.get("config"), dict) or not isinstance(card["config"].get("model"), dict):
            break
    return card


@pytest.mark.parametrize(
    "names", [("a", "a.b"), ("a.0", "a.b"), ("\u00b2",), ("9" * 5000,), (".".join("a" * 3000),)]
)
def test_tensors_whose_names_form_no_tree_are_refused(tmp_path, names):
    path = tmp_path / "m.safetensors"
    write_sealed(path, {name: np.ones(1) for name in names}, {"config": {}, "labels": {}})
    with pytest.raises(WavegenError, match=r"m\.safetensors"):
        rebuild(open_trained(path))


@pytest.mark.parametrize(
    "change",
    [
        {"config": None},
        {"config": []},
        {"labels": None},
        {"labels": {"a": "bc"}},
        {"labels": {"a": [1]}},
        {"codecs": []},
        {"codecs": {"tokens": []}},
        {"codecs": {"tokens": [{}, 1]}},
        {"codecs": {"tokens": [{"wave_vq": [], "sample_rate": 8000}, 1]}},
        {"codecs": {"tokens": [{"wave_vq": {}, "sample_rate": float("inf")}, 1]}},
        {"codecs": {"tokens": [{"wave_vq": {}, "sample_rate": 8000}, 10**400]}},
        {"codecs": {"tokens": [{"wave_vq": {"width": 2**14}, "sample_rate": 8000}, 1]}},
        {"codecs": {"../x": [{}, 1]}},
    ],
)
def test_cards_of_another_shape_are_refused(tmp_path, change):
    path = write_model(tmp_path / "m.safetensors", config_of())
    params, card = read_weights(path)
    write_weights(path, params, card | change)
    with pytest.raises(WavegenError, match=r"card|damaged") as caught:
        rebuild(open_trained(path))
    assert len(str(caught.value)) < 1100


@pytest.mark.parametrize("kind", MODELS)
def test_hostile_cards_are_refused_in_one_line_before_anything_is_built(tmp_path, kind):
    path = write_kind(tmp_path, kind)
    params, card = read_weights(path)
    refused = []
    for seed in range(60):
        write_weights(path, params, hostile(card, random.Random(seed)))
        try:
            rebuild(open_trained(path))
        except WavegenError as error:
            refused.append(str(error))
    assert len(refused) > 25
    assert max(map(len, refused)) < 1100
    assert not any("\n" in message for message in refused)
