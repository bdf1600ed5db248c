"""Folders of recordings become datasets: files, labels, splits, resuming, and what is refused."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from wavegen.audio import Audio
from wavegen.config.splits import LabelPattern, SplitRule
from wavegen.data.batches import BatchSource
from wavegen.data.dataset import Dataset
from wavegen.data.prepare import prepare as prepare_anywhere
from wavegen.data.prepare import prepared
from wavegen.errors import WavegenError

RATE = 8000
BACKENDS = ["memmap", "array_record"]


def noise(seed, samples, channels=1):
    pcm = np.random.default_rng(seed).integers(-20000, 20000, (samples, channels))
    return Audio.from_pcm16(pcm.astype(np.int16), RATE)


@pytest.fixture
def recordings(tmp_path):
    """Twelve short recordings named digit_speaker_take."""
    folder = tmp_path / "recordings"
    names = [
        f"{digit}_{speaker}_{take}" for digit in (0, 10) for speaker in ("ann", "bo") for take in range(3)
    ]
    for index, name in enumerate(names):
        noise(index, 400 + 50 * index).write(folder / f"{name}.wav")
    return folder


def prepare(folder, out, **options):
    """Prepare quietly, and in this process unless told otherwise."""
    return prepare_anywhere(folder, out, **({"progress": False, "workers": 1} | options))


def contents(folder):
    """Every file below a folder: path to bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("backend", BACKENDS)
def test_prepared_recordings_are_stored_exactly_with_labels_and_splits(recordings, tmp_path, backend):
    if backend == "array_record":
        pytest.importorskip("array_record")
    report = prepare(
        recordings, tmp_path / "out", sample_rate=RATE, label_pattern="{digit}_{speaker}_{take}",
        split={"test": "take=0", "valid": "take=1"}, backend=backend, shard_bytes=3000,
    )  # fmt: skip
    dataset = Dataset.open(tmp_path / "out", verify=True)
    assert report.files == {"train": 4, "valid": 4, "test": 4}
    assert report.shards_written == len(dataset.manifest.shards) > 1
    assert dataset.splits == ("test", "train", "valid")
    assert dataset.labels == {"digit": ("0", "10"), "speaker": ("ann", "bo"), "take": ("0", "1", "2")}
    files = dataset.split("valid")
    assert files.names == ("0_ann_1.wav", "0_bo_1.wav", "10_ann_1.wav", "10_bo_1.wav")
    assert files.labels.tolist() == [[0, 0, 1], [0, 1, 1], [1, 0, 1], [1, 1, 1]]
    for row, name in enumerate(files.names):
        expected = Audio.read(recordings / name).to_pcm16()
        np.testing.assert_array_equal(dataset.read(files, row, 0, len(expected)), expected)
        np.testing.assert_array_equal(dataset.read(files, row, 100, 250), expected[100:250])


def test_rates_channels_and_formats_mix(tmp_path):
    folder = tmp_path / "mixed"
    for rate, channels, name in [(4000, 1, "a.wav"), (192000, 2, "b.flac"), (44100, 8, "sub/c.wav")]:
        time = np.arange(rate) / rate
        Audio(np.tile(0.5 * np.sin(2 * np.pi * 440 * time)[:, None], channels), rate).write(folder / name)
    prepare(folder, tmp_path / "out", sample_rate=16000, split={})
    dataset = Dataset.open(tmp_path / "out")
    files = dataset.split("train")
    assert files.names == ("a.wav", "b.flac", "sub/c.wav")
    assert files.length.tolist() == [16000, 16000, 16000]
    for row in range(3):
        pcm = dataset.read(files, row, 0, 16000)[:, 0]
        assert np.argmax(np.abs(np.fft.rfft(pcm))) == 440
        assert np.abs(pcm[100:-100]).max() == pytest.approx(16384, rel=0.02)


def test_channels_are_kept_where_asked_for(tmp_path):
    noise(0, 500, channels=2).write(tmp_path / "in" / "stereo.wav")
    noise(1, 500, channels=1).write(tmp_path / "in" / "mono.wav")
    noise(2, 500, channels=8).write(tmp_path / "in" / "eight.wav")
    prepare(tmp_path / "in", tmp_path / "out", sample_rate=RATE, channels=2, split={})
    dataset = Dataset.open(tmp_path / "out")
    files = dataset.split("train")
    assert files.names == ("eight.wav", "mono.wav", "stereo.wav")
    eight, mono, stereo = (dataset.read(files, row, 0, 500) for row in range(3))
    np.testing.assert_array_equal(stereo, noise(0, 500, channels=2).to_pcm16())
    np.testing.assert_array_equal(mono, np.repeat(noise(1, 500).to_pcm16(), 2, axis=1))
    np.testing.assert_array_equal(eight[:, 0], eight[:, 1])
    np.testing.assert_allclose(eight[:, 0], Audio.read(tmp_path / "in" / "eight.wav").mono().to_pcm16()[:, 0])
    prepare(tmp_path / "in", tmp_path / "three", sample_rate=RATE, channels=3, split={})
    with pytest.raises(WavegenError, match="mono or stereo dataset, got 3 channels"):
        BatchSource(Dataset.open(tmp_path / "three"), "train", batch_size=1, crop=8, seed=0)


