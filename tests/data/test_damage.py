"""Nothing of a dataset that was changed after it was written is read as good, and no manifest leads out of it."""

import collections
import copy
import json
import os
import random
import shutil
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest

from wavegen.data import flat
from wavegen.data.dataset import Dataset
from wavegen.data.manifest import Manifest, read_manifest, read_shard_row
from wavegen.data.prepare import prepare
from wavegen.data.sealed_json import read_sealed_json, write_sealed_json
from wavegen.data.shards import Clip
from wavegen.data.write import write_dataset
from wavegen.errors import WavegenError

RATE = 1000
LENGTHS = (700, 3 * RATE, 70_000, 1)
BACKENDS = ("memmap", "array_record")


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """Datasets that are written once, because each file of them is flushed to the disk."""
    return cache(lambda backend: write(tmp_path_factory.mktemp(backend), backend))


@pytest.fixture
def dataset(originals, tmp_path):
    """Copies a dataset into a folder of the test's own."""
    return lambda backend="memmap": shutil.copytree(originals(backend), tmp_path / "data")


def write(folder, backend="memmap"):
    """Three shards, of which one has several blocks of samples and of features."""
    random = np.random.default_rng(0)
    clips = [
        Clip(
            name=f"clip{index}",
            pcm=random.integers(-(2**15), 2**15, length, np.int16),
            labels={"bird": "wren" if index % 2 else "robin"},
            split="test" if index == 1 else "train",
            features=random.standard_normal((-(-length // 2), 3), np.float32),
        )
        for index, length in enumerate(LENGTHS)
    ]
    write_dataset(folder, clips, RATE, 2, backend=backend, shard_samples=3 * RATE)
    return folder


def content(folder) -> list[Any]:
    """All that a dataset has to say."""
    dataset = Dataset.open(folder)
    values: list[Any] = [dataset.labels, dataset.sample_rate, dataset.splits]
    for split in dataset.splits:
        files = dataset.split(split)
        values += [files.names, files.labels.tolist()]
        for row, length in enumerate(files.length):
            frames = -(-int(length) // 2)
            values.append(dataset.read(files, row, 0, int(length)).tobytes())
            values.append(dataset.read_features(files, row, 0, frames).tobytes())
    return values


def refusal(folder, expected) -> str | None:
    """The one line with which a dataset is refused; None if all of it is as it was."""
    try:
        got = content(folder)
    except WavegenError as error:
        return str(error)
    assert got == expected
    return None


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_flipped_bit_goes_unnoticed(dataset, backend, rng):
    if backend == "array_record":
        pytest.importorskip("array_record")
    folder = dataset(backend)
    expected = content(folder)
    tries = {"manifest.json": 60, "shard-00000.features": 5} | {
        path.name: 20 for path in folder.glob("shard-00001.*") if path.suffix != ".json"
    }
    assert len(tries) == 4
    for name, count in tries.items():
        path = folder / name
        whole, noticed = path.read_bytes(), 0
        for _ in range(count):
            damaged = bytearray(whole)
            damaged[rng.integers(len(whole))] ^= 1 << rng.integers(8)
            path.write_bytes(damaged)
            message = refusal(folder, expected)
            # Between its records an ArrayRecord has bytes that mean nothing.
            assert message is not None or name.endswith(".array_record")
            if message is not None:
                assert str(path) in message
                assert "prepare" in message
                noticed += 1
        assert noticed > count // 10
        path.write_bytes(whole)
    assert content(folder) == expected


def test_every_block_is_checked_when_it_is_first_read_and_later_again(tmp_path):
    values = np.arange(3 * flat.BLOCK // 2 + 5, dtype="<i2")
    path = tmp_path / "a.pcm"
    path.write_bytes(values.tobytes())
    file = flat.FlatFile(path, "<i2", 1, flat.checksums(path)[1])
    np.testing.assert_array_equal(file.rows(10, 20)[:, 0], values[10:20])
    for position in (5, flat.BLOCK + 1, 3 * flat.BLOCK + 9):
        with open(path, "r+b") as opened:
            opened.seek(position)
            byte = opened.read(1)[0]
            opened.seek(position)
            opened.write(bytes([byte ^ 4]))
    file.rows(100, 200)  # It was found whole before.
    file.rows(flat.BLOCK, flat.BLOCK + 100)  # The third block is.
    for start, stop in ((flat.BLOCK // 2 - 1, flat.BLOCK // 2 + 1), (len(values) - 1, len(values))):
        with pytest.raises(
            WavegenError, match=r"a\.pcm is damaged between the bytes .* delete it and prepare"
        ):
            file.rows(start, stop)
    with pytest.raises(WavegenError, match="between the bytes 0 and 65536"):
        collections.deque((file.rows(100, 30_100) for _ in range(40 * len(values) // 30_000)), maxlen=0)


def test_a_file_that_was_put_out_is_prepared_again(tmp_path):
    """What an error advises works: delete the file, and prepare again."""
    write_wav(tmp_path / "in" / "a.wav")
    out = tmp_path / "out"
    options = {"sample_rate": RATE, "split": {}, "progress": False}
    prepare(tmp_path / "in", out, **options)
    before = (out / "shard-00000.pcm").read_bytes()
    (out / "shard-00000.pcm").unlink()
    assert prepare(tmp_path / "in", out, **options).shards_written == 1
    assert (out / "shard-00000.pcm").read_bytes() == before
    damaged = (out / "shard-00000.json").read_bytes().replace(b'"length": 500', b'"length": 501')
    (out / "shard-00000.json").write_bytes(damaged)
    assert read_shard_row(out / "shard-00000.json") is None
    assert prepare(tmp_path / "in", out, **options).shards_written == 1
    assert prepare(tmp_path / "in", out, **options).shards_written == 0


def write_wav(path):
    from wavegen import Audio

    path.parent.mkdir(exist_ok=True)
    Audio(np.random.default_rng(0).uniform(-0.5, 0.5, 500).astype(np.float32), RATE).write(path)


def test_datasets_of_before_there_were_checksums_open(dataset):
    folder = dataset()
    expected = content(folder)
    for path in folder.glob("*.json"):
        tree = read_sealed_json(path, "a manifest", "")
        for row in tree.get("shards", [tree]):
            for file in row["data"]:
                del file["blocks"]
        path.write_text(json.dumps(tree, indent=1))
    assert content(folder) == expected
    assert not any(file.checked for file in read_manifest(folder).shards[0].data)


def test_preparing_again_adds_checksums(tmp_path):
    write_wav(tmp_path / "in" / "a.wav")
    out = tmp_path / "out"
    prepare(tmp_path / "in", out, sample_rate=RATE, split={}, progress=False)
    for path in out.glob("*.json"):
        text = path.read_text().rpartition(',\n "sha256"')[0] + "\n}"
        path.write_text(
            text.replace(f'"blocks": "{read_manifest(out).shards[0].data[0].blocks}"', '"blocks": ""')
        )
    assert not read_manifest(out).shards[0].data[0].checked
    prepare(tmp_path / "in", out, sample_rate=RATE, split={}, progress=False)
    assert read_manifest(out).shards[0].data[0].checked


# What a manifest claims


def shard(tree, number=1):
    return tree["shards"][number]


CLAIMS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "another folder": (lambda t: shard(t).update(name="../shard-00001"), "should match pattern"),
    "a folder inside": (lambda t: shard(t).update(name="a/shard-00001"), "should match pattern"),
    "an absolute path": (lambda t: shard(t).update(name="/etc/passwd"), "should match pattern"),
    "a name with a line break": (lambda t: shard(t).update(name="shard-00001\n"), "should match pattern"),
    "another file": (lambda t: shard(t)["data"][0].update(name="shard-00000.pcm"), "expected the files"),
    "a missing file": (lambda t: shard(t)["data"].pop(), "expected the files"),
    "one shard twice": (lambda t: t["shards"].append(t["shards"][0]), "unique shard names"),
    "one clip twice": (lambda t: shard(t)["files"][0].update(name="clip0"), "unique clip names"),
    "the neighbour's samples": (lambda t: shard(t, 0)["files"][1].update(offset=699), "begins at 699"),
    "a gap": (lambda t: shard(t, 0)["files"][1].update(offset=701), "begins at 701"),
    "below zero": (lambda t: shard(t)["files"][0].update(offset=-1), "greater than or equal to 0"),
    "past the end": (lambda t: shard(t)["files"][0].update(length=70_001), "bytes, its recordings take"),
    "less than all": (lambda t: shard(t)["files"][0].update(length=69_999), "bytes, its recordings take"),
    "no samples": (lambda t: shard(t)["files"][0].update(length=0), "greater than or equal to 1"),
    "a huge length": (lambda t: shard(t)["files"][0].update(length=10**300), "less than or equal to"),
    "text for a number": (lambda t: shard(t)["files"][0].update(length="70000"), "valid integer"),
    "a fraction": (lambda t: shard(t)["files"][0].update(length=70000.0), "valid integer"),
    "NaN": (lambda t: t["format"].update(sample_rate=float("nan")), "valid integer"),
    "true for a number": (lambda t: t["format"].update(channels=True), "valid integer"),
    "wide features": (lambda t: t.update(feature_width=2**40), "less than or equal to"),
    "other features": (lambda t: t.update(feature_width=4), "features of one width"),
    "other hops": (lambda t: t["format"].update(feature_hop=3), "bytes, its recordings take"),
    "no hop": (lambda t: t["format"].update(feature_hop=None), "expected features where"),
    "other channels": (lambda t: t["format"].update(channels=2), "bytes, its recordings take"),
    "another backend": (lambda t: t["format"].update(backend="array_record"), "expected the files"),
    "no backend": (lambda t: t["format"].update(backend="pickle"), "array_record"),
    "an unknown label": (lambda t: shard(t)["files"][0]["labels"].update(bird="owl"), "other labels"),
    "an unknown field": (lambda t: shard(t)["files"][0]["labels"].update(x="1"), "other labels"),
    "an unknown key": (lambda t: t.update(seal="1"), "Extra inputs are not permitted"),
    "a short sum": (lambda t: shard(t)["data"][0].update(sha256="00"), "should match pattern"),
    "a missing checksum": (lambda t: shard(t)["data"][0].update(blocks="AAAAAAAAAAA="), "checksums of"),
    "no base64": (lambda t: shard(t)["data"][0].update(blocks="~"), "base64"),
    "another size": (lambda t: shard(t)["data"][0].update(bytes=2), "checksums of 2 bytes"),
    "nothing": (lambda t: t.update(shards=[]), "at least one shard"),
    "no recordings": (lambda t: [row.update(files=[]) for row in t["shards"]], "at least one clip"),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_what_a_manifest_claims_is_compared_with_itself(dataset, name):
    change, message = CLAIMS[name]
    path = dataset() / "manifest.json"
    tree = read_sealed_json(path, "a manifest", "")
    change(tree)
    write_sealed_json(path, json.dumps(tree, indent=1))
    with pytest.raises(WavegenError, match=rf"^damaged manifest .*{message}.*; prepare it again$"):
        Dataset.open(path.parent)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"version": 1, "version": 1}', "the key 'version' occurs 2 times"),
        ("[" * 100_000, "damaged JSON"),
        ('{"version":' * 100_000, "damaged JSON"),
        ('{"version": ' + "9" * 5000 + "}", "damaged JSON"),
        ('{"version": 1' + "0" * 4000 + "}", "manifest of version 1"),
        ('{"version": NaN}', "manifest of version 1"),
        ('{"version": true}', "damaged manifest"),
        ("null", "expected an object"),
        ("\xff", "damaged JSON"),
        ("", "damaged JSON"),
    ],
)
def test_odd_manifests_are_one_short_line(tmp_path, text, message):
    (tmp_path / "manifest.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(WavegenError, match=message) as caught:
        Dataset.open(tmp_path)
    assert len(str(caught.value)) < 1100


ODD = [
    *(None, True, "", "x", "../x", "/etc/passwd", -1, 0, 1, 2**31, 2**63, 10**400, 0.5, float("nan")),
    *(float("inf"), [], {}, [[]], {"": None}, "\0", "x" * 100_000),
]


def damaged(tree: Any, random: random.Random) -> str:
    """A manifest with one part replaced, removed, renamed, repeated or moved, or its text cut."""
    places: list[tuple[Any, Any]] = []
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        items = list(node.items() if isinstance(node, dict) else enumerate(node))
        places += [(node, key) for key, _ in items]
        waiting += [value for _, value in items if isinstance(value, dict | list)]
    node, key = random.choice(places)
    match random.randrange(5):
        case 0:
            node[key] = random.choice(ODD)
        case 1:
            del node[key]
        case 2 if isinstance(node, dict):
            node[random.choice(("", "x", "name", key + "_"))] = node.pop(key)
        case 3:
            other, place = random.choice(places)
            node[key] = copy.deepcopy(other[place])
        case _:
            text = json.dumps(tree)
            start = random.randrange(len(text))
            return (
                text[:start]
                + random.choice(("", "[" * 2000, "9" * 5000, '"a":1,', "NaN", "\\"))
                + text[start + 1 :]
            )
    return json.dumps(tree, indent=1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_random_damage_is_one_line_or_does_no_harm(dataset, backend):
    if backend == "array_record":
        pytest.importorskip("array_record")
    folder = dataset(backend)
    path = folder / "manifest.json"
    text = json.dumps(read_sealed_json(path, "a manifest", ""))
    stored = [value for value in content(folder) if isinstance(value, bytes)]
    messages = []
    for seed in range(300):
        path.write_text(damaged(json.loads(text), random.Random(seed)))
        try:
            got = content(folder)
        except WavegenError as error:
            messages.append(str(error))
            continue
        # Names of clips and splits may be anything; samples and features are those of one recording.
        assert all(
            any(whole.startswith(value) for whole in stored) for value in got if isinstance(value, bytes)
        )
    assert len(messages) > 200
    assert max(map(len, messages)) < 1100
    assert not any("\n" in message for message in messages)


# Files that lead elsewhere


@pytest.mark.parametrize("name", ["shard-00000.pcm", "shard-00000.features"])
def test_links_lead_nowhere_outside(dataset, tmp_path, name):
    folder = dataset()
    path = folder / name
    os.replace(path, tmp_path / "secret")
    path.symlink_to(tmp_path / "secret")
    with pytest.raises(WavegenError, match=f"{name} is a link to a file outside the dataset; replace it"):
        Dataset.open(folder)
    os.replace(tmp_path / "secret", folder / "inside")
    path.unlink()
    path.symlink_to("inside")
    os.symlink(folder, tmp_path / "linked")
    assert content(tmp_path / "linked") == content(folder)


def test_a_shard_that_is_no_file_is_refused(dataset):
    folder = dataset()
    (folder / "shard-00000.pcm").unlink()
    os.mkfifo(folder / "shard-00000.pcm")
    with pytest.raises(WavegenError, match="expected a file of a dataset, got a pipe"):
        Dataset.open(folder)


@pytest.mark.parametrize("names", [["../mine"], ["/mine"], [".."], ["a/../../mine"], [5], "mine"])
def test_a_journal_removes_nothing_outside(dataset, tmp_path, names):
    folder = dataset()
    (tmp_path / "mine").write_text("mine")
    (folder / "unfinished.json").write_text(json.dumps({"files": names}))
    with pytest.raises(WavegenError, match=r"unfinished\.json is damaged: .*; delete the folder, if nothing"):
        write(folder)
    assert (tmp_path / "mine").exists()


def test_a_damaged_journal_is_refused(dataset):
    folder = dataset()
    write_sealed_json(folder / "unfinished.json", json.dumps({"files": ["shard-00009.pcm"]}, indent=1))
    (folder / "shard-00008.pcm").write_text("mine")
    whole = (folder / "unfinished.json").read_bytes()
    (folder / "unfinished.json").write_bytes(whole.replace(b"9.pcm", b"8.pcm"))
    with pytest.raises(WavegenError, match=r"unfinished\.json is damaged: it does not have the sha256"):
        write(folder)
    assert (folder / "shard-00008.pcm").exists()
    (folder / "unfinished.json").write_bytes(whole)
    write(folder)
    assert not (folder / "unfinished.json").exists()


def test_records_that_are_not_there_are_named(dataset):
    pytest.importorskip("array_record")
    path = dataset("array_record") / "manifest.json"
    tree = read_sealed_json(path, "a manifest", "")
    tree["shards"][1]["files"][0]["offset"] = 50
    write_sealed_json(path, json.dumps(tree, indent=1))
    opened = Dataset.open(path.parent)
    files = opened.split("train")
    with pytest.raises(WavegenError, match=r"array_record is damaged \(expected a record .*, it has 69\)"):
        opened.read(files, files.names.index("clip2"), 0, 70_000)


def test_the_schema_has_no_field_without_bounds():
    """A new field must say what it may hold."""
    schema = Manifest.model_json_schema()
    for name, part in {**schema["$defs"], "Manifest": schema}.items():
        for key, field in part["properties"].items():
            for option in field.get("anyOf", [field]):
                bounds = {"maximum", "maxLength", "pattern", "enum", "const"}
                bounded = option.get("type") not in ("integer", "string", "number") or bounds & option.keys()
                # Their number is that of the blocks.
                assert bounded or (name, key) == ("DataFile", "blocks"), (name, key)
    with pytest.raises(WavegenError, match=r"cannot describe the dataset: .* at sample_rate; change it"):
        write_dataset("nowhere", [], 0)
