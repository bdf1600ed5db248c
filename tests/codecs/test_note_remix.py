"""Remixing whole notes, only pitches or only durations, and drawing only some instruments and pitches."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws.cases.notes import band

import wavegen
from wavegen.cli import main
from wavegen.cli.options import NoteDrawing
from wavegen.codecs.base import Codecs
from wavegen.codecs.make import make_codec
from wavegen.codecs.notes.base import Interleaved
from wavegen.codecs.notes.choice import allowed_values
from wavegen.codecs.notes.events import NoteEvents
from wavegen.codecs.notes.grid import NoteGrid
from wavegen.config import Config, resolve
from wavegen.errors import WavegenError
from wavegen.models.base import Choice
from wavegen.models.kinds import make_model
from wavegen.networks.base import parameters
from wavegen.notes.midi import read_midi, write_midi
from wavegen.notes.score import COLUMNS, Score
from wavegen.samplers.masked import Filling, fill, generate_long
from wavegen.training import loop

BERT = {"kind": "bert", "width": 8, "layers": 1, "heads": 1}
LSTM = {"kind": "lstm", "width": 8, "layers": 1}
EVENTS = {"kind": "note_events", "steps_per_quarter": 4, "max_shift": 8, "max_duration": 64, "velocities": 4}
GRID = {"kind": "note_grid", "voices": 2, "low": 40, "high": 90, "bar": 4}
FEW = {"sampling": {"masked": {"passes": [2]}}, "data": {"crop": 640}}


@cache
def untrained(model: str, codec: str, *overrides: str) -> wavegen.NoteGenerator:
    """A model with fresh weights, which is as good for the laws and takes no training."""
    trees = {"bert": BERT, "lstm": LSTM, "events": EVENTS, "grid": GRID}
    config = resolve(FEW | {"model": trees[model], "codec": trees[codec]}, overrides)
    tokens = make_codec(config.codec)
    graph, params = parameters(make_model(config, Codecs(tokens), {}))
    return wavegen.NoteGenerator(config, {}, graph, params, tokens)


def duet() -> Score:
    """Two voices with accents of their own."""
    rng = np.random.default_rng(1)
    piece = NoteGrid(2, 40, 90, bar=4).decode(rng.integers(1, 51, (40, 2)).repeat(2, axis=0))
    own = {"velocity": rng.integers(1, 128, len(piece)), "tempos": np.array([[0, 400_000]])}
    return replace(piece.at_resolution(480), **own)


def rows(piece: Score, *names: str) -> list[tuple[int, ...]]:
    return sorted(zip(*(getattr(piece, name).tolist() for name in names), strict=True))


def same_but(piece: Score, other: Score, changed: str) -> float:
    """The share of notes that changed, where nothing else did."""
    others = [name for name in COLUMNS if name != changed]
    assert rows(piece, *others) == rows(other, *others)
    assert (piece.tracks, piece.ticks_per_quarter) == (other.tracks, other.ticks_per_quarter)
    np.testing.assert_array_equal(piece.tempos, other.tempos)
    np.testing.assert_array_equal(piece.metres, other.metres)
    before, after = rows(piece, *COLUMNS), rows(other, *COLUMNS)
    left = list(after)
    for row in before:
        if row in left:
            left.remove(row)
    return len(left) / len(before)


@pytest.mark.parametrize("share", [0.0, 0.6, 1.0])
@pytest.mark.parametrize(("what", "changed"), [("pitches", "pitch"), ("durations", "duration")])
def test_only_the_pitches_or_durations_of_a_share_of_the_events_change(what, changed, share):
    model, piece = untrained("bert", "events"), band()
    first, second = model.remix(piece, share, what, count=2, seed=1)
    # A note may come out as it was, rarely where there are 64 values or more.
    assert same_but(piece, first, changed) == pytest.approx(share, abs=0.02 + 1e-9)
    assert same_but(piece, second, changed) == pytest.approx(share, abs=0.02 + 1e-9)
    assert (first != second) == (share > 0)
    assert [first, second] == model.remix(piece, share, what, count=2, seed=1)


def test_whole_notes_of_events_change_at_their_onset_and_on_their_track():
    model, piece = untrained("bert", "events"), band()
    other, _ = model.remix(piece, 0.5, count=2, seed=2)
    assert rows(piece, "onset", "track") == rows(other, "onset", "track")
    kept = {*rows(piece, *COLUMNS)} & {*rows(other, *COLUMNS)}
    assert len(kept) == pytest.approx(60, abs=2)


@pytest.mark.parametrize("ties", ["false", "true"])
def test_pitches_on_a_grid_change_note_by_note(ties):
    model, piece = untrained("bert", "grid", f"codec.ties={ties}"), duet()
    [other] = model.remix(piece, 0.6, "pitches", seed=3)
    assert same_but(piece, other, "pitch") == pytest.approx(0.6, abs=0.05)
    assert other.pitch.min() >= 40
    assert other.pitch.max() <= 90


def test_order_of_events_is_that_of_their_tokens():
    piece, codec = band(), NoteEvents(4)
    order = codec.order(piece)
    assert sorted(order) == list(range(len(piece)))
    np.testing.assert_array_equal(codec.encode(piece)[:, 1], piece.pitch[order])
    nothing = np.zeros((len(piece), 5), bool)
    assert codec.revised(piece, codec.encode(piece), nothing) == piece
    grid = piece.at_resolution(7)
    np.testing.assert_array_equal(grid.pitch, piece.pitch[piece.order_at(7)])


def test_filling_keeps_to_what_each_place_allows_window_after_window():
    model = untrained("bert", "events")
    allowed = np.zeros((5, model.codec.vocab_size), bool)
    for place in range(5):
        allowed[place, 3 * place : 3 * place + 3] = True
    tokens = jnp.full((2, 100, 1), model.codec.vocab_size, jnp.int32)
    keys = jax.random.split(jax.random.key(0), 2)
    hot = Filling(passes=2, choice=Choice(2.0, top_p=0.9, allowed=jnp.asarray(allowed)), typical=0.9)
    filled = generate_long(model.graph, model.params, tokens, keys, hot, window=32, period=5)
    np.testing.assert_array_equal(filled[:, :, 0] // 3, np.tile(np.arange(5), (2, 20)))
    assert len(np.unique(np.asarray(filled))) == 15


def test_temperatures_of_a_masked_model_go_by_place():
    model = untrained("bert", "events")
    tokens = jnp.full((1, 100, 1), model.codec.vocab_size, jnp.int32)
    keys = jax.random.split(jax.random.key(0), 1)
    by_place = Filling(passes=1, choice=Choice(jnp.asarray([0.0, 1.0])))
    drawn, calm = (
        np.asarray(fill(model.graph, model.params, tokens, keys, filling))[0, :, 0]
        for filling in (by_place, Filling(passes=1, choice=Choice(jnp.zeros(2))))
    )
    np.testing.assert_array_equal(drawn[::2], calm[::2])
    assert (drawn[1::2] != calm[1::2]).mean() > 0.8


def test_temperatures_of_events_go_by_name():
    model = untrained("lstm", "events")
    by_name, in_turn = (
        model.generate(20, seed=1, drawing=wavegen.Drawing(temperature))
        for temperature in ({"pitch": 0.5, "shift": 2.0}, (2.0, 0.5, 1.0, 1.0, 1.0))
    )
    assert by_name == in_turn
    named = NoteDrawing(("pitch=0.5", "shift=2"), top_p=0.9, top_k=3).drawing()
    assert named == wavegen.Drawing({"pitch": 0.5, "shift": 2.0}, 3, 0.9)
    assert NoteDrawing(("0.5", "2")).drawing() == wavegen.Drawing((0.5, 2.0))
    assert NoteDrawing(("0.5",)).drawing() == wavegen.Drawing(0.5)
    assert NoteDrawing().drawing() == wavegen.Drawing()
    for texts in (("hot",), ("pitch=hot",), ("pitch=1", "2")):
        with pytest.raises(WavegenError, match=f"for example pitch=1.1; got {' '.join(texts)}"):
            NoteDrawing(texts).drawing()


@pytest.mark.parametrize("kind", ["bert", "lstm"])
def test_only_the_instruments_and_pitches_that_are_asked_for_play(kind):
    model = untrained(kind, "events")
    drawing = wavegen.Drawing(instruments=("Bass", "drums"), pitches=(40, 50))
    [piece] = model.generate(60, seed=1, drawing=drawing)
    assert len(piece) == 60
    assert {(track.program, track.drum) for track in piece.tracks} == {(32, False), (0, True)}
    assert set(piece.pitch.tolist()) <= set(range(40, 51))


def test_pitches_on_a_grid_keep_to_a_range():
    [piece] = untrained("bert", "grid").generate(80, seed=1, drawing=wavegen.Drawing(pitches=(50, 60)))
    assert set(piece.pitch.tolist()) <= set(range(50, 61))


def test_groups_of_programs_tell_what_they_decode_to():
    one = allowed_values(Interleaved(NoteEvents(programs_per_group=1)), ("bass",))
    assert np.flatnonzero(one[4]).tolist() == list(range(32, 40))
    many = allowed_values(Interleaved(NoteEvents(programs_per_group=128)), ("piano", "drums"))
    assert np.flatnonzero(many[4]).tolist() == [0, 1]
    grid = NoteGrid(2, 60, 72, ties=True)
    assert np.flatnonzero(allowed_values(grid, pitches=(60, 61))[0]).tolist() == [0, 1, 2, 14]
    assert allowed_values(grid) is None


@pytest.fixture(scope="module")
def run(tmp_path_factory, one_device) -> Path:
    """A masked model of events, trained for a moment."""
    here = tmp_path_factory.mktemp("events")
    for first, split in enumerate(("train", "valid", "test")):
        (here / "midi" / split).mkdir(parents=True)
        write_midi(here / "midi" / split / "jazz.mid", band(40 + first))
        write_midi(here / "midi" / split / "folk.mid", band(30 + first))
    tree = {
        "data": {"path": str(here / "midi"), "cache": str(here / "cache"), "crop": 640, "batch_size": 2},
        "codec": EVENTS,
        "model": BERT | {"label_fields": ["genre"]},
        "optimizer": {"learning_rate": 1e-2, "warmup_steps": 1},
        "training": {"steps": 2, "evaluate_every": 2, "evaluate_batches": 1, "checkpoint_every": 2},
        "sampling": {"masked": {"passes": [2]}},
    }
    splits = [
        "data.label_pattern='{split}/{genre}'",
        "data.split.test=split=test",
        "data.split.valid=split=valid",
        "training.sample_count=1",
    ]
    config: Config = resolve(tree, splits)
    return loop.train(config, here / "run") or here / "run"


def test_commands_remix_durations_and_compose_for_labels_and_instruments(run, tmp_path, capsys):
    assert len(list((run / "samples").iterdir())) == 1
    piece, out = band(40), ["-o", str(tmp_path)]
    write_midi(tmp_path / "piece.mid", piece)
    heard = read_midi(tmp_path / "piece.mid")
    main(["remix", str(run), str(tmp_path / "piece.mid"), "--share", "0.6", "--what", "durations", *out])
    assert "wavegen: the piano leaves out" in capsys.readouterr().err
    other = read_midi(tmp_path / "piece-remix0-0.mid")
    assert rows(heard, "pitch", "onset", "track", "velocity") == rows(
        other, "pitch", "onset", "track", "velocity"
    )
    compose = ["compose", str(run), "--length", "20", "--seed", "3", *out]
    main([*compose, "--labels", "genre=jazz", "--instruments", "piano", "BASS", "--pitches", "40", "60"])
    made = read_midi(tmp_path / "run-seed3-0.mid")
    assert {track.program for track in made.tracks} <= {0, 32}
    assert made.pitch.max() <= 60
    with pytest.raises(SystemExit):
        main([*compose, "--labels", "genre=polka"])
    assert "label genre=polka was not in the training data; it had folk, jazz" in capsys.readouterr().err


def test_likelihood_is_over_the_values_of_a_field_and_hears_the_labels(run):
    model = wavegen.load(run)
    jazz, folk = (model.nats(band(40), labels={"genre": genre}, orders=16) for genre in ("jazz", "folk"))
    assert (jazz != folk).any()
    # Hardly trained: every field is about even over its own values.
    expected = np.mean(np.log(NoteEvents(4, 8, 64, 4).sizes))
    np.testing.assert_allclose(jazz.mean(), expected, atol=0.4)


def test_what_cannot_be_is_one_line():
    events, grid, piece = untrained("bert", "events"), untrained("bert", "grid"), duet()
    for ask, message in (
        (
            lambda: grid.remix(piece, 0.5, "durations"),
            "on a grid the end of a note .* codec.kind=note_events",
        ),
        (lambda: events.remix(band(), 1.5), r"expected a share in \[0, 1\], got 1.5"),
        (lambda: events.remix(band(0), 0.5), "expected notes to remix, got an empty piece"),
        (lambda: untrained("lstm", "events").remix(band(), 0.5), "needs a masked model, got model.kind=lstm"),
        (
            lambda: events.harmonise(piece),
            "harmonise needs a model.kind=seq2seq or bert of codec.kind=note_grid",
        ),
        (lambda: _drawn(events, instruments=("pianos",)), "got 'pianos'; did you mean 'piano'?"),
        (lambda: _drawn(events, instruments=("kazoo",)), "got 'kazoo'; there are piano, chromatic"),
        (lambda: _drawn(grid, instruments=("piano",)), "a grid of voices writes no instruments"),
        (lambda: _drawn(events, pitches=(60, 50)), r"the highest pitch within 0 to 127, got \(60, 50\)"),
        (lambda: _drawn(grid, pitches=(30, 50)), "within 40 to 90"),
        (lambda: _drawn(events, temperature={"volume": 1.0}), "one of the fields shift, pitch, .* 'volume'"),
        (lambda: _drawn(grid, temperature={"pitch": 1.0}), "has no fields with names; give one number"),
        (lambda: _drawn(events, temperature=(1.0, 1.0)), "expected 1 or 5 temperatures"),
    ):
        with pytest.raises(WavegenError, match=message) as caught:
            ask()
        assert "\n" not in str(caught.value)
    with pytest.raises(WavegenError, match="groups of 128 programs do not distinguish bass"):
        allowed_values(Interleaved(NoteEvents(programs_per_group=128)), ("bass",))
    with pytest.raises(WavegenError, match=r"train with codec.interleave=true"):
        allowed_values(NoteEvents(), ("bass",))


def _drawn(model: wavegen.NoteGenerator, **drawing) -> None:
    model.generate(2, drawing=wavegen.Drawing(**drawing))