def test_unusable_recordings_are_skipped_with_their_reasons(tmp_path):
    folder = tmp_path / "in"
    noise(0, 4000).write(folder / "0_good.wav")
    noise(0, 4000).write(folder / "nolabel.wav")
    (folder / "1_empty.wav").touch()
    (folder / "1_text.wav").write_text("no recording")
    Audio(np.zeros((0, 1)), RATE).write(folder / "1_zero.wav")
    Audio(np.zeros(4000), RATE).write(folder / "1_silent.wav")
    soundfile.write(folder / "1_nan.wav", np.full(100, np.nan), RATE, subtype="FLOAT")
    soundfile.write(folder / "1_loud.wav", np.full(100, 20000.0), RATE, subtype="FLOAT")
    soundfile.write(folder / "1_cut.mp3", np.tile(noise(0, 4000).samples, (8, 1)), RATE)
    (folder / "1_cut.mp3").write_bytes((folder / "1_cut.mp3").read_bytes()[:-3000])
    (folder / "1_phone.m4a").write_bytes(bytes(100))
    (folder / "notes.txt").write_text("not a recording, and not listed")
    (folder / "._0_good.wav").write_text("what a Macintosh leaves, not listed")
    report = prepare(
        folder, tmp_path / "out", sample_rate=RATE, label_pattern="{digit}_{word}", split={},
        trim_silence_db=40,
    )  # fmt: skip
    reasons = {row.name: row.reason for row in report.skipped}
    assert {name: reason for name, reason in reasons.items() if name != "1_cut.mp3"} == {
        "nolabel.wav": "its name does not match '{digit}_{word}'",
        "1_empty.wav": "the file is empty (0 bytes); copy it again",
        "1_text.wav": "it is damaged or not a recording that libsndfile decodes (Format not recognised); "
        "convert it to WAV or FLAC, or remove it",
        "1_zero.wav": "it has 0 samples, because it was cut short or never recorded; copy it again or remove it",
        "1_silent.wav": "expected sound, got nothing but silence; prepare without trim_silence_db",
        "1_nan.wav": "expected finite samples, got [nan] at sample 0; repair the recording",
        "1_loud.wav": "expected samples in [-1, 1], got a peak of 20000; scale it to [-1, 1]",
        "1_phone.m4a": "it is damaged or not a recording that libsndfile decodes (Format not recognised); "
        "convert it to WAV or FLAC, or remove it",
    }
    assert reasons["1_cut.mp3"].startswith("it is cut short (the header promises 32000 samples")
    assert report.files == {"train": 1}
    assert "skipped 9:" in str(report)
    assert "1_silent.wav: expected sound, got nothing but silence" in str(report)
    assert tuple(Dataset.open(tmp_path / "out").manifest.skipped) == report.skipped


def test_second_run_does_nothing_and_a_change_redoes_only_its_shard(recordings, tmp_path):
    def run():
        return prepare(recordings, tmp_path / "out", sample_rate=RATE, shard_bytes=2500)

    first = run()
    assert first.shards_written > 2
    before = contents(tmp_path / "out")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("shard-*")}
    assert run().shards_written == 0
    assert contents(tmp_path / "out") == before
    assert {path: path.stat().st_mtime_ns for path in times} == times

    (tmp_path / "out" / "shard-00001.pcm").unlink()
    assert run().shards_written == 1
    assert contents(tmp_path / "out") == before

    noise(99, 600).write(recordings / "10_bo_2.wav")
    last = run()
    assert (last.shards_written, last.shards_kept) == (1, first.shards_written - 1)
    assert (
        Dataset.open(tmp_path / "out", verify=True).manifest.inputs
        != json.loads(before["manifest.json"])["inputs"]
    )


