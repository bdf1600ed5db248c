import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wavegen.audio import Audio
from wavegen.codecs.mulaw import Linear
from wavegen.data.batches import BatchSource, EvaluationSource, iterator
from wavegen.data.dataset import Dataset
from wavegen.data.device import augment, frame_mask, make_example, shift, to_waveform
from wavegen.data.prepare import Clip, prepared, write_dataset
from wavegen.data.prepare import prepare as prepare_anywhere
from wavegen.data.splits import LabelPattern, SplitRule
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


def ramp_dataset(folder, lengths, hop=None, backend="memmap", shard_samples=2**26):
    """Clips whose sample t is t (mod 2**15), with features [clip, frame]."""

    def features(index, length):
        frames = np.arange(-(-length // hop))
        return np.stack([np.full_like(frames, index), frames], axis=1).astype(np.float32)

    clips = [
        Clip(
            name=f"clip{index}",
            pcm=(np.arange(length) % 2**15).astype(np.int16),
            labels={"clip": str(index)},
            features=None if hop is None else features(index, length),
        )
        for index, length in enumerate(lengths)
    ]
    write_dataset(folder, clips, RATE, hop, backend=backend, shard_samples=shard_samples)
    return Dataset.open(folder, verify=True)


# Preparation


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
    np.testing.assert_array_equal(dataset.read(files, 0, 0, 500), noise(0, 500, channels=2).to_pcm16())
    assert {row.name: row.reason for row in dataset.manifest.skipped} == {
        "eight.wav": "expected 2 channels, got 8; channels=1 mixes to mono",
        "mono.wav": "expected 2 channels, got 1; channels=1 mixes to mono",
    }
    with pytest.raises(
        WavegenError, match="expected a mono dataset, got 2 channels; prepare it with channels=1"
    ):
        BatchSource(dataset, "train", batch_size=1, crop=8, seed=0)


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
        "1_text.wav": "it is damaged or no recording that libsndfile decodes (Format not recognised); "
        "convert it to WAV or FLAC, or remove it",
        "1_zero.wav": "it holds 0 samples, cut short or never recorded; copy it again or remove it",
        "1_silent.wav": "nothing but silence; a trimmed recording needs sound",
        "1_nan.wav": "expected finite samples, got [nan] at sample 0; repair the recording",
        "1_loud.wav": "expected samples in [-1, 1], got a peak of 20000; scale it to [-1, 1]",
        "1_phone.m4a": "it is damaged or no recording that libsndfile decodes (Format not recognised); "
        "convert it to WAV or FLAC, or remove it",
    }
    assert reasons["1_cut.mp3"].startswith("it is cut short (the header promises 32000 samples")
    assert report.files == {"train": 1}
    assert "skipped 9:" in str(report)
    assert "1_silent.wav: nothing but silence" in str(report)
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

    def stop_at_the_eighth(path):
        if path.name == "10_ann_1.wav":
            raise KeyboardInterrupt
        return read(path)

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
        WavegenError, match=r"expected a folder of recordings, got .*nowhere, which is no folder"
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
    options = {"sample_rate": RATE, "backend": backend, "shard_bytes": 1}
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


# Stored datasets


def test_array_records_read_as_memmaps_do(tmp_path, rng):
    pytest.importorskip("array_record")
    lengths = [1, RATE - 1, RATE, RATE + 1, 2 * RATE, 5 * RATE + 17]
    flat = ramp_dataset(tmp_path / "flat", lengths)
    records = ramp_dataset(tmp_path / "records", lengths, backend="array_record")
    files, others = flat.split("train"), records.split("train")
    for row, length in enumerate(lengths):
        for start, stop in [(0, length), *np.sort(rng.integers(0, length + 1, (20, 2))).tolist()]:
            expected = flat.read(files, row, start, stop)
            assert len(expected) == stop - start
            np.testing.assert_array_equal(records.read(others, row, start, stop), expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_damaged_shards_are_named(tmp_path, backend):
    if backend == "array_record":
        pytest.importorskip("array_record")
    ramp_dataset(tmp_path, [5000, 3000], hop=100, backend=backend)
    (shard,) = [path for path in tmp_path.iterdir() if path.suffix in (".pcm", ".array_record")]
    for path in (shard, tmp_path / "shard-00000.features"):
        whole = path.read_bytes()
        damaged = bytearray(whole)
        damaged[len(damaged) // 2] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(WavegenError, match=rf"expected sha256 \w+\.\.\. of .*{path.name}, got .*damaged"):
            Dataset.open(tmp_path, verify=True)
        path.write_bytes(whole[:-1])
        with pytest.raises(
            WavegenError, match=rf"expected {len(whole)} bytes in .*{path.name}, got {len(whole) - 1};"
        ):
            Dataset.open(tmp_path)
        path.unlink()
        with pytest.raises(WavegenError, match=rf"bytes in .*{path.name}, got no such file; prepare"):
            Dataset.open(tmp_path)
        path.write_bytes(whole)
    Dataset.open(tmp_path, verify=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:100], r"expected a manifest in .*manifest\.json, got damaged JSON"),
        (lambda text: "[]", r"expected a manifest in .*manifest\.json, got damaged JSON"),
        (
            lambda text: text.replace('"version":', '"version": 9').replace("9 1", "9"),
            "manifest of version 1",
        ),
        (
            lambda text: text.replace('"length"', '"lenght"'),
            r"damaged manifest .*: Field required at shards\.0\.files",
        ),
    ],
)
def test_damaged_manifests_are_refused(tmp_path, change, message):
    ramp_dataset(tmp_path, [50])
    path = tmp_path / "manifest.json"
    path.write_text(change(path.read_text()))
    with pytest.raises(WavegenError, match=message):
        Dataset.open(tmp_path)


