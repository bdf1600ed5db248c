"""From MIDI files to an autoencoder of windows, and back: sampling, reconstructing, interpolating."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import wavegen
from wavegen.cli import main
from wavegen.codecs.base import Codecs
from wavegen.codecs.make import make_codec
from wavegen.codecs.notes.events import NoteEvents
from wavegen.codecs.notes.grid import NoteGrid
from wavegen.config import resolve
from wavegen.errors import WavegenError
from wavegen.generation.windows import slerp
from wavegen.models.kinds import make_model
from wavegen.networks.base import parameters
from wavegen.notes.arrange import concatenate, with_same_tracks
from wavegen.notes.midi import read_midi, write_midi
from wavegen.notes.score import Score, Track
from wavegen.training import loop

GRID = {"kind": "note_grid", "voices": 2, "low": 60, "high": 67, "bar": 8}
VAE = {"kind": "window_vae", "width": 32, "layers": 1, "encoder_layers": 1, "heads": 2, "latent": 8}
CROP, STEPS = 32, 16
NONE = Score(*(np.zeros(0, int),) * 5, (Track(),) * 2, 4)


def duet(seed: int, steps: int = STEPS) -> Score:
    """Two voices on a grid of sixteenths, in eighths."""
    rng = np.random.default_rng(seed)
    return NoteGrid(2, 60, 67, bar=8).decode(
        rng.integers(1, 9, (-(-steps // 2), 2)).repeat(2, axis=0)[:steps]
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory, one_device) -> Path:
    """Two clips, and a run that has learned them by heart."""
    here = tmp_path_factory.mktemp("windows")
    (here / "midi").mkdir()
    for first, split in enumerate(("train", "valid", "test")):
        for n in range(2):
            write_midi(here / "midi" / f"{split}_{n}.mid", duet(10 * first + n).at_resolution(480))
    tree = {
        "data": {"path": str(here / "midi"), "cache": str(here / "cache"), "crop": CROP, "batch_size": 4},
        "codec": GRID,
        "model": VAE | {"dropout": 0, "beta": 0.01, "free_nats": 8},
        "optimizer": {"learning_rate": 1e-2, "warmup_steps": 10, "ema_decay": 0.9},
        "training": {"steps": 150, "evaluate_every": 150, "checkpoint_every": 150, "log_every": 150},
    }
    splits = [
        "data.label_pattern='{split}_{n}'",
        "data.split.test=split=test",
        "data.split.valid=split=valid",
    ]
    loop.train(resolve(tree, splits), here / "vae")
    return here


@pytest.fixture(scope="module")
def model(folder) -> wavegen.WindowGenerator:
    loaded = wavegen.load(folder / "vae")
    assert isinstance(loaded, wavegen.WindowGenerator)
    return loaded


def heard(model, notes):
    return model.codec.encode(notes)


def test_a_run_tells_its_figures_and_writes_windows(folder):
    rows = (folder / "vae" / "metrics.jsonl").read_text()
    for name in (
        "loss",
        "bound_bits_per_token",
        "valid/nats_per_token",
        "valid/kl_per_window",
        "valid/accuracy",
    ):
        assert f'"{name}"' in rows
    assert all(read_midi(path).end <= STEPS for path in (folder / "vae" / "samples").iterdir())


def test_clips_learned_by_heart_come_back_and_are_the_ends_of_the_way(model):
    pieces = [duet(n) for n in range(2)]
    for piece in pieces:
        np.testing.assert_array_equal(heard(model, model.reconstruct(piece)), heard(model, piece))
        assert model.accuracy(piece) == 1
    way = model.interpolate(*pieces, steps=5)
    assert len(way) == 5
    assert [way[0], way[-1]] == [model.reconstruct(piece) for piece in pieces]
    assert way[0] != way[-1]


def test_a_piece_of_any_length_comes_back_as_long_as_it_was(model):
    own = {"tempos": np.array([[0, 400_000]]), "metres": np.array([[0, 3, 4]])}
    for steps in (3, STEPS, 2 * STEPS + 5):
        piece = replace(duet(7, steps).at_resolution(96), **own)
        result = model.reconstruct(piece)
        assert (result.ticks_per_quarter, result.end) == (96, piece.end)
        np.testing.assert_array_equal(result.tempos, piece.tempos)
        np.testing.assert_array_equal(result.metres, piece.metres)
        assert model.latents(piece).shape == (-(-steps // STEPS), VAE["latent"])
    # Windows are taken one by one: what was learned comes back at any place.
    twice = concatenate([duet(0), duet(1)], length=STEPS)
    np.testing.assert_array_equal(heard(model, model.reconstruct(twice)), heard(model, twice))


def test_lengths_change_evenly_between_pieces_of_unlike_length(model):
    short, long = duet(0, 8), concatenate([duet(0), duet(1)], length=STEPS)
    way = model.interpolate(short, long, steps=4)
    assert [len(heard(model, piece)) for piece in way] == [2 * n for n in (8, 16, 24, 32)]
    assert [way[0], way[-1]] == [model.reconstruct(short), model.reconstruct(long)]
    assert way[::-1] == model.interpolate(long, short, steps=4)


def test_windows_of_events_are_of_notes():
    config = resolve({"data": {"crop": 40}, "codec": {"kind": "note_events"}, "model": VAE | {"bar": 20}})
    codecs = Codecs(make_codec(config.codec))
    graph, params = parameters(make_model(config, codecs, {}))
    model = wavegen.WindowGenerator(config, {}, graph, params, codecs.tokens)
    assert model.steps == 8
    short, long = NoteEvents().decode(np.tile([[3, 60, 2, 8, 0]], (4, 1))), duet(0)
    way = model.interpolate(short, long, steps=3)
    counts = [4, (4 + len(long)) / 2, len(long)]
    assert [len(piece) for piece in way] == [round(count) for count in counts]
    assert way[0] == model.reconstruct(short)


def test_windows_are_sampled_from_the_seed(model):
    first, second = model.generate(count=2, seed=3)
    assert [first, second] == model.generate(count=2, seed=3)
    assert first != second
    assert all(0 < piece.end <= 480 for piece in model.generate(4, count=2, seed=3))
    assert len(heard(model, first)) <= CROP


def test_a_window_does_not_depend_on_what_stands_beside_it(model):
    alone = [model.latents(duet(n)) for n in (0, 1)]
    together = model.latents(concatenate([duet(0), duet(1)], length=STEPS))
    np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-4)


def test_the_arc_keeps_its_distance_from_the_middle_and_begins_and_ends_where_asked():
    rng = np.random.default_rng(0)
    first, last = (rng.standard_normal((3, 8)).astype(np.float32) for _ in range(2))
    np.testing.assert_allclose(slerp(first, last, 0.0), first, atol=1e-6)
    np.testing.assert_allclose(slerp(first, last, 1.0), last, atol=1e-6)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (first, last)]
    for share in (0.25, 0.5):
        point = slerp(*unit, share)
        np.testing.assert_allclose(np.linalg.norm(point, axis=1), 1, rtol=1e-5)
        angle, whole = (np.arccos((unit[0] * x).sum(1)) for x in (point, unit[1]))
        np.testing.assert_allclose(angle, share * whole, rtol=1e-4)
    for other in (np.zeros_like(first), 2 * first, -first):
        np.testing.assert_allclose(slerp(first, other, 0.5), (first + other) / 2, atol=1e-6)


def test_tracks_that_differ_become_common_ones():
    low, high = Track("low", 32), Track("high", 8)
    parts = [
        Score(np.array([60]), np.array([0]), np.array([4]), np.array([80]), np.array([0]), (track,), 4)
        for track in (low, high)
    ]
    one, other = with_same_tracks(parts)
    assert one.tracks == other.tracks == (low, high)
    assert (one.track.tolist(), other.track.tolist()) == ([0], [1])
    assert concatenate([one, other]).program.tolist() == [32, 8]


def test_commands_compose_reconstruct_and_interpolate(folder, tmp_path, capsys):
    run, out = str(folder / "vae"), ["-o", str(tmp_path)]
    first, last = (str(folder / "midi" / f"train_{n}.mid") for n in range(2))
    main(["compose", run, *out])
    main(["reconstruct", run, first, *out])
    main(["interpolate", run, first, last, "--steps", "2", *out])
    printed = capsys.readouterr().out
    names = ("vae-seed0-0", "vae-train_0-0", "train_0-to-train_1-1", "train_0-to-train_1-all-0")
    for name in names:
        for ending in (".mid", ".wav", ".png"):
            assert (tmp_path / (name + ending)).stat().st_size > 0
            assert name + ending in printed
    assert "accuracy     1.0000 of the tokens" in printed
    assert read_midi(tmp_path / "train_0-to-train_1-all-0.mid").end == 2 * STEPS * 480 // 4


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.generate(STEPS + 1), "expected a length of at most 16, a window, got 17"),
        (lambda m: m.generate(prompt=duet(0)), "windows begin anew"),
        (lambda m: m.generate(labels={"genre": "x"}), "this model has no label field 'genre'"),
        (lambda m: m.generate(count=0), "count must be at least 1, got 0"),
        (lambda m: m.interpolate(duet(0), duet(1), steps=1), "steps must be at least 2, got 1"),
        (lambda m: m.interpolate(duet(0), NONE), "expected a piece with notes, got none"),
        (lambda m: m.reconstruct(duet(0).transpose(12)), "expected pitches 60 to 67 and no drums"),
        (lambda m: m.nats(duet(0)), "measure it with wavegen evaluate"),
        (lambda m: m.remix(duet(0), 0.5), "remix needs a masked model"),
    ],
)
def test_what_does_not_fit_is_one_line(model, call, message):
    with pytest.raises(WavegenError, match=message):
        call(model)


@pytest.mark.parametrize("codec", [{"kind": "mulaw"}, GRID | {"interleave": False}])
def test_tokens_that_are_not_one_a_frame_are_refused(codec):
    with pytest.raises(WavegenError, match="windows are of notes, one token per frame"):
        resolve({"codec": codec, "model": VAE})


def test_codebooks_are_for_codecs(folder, capsys):
    piece = str(folder / "midi" / "train_0.mid")
    with pytest.raises(SystemExit):
        main(["reconstruct", str(folder / "vae"), piece, "--levels", "2"])
    assert "an autoencoder of notes takes no --codebooks" in capsys.readouterr().err
