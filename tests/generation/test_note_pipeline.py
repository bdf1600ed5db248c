"""From MIDI files to a model of notes, and back to scores."""

from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import wavegen
from wavegen.cli import main
from wavegen.codecs.make import make_codec
from wavegen.codecs.notes.base import Interleaved
from wavegen.codecs.notes.grid import NoteGrid
from wavegen.config import Config, resolve
from wavegen.config.codecs import NoteEventsConfig
from wavegen.data.batches import BatchSource
from wavegen.data.device import shift
from wavegen.data.open import open_dataset
from wavegen.errors import WavegenError
from wavegen.models.seq2seq import part_voices
from wavegen.networks.base import with_parameters
from wavegen.notes.midi import read_midi, write_midi
from wavegen.notes.score import Score, Track
from wavegen.training import loop

GRID = {"kind": "note_grid", "voices": 2, "low": 60, "high": 72, "bar": 4}
LSTM = {"kind": "lstm", "width": 8, "layers": 1}
BERT = {"kind": "bert", "width": 8, "layers": 1, "heads": 1}
WAVENET = {"kind": "wavenet", "dilations": [1, 2, 4], "residual_channels": 8, "skip_channels": 8}
SEQ2SEQ = {"kind": "seq2seq", "width": 8, "layers": 1, "heads": 1, "encoder_layers": 1}
SEQ2SEQ |= {"reach": {"segment": 8, "memory": 8}}


def duet(seed: int, steps: int = 22) -> Score:
    """Two voices on a grid of sixteenths."""
    rng = np.random.default_rng(seed)
    return NoteGrid(2, 60, 72, bar=4).decode(rng.integers(1, 14, (steps, 2)).repeat(2, axis=0))


def lied() -> Score:
    """A melody with a tempo, a name and accents of its own."""
    melody = duet(3).select(lambda track: track.name == "voice 1").at_resolution(480)
    own = {"velocity": 1 + np.arange(len(melody)), "tempos": np.array([[0, 400_000]])}
    return replace(melody, tracks=(Track("song", 40),), **own)


def experiment(folder: Path, model: dict, *overrides: str) -> Config:
    tree = {
        "data": {"path": str(folder / "midi"), "cache": str(folder / "cache"), "crop": 32, "batch_size": 2},
        "codec": GRID,
        "model": model,
        "optimizer": {"learning_rate": 1e-2, "warmup_steps": 1},
        "training": {"steps": 3, "evaluate_every": 3, "evaluate_batches": 2, "checkpoint_every": 3},
    }
    splits = [
        "data.label_pattern='{split}_{n}'",
        "data.split.test=split=test",
        "data.split.valid=split=valid",
    ]
    return resolve(tree, [*splits, "data.augment.transpose=2", "training.sample_count=1", *overrides])


@pytest.fixture(scope="module")
def folder(tmp_path_factory, one_device) -> Path:
    """MIDI files, and runs of models of them."""
    here = tmp_path_factory.mktemp("notes")
    (here / "midi").mkdir()
    for first, split in enumerate(("train", "valid", "test")):
        for n in range(2):
            write_midi(here / "midi" / f"{split}_{n}.mid", duet(10 * first + n))
    (here / "midi" / "train_9.mid").write_text("no MIDI file")
    loop.train(experiment(here, LSTM), here / "lstm")
    loop.train(experiment(here, BERT), here / "bert")
    loop.train(experiment(here, WAVENET), here / "wavenet")
    loop.train(experiment(here, SEQ2SEQ), here / "seq2seq")
    return here


def test_datasets_hold_the_tokens_and_tell_what_was_skipped(folder):
    config = experiment(folder, LSTM)
    dataset = open_dataset(config)
    codec = make_codec(config.codec)
    files = dataset.split("train")
    np.testing.assert_array_equal(dataset.read(files, 0, 0, int(files.length[0])), codec.encode(duet(0)))
    assert [row.name for row in dataset.manifest.skipped] == ["train_9.mid"]


def test_crops_begin_with_a_bar(folder):
    dataset = open_dataset(experiment(folder, LSTM))
    source = BatchSource(dataset, "train", batch_size=64, crop=32, seed=0, period=8)
    batch = source.batch(0)
    assert "pcm" not in batch
    assert (batch["start"] % 8 == 0).all()
    assert len(np.unique(batch["start"])) > 3
    with pytest.raises(WavegenError, match="crop to be a multiple of the period, 8 tokens, got 33; use 40"):
        BatchSource(dataset, "train", batch_size=1, crop=33, seed=0, period=8)