@pytest.mark.parametrize(
    ("clips", "hop", "message"),
    [
        ([], None, "expected at least one usable recording"),
        (
            [Clip("a", np.zeros(0, np.int16))],
            None,
            r"expected int16 samples \[T above 0, 1\] in clip a, got int16 \[0, 1\]",
        ),
        ([Clip("a", np.zeros((9, 2), np.int16))], None, r"in clip a, got int16 \[9, 2\]"),
        ([Clip("a", np.zeros(9, np.int16))] * 2, None, "expected unique clip names, got 'a' 2 times"),
        ([Clip("a", np.zeros(9, np.int16))], 4, "expected 3 feature frames in clip a of 9 samples, got None"),
        (
            [Clip("a", np.zeros(9, np.int16), features=np.zeros((2, 4), np.float32))],
            4,
            "expected 3 feature frames in clip a of 9 samples, got 2",
        ),
        (
            [
                Clip("a", np.zeros(4, np.int16), features=np.zeros((1, 4), np.float32)),
                Clip("b", np.zeros(4, np.int16), features=np.zeros((1, 3), np.float32)),
            ],
            4,
            "expected 4 feature columns in clip b, got 3",
        ),
        (
            [Clip("a", np.zeros(4, np.int16), {"x": "1"}), Clip("b", np.zeros(4, np.int16), {"y": "1"})],
            None,
            r"expected the label fields \['x'\] of a, got \['y'\] in b",
        ),
    ],
)
def test_clips_that_do_not_fit_are_named(tmp_path, clips, hop, message):
    with pytest.raises(WavegenError, match=message):
        write_dataset(tmp_path, clips, RATE, hop)
    assert not (tmp_path / "manifest.json").exists()


# Batches


def test_batch_is_a_pure_function_of_seed_and_step(tmp_path):
    dataset = ramp_dataset(tmp_path, [1000, 5000, 300], hop=10)
    source = BatchSource(dataset, "train", batch_size=4, crop=200, seed=7)
    again = BatchSource(dataset, "train", batch_size=4, crop=200, seed=7)
    other = BatchSource(dataset, "train", batch_size=4, crop=200, seed=8)
    jax.tree.map(np.testing.assert_array_equal, source.batch(123456), again.batch(123456))
    assert not np.array_equal(source.batch(0)["pcm"], source.batch(1)["pcm"])
    assert not np.array_equal(source.batch(0)["pcm"], other.batch(0)["pcm"])


