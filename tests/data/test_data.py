"""Stored datasets, training batches and evaluation batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wavegen.codecs.samples import Linear
from wavegen.data.batches import BatchSource, EvaluationSource, iterator
from wavegen.data.dataset import Dataset
from wavegen.data.device import make_example
from wavegen.data.prepare import Clip, write_dataset
from wavegen.errors import WavegenError

RATE = 8000
BACKENDS = ["memmap", "array_record"]


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
            lambda text: text.replace('"version": 1', '"version": 9'),
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
    text, _, seal = path.read_text().rpartition(',\n "sha256": ')
    assert len(seal) == 68
    path.write_text(change(text + "\n}"))
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
    with pytest.raises(WavegenError, match=r"expected 1000 bytes in .*, got no such file"):
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
