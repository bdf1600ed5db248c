"""Folders as people have them: links, copies, few files, long files, and what was lost in reading them."""

import os

import numpy as np
import pytest
import soundfile

from wavegen.audio import Audio
from wavegen.data.dataset import Dataset
from wavegen.data.prepare import prepare as prepare_anywhere
from wavegen.data.shards import Clip
from wavegen.data.write import write_dataset
from wavegen.errors import WavegenError

RATE = 8000


def prepare(folder, out, **options):
    """Prepares quietly and in this process."""
    return prepare_anywhere(folder, out, **({"sample_rate": RATE, "progress": False, "workers": 1} | options))


def write_noise(path, samples=400, seed=None):
    seed = sum(map(ord, path.name)) if seed is None else seed
    pcm = np.random.default_rng(seed).integers(-20000, 20000, samples).astype(np.int16)
    Audio.from_pcm16(pcm, RATE).write(path)


def splits(out):
    return {file.name: file.split for file in Dataset.open(out, verify=True).manifest.files}


def test_links_are_followed_once_and_what_is_left_out_is_said(tmp_path):
    folder = tmp_path / "in"
    write_noise(folder / "z" / "a.wav")
    write_noise(tmp_path / "elsewhere" / "b.wav")
    (folder / "a-link").symlink_to(folder / "z")  # the same folder, under an earlier name
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "linked-again").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "up").symlink_to(folder)  # a cycle
    (folder / "c.wav").symlink_to(tmp_path / "elsewhere" / "b.wav")
    (folder / "dangling.wav").symlink_to(tmp_path / "nothing.wav")
    (folder / "self.wav").symlink_to(folder / "self.wav")
    os.mkfifo(folder / "pipe.wav")
    report = prepare(folder, tmp_path / "out", split={})
    assert sorted(splits(tmp_path / "out")) == ["c.wav", "linked/b.wav", "z/a.wav"]
    reasons = {row.name: row.reason for row in report.skipped}
    assert reasons["dangling.wav"].startswith("a link to nothing")
    assert reasons["pipe.wav"] == "a special file, not a recording"
    assert reasons["self.wav"].startswith("it cannot be examined")


@pytest.mark.parametrize("count", [2, 3, 20])
def test_every_split_with_a_fraction_gets_a_recording(tmp_path, count):
    for number in range(count):
        write_noise(tmp_path / "in" / f"{number}.wav")
    report = prepare(tmp_path / "in", tmp_path / "out")
    counts = {split: report.files.get(split, 0) for split in ("train", "valid", "test")}
    assert counts["train"] >= 1
    assert counts["valid"] >= 1
    assert sum(counts.values()) == count
    assert (counts["test"] >= 1) == (count >= 3)
    assert report.empty == (("test",) if count == 2 else ())
    assert ("no files: add some" in str(report)) == (count == 2)
    before = splits(tmp_path / "out")
    assert prepare(tmp_path / "in", tmp_path / "out").shards_written == 0
    assert splits(tmp_path / "out") == before


@pytest.mark.parametrize("backend", ["memmap", "array_record"])
@pytest.mark.parametrize("others", [0, 2])
def test_a_lone_or_very_long_recording_is_cut_by_time(tmp_path, backend, others):
    if backend == "array_record":
        pytest.importorskip("array_record")
    write_noise(tmp_path / "in" / "long.wav", 50 * RATE + 123)
    for number in range(others):
        write_noise(tmp_path / "in" / f"{number}.wav", RATE)
    prepare(tmp_path / "in", tmp_path / "out", backend=backend, split={"test": 0.1, "valid": 0.1})
    dataset = Dataset.open(tmp_path / "out")
    parts = []
    for split in ("train", "test", "valid"):
        files = dataset.split(split)
        row = files.names.index(f"long.wav#{split}")
        parts.append(dataset.read(files, row, 0, int(files.length[row])))
    assert [round(len(part) / RATE) for part in parts] == [40, 5, 5]
    whole = Audio.read(tmp_path / "in" / "long.wav").to_pcm16()
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    np.testing.assert_array_equal(dataset.read(files, row, 3, 9000), parts[-1][3:9000])


def test_groups_and_copies_share_a_split(tmp_path):
    for speaker in range(12):
        for take in range(3):
            write_noise(tmp_path / "in" / f"s{speaker}_{take}.wav", seed=100 * speaker + take)
    options = {
        "label_pattern": "{speaker}_{take}",
        "split": {"test": 0.2, "valid": 0.2},
        "split_by": "speaker",
    }
    report = prepare(tmp_path / "in", tmp_path / "out", **options)
    found = splits(tmp_path / "out")
    by_speaker = {name.split("_")[0]: set() for name in found}
    for name, split in found.items():
        by_speaker[name.split("_")[0]].add(split)
    assert all(len(of_one) == 1 for of_one in by_speaker.values())
    assert set(report.files) == {"train", "valid", "test"}
    with pytest.raises(WavegenError, match="splits are made by the label 'word', got the fields"):
        prepare(tmp_path / "in", tmp_path / "other", **(options | {"split_by": "word"}))