def test_rows_hold_what_they_say(tmp_path):
    hop = 10
    lengths = [1000, 5000, 305, 40]
    dataset = ramp_dataset(tmp_path, lengths, hop=hop, shard_samples=4000)
    assert len(dataset.manifest.shards) == 2
    source = BatchSource(dataset, "train", batch_size=64, crop=200, seed=0)
    batch = source.batch(0)
    assert {name: (array.shape, array.dtype) for name, array in batch.items()} == {
        "pcm": ((64, 200), np.int16),
        "length": ((64,), np.int32),
        "context": ((64,), np.int32),
        "start": ((64,), np.int64),
        "file": ((64,), np.int32),
        "labels": ((64, 1), np.int32),
        "features": ((64, 20, 2), np.float32),
    }
    for row in range(64):
        file, start, valid = (int(batch[name][row]) for name in ("file", "start", "length"))
        assert start % hop == 0
        assert valid == min(200, lengths[file])
        assert start + valid <= lengths[file]
        expected = np.zeros(200)
        expected[:valid] = np.arange(start, start + valid)
        np.testing.assert_array_equal(batch["pcm"][row], expected)
        frames = -(-valid // hop)
        expected = np.zeros((20, 2))
        expected[:frames] = np.stack([np.full(frames, file), start // hop + np.arange(frames)], axis=1)
        np.testing.assert_array_equal(batch["features"][row], expected)
        assert dataset.labels["clip"][batch["labels"][row, 0]] == str(file)


def test_files_are_drawn_by_length_and_crops_reach_both_ends(tmp_path):
    source = BatchSource(ramp_dataset(tmp_path, [1000, 3000, 60]), "train", batch_size=500, crop=100, seed=0)
    batches = [source.batch(step) for step in range(20)]
    file, start = (np.concatenate([batch[name] for batch in batches]) for name in ("file", "start"))
    np.testing.assert_allclose(np.bincount(file) / len(file), np.array([1000, 3000, 60]) / 4060, atol=0.02)
    assert start[file == 0].min() == 0
    assert start[file == 0].max() == 900
    assert start[file == 0].mean() == pytest.approx(450, abs=20)
    assert not start[file == 2].any()


@pytest.mark.parametrize("hosts", [1, 2, 4])
@pytest.mark.parametrize("prefetch", [0, 1, 8])
def test_order_is_the_same_for_any_host_count_and_prefetch(tmp_path, hosts, prefetch):
    dataset = ramp_dataset(tmp_path, [1000, 5000, 300], hop=10)
    options = {"batch_size": 8, "crop": 200, "seed": 3}
    whole = BatchSource(dataset, "train", **options)
    streams = [
        iterator(
            BatchSource(dataset, "train", **options, process_index=host, process_count=hosts),
            start_step=5, end_step=11, prefetch=prefetch,
        )
        for host in range(hosts)
    ]  # fmt: skip
    steps = 0
    for step, parts in enumerate(zip(*streams, strict=True), start=5):
        joined = jax.tree.map(lambda *rows: np.concatenate(rows), *parts)
        jax.tree.map(np.testing.assert_array_equal, joined, whole.batch(step))
        steps += 1
    assert steps == 6


def test_training_batches_never_end(tmp_path):
    source = BatchSource(ramp_dataset(tmp_path, [500]), "train", batch_size=2, crop=100, seed=0)
    batches = iterator(source, start_step=10**9)
    for step in range(3):
        np.testing.assert_array_equal(next(batches)["pcm"], source.batch(10**9 + step)["pcm"])


def test_errors_of_the_reading_thread_reach_the_caller(tmp_path):
    dataset = ramp_dataset(tmp_path, [500])
    source = BatchSource(dataset, "train", batch_size=2, crop=100, seed=0)
    (tmp_path / "shard-00000.pcm").unlink()
    with pytest.raises(WavegenError, match=r"expected the shard .*, got no such file"):
        next(iterator(source))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop": 105}, "expected crop to be a multiple of the feature hop, 10 samples, got 105; use 110"),
        ({"crop": 0}, "expected a crop of at least 1 sample, got 0"),
        ({"seed": -1}, "expected a seed of at least 0, got -1"),
        (
            {"batch_size": 6, "process_count": 4},
            r"expected a batch size that 4 process\(es\) share evenly, got 6",
        ),
        ({"batch_size": 0}, r"expected a batch size that 1 process\(es\) share evenly, got 0"),
        ({"process_index": 1}, "expected 0 <= process_index < 1, got 1"),
        ({"split": "valid"}, "expected recordings in split 'valid' of .*, got none; it has train"),
        ({"fields": ["speaker"]}, r"expected label fields among \['clip'\] of .*, got 'speaker'"),
    ],
)
def test_batches_that_cannot_be_made_are_refused(tmp_path, options, message):
    dataset = ramp_dataset(tmp_path, [500], hop=10)
    with pytest.raises(WavegenError, match=message):
        BatchSource(dataset, **({"split": "train", "batch_size": 2, "crop": 100, "seed": 0} | options))


# Evaluation


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(1, 400), min_size=1, max_size=6),
    hop=st.sampled_from([None, 4, 10]),
    window=st.integers(1, 12),
    context=st.integers(0, 12),
    batch_size=st.sampled_from([2, 4]),
    hosts=st.sampled_from([1, 2]),
)
def test_evaluation_scores_every_sample_exactly_once(
    tmp_path_factory, lengths, hop, window, context, batch_size, hosts
):
    dataset = ramp_dataset(tmp_path_factory.mktemp("data"), lengths, hop)
    window, context = window * (hop or 1), context * (hop or 1)
    scored = [np.zeros(length, int) for length in lengths]
    for host in range(hosts):
        source = EvaluationSource(
            dataset, "train", batch_size=batch_size, window=window, context=context,
            process_index=host, process_count=hosts,
        )  # fmt: skip
        for batch in iterator(source):
            assert batch["pcm"].shape[0] == batch_size // hosts
            for row, file in enumerate(batch["file"]):
                start, first, last = (int(batch[name][row]) for name in ("start", "context", "length"))
                if file < 0:
                    assert last == 0
                    continue
                scored[file][start + first : start + last] += 1
                np.testing.assert_array_equal(batch["pcm"][row, :last], np.arange(start, start + last))
                assert not batch["pcm"][row, last:].any()
                assert first == (context if start else 0)
                if hop is not None:
                    assert batch["features"][row, 0].tolist() == [file, start // hop]
    for count in scored:
        assert (count == 1).all()


def test_evaluation_wastes_little_on_short_files(tmp_path, rng):
    lengths = rng.integers(100, 4000, 200).tolist()
    source = EvaluationSource(ramp_dataset(tmp_path, lengths), "train", batch_size=8, window=4096, context=0)
    batches = list(iterator(source))
    assert sum(batch["pcm"].size for batch in batches) < 1.3 * sum(lengths)
    assert len({batch["pcm"].shape for batch in batches}) <= 8


PCM = Linear(65536)  # tokens are the int16 values plus 32768


def test_enough_context_makes_windowed_likelihood_exact(tmp_path, rng):
    receptive_field = 16
    clips = [
        Clip(f"clip{length}", rng.integers(-(2**15), 2**15, length).astype(np.int16)) for length in (36, 196)
    ]
    write_dataset(tmp_path, clips, RATE)
    dataset = Dataset.open(tmp_path)
    weights = jnp.asarray(rng.normal(size=receptive_field))

    @jax.jit
    def scores(batch):
        """A causal function of the last inputs, zeros before the first, as a model's hidden history is."""
        example = make_example(batch, PCM)
        inputs = jnp.pad(example["inputs"][..., 0], ((0, 0), (receptive_field - 1, 0)))
        taps = jnp.stack([inputs[:, i : i + batch["pcm"].shape[1]] for i in range(receptive_field)], axis=-1)
        return jnp.where(example["mask"], taps @ weights + example["targets"][..., 0], 0)

    def per_file(window, context):
        source = EvaluationSource(dataset, "train", batch_size=2, window=window, context=context)
        totals = np.zeros(2)
        for batch in iterator(source):
            for file, total in zip(batch["file"], np.asarray(scores(batch)).sum(axis=1), strict=True):
                totals[file] += total if file >= 0 else 0
        return totals

    whole = per_file(window=196, context=0)
    np.testing.assert_allclose(per_file(window=20, context=receptive_field), whole, rtol=1e-4)
    assert not np.allclose(per_file(window=22, context=receptive_field - 2)[1], whole[1], rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 0}, "expected a window of at least 1 sample, got 0"),
        ({"window": 15}, "expected window to be a multiple of the feature hop, 10 samples, got 15; use 20"),
        ({"context": 15}, "expected context to be a multiple of the feature hop, 10 samples, got 15; use 20"),
    ],
)
def test_evaluation_that_cannot_be_made_is_refused(tmp_path, options, message):
    dataset = ramp_dataset(tmp_path, [500], hop=10)
    with pytest.raises(WavegenError, match=message):
        EvaluationSource(dataset, "train", **({"batch_size": 2, "window": 100, "context": 50} | options))


