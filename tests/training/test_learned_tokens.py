"""From recordings to a learned codec, from its tokens to a masked model and a vocoder, and back to audio."""

import shutil
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import wavegen
from wavegen.audio import Audio
from wavegen.cli import main
from wavegen.codecs.base import Codecs
from wavegen.codecs.learned import LearnedCodec
from wavegen.config import Config, load_config, resolve
from wavegen.config.conditions import MelConditionConfig
from wavegen.config.data import DataConfig
from wavegen.data.batches import BatchSource
from wavegen.data.dataset import Dataset
from wavegen.data.device import make_example
from wavegen.data.open import expect_same_codec
from wavegen.data.prepare import Clip, write_dataset
from wavegen.errors import WavegenError
from wavegen.models.conditions.mel import MelCondition
from wavegen.networks.base import Given, with_parameters
from wavegen.runs.trained import keep_codecs, open_codecs, open_trained
from wavegen.samplers import drawing
from wavegen.training import loop

RATE, HOP = 1000, 4
SMALL = {
    "data": {"sample_rate": RATE, "crop": 128, "batch_size": 2},
    "optimizer": {"learning_rate": 1e-3, "warmup_steps": 1},
    "training": {
        "steps": 4,
        "log_every": 4,
        "evaluate_every": 4,
        "evaluate_batches": 1,
        "checkpoint_every": 4,
        "sample_seconds": 0.05,
        "sample_count": 1,
    },
}
CODEC = {
    "kind": "wave_vq",
    "strides": [4],
    "width": 2,
    "decoder_width": 16,
    "quantizer": {"kind": "ema", "codebooks": 2, "codebook_size": 8},
}
SPECTROGRAM = {
    "kind": "spectrogram_vq",
    "n_fft": 32,
    "hop_length": 8,
    "bands": 4,
    "width": 4,
    "depth": 1,
    "latent": 4,
    "quantizer": {"kind": "ema", "codebooks": 2, "codebook_size": 8},
    "iterations": 2,
}
BERT = {"kind": "bert", "width": 8, "layers": 1, "heads": 1, "label_fields": ["note"]}
VOCODER = {
    "dilations": [1, 2],
    "cycles": 1,
    "residual_channels": 4,
    "gate_channels": 4,
    "skip_channels": 4,
    "head_channels": 4,
}


def tone(samples: int, period: float) -> np.ndarray:
    return (8000 * np.sin(2 * np.pi * np.arange(samples) / period)).astype(np.int16)