def test_runs_write_midi_files_while_they_learn(folder):
    for run in ("lstm", "bert", "wavenet"):
        [sample] = (folder / run / "samples").iterdir()
        assert read_midi(sample).end <= 16


@pytest.mark.parametrize("run", ["lstm", "wavenet"])
def test_pieces_are_scored_behind_the_start_token_that_training_puts_before_them(folder, run):
    model = wavegen.load(folder / run)
    network, tokens = with_parameters(model.graph, model.params), model.codec.encode(duet(5))[None]
    inputs = shift(jnp.asarray(tokens), model.codec.start_token)
    assert model.codec.start_token != model.codec.vocab_size // 2
    expected = -network.log_prob(network(inputs), jnp.asarray(tokens), inputs)[0]
    np.testing.assert_allclose(model.nats(duet(5)), expected, atol=1e-4)


@pytest.mark.parametrize("run", ["lstm", "bert", "wavenet"])
def test_generating_and_continuing_keep_the_prompt(folder, run):
    model = wavegen.load(folder / run)
    assert isinstance(model, wavegen.NoteGenerator)
    prompt = duet(5, 4)
    first, second = model.generate(6, count=2, seed=1, prompt=prompt)
    again = model.generate(6, count=2, seed=1, prompt=prompt)
    assert [first, second] == again
    assert first != second
    codec = model.codec
    for piece in (first, second):
        np.testing.assert_array_equal(codec.encode(piece)[: 8 * 2], codec.encode(prompt))
        assert piece.end <= 14 * piece.ticks_per_quarter // 4


def test_harmonising_keeps_the_melody_and_adds_the_voice(folder):
    model = wavegen.load(folder / "bert")
    [piece] = model.harmonise(lied(), voice=1, seed=2)
    assert [track.name for track in piece.tracks] == ["voice 1", "song"]
    assert piece.select(lambda track: track.name == "song") == lied()
    assert len(piece) > len(lied())
    melody = duet(3).select(lambda track: track.name == "voice 2")
    with pytest.raises(WavegenError, match="expected a melody on 1 track"):
        model.harmonise(duet(3))
    with pytest.raises(
        WavegenError,
        match=r"harmonise needs a model\.kind=seq2seq or bert of codec\.kind=note_grid, got lstm",
    ):
        wavegen.load(folder / "lstm").harmonise(melody)


def test_an_encoder_decoder_writes_a_voice_to_a_melody(folder):
    model = wavegen.load(folder / "seq2seq")
    first, second = model.harmonise(lied(), count=2, seed=2)
    for piece in (first, second):
        assert piece.select(lambda track: track.name == "song") == lied()
    assert first != second
    assert [first, second] == model.harmonise(lied(), count=2, seed=2)
    with pytest.raises(WavegenError, match="the first as voice 0 to 0, got 2 tracks and voice 0"):
        model.harmonise(duet(3))
    with pytest.raises(WavegenError, match="measure it with wavegen evaluate"):
        model.nats(duet(3))
    with pytest.raises(WavegenError, match="an encoder-decoder writes voices to a melody; use harmonise"):
        model.generate(4)


def test_voices_part_into_a_source_and_what_is_written():
    codec = Interleaved(NoteGrid(3, 60, 72))
    tokens = jnp.arange(1, 25).reshape(2, 12, 1) % codec.vocab_size
    length = jnp.asarray([12, 6])
    mask = jnp.arange(12)[None] < length[:, None]
    parts = part_voices({"targets": tokens, "mask": mask, "length": length}, codec, 1)
    np.testing.assert_array_equal(parts["features"][0, :, 0], tokens[0, ::3, 0])
    np.testing.assert_array_equal(parts["features"][1, :, 0], [*tokens[1, :6:3, 0], -1, -1])
    np.testing.assert_array_equal(parts["targets"][0, :, 0], [2, 3, 5, 6, 8, 9, 11, 12])
    np.testing.assert_array_equal(parts["inputs"][0, :, 0], [0, 2, 3, 5, 6, 8, 9, 11])
    np.testing.assert_array_equal(parts["mask"].sum(axis=1), [8, 4])


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_remixing_changes_the_chosen_share_at_most(folder, share):
    model, piece = wavegen.load(folder / "bert"), duet(4)
    own = {"velocity": 1 + np.arange(len(piece)), "tempos": np.array([[0, 400_000]])}
    piece = replace(piece.at_resolution(480), **own)
    [other] = model.remix(piece, share, seed=3)
    columns = ("pitch", "onset", "duration", "velocity", "track")
    notes, others = ({*zip(*(getattr(p, c).tolist() for c in columns), strict=True)} for p in (piece, other))
    assert len(notes & others) == len(piece) - round(share * len(piece))
    assert (notes != others) == (share > 0)
    np.testing.assert_array_equal(other.tempos, piece.tempos)
    [first, _] = model.remix(piece, share, count=2, seed=3)
    assert first == other