# The device half


def host_batch(rng, rows=4, samples=32):
    return {
        "pcm": jnp.asarray(rng.integers(-(2**15), 2**15, (rows, samples)), jnp.int16),
        "length": jnp.array([samples, 5, 1, 0]),
        "context": jnp.array([0, 2, 0, 0]),
        "labels": jnp.zeros((rows, 2), jnp.int32),
    }


def test_inputs_are_the_targets_one_frame_later_behind_the_start_token(rng):
    batch = host_batch(rng)
    example = jax.jit(lambda batch: make_example(batch, PCM))(batch)
    np.testing.assert_array_equal(example["targets"][..., 0], batch["pcm"].astype(int) + 32768)
    np.testing.assert_array_equal(example["inputs"][:, 1:], example["targets"][:, :-1])
    assert (example["inputs"][:, 0] == 32768).all()
    assert "features" not in example


def test_mask_holds_the_valid_frames_after_the_context(rng):
    example = make_example(host_batch(rng), PCM)
    assert [np.flatnonzero(row).tolist() for row in example["mask"]] == [list(range(32)), [2, 3, 4], [0], []]
    frames = frame_mask(jnp.array([0, 8]), jnp.array([9, 16]), frames=4, hop=4)
    assert frames.tolist() == [[True, True, True, False], [False, False, True, True]]