def experiment(path: Path, model: dict, **sections) -> Config:
    return resolve({**SMALL, "model": model, **sections}, [f"data.path={path}"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory, one_device) -> Path:
    """A dataset, and runs of a codec, a masked model on its tokens, and a vocoder that speaks them."""
    here = tmp_path_factory.mktemp("learned")
    clips = [
        Clip(f"{split}-{n}", tone(300 + 5 * n, 7 + n), {"note": "ab"[n % 2]}, split)
        for split in ("train", "valid", "test")
        for n in range(3)
    ]
    write_dataset(here / "data", clips, RATE)
    loop.train(experiment(here / "data", CODEC), here / "codec")
    trained = {"run": str(here / "codec")}
    (here / "bert").mkdir()
    # What a start that failed may leave behind, of whatever codec it was for.
    (here / "bert" / "codec.safetensors").write_bytes(b"stale")
    loop.train(experiment(here / "data", BERT, codec=trained), here / "bert")
    spoken = {"kind": "codes", "codec": trained, "hop_length": HOP, "channels": 4, "upsample": [2]}
    loop.train(experiment(here / "data", VOCODER | {"local": spoken}), here / "vocoder")
    return here


@pytest.fixture(scope="module")
def recording() -> Audio:
    return Audio.from_pcm16(tone(403, 9)[:, None], RATE)


def samples(clips: list[Audio]) -> np.ndarray:
    return np.stack([clip.samples[:, 0] for clip in clips])


def test_a_run_with_another_runs_codec_is_refused(folder, tmp_path):
    run = tmp_path / "bert"
    shutil.copytree(folder / "bert", run)
    trained = open_trained(run)
    changed = jax.tree.map(lambda x: np.asarray(x) + 1, trained.codecs.tokens.params)
    keep_codecs(run, Codecs(replace(trained.codecs.tokens, params=changed)))
    message = "bert/codec.safetensors is not the codec with which the run was trained"
    with pytest.raises(WavegenError, match=message):
        open_trained(run)
    with pytest.raises(WavegenError, match=message):
        loop.train(load_config(run / "config.yaml"), run)


def test_a_codec_run_learns_reports_and_reconstructs_to_the_sample(folder, recording):
    rows = (folder / "codec" / "metrics.jsonl").read_text()
    for name in ("loss", "mel", "stft", "commitment", "perplexity", "valid/si_sdr", "valid/used"):
        assert f'"{name}"' in rows
    codec = wavegen.load(folder / "codec")
    result = codec.reconstruct(recording)
    assert len(result.samples) == len(recording.samples)
    assert codec.bits_per_second == RATE / HOP * 2 * 3
    tokens = codec.encode(recording)
    assert tokens.shape == (1, -(-403 // HOP), 2)
    np.testing.assert_array_equal(codec.decode(tokens, 403).samples, result.samples)
    assert not np.array_equal(codec.reconstruct(recording, codebooks=1).samples, result.samples)
    again = wavegen.load(codec.save(folder / "codec.safetensors"))
    np.testing.assert_array_equal(again.encode(recording), tokens)


def test_a_spectrogram_codec_is_trained_kept_and_opened_as_a_waveform_codec_is(
    folder, recording, tmp_path, capsys
):
    data, run = folder / "data", tmp_path / "mel"
    loop.train(experiment(data, SPECTROGRAM), run)
    rows = (run / "metrics.jsonl").read_text()
    for name in ("loss", "mel", "convergence", "commitment", "perplexity", "valid/mel", "valid/used"):
        assert f'"{name}"' in rows
    codec = wavegen.load(run)
    tokens = codec.encode(recording)
    assert tokens.shape == (1, -(-403 // 8), 2)
    result = codec.reconstruct(recording)
    np.testing.assert_array_equal(codec.decode(tokens, 403).samples, result.samples)
    again = wavegen.load(codec.save(tmp_path / "mel.safetensors"))
    np.testing.assert_array_equal(again.encode(recording), tokens)
    # Measured on the recordings, not left as drawn.
    assert np.ptp(open_trained(run).params["mean"]) > 0
    recording.write(tmp_path / "a.wav")
    main(["reconstruct", str(run), str(tmp_path / "a.wav"), "-o", str(tmp_path / "out")])
    main(["evaluate", str(run)])
    assert "clips of 3 files" in capsys.readouterr().out
    trained = {"run": str(run)}
    spoken = {"kind": "codes", "codec": trained, "hop_length": 8, "channels": 4}
    under = open_codecs(experiment(data, BERT, codec=trained)).tokens
    beside = open_codecs(experiment(data, VOCODER | {"local": spoken})).condition
    for learned in (under, beside):
        assert learned.fingerprint == codec.codec.fingerprint
        assert (learned.vocab_size, learned.codebooks, learned.hop_length) == (8, 2, 8)


def test_averages_follow_the_data_and_no_gradient_or_decay_reaches_them(folder):
    before = open_trained(folder / "codec")
    quantizer = before.params["quantizer"]
    # Updates keep the sum of the shares; an optimizer would not.
    np.testing.assert_allclose(quantizer["share"].sum(axis=1), 1, atol=1e-2)
    assert np.isfinite(quantizer["codebook"]).all()


def test_the_run_keeps_its_own_copy_of_the_codec(folder, recording):
    first = wavegen.load(folder / "bert")
    (folder / "codec").rename(folder / "elsewhere")
    try:
        second = wavegen.load(folder / "bert")
    finally:
        (folder / "elsewhere").rename(folder / "codec")
    clips = [g.generate(0.05, seed=3, labels={"note": "a"}) for g in (first, second)]
    np.testing.assert_array_equal(*map(samples, clips))


def test_generating_continuing_and_varying_give_what_was_asked_to_the_sample(folder, recording):
    generator = wavegen.load(folder / "bert")
    for seconds in (0.001, 0.203):
        clips = generator.generate(seconds, count=2, seed=1)
        assert samples(clips).shape == (2, round(seconds * RATE))
    assert not np.array_equal(*samples(clips))
    continued = generator.generate(0.06, prompt=recording)[0]
    assert len(continued.samples) == 403 + 60
    assert len(generator.vary(recording, 0.4)[0].samples) == 403
    kept = generator.vary(recording, 0.0)[0].samples
    heard = wavegen.load(folder / "codec").reconstruct(recording).samples
    np.testing.assert_allclose(kept, heard, atol=1e-6)


def test_inpainting_leaves_every_other_sample_as_it_is(folder, recording):
    generator = wavegen.load(folder / "bert")
    filled = generator.inpaint(recording, [(0.1, 0.2), (0.3, 0.4)], seed=2)[0].samples
    inside = np.zeros(403, bool)
    inside[100:200] = inside[300:400] = True
    np.testing.assert_array_equal(filled[~inside], recording.samples[~inside])
    assert (filled[inside] != recording.samples[inside]).mean() > 0.9


@pytest.mark.parametrize(
    ("spans", "text"),
    [
        ([], "at least one span"),
        ([(0.1, 0.1)], "inside the recording"),
        ([(0.1, 9.0)], "inside the recording"),
        ([(0.05, 0.1), (0.09, 0.15)], "overlaps"),
    ],
)
def test_impossible_spans_are_refused(folder, recording, spans, text):
    with pytest.raises(WavegenError, match=text):
        wavegen.load(folder / "bert").inpaint(recording, spans)


def test_the_bound_is_finite_and_starts_near_even_chances(folder, recording):
    nats = wavegen.load(folder / "bert").bound(recording, orders=2)
    assert nats.shape == (2,)
    np.testing.assert_allclose(nats, np.log(8), rtol=0.5)


def test_a_vocoder_speaks_tokens_and_recordings(folder, recording):
    vocoder = wavegen.load(folder / "vocoder")
    assert len(vocoder.generate(like=recording)[0].samples) == 403
    generator = wavegen.load(folder / "bert")
    assert samples(generator.generate(0.051, count=2, vocoder=vocoder)).shape == (2, 51)
    with pytest.raises(WavegenError, match="vocoder"):
        vocoder.generate(0.1)
    with pytest.raises(WavegenError, match="tokens of 2 codebooks, these have 3"):
        vocoder.speak(jnp.zeros((1, 4, 3), jnp.int32), 16)


def test_one_file_holds_model_and_codec(folder):
    generator = wavegen.load(folder / "bert")
    again = wavegen.load(generator.save(folder / "bert.safetensors"))
    assert again.config.model == generator.config.model
    assert again.config.codec.run == Path(generator.config.codec.run).name
    for ours, theirs in zip(jax.tree.leaves(again.codec), jax.tree.leaves(generator.codec), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    vocoder = wavegen.load(folder / "vocoder")
    assert wavegen.load(vocoder.save(folder / "vocoder.safetensors")).condition.codebooks == 2


def test_tokens_written_beforehand_are_those_of_the_codec(folder, capsys):
    main(["tokenize", str(folder / "codec"), str(folder / "data"), "-o", str(folder / "tokens")])
    assert "tokens from 9 recordings" in capsys.readouterr().out
    dataset = Dataset.open(folder / "tokens")
    batch = BatchSource(dataset, "train", batch_size=2, crop=128, seed=0).batch(0)
    assert batch["tokens"].shape == (2, 32, 2)
    codec = wavegen.load(folder / "codec")
    files = dataset.split("valid")
    whole = Audio.from_pcm16(dataset.read(files, 0, 0, int(files.length[0])), RATE)
    stored = dataset.read_features(files, 0, 0, -(-int(files.length[0]) // HOP))
    # The end of a clip is coded with other zeros after it.
    np.testing.assert_array_equal(stored[:40], codec.encode(whole)[0, :40])
    expect_same_codec(dataset, experiment(folder / "tokens", BERT, codec={"run": "any"}), Codecs(codec.codec))
    arrays = {name: jnp.asarray(rows) for name, rows in batch.items()}
    np.testing.assert_array_equal(make_example(arrays, codec.codec)["targets"], batch["tokens"])


def test_a_spectrogram_condition_has_a_row_for_every_frame(recording):
    local, data = MelConditionConfig(bands=4, n_fft=64, hop_length=16), DataConfig(sample_rate=RATE)
    condition = MelCondition.make(local, Given(data), np.random.default_rng(0))
    for length in (1, 16, 17, 403):
        audio = jnp.asarray(recording.samples[:length, 0])[None]
        features = condition.of_recording(audio, None)
        assert features.shape == (1, -(-length // 16), 4)
        assert np.isfinite(features).all()


def test_tokens_of_another_codec_are_refused(folder, tmp_path):
    features = np.zeros((8, 2), np.float32)
    clips = [Clip(split, tone(32, 9), {"note": "a"}, split, features) for split in ("train", "valid")]
    write_dataset(tmp_path / "tokens", clips, RATE, HOP, codec="another")
    config = experiment(tmp_path / "tokens", BERT, codec={"run": str(folder / "codec")})
    with pytest.raises(WavegenError, match="tokens of another codec"):
        loop.train(config, tmp_path / "run")


@pytest.mark.parametrize(
    ("sections", "text"),
    [
        ({"codec": {"run": "nowhere"}}, "no run folder"),
        ({"codec": {"run": "CODEC", "codebooks": 3}}, "has 2 codebooks, 3 were asked for"),
        ({"codec": {"run": "CODEC"}, "data": {**SMALL["data"], "sample_rate": 4000}}, "1000 Hz"),
        ({"codec": {"run": "BERT"}}, "expected a run that learned a codec"),
    ],
)
def test_a_codec_that_does_not_fit_is_refused(folder, sections, text):
    sections = dict(sections)
    places = {"CODEC": str(folder / "codec"), "BERT": str(folder / "bert")}
    sections["codec"] = {k: places.get(v, v) for k, v in sections["codec"].items()}
    with pytest.raises(WavegenError, match=text):
        open_codecs(experiment(folder / "data", BERT, **sections))


def test_a_vocoder_of_another_hop_is_refused(folder):
    local = {"kind": "codes", "codec": {"run": str(folder / "codec")}, "hop_length": 16}
    with pytest.raises(WavegenError, match="the codec has 4"):
        open_codecs(experiment(folder / "data", VOCODER | {"local": local}))


def test_fewer_levels_are_a_prefix(folder, recording):
    codec = wavegen.load(folder / "codec").codec
    assert isinstance(codec, LearnedCodec)
    audio = jnp.asarray(recording.samples[:, 0])[None]
    np.testing.assert_array_equal(codec.with_codebooks(1).encode(audio), codec.encode(audio)[..., :1])


def test_commands_reconstruct_generate_inpaint_and_measure(folder, recording, tmp_path, capsys):
    path = tmp_path / "a.wav"
    recording.write(path)
    out = ["-o", str(tmp_path / "out")]
    main(["reconstruct", str(folder / "codec"), str(path), *out])
    assert "si_sdr" in capsys.readouterr().out
    main(["sample", str(folder / "bert"), "--seconds", "0.05", "--labels", "note=b", "--passes", "3", *out])
    main(["sample", str(folder / "bert"), "--prompt", str(path), "--inpaint", "0.1:0.2", *out])
    assert capsys.readouterr().out.count("spectrogram") == 2
    main(["evaluate", str(folder / "bert")])
    said = capsys.readouterr().out
    for name in ("bound_bits_per_token", "standard_error", "masked_bits_per_token"):
        assert f"\n{name} " in said


def test_interpolating_goes_from_one_reconstruction_to_the_other(folder, recording, tmp_path, capsys):
    model = wavegen.load(folder / "codec")
    other = Audio.from_pcm16(np.pad(tone(300, 12), (0, 103))[:, None], RATE)
    short = Audio(other.samples[:300], RATE)
    way = samples(model.interpolate(recording, short, steps=3))
    ends = samples([model.reconstruct(recording), model.reconstruct(other)])
    np.testing.assert_allclose(way[[0, 2]], ends, atol=1e-5)
    network = with_parameters(model.codec.graph, model.codec.params)
    latents = network.latents(jnp.asarray(samples([recording, other])))
    codes = network.quantizer.quantize(latents.mean(axis=0, keepdims=True)).codes
    np.testing.assert_allclose(way[1], model.decode(codes, 403).samples[:, 0], atol=1e-5)
    for name, audio in (("a", recording), ("b", short)):
        audio.write(tmp_path / f"{name}.wav")
    paths = [str(tmp_path / name) for name in ("a.wav", "b.wav")]
    main(["interpolate", str(folder / "codec"), *paths, "--steps", "3", "-o", str(tmp_path)])
    assert capsys.readouterr().out.count("spectrogram") == 3
    written = [Audio.read(tmp_path / f"a-to-b-{row}.wav") for row in range(3)]
    np.testing.assert_allclose(samples(written), way, atol=1e-4)
    with pytest.raises(WavegenError, match="steps must be at least 2, got 1"):
        model.interpolate(recording, short, steps=1)


def test_redrawing_keeps_the_outline(folder, recording, monkeypatch):
    bert = wavegen.load(folder / "bert")
    drawn = []
    fill = drawing.generate_long

    def watch(graph, params, tokens, *rest, **options):
        drawn.append((tokens, fill(graph, params, tokens, *rest, **options)))
        return drawn[-1][1]

    monkeypatch.setattr(drawing, "generate_long", watch)
    (clip,) = bert.redraw(recording, period=3, codebooks=1)
    assert len(clip.samples) == len(recording.samples)
    ((masked, filled),) = drawn
    heard = np.asarray(wavegen.load(folder / "codec").encode(recording))
    kept = np.zeros(heard.shape, bool)
    kept[:, ::3, :1] = True
    np.testing.assert_array_equal(masked != bert.codec.vocab_size, kept)
    np.testing.assert_array_equal(np.asarray(filled)[kept], heard[kept])
    everything = wavegen.load(folder / "codec").reconstruct(recording)
    np.testing.assert_allclose(samples(bert.redraw(recording)), samples([everything]), atol=1e-6)


def test_the_command_redraws(folder, recording, tmp_path, capsys):
    path = tmp_path / "a.wav"
    recording.write(path)
    call = ["sample", str(folder / "bert"), "--prompt", str(path), "--periodic", "3", "--compression", "1"]
    main([*call, "-o", str(tmp_path)])
    assert "spectrogram" in capsys.readouterr().out
    (clip,) = wavegen.load(folder / "bert").redraw(recording, period=3, codebooks=1)
    written = Audio.read(tmp_path / "bert-period3codebooks1-a-seed0-0.wav")
    np.testing.assert_allclose(written.samples, clip.samples, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["sample", "codec"], "generates nothing"),
        (["sample", "vocoder", "--like", "a.wav", "--periodic", "3"], "takes no --periodic"),
        (["sample", "bert", "--compression", "1"], "nothing to change"),
        (
            ["sample", "bert", "--prompt", "a.wav", "--periodic", "0"],
            "--periodic must be a whole number from 1 to 100,000, got 0",
        ),
        (["sample", "bert", "--prompt", "a.wav", "--compression", "3"], "0 to 2 codebooks to keep, got 3"),
        (["sample", "bert", "--prompt", "a.wav", "--vary", "0.3", "--periodic", "3"], "give one of them"),
        (
            ["sample", "bert", "--prompt", "a.wav", "--compression", "1", "--seconds", "1"],
            "takes no --seconds",
        ),
        (["sample", "vocoder", "--like", "a.wav", "--vary", "0.3"], "takes no --vary"),
        (["sample", "bert", "--top-k", "3"], "draws with top_p; leave top_k out"),
        (["sample", "bert", "--vary", "0.3"], "nothing to change"),
        (["sample", "bert", "--prompt", "a.wav", "--inpaint", "0.1"], "FIRST:LAST"),
        (
            ["sample", "bert", "--prompt", "a.wav", "--vary", "2"],
            "--vary must be a number from 0 to 1, got 2.0",
        ),
        (["reconstruct", "bert", "a.wav"], "is a masked model"),
        (["interpolate", "bert", "a.wav", "a.wav"], "takes a model.kind=window_vae or a codec, got bert"),
        (["reconstruct", "codec", "a.wav", "--levels", "9"], "2 codebooks"),
    ],
)
def test_what_a_model_cannot_do_is_one_line(folder, recording, capsys, arguments, text):
    recording.write(folder / "a.wav")
    places = [str(folder / a) if (folder / a).exists() else a for a in arguments]
    with pytest.raises(SystemExit):
        main(places)
    message = capsys.readouterr().err
    assert text in message
    assert message.count("\n") == 1