def test_interrupted_run_resumes_where_it_was(recordings, tmp_path, monkeypatch):
    whole = prepare(recordings, tmp_path / "whole", sample_rate=RATE, shard_bytes=1)
    assert whole.shards_written == 12

    read = Audio.read

    def stop_at_the_eighth(path, **options):
        if path.name == "10_ann_1.wav":
            raise KeyboardInterrupt
        return read(path, **options)

    monkeypatch.setattr(Audio, "read", stop_at_the_eighth)
    with pytest.raises(KeyboardInterrupt):
        prepare(recordings, tmp_path / "out", sample_rate=RATE, shard_bytes=1)
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert not list((tmp_path / "out").glob(".*"))
    monkeypatch.undo()

    report = prepare(recordings, tmp_path / "out", sample_rate=RATE, shard_bytes=1)
    assert report.shards_kept == 7
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_machines_processes_and_one_process_make_the_same_dataset(recordings, tmp_path):
    options = {"sample_rate": RATE, "shard_bytes": 2500}
    prepare(recordings, tmp_path / "one", **options)
    prepare(recordings, tmp_path / "pool", workers=2, **options)
    for machine in (2, 0, 1):
        report = prepare(recordings, tmp_path / "three", shard_index=machine, num_shards=3, **options)
        if machine != 1:
            assert f"waiting for {report.shards_missing} shard(s) of other machines" in str(report)
            with pytest.raises(WavegenError, match=r"got no manifest\.json there; run `wavegen prepare`"):
                Dataset.open(tmp_path / "three")
    assert report.shards_missing == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "pool") == contents(tmp_path / "three")


def test_other_settings_replace_the_dataset_and_leave_nothing_behind(recordings, tmp_path):
    prepare(recordings, tmp_path / "out", sample_rate=RATE, shard_bytes=1)
    prepare(recordings, tmp_path / "out", sample_rate=4000)
    assert sorted(contents(tmp_path / "out")) == ["manifest.json", "shard-00000.json", "shard-00000.pcm"]
    assert Dataset.open(tmp_path / "out", verify=True).sample_rate == 4000


def test_parts_of_killed_runs_are_removed_once_they_are_old(recordings, tmp_path):
    parts = [tmp_path / "out" / f".shard-00000.pcm.{name}.part" for name in ("old", "new")]
    parts[0].parent.mkdir()
    for part in parts:
        part.touch()
    os.utime(parts[0], (0, 0))
    prepare(recordings, tmp_path / "out", sample_rate=RATE)
    assert [part.exists() for part in parts] == [False, True]


def die(*arguments):
    os._exit(1)


def test_death_of_a_worker_process_is_reported(recordings, tmp_path, monkeypatch):
    monkeypatch.setattr("wavegen.data.prepare.make_shard", die)
    with pytest.raises(
        WavegenError, match=r"a worker process died, .* use fewer than 2 workers and run again"
    ):
        prepare(recordings, tmp_path / "out", sample_rate=RATE, shard_bytes=1, workers=2)


def test_folder_is_prepared_once_into_the_cache(recordings, tmp_path):
    out = prepared(recordings, tmp_path / "cache", sample_rate=RATE)
    made = (out / "manifest.json").stat().st_mtime_ns
    assert prepared(recordings, tmp_path / "cache", sample_rate=RATE, progress=True) == out
    assert (out / "manifest.json").stat().st_mtime_ns == made
    assert prepared(out, tmp_path / "cache", sample_rate=4000) == out
    assert prepared(recordings, tmp_path / "cache", sample_rate=4000) != out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample_rate": 0}, "expected sample_rate of at least 1, got 0"),
        ({"trim_silence_db": -40.0}, r"expected trim_silence_db above 0, got -40\.0"),
        ({"shard_index": 2, "num_shards": 2}, "expected 0 <= shard_index < num_shards, got 2 of 2"),
        ({"label_pattern": "*"}, r"expected a label pattern such as .* got '\*'"),
        ({"label_pattern": "{a}{b}"}, "with text between two of them"),
        (
            {"split": {"test": 1.5}},
            r"expected split fractions in \[0, 1\] of sum at most 1, got \{'test': 1\.5\}",
        ),
        ({"split": {"test": "take"}}, r"expected a fraction, labels \('take=0-4'\) or a path pattern"),
        ({"split": {"test": "take=1"}}, r"split 'test' asks for the label 'take', got the fields \[\]"),
    ],
)
def test_bad_settings_are_named_before_the_work(recordings, tmp_path, options, message):
    with pytest.raises(WavegenError, match=message):
        prepare(recordings, tmp_path / "out", **({"sample_rate": RATE} | options))