def test_nats_are_those_of_chance_at_first_and_exact_for_causal_models(folder):
    causal, masked = wavegen.load(folder / "lstm"), wavegen.load(folder / "bert")
    piece = duet(6)
    exact = causal.nats(piece)
    assert exact.shape == (88, 1)
    np.testing.assert_allclose(exact.mean(), np.log(14), atol=0.6)
    np.testing.assert_allclose(masked.nats(piece, orders=16).mean(), np.log(14), atol=0.6)


def test_one_file_holds_model_and_codec(folder, tmp_path):
    model = wavegen.load(folder / "lstm")
    again = wavegen.load(model.save(tmp_path / "model.safetensors"))
    assert again.codec == model.codec
    np.testing.assert_allclose(again.nats(duet(6)), model.nats(duet(6)), atol=1e-2)


def test_commands_compose_harmonise_remix_and_render(folder, tmp_path, capsys):
    run, out = str(folder / "bert"), ["-o", str(tmp_path)]
    write_midi(tmp_path / "melody.mid", duet(3).select(lambda track: track.name == "voice 1"))
    write_midi(tmp_path / "piece.mid", duet(3))
    main(["compose", str(folder / "lstm"), "--length", "8", *out])
    main(["harmonise", run, str(tmp_path / "melody.mid"), *out])
    main(["remix", run, str(tmp_path / "piece.mid"), "--share", "0.5", *out])
    main(["render", str(tmp_path / "piece.mid"), *out])
    printed = capsys.readouterr().out
    for name in ("lstm-seed0-0", "melody-harmonised0-0", "piece-remix0-0"):
        for ending in (".mid", ".wav", ".png"):
            assert (tmp_path / (name + ending)).stat().st_size > 0
            assert name + ending in printed
    assert wavegen.Audio.read(tmp_path / "piece.wav").duration > 1
    with pytest.raises(SystemExit):
        main(["sample", run])
    assert "is a model of notes; try wavegen compose" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "codec", "message"),
    [
        (
            SEQ2SEQ,
            {"kind": "note_events"},
            "an encoder-decoder needs a grid of voices, got codec.kind=note_events",
        ),
        (SEQ2SEQ, GRID | {"interleave": False}, "an encoder-decoder needs a grid of voices"),
        (SEQ2SEQ | {"source_voices": 2}, GRID, "source_voices 2 must be less than codec.voices 2"),
        (
            BERT,
            {"kind": "note_events", "interleave": False},
            "a masked model of events reads one field per frame",
        ),
        ({"kind": "wavenet"}, GRID | {"interleave": False}, "a WaveNet of notes needs codec.interleave=true"),
    ],
)
def test_models_that_cannot_read_a_codec_are_refused(model, codec, message):
    with pytest.raises(WavegenError, match=message):
        resolve({"codec": codec, "model": model})


def test_what_does_not_fit_is_one_line(folder):
    config = experiment(folder, LSTM)
    cache = next((folder / "cache").iterdir())
    for change, message in (
        ({"path": None}, "expected data.path, a folder of MIDI files, got none"),
        ({"path": str(folder)[:-1] + "zz"}, "expected a folder of recordings"),
        ({"path": str(folder / "cache")}, "expected MIDI files in"),
    ):
        data = config.data.model_copy(update=change)
        with pytest.raises(WavegenError, match=message):
            open_dataset(config.model_copy(update={"data": data}))
    data = config.data.model_copy(update={"path": str(cache)})
    for codec, message in (
        (NoteEventsConfig(), "does not hold the tokens of"),
        (resolve({}).codec, "holds notes, codec.kind=mulaw reads audio"),
    ):
        with pytest.raises(WavegenError, match=message):
            open_dataset(config.model_copy(update={"data": data, "codec": codec}))
    model = wavegen.load(folder / "lstm")
    with pytest.raises(WavegenError, match="expected 1 or 2 temperatures, one per field, got 3"):
        model.generate(1, drawing=wavegen.Drawing(temperature=(1.0, 1.0, 1.0)))
