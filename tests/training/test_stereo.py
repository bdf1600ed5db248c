"""Two channels the whole way: recordings, batches, a codec, a masked model of its tokens, and back to audio."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import wavegen
from wavegen.audio import Audio
from wavegen.cli import main
from wavegen.codecs.waveform.network import WaveVQ
from wavegen.config import Config, resolve
from wavegen.config.data import DataConfig
from wavegen.data.batches import BatchSource
from wavegen.data.dataset import Dataset
from wavegen.data.device import augment, to_waveform
from wavegen.data.open import open_dataset
from wavegen.data.prepare import prepared
from wavegen.data.tokenize import tokenize
from wavegen.errors import WavegenError
from wavegen.networks.base import Given, parameters
from wavegen.runs.trained import CODEC_FILES, open_codecs
from wavegen.runs.weights import write_weights
from wavegen.spectral import si_sdr
from wavegen.training import loop

RATE, HOP, LENGTH = 1000, 4, 403
TREE = {
    "data": {"sample_rate": RATE, "channels": 2, "crop": 128, "batch_size": 2},
    "optimizer": {"learning_rate": 1e-3, "warmup_steps": 1},
    "training": {
        "steps": 4,
        "log_every": 4,
        "evaluate_every": 4,
        "evaluate_batches": 1,
        "checkpoint_every": 2,
        "sample_seconds": 0.05,
        "sample_count": 1,
    },
}
CODEC = {
    "kind": "wave_vq",
    "strides": [4],
    "width": 2,
    "decoder_width": 16,
    "causal": True,
    "quantizer": {"kind": "ema", "codebooks": 2, "codebook_size": 8},
}
BERT = {"kind": "bert", "width": 8, "layers": 1, "heads": 1}


def sound(number: int, *periods: float, loudness: float = 0.3) -> Audio:
    """A channel for each period, in samples."""
    time = np.arange(300 + 5 * number)[:, None]
    return Audio(loudness * np.sin(2 * np.pi * time / np.asarray(periods)), RATE)


def experiment(path: Path, model: dict = CODEC, *overrides: str, **sections) -> Config:
    return resolve({**TREE, "model": model, **sections}, [f"data.path={path}", *overrides])


@pytest.fixture(scope="module")
def folder(tmp_path_factory, one_device) -> Path:
    """Recordings of one to three channels, a stereo dataset of them, a codec, and a masked model on its tokens."""
    here = tmp_path_factory.mktemp("stereo")
    for split, loudness in (("train", 0.3), ("valid", 0.29), ("test", 0.31)):
        for number, periods in enumerate([(7, 13), (8, 15), (9,), (10, 17, 21)]):
            sound(number, *periods, loudness=loudness).write(here / "in" / split / f"{number}.wav")
    command = ["prepare", str(here / "in"), "-o", str(here / "data"), "--channels", "2"]
    main([*command, "--sample-rate", str(RATE), "--valid", "valid/*", "--test", "test/*"])
    loop.train(experiment(here / "data"), here / "codec")
    loop.train(experiment(here / "data", BERT, codec={"run": str(here / "codec")}), here / "bert")
    return here


@pytest.fixture(scope="module")
def recording() -> Audio:
    random = np.random.default_rng(0)
    return Audio(0.2 * random.standard_normal((LENGTH, 2)).astype(np.float32), RATE)


def test_batches_and_augmentation_keep_the_channels_apart(folder):
    batch = BatchSource(Dataset.open(folder / "data"), "train", batch_size=8, crop=128, seed=0).batch(0)
    assert batch["pcm"].shape == (8, 128, 2)
    assert {0, 1} & {*batch["file"]}
    for file, pcm in zip(batch["file"], batch["pcm"], strict=True):
        assert np.array_equal(pcm[:, 0], pcm[:, 1]) == (file >= 2)
    waveform = to_waveform(jnp.asarray(batch["pcm"]))
    changed = augment(waveform, jax.random.key(0), (-12.0, -1.0), polarity=True)
    gain = np.sum(changed * waveform, axis=1) / np.sum(waveform**2, axis=1)
    np.testing.assert_allclose(gain[:, 0], gain[:, 1], rtol=1e-4)
    assert {*np.sign(gain[:, 0])} == {-1, 1}


def test_one_volume_is_common_to_both_channels_and_a_silent_one_spoils_nothing():
    random = np.random.default_rng(0)
    target, noise = random.standard_normal((2, 3, 400, 2)).astype(np.float32)
    target[0, :, 1] = noise[0, :, 1] = 0
    estimate = target + 0.1 * noise
    estimate, target, one_half = map(jnp.asarray, (estimate, target, target * np.float32([1, 0.5])))
    np.testing.assert_allclose(si_sdr(estimate, target), [20, 20, 20], atol=0.5)
    # As signals side by side: another balance is not another volume.
    assert (si_sdr(one_half, target)[1:] < 15).all()


def test_a_codec_gives_back_stereo_of_the_same_length(folder, recording):
    codec = wavegen.load(folder / "codec")
    for length in (1, HOP, LENGTH):
        result = codec.reconstruct(Audio(recording.samples[:length], RATE))
        assert result.samples.shape == (length, 2)
    assert not np.array_equal(result.samples[:, 0], result.samples[:, 1])
    swapped = codec.encode(Audio(recording.samples[:, ::-1], RATE))
    assert (swapped != codec.encode(recording)).any()
    again = wavegen.load(codec.save(folder / "codec.safetensors"))
    np.testing.assert_array_equal(again.reconstruct(recording).samples, result.samples)


def test_interpolating_keeps_the_channels(folder, recording):
    codec = wavegen.load(folder / "codec")
    other = Audio(recording.samples[::-1], RATE)
    way = codec.interpolate(recording, other, steps=3)
    assert [clip.samples.shape for clip in way] == [(LENGTH, 2)] * 3
    for clip, end in zip(way[::2], (recording, other), strict=True):
        np.testing.assert_allclose(clip.samples, codec.reconstruct(end).samples, atol=1e-5)


def test_a_mono_recording_is_duplicated_and_more_channels_are_mixed(folder, recording):
    codec, left = wavegen.load(folder / "codec"), recording.samples[:, :1]
    twice = codec.reconstruct(Audio(np.repeat(left, 2, axis=1), RATE)).samples
    np.testing.assert_array_equal(codec.reconstruct(Audio(left, RATE)).samples, twice)
    three = codec.reconstruct(Audio(np.repeat(left, 3, axis=1), RATE)).samples
    np.testing.assert_allclose(three, twice, atol=1e-5)


def test_a_masked_model_generates_and_inpaints_stereo(folder, recording):
    generator = wavegen.load(folder / "bert")
    (clip,) = generator.generate(0.051, prompt=recording)
    assert clip.samples.shape == (LENGTH + 51, 2)
    (filled,) = generator.inpaint(recording, [(0.1, 0.2)], seed=2)
    inside = np.zeros(LENGTH, bool)
    inside[100:200] = True
    np.testing.assert_array_equal(filled.samples[~inside], recording.samples[~inside])
    assert (filled.samples[inside] != recording.samples[inside]).mean(axis=0).min() > 0.9
    again = wavegen.load(generator.save(folder / "bert.safetensors"))
    np.testing.assert_array_equal(again.inpaint(recording, [(0.1, 0.2)], seed=2)[0].samples, filled.samples)


def test_commands_reconstruct_measure_tokenize_and_sample(folder, recording, tmp_path, capsys):
    recording.write(tmp_path / "a.wav")
    out = ["-o", str(tmp_path / "out")]
    main(["reconstruct", str(folder / "codec"), str(tmp_path / "a.wav"), *out])
    main(["evaluate", str(folder / "codec")])
    assert "clips of 4 files" in capsys.readouterr().out
    assert Audio.read(tmp_path / "out" / "codec-a.wav").samples.shape == (LENGTH, 2)
    main(["sample", str(folder / "bert"), "--seconds", "0.05", *out])
    assert Audio.read(tmp_path / "out" / "bert-seed0-0.wav").channels == 2
    main(["tokenize", str(folder / "codec"), str(folder / "data"), "-o", str(tmp_path / "tokens")])
    dataset = Dataset.open(tmp_path / "tokens")
    files = dataset.split("valid")
    clip = Audio.from_pcm16(dataset.read(files, 0, 0, 300), RATE)
    stored = dataset.read_features(files, 0, 0, 300 // HOP)
    np.testing.assert_array_equal(stored, wavegen.load(folder / "codec").encode(clip)[0])


def test_a_dataset_cached_as_mono_keeps_its_name(folder, tmp_path):
    source, split = folder / "in", {"test": "test/*", "valid": "valid/*"}
    settings = {"label_pattern": None, "trim_silence_db": None, "backend": "memmap"}
    before = prepared(source, tmp_path, sample_rate=RATE, split=split, **settings)
    data = {"sample_rate": RATE, "cache": str(tmp_path), "split": split}
    mono, stereo = (open_dataset(experiment(source, data={**data, "channels": c})) for c in (1, 2))
    assert mono.path == before
    assert (mono.channels, stereo.channels) == (1, 2)


def test_a_codec_that_does_not_say_is_mono(tmp_path):
    """As all that were written before there were stereo ones."""
    model = experiment(tmp_path).model
    given = Given(DataConfig(sample_rate=RATE))
    network = WaveVQ.make(model, given, np.random.default_rng(0))
    card = {"sample_rate": RATE, "wave_vq": model.model_dump(mode="json")}
    write_weights(tmp_path / CODEC_FILES["tokens"], {}, card, parameters(network)[1])
    masked = experiment(tmp_path, BERT, "data.channels=1", codec={"run": "nowhere"})
    assert open_codecs(masked, tmp_path).tokens.audio_channels == 1


@pytest.mark.parametrize(
    ("sections", "text"),
    [
        ({"model": {"kind": "wavenet"}}, "stereo is for a waveform codec .* model.kind=wavenet"),
        (
            {"model": {"kind": "spectrogram_vq"}},
            "stereo is for a waveform codec .* model.kind=spectrogram_vq",
        ),
        ({"model": BERT, "codec": {"kind": "note_grid"}}, "codec.kind=note_grid; set data.channels=1"),
    ],
)
def test_models_of_mono_audio_and_of_notes_refuse_stereo(sections, text):
    with pytest.raises(WavegenError, match=text):
        resolve({**TREE, **sections})


def test_what_has_other_channels_is_refused(folder, tmp_path):
    mono = experiment(folder / "data", CODEC, "data.channels=1")
    with pytest.raises(WavegenError, match=r"has 2 channel\(s\), data.channels is 1; make them equal"):
        open_dataset(mono)
    masked = experiment(folder / "data", BERT, "data.channels=1", codec={"run": str(folder / "codec")})
    with pytest.raises(WavegenError, match=r"the codec has 2 channel\(s\), data.channels is 1"):
        open_codecs(masked)
    main(["prepare", str(folder / "in"), "-o", str(tmp_path / "mono"), "--sample-rate", str(RATE)])
    with pytest.raises(WavegenError, match=r"has 1 channel\(s\), data.channels is 2"):
        open_dataset(experiment(tmp_path / "mono"))
    codec = wavegen.load(folder / "codec")
    with pytest.raises(WavegenError, match=r"expected a dataset of 2 channel\(s\) .* --channels 2"):
        tokenize(Dataset.open(tmp_path / "mono"), codec.codec, tmp_path / "tokens")