def test_all_recordings_of_a_folder_share_a_split(tmp_path):
    for number in range(8):
        for name in "ab":
            write_noise(tmp_path / "in" / f"album{number}" / f"{name}.wav", seed=10 * number + ord(name))
    prepare(tmp_path / "in", tmp_path / "out", split={"valid": 0.3}, split_by="folder")
    found = splits(tmp_path / "out")
    assert set(found.values()) == {"train", "valid"}
    assert all(found[f"album{n}/a.wav"] == found[f"album{n}/b.wav"] for n in range(8))


def test_identical_recordings_are_named_and_never_on_two_sides(tmp_path):
    for number in range(6):
        write_noise(tmp_path / "in" / f"{number}.wav", seed=number)
        write_noise(tmp_path / "in" / f"copy-{number}.wav", seed=number)
    report = prepare(tmp_path / "in", tmp_path / "out", split={"test": 0.5})
    found = splits(tmp_path / "out")
    assert all(found[f"{n}.wav"] == found[f"copy-{n}.wav"] for n in range(6))
    assert set(found.values()) == {"train", "test"}
    assert ("0.wav", "copy-0.wav") in report.duplicates
    assert "6 recording(s) occur more than once" in str(report)
    assert "0.wav = copy-0.wav" in str(report)
    # A rule that holds one copy out holds out the other, too.
    prepare(tmp_path / "in", tmp_path / "ruled", split={"test": "copy-*"})
    assert set(splits(tmp_path / "ruled").values()) == {"test"}


def test_what_was_clipped_mixed_away_and_resampled_is_reported_and_kept(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    tone = np.sin(np.arange(RATE) / 5)
    soundfile.write(folder / "hot.wav", 1.2 * tone, RATE, subtype="FLOAT")
    soundfile.write(folder / "antiphase.wav", np.stack([tone, -tone], 1) / 2, RATE)
    soundfile.write(folder / "stereo.wav", np.stack([tone, tone], 1) / 2, RATE)
    soundfile.write(folder / "fast.wav", tone / 3, 2 * RATE)
    report = prepare(folder, tmp_path / "out", split={})
    losses = {file.name: file.losses for file in Dataset.open(tmp_path / "out").manifest.files}
    assert losses["hot.wav"] == {"samples clipped": int((np.abs(np.float32(1.2 * tone)) > 1.00002).sum())}
    assert losses["antiphase.wav"] == {
        "recordings mixed to mono": 1,
        "recordings whose channels cancel each other in the mix": 1,
        "recordings of silence": 1,
    }
    assert losses["stereo.wav"] == {"recordings mixed to mono": 1}
    assert losses["fast.wav"] == {"recordings resampled": 1}
    assert report.losses["recordings mixed to mono"] == (2, 2)
    assert "recordings whose channels cancel each other in the mix: 1 in 1 file(s)" in str(report)


def test_only_the_files_of_the_dataset_are_removed(tmp_path):
    write_noise(tmp_path / "in" / "a.wav")
    write_noise(tmp_path / "in" / "b.wav")
    out = tmp_path / "out"
    prepare(tmp_path / "in", out, shard_bytes=1)
    (out / "shard-notes.txt").write_text("mine")
    (out / "shard-00007.pcm").write_text("mine, too")
    (out / ".shard-mine.part").write_text("mine")
    os.utime(out / ".shard-mine.part", (0, 0))
    prepare(tmp_path / "in", out)
    write_dataset(out, [Clip("c", np.zeros(100, np.int16))], RATE)
    kept = {".shard-mine.part", "shard-00007.pcm", "shard-notes.txt"}
    assert {path.name for path in out.iterdir()} == kept | {
        "manifest.json",
        "shard-00000.json",
        "shard-00000.pcm",
    }


def test_a_folder_of_other_things_is_refused(tmp_path):
    write_noise(tmp_path / "in" / "a.wav")
    for name in ("manifest.json", "shard-00000.json", "notes.txt"):
        out = tmp_path / name.replace(".", "-")
        out.mkdir()
        (out / name).write_text("{}")
        with pytest.raises(
            WavegenError, match=f"expected an empty folder or a dataset, got .* with {name} in it"
        ):
            prepare(tmp_path / "in", out)
        with pytest.raises(WavegenError, match="which is no dataset; choose another folder"):
            write_dataset(out, [Clip("c", np.zeros(100, np.int16))], RATE)
        assert (out / name).read_text() == "{}"
    prepare(tmp_path / "in", tmp_path / "out")
    write_noise(tmp_path / "in" / "b.wav")
    (tmp_path / "out" / "shard-00001.pcm").write_text("mine")
    with pytest.raises(WavegenError, match=r"shard-00001\.pcm is not of this dataset, which needs the name"):
        prepare(tmp_path / "in", tmp_path / "out", shard_bytes=1)


def test_one_bad_file_costs_one_row(tmp_path):
    write_noise(tmp_path / "in" / "good.wav")
    write_noise(tmp_path / "in" / "rate.wav")
    data = bytearray((tmp_path / "in" / "rate.wav").read_bytes())
    data[24:28] = (0x7FFFFFFF).to_bytes(4, "little")
    (tmp_path / "in" / "rate.wav").write_bytes(data)
    report = prepare(tmp_path / "in", tmp_path / "out", split={})
    assert report.files == {"train": 1}
    assert [row.name for row in report.skipped] == ["rate.wav"]
