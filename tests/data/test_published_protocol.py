"""With the SaShiMi codec every stage reads the windows, and codes the tokens, of the published protocol."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wavegen.audio import Audio
from wavegen.config import Config
from wavegen.config.splits import SplitRule, resolved_splits
from wavegen.data.batches import BatchSource
from wavegen.data.open import open_dataset
from wavegen.errors import WavegenError
from wavegen.generation.audio import AudioGenerator
from wavegen.models.kinds import make_model
from wavegen.networks.base import parameters
from wavegen.runs.trained import Trained, open_codecs
from wavegen.training.evaluate import evaluate, evaluation_source
from wavegen.training.mesh import make_mesh
from wavegen.training.step import make_evaluation_step, make_examples

WINDOW, RATE = 4000, 16000
LENGTHS = {"1.wav": 13_500, "2.wav": 8000, "10.wav": 9100, "11.wav": 3000}


def published(window):
    """The tokens of one window: stretched to [0, 1], and binned linearly (Goel et al. 2022)."""
    x = window.astype(np.float32) / 32768
    x = (x - x.min()) / (x.max() - x.min() + np.float32(1e-6))
    return np.floor(x * np.float32(256 - 0.01) + np.float32(0.005)).astype(int)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An experiment, its recordings, whose offsets make zeros no harmless padding, and what it opens."""
    folder = tmp_path_factory.mktemp("protocol")
    random = np.random.default_rng(0)
    recordings = {}
    for name, length in LENGTHS.items():
        level = np.interp(np.arange(length), [0, length], [800, 9000])
        recordings[name] = (12_000 + level * random.uniform(-1, 1, length)).astype(np.int16)
        Audio(recordings[name].astype(np.float32)[:, None] / 32768, RATE).write(folder / "in" / name)
    config = Config.model_validate(
        {
            "data": {
                "path": str(folder / "in"),
                "cache": str(folder / "cache"),
                "sample_rate": RATE,
                "crop": WINDOW,
                "batch_size": 8,
                "split": {"valid": "order:0-0.5", "test": "order:0.5-1"},
            },
            "codec": {"kind": "sashimi", "quantization": "linear"},
            "model": {"kind": "lstm", "width": 4, "layers": 1, "dropout": 0},
            "optimizer": {"warmup_steps": 0},
        }
    )
    dataset, codecs = open_dataset(config), open_codecs(config)
    return config, recordings, dataset, codecs, make_model(config, codecs, {})


def examples_of(config, model, codecs, batch):
    read = {name: jnp.asarray(rows) for name, rows in batch.items() if name not in ("file", "start")}
    return make_examples(config, model, codecs, read, None)


def test_evaluation_scores_the_windows_and_tokens_of_the_protocol(made):
    """Whole windows from the start of each file; of a file that is shorter than one all of it."""
    config, recordings, dataset, codecs, model = made
    assert list(dataset.split("valid").names) == ["1.wav", "2.wav"]
    found = {}
    for split in ("valid", "test"):
        source = evaluation_source(config, dataset, split, model, codecs)
        for number in range(len(source)):
            batch = source.batch(number)
            examples = examples_of(config, model, codecs, batch)
            for row in np.flatnonzero(batch["file"] >= 0):
                place = source.files.names[batch["file"][row]], int(batch["start"][row])
                scored = np.asarray(examples["mask"][row])
                found[place] = np.asarray(examples["targets"])[row, scored, 0]
                assert int(examples["inputs"][row, 0, 0]) == 128
    expected = {
        (name, first): published(pcm[first : first + WINDOW])
        for name, pcm in recordings.items()
        for first in range(0, max(len(pcm) - WINDOW, 0) + 1, WINDOW)
    }
    assert found.keys() == expected.keys()
    for place, tokens in expected.items():
        np.testing.assert_array_equal(found[place], tokens)


def test_training_reads_the_same_windows(made):
    config, recordings, dataset, codecs, model = made
    source = BatchSource(dataset, "test", batch_size=8, crop=WINDOW, seed=0, period=codecs.tokens.period)
    starts = set()
    for step in range(4):
        batch = source.batch(step)
        targets = np.asarray(examples_of(config, model, codecs, batch)["targets"])[:, :, 0]
        for row, (file, start, length) in enumerate(
            zip(batch["file"], batch["start"], batch["length"], strict=True)
        ):
            name = source.files.names[file]
            tokens = published(recordings[name][start : start + length])
            np.testing.assert_array_equal(targets[row, :length], tokens)
            starts.add((name, int(start)))
    assert starts == {("10.wav", 0), ("10.wav", WINDOW), ("11.wav", 0)}


def test_log_likelihood_is_what_evaluation_sums(made):
    config, recordings, dataset, codecs, model = made
    graph, params = parameters(model)
    source = evaluation_source(config, dataset, "valid", model, codecs)
    step = jax.jit(make_evaluation_step(config, graph))
    result = evaluate(config, step, params, codecs, source, len(source), make_mesh())
    assert result.count == 5 * WINDOW
    generator = AudioGenerator.open(Trained(config, {}, params, codecs))
    nats = 0.0
    for name in ("1.wav", "2.wav"):
        audio = Audio(recordings[name].astype(np.float32)[:, None] / 32768, RATE)
        scores = generator.log_likelihood(audio)
        assert len(scores) == len(recordings[name])
        nats -= scores[: len(scores) // WINDOW * WINDOW].sum()
    np.testing.assert_allclose(
        result.figures["bits_per_sample"], nats / result.count / math.log(2), rtol=1e-5
    )


def test_a_part_of_the_order_counts_numbers_as_numbers_and_a_list_names_its_files(tmp_path):
    names = [f"{number}.wav" for number in range(50)]
    rule = SplitRule(
        resolved_splits({"valid": "order:0.88-0.94", "test": "order:0.94-1"}, sorted(names), tmp_path)
    )
    split = [rule.split(name, {}) for name in names]
    assert split == ["train"] * 44 + ["valid"] * 3 + ["test"] * 3
    (tmp_path / "testing_list.txt").write_text("zero/a.wav\nnine/gone.wav\n")
    rules = resolved_splits({"test": "list:testing_list.txt"}, ["zero/a.wav", "zero/b.wav"], tmp_path)
    assert [SplitRule(rules).split(name, {}) for name in ("zero/a.wav", "zero/b.wav")] == ["test", "train"]
    for wrong, message in (
        ("list:none.txt", "expected a list of names for split 'test' in .*none.txt, got no such file"),
        ("order:0.5-0.4", "a part of the files in order, as in 'order:0.88-0.94', got 'order:0.5-0.4'"),
    ):
        with pytest.raises(WavegenError, match=message):
            resolved_splits({"test": wrong}, names, tmp_path)
    with pytest.raises(
        WavegenError, match="depends on other files, got 'order:0-1'; resolve the rules first"
    ):
        SplitRule({"test": "order:0-1"}).split("a.wav", {})
