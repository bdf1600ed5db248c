"""Embeddings: rows for clips of all lengths and rates, and a listener that learns and is saved."""

import sys

import numpy as np
import pytest

from wavegen.audio import Audio
from wavegen.data.dataset import Dataset
from wavegen.data.shards import Clip
from wavegen.data.write import write_dataset
from wavegen.errors import WavegenError
from wavegen.evaluation.embeddings.hugging_face import HuggingFaceEncoder
from wavegen.evaluation.embeddings.listener import Listener, fitted
from wavegen.evaluation.embeddings.log_mel import LogMelStatistics
from wavegen.evaluation.embeddings.open import open_embedding
from wavegen.evaluation.embeddings.train_listener import train, train_on_dataset

RATE = 4000


def tone(hertz: float, seconds: float = 0.3, rate: int = RATE) -> Audio:
    return Audio(0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate), rate)


@pytest.fixture(scope="module")
def listener(tmp_path_factory) -> Listener:
    """One that tells low tones from high ones."""
    random = np.random.default_rng(0)
    clips = [
        Clip(
            f"{name}{split}{i}",
            tone(base * random.uniform(0.8, 1.2)).to_pcm16()[:, 0],
            {"pitch": name, "take": str(i)},
            split=split,
        )
        for split, count in (("train", 12), ("test", 4))
        for name, base in (("low", 250), ("high", 1200))
        for i in range(count)
    ]
    folder = tmp_path_factory.mktemp("tones")
    write_dataset(folder, clips, sample_rate=RATE)
    with pytest.raises(WavegenError, match=r"expected one label in .*, got pitch, take; .*--label"):
        train_on_dataset(Dataset.open(folder))
    return train_on_dataset(Dataset.open(folder), "pitch", steps=40)


@pytest.mark.parametrize(("seconds", "rows"), [(0.001, 1), (0.3, 1), (1.4, 1), (2.6, 3)])
def test_log_mel_statistics_are_finite_for_every_length(seconds: float, rows: int):
    embedded = LogMelStatistics().embed(tone(440, seconds, 8000))
    assert embedded.shape == (rows, 96)
    assert np.isfinite(embedded).all()


def test_log_mel_statistics_hardly_depend_on_the_rate_at_which_a_clip_is_stored():
    same, other, louder = (
        LogMelStatistics(RATE).embed(clip)
        for clip in (tone(500, 1.0), tone(500, 1.0, 2 * RATE), Audio(2 * tone(500, 1.0).samples, RATE))
    )
    assert np.abs(same - other).mean() < 0.1 * np.abs(same - louder)[:, :32].max()


def test_a_listener_understands_what_it_was_trained_on(listener: Listener):
    assert (listener.field, listener.labels, listener.held_out) == ("pitch", ("high", "low"), 8)
    assert listener.accuracy == 1
    # At any level and any place, and from a recording of another rate.
    clips = [tone(250, 0.2, 8000), Audio(0.2 * tone(1200).samples, RATE), tone(240, 1.0)]
    assert listener.understood(clips) == ["low", "high", "low"]
    assert listener.share_understood(clips, ["low", "low", "low"]) == pytest.approx(2 / 3)
    assert listener.understood([]) == []
    assert listener.embed(tone(250, 1.0)).shape == (3, 64)


def test_a_saved_listener_is_the_same_and_a_damaged_one_is_refused(listener: Listener, tmp_path):
    path = tmp_path / "pitches.safetensors"
    listener.save(path)
    opened = open_embedding(path, RATE)
    assert isinstance(opened, Listener)
    assert (opened.name, opened.accuracy, opened.labels) == ("pitches", 1.0, listener.labels)
    np.testing.assert_array_equal(opened.embed(tone(700)), listener.embed(tone(700)))
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(WavegenError, match="is damaged"):
        Listener.open(path)


def test_what_is_no_listener_is_refused_in_one_line(tmp_path):
    from wavegen.runs.weights import write_weights

    path = write_weights(tmp_path / "model.safetensors", {"bias": np.ones(2)}, {"name": "m"})
    with pytest.raises(WavegenError, match=r"expected a listener in .*wavegen train-listener"):
        Listener.open(path)
    write_weights(path, {"bias": np.ones(2)}, {"kind": "listener", "sample_rate": 8000, "labels": ["a"]})
    with pytest.raises(WavegenError, match="is a listener of another version"):
        Listener.open(path)
    with pytest.raises(WavegenError, match=r"at least two labels, got 2 clips, 2 labels and the values a"):
        train([tone(250)] * 2, ["a", "a"])
    with pytest.raises(WavegenError, match="expected clips of one sample rate"):
        train([tone(250), tone(250, rate=8000)], ["a", "b"])


def test_a_clip_is_fitted_without_losing_its_middle():
    clip = Audio(np.arange(5) / 10, RATE)
    assert fitted(clip, 3).tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert fitted(clip, 9).tolist() == pytest.approx([0, 0, 0, 0.1, 0.2, 0.3, 0.4, 0, 0])
    assert fitted(clip, 3, place=1.0).tolist() == pytest.approx([0.2, 0.3, 0.4])


def test_an_encoder_needs_a_folder_and_two_packages(tmp_path, monkeypatch):
    with pytest.raises(
        WavegenError, match=r"expected an encoder in the layout of Hugging Face in .* no config\.json"
    ):
        open_embedding(tmp_path, RATE)
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(
        WavegenError, match=r"expected torch and transformers.*pip install 'wavegen\[encoders\]'"
    ):
        HuggingFaceEncoder(tmp_path)


def test_an_encoder_of_hugging_face_gives_rows(tmp_path):
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text("{}")
    with pytest.raises(WavegenError, match="as an audio encoder"):
        HuggingFaceEncoder(tmp_path / "empty")
    config = transformers.Wav2Vec2Config(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        conv_dim=(4, 4),
        conv_kernel=(10, 8),
        conv_stride=(5, 8),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
    )
    transformers.Wav2Vec2Model(config).save_pretrained(tmp_path / "tiny")
    transformers.Wav2Vec2FeatureExtractor(sampling_rate=RATE).save_pretrained(tmp_path / "tiny")
    encoder = open_embedding(tmp_path / "tiny", RATE)
    assert encoder.name == "tiny"
    low, high = (encoder.embed(tone(hertz, 4.0, 8000)) for hertz in (250, 1200))
    assert low.shape == (2, 8)
    assert np.isfinite(low).all()
    assert not np.allclose(low, high)
    assert encoder.embed(tone(250, 0.001)).shape == (1, 8)