def test_augmentation_changes_gain_and_sign_of_whole_clips(key):
    waveform = jnp.broadcast_to(jnp.linspace(-0.5, 0.5, 9)[None], (200, 9))
    louder = augment(waveform, key, gain_db=(-6.0, 3.0), polarity=True)
    scale = louder[:, 0] / waveform[:, 0]
    np.testing.assert_allclose(louder, waveform * scale[:, None], atol=1e-6)
    decibels = 20 * jnp.log10(jnp.abs(scale))
    assert decibels.min() == pytest.approx(-6, abs=0.3)
    assert decibels.max() == pytest.approx(3, abs=0.3)
    assert 70 < (scale < 0).sum() < 130
    assert jnp.abs(augment(waveform, key, gain_db=(20.0, 20.0))).max() == 1


def test_without_a_key_or_by_default_waveforms_stay_as_they_are(rng, key):
    batch = host_batch(rng)
    plain = np.asarray(batch["pcm"], np.float32) / 32768
    np.testing.assert_array_equal(to_waveform(batch["pcm"]), plain)
    np.testing.assert_array_equal(
        make_example(batch, PCM, gain_db=(6.0, 6.0), polarity=True)["waveform"], plain
    )
    np.testing.assert_array_equal(make_example(batch, PCM, key)["waveform"], plain)


def test_shift_keeps_shape_and_codebooks_apart():
    tokens = jnp.arange(12).reshape(1, 4, 3)
    assert shift(tokens, 99).tolist() == [[[99, 99, 99], [0, 1, 2], [3, 4, 5], [6, 7, 8]]]