def test_unknown_backend_is_named(tmp_path):
    # In a process of its own: the type checker of the tests would speak first.
    call = f"prepare('in', {str(tmp_path)!r}, sample_rate=1, backend='tape')"
    code = f"from wavegen.data.prepare import prepare; {call}"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stderr.endswith("WavegenError: expected the backend memmap or array_record, got 'tape'\n")


def test_missing_and_empty_folders_are_named(tmp_path):
    with pytest.raises(
        WavegenError, match=r"expected a folder of recordings, got .*nowhere, which is not a folder"
    ):
        prepare(tmp_path / "nowhere", tmp_path / "out", sample_rate=RATE)
    (tmp_path / "empty").mkdir()
    with pytest.raises(WavegenError, match=r"expected recordings .* in .*empty, got none; check the path"):
        prepare(tmp_path / "empty", tmp_path / "out", sample_rate=RATE)
    (tmp_path / "empty" / "a.wav").touch()
    message = r"expected at least one usable recording .* got none; the first of 1, a\.wav: the file is empty"
    with pytest.raises(WavegenError, match=message):
        prepare(tmp_path / "empty", tmp_path / "out", sample_rate=RATE)


@pytest.mark.parametrize("backend", BACKENDS)
def test_full_disk_is_reported_and_finished_shards_are_kept(tmp_path, backend):
    resource = pytest.importorskip("resource")
    if backend == "array_record":
        pytest.importorskip("array_record")
    noise(0, 1000).write(tmp_path / "in" / "a.wav")
    noise(1, 100_000).write(tmp_path / "in" / "b.wav")
    options = {"sample_rate": RATE, "backend": backend, "shard_bytes": 1, "split": {}}
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (131072, old[1]))
    try:
        with pytest.raises(
            WavegenError, match=r"cannot write .*shard-00001\.\w+: .*; free some space or choose"
        ):
            prepare(tmp_path / "in", tmp_path / "out", **options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert prepare(tmp_path / "in", tmp_path / "out", **options).shards_kept == 1
    assert len(list(Dataset.open(tmp_path / "out", verify=True).manifest.files)) == 2


def test_unwritable_output_is_reported(recordings, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(
        WavegenError, match=r"cannot write .*; free some space or choose a folder you can write to"
    ):
        prepare(recordings, tmp_path / "file" / "out", sample_rate=RATE)


# Labels and splits


@pytest.mark.parametrize(
    ("pattern", "name", "labels"),
    [
        ("{digit}_{speaker}_{take}", "7_theo_12.wav", {"digit": "7", "speaker": "theo", "take": "12"}),
        (
            "{digit}_{speaker}_{take}",
            "deep/down/7_theo_12.wav",
            {"digit": "7", "speaker": "theo", "take": "12"},
        ),
        ("folder", "birds/wren.v2.flac", {"folder": "birds"}),
        ("folder", "wren.flac", None),
        ("{artist}/{album}/*", "x/anna/first/01.mp3", {"artist": "anna", "album": "first"}),
        ("{pitch}-*", "C4-loud.wav", {"pitch": "C4"}),
        ("{digit}_{speaker}", "7.wav", None),
    ],
)
def test_labels_come_from_the_path(pattern, name, labels):
    assert LabelPattern(pattern).labels(name) == labels


@pytest.mark.parametrize("pattern", ["{2}_{take}", "{²}", "{take", "{a}_{a}", "{a}{b}", "plain"])
def test_label_patterns_that_name_no_fields_are_refused(pattern):
    with pytest.raises(WavegenError, match="expected a label pattern such as"):
        LabelPattern(pattern)


def test_fractions_split_by_name_alone():
    names = [f"file{index}.wav" for index in range(4000)]
    rule = SplitRule({"valid": 0.1, "test": 0.2})
    splits = [rule.split(name, {}) for name in names]
    for split, share in {"valid": 0.1, "test": 0.2, "train": 0.7}.items():
        assert splits.count(split) / len(names) == pytest.approx(share, abs=0.03)
    assert [rule.split(name, {}) for name in names[::-1]] == splits[::-1]


def test_rules_go_before_fractions():
    rule = SplitRule({"all": 1.0, "test": "take=0-4,7", "valid": "speaker=ann", "extra": "more/*"})
    assert rule.split("a.wav", {"take": "4", "speaker": "ann"}) == "test"
    assert rule.split("a.wav", {"take": "7", "speaker": "ann"}) == "test"
    assert rule.split("a.wav", {"take": "5", "speaker": "ann"}) == "valid"
    assert rule.split("more/deep/a.wav", {"take": "40", "speaker": "bo"}) == "extra"
    assert rule.split("a.wav", {"take": "40", "speaker": "bo"}) == "all"
