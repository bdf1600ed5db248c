"""Whole songs: the sections of a form, what comes back, the stems that sum to the song, and bytes from a seed."""

import hashlib
import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import wavegen
from wavegen.cli import main
from wavegen.codecs.base import Codecs
from wavegen.codecs.make import make_codec
from wavegen.config import resolve
from wavegen.errors import WavegenError
from wavegen.generation.form import parse_form
from wavegen.models.kinds import make_model
from wavegen.networks.base import parameters
from wavegen.notes.arrange import skyline, with_same_tracks
from wavegen.notes.midi import read_midi
from wavegen.notes.score import COLUMNS, Score, Track
from wavegen.stopping import Stopped

GRID = {"kind": "note_grid", "voices": 2, "low": 48, "high": 84, "bar": 4}
EVENTS = {"kind": "note_events", "steps_per_quarter": 4, "max_shift": 4, "max_duration": 8, "velocities": 4}
KINDS = {"bert": {"kind": "bert", "width": 8, "layers": 1, "heads": 1}, "lstm": {"kind": "lstm", "width": 8}}
BAR = 480  # four steps of a grid of sixteenths


@cache
def untrained(model: str, codec: str) -> wavegen.NoteGenerator:
    """A model with fresh weights."""
    tree = {"model": KINDS[model] | {"layers": 1}, "codec": {"grid": GRID, "events": EVENTS}[codec]}
    config = resolve(tree, ["sampling.masked.passes=[2]"])
    tokens = make_codec(config.codec)
    graph, params = parameters(make_model(config, Codecs(tokens), {}))
    return wavegen.NoteGenerator(config, {}, graph, params, tokens)


def of(*notes: tuple[int, int, int, int], tracks: tuple[Track, ...] = (Track(),)) -> Score:
    """Notes written pitch, onset, duration, track."""
    pitch, onset, duration, track = np.array(notes, int).reshape(-1, 4).T
    return Score(pitch, onset, duration, np.full(len(notes), 80), track, tracks)


def rows(piece: Score) -> list[tuple[int, ...]]:
    return sorted(zip(*(getattr(piece, name).tolist() for name in COLUMNS), strict=True))


@pytest.fixture(scope="module")
def song() -> wavegen.Song:
    """Generated, harmonised, varied and arranged."""
    bert = untrained("bert", "grid")
    return wavegen.compose_song(
        bert, bars=8, form="AABA", seed=1, harmoniser=bert, remix=0.5, instruments=("Reed", "strings")
    )


def test_sections_are_made_in_turn_and_come_back_varied(song):
    assert [(stage.name, stage.section) for stage in song.stages] == [
        ("generate", "A"),
        ("harmonise", "A"),
        ("remix", "A2"),
        ("generate", "B"),
        ("harmonise", "B"),
        ("remix", "A3"),
        ("arrange", ""),
    ]
    first, second, other, last = (
        song.notes.between(start, start + 2 * BAR) for start in range(0, 8 * BAR, 2 * BAR)
    )
    assert len({tuple(rows(part)) for part in (first, second, other, last)}) == 4
    assert len({*rows(first)} & {*rows(second)}) >= len(first) // 2 - 1
    assert song.notes.end <= 8 * BAR
    assert [track[:2] for track in song.notes.tracks] == [("reed", 64), ("strings", 40)]
    assert len({stage.seed for stage in song.stages}) == 5


def test_without_remix_sections_come_back_as_they_were():
    piece = wavegen.compose_song(untrained("bert", "grid"), bars=6, form="verse-chorus-verse").notes
    first, last = piece.between(0, 2 * BAR), piece.between(4 * BAR, 6 * BAR)
    assert rows(first) == rows(last)


def test_the_seed_piece_comes_first_at_its_tempo():
    start = of((60, 0, 240, 0), (64, 240, 240, 0), (48, 0, 480, 1), tracks=(Track("up"), Track("down")))
    start = Score(*(getattr(start, name) for name in COLUMNS), start.tracks, tempos=np.array([[0, 400_000]]))
    piece = wavegen.compose_song(untrained("bert", "grid"), bars=8, seed_piece=start).notes
    opening = piece.between(0, BAR)
    assert rows(opening) == rows(start)
    assert len(piece.between(BAR, 2 * BAR))
    np.testing.assert_array_equal(piece.tempos[0], [0, 400_000])
    slower = wavegen.compose_song(untrained("bert", "grid"), bars=8, seed_piece=start, tempo=60.0).notes
    assert slower.tempos.tolist() == [[0, 1_000_000]]


def test_events_fill_their_bars_with_the_instruments_asked_for():
    made = wavegen.compose_song(
        untrained("lstm", "events"), bars=4, form="AB", seed=2, instruments=("bass", "organ")
    )
    assert {track.program for track in made.notes.tracks} == {16, 32}
    # Four quarter notes a bar.
    assert made.notes.between(0, 8 * BAR).onset[-1] > 6 * BAR
    assert 14 * BAR < made.notes.end <= 16 * BAR


def test_a_song_that_is_stopped_is_of_the_sections_that_are_whole(song):
    bert = untrained("bert", "grid")
    options = {"bars": 8, "form": "AABA", "seed": 1, "harmoniser": bert, "remix": 0.5}
    for stage, sections in (("remix A2", 1), ("generate B", 2), ("harmonise B", 2), ("arrange", 4)):
        seen = []

        def progress(what, done, total, stage=stage, seen=seen):
            seen.append((done, total))
            if what == stage:
                raise Stopped

        made = wavegen.compose_song(bert, progress=progress, **options)
        assert seen == sorted(seen)
        assert {total for _, total in seen} == {7}
        whole = song.notes.between(0, sections * 2 * BAR)
        assert rows(made.notes) == rows(whole)
        assert made.stages[-1].name == "arrange"
        assert made.stages[-1].arguments["sections"] == list("AABA")[:sections]
        assert made.stages[:-1] == song.stages[: len(made.stages) - 1]

    def at_once(*_):
        raise Stopped

    with pytest.raises(Stopped):
        wavegen.compose_song(bert, progress=at_once, **options)


def test_pieces_that_are_stopped_are_the_beginnings_of_the_whole():
    lstm = untrained("lstm", "events")
    (whole,) = lstm.generate(100, seed=3)

    def progress(what, done, total):
        if done:
            raise Stopped

    (begun,) = lstm.generate(100, seed=3, progress=progress)
    assert 0 < len(begun) < len(whole)
    # Tracks have the numbers of the instruments that play.
    assert {row[:4] for row in rows(begun)} <= {row[:4] for row in rows(whole)}


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_stems_sum_to_the_song_and_the_log_tells_of_every_file(song, tmp_path):
    files = song.write(tmp_path / "out")
    assert {file.name for file in files} == {
        *("song.mid", "song.wav", "song.png", "song.json"),
        *("stem-1-reed.mid", "stem-1-reed.wav", "stem-2-strings.mid", "stem-2-strings.wav"),
    }
    log = json.loads((tmp_path / "out" / "song.json").read_text())
    found = hashes(tmp_path / "out")
    assert {name: file["sha256"] for name, file in log["files"].items()} == {
        name: found[name] for name in found if name != "song.json"
    }
    assert [stage["name"] for stage in log["stages"]] == [stage.name for stage in song.stages]
    whole = read_midi(tmp_path / "out" / "song.mid")
    stems = [read_midi(tmp_path / "out" / f"stem-{name}.mid") for name in ("1-reed", "2-strings")]
    assert sorted(len(stem) for stem in stems) == sorted(np.bincount(whole.track).tolist())
    mix, *parts = (
        wavegen.Audio.read(tmp_path / "out" / f"{name}.wav").samples
        for name in ("song", "stem-1-reed", "stem-2-strings")
    )
    np.testing.assert_allclose(sum(parts), mix, atol=2e-4)
    assert 0.05 < np.abs(mix).max() < 1


def test_the_same_seed_makes_the_same_bytes_in_another_process(tmp_path, capsys):
    run = untrained("bert", "grid").save(tmp_path / "run.safetensors")
    arguments = ["song", str(run), "--harmonise", str(run), "--bars", "6", "--form", "ABA", "--remix", "0.5"]
    main([*arguments, "--seed", "7", "-o", str(tmp_path / "first")])
    printed = capsys.readouterr().out
    assert "composing: arrange" in printed
    program = "from wavegen.cli import main; import sys; main(sys.argv[1:])"
    again = [*arguments, "--seed", "7", "-o", str(tmp_path / "second")]
    subprocess.run([sys.executable, "-c", program, *again], check=True, capture_output=True)
    first, second = hashes(tmp_path / "first"), hashes(tmp_path / "second")
    assert first == second
    assert len(first) == 8
    assert any(name.endswith(".png") for name in first)


def test_the_skyline_is_what_sounds_highest():
    piece = of((60, 0, 4, 0), (72, 2, 4, 0), (67, 3, 6, 0), (64, 6, 2, 0), (50, 6, 2, 0), (90, 0, 8, 1),
               tracks=(Track("keys", 4), Track("kit", drum=True)))  # fmt: skip
    line = skyline(piece)
    assert list(zip(line.pitch.tolist(), line.onset.tolist(), line.duration.tolist(), strict=True)) == [
        (60, 0, 2),
        (72, 2, 4),
        (64, 6, 2),
    ]
    assert len(line.tracks) == 1
    assert len(skyline(of())) == 0


def test_parts_get_the_tracks_of_all():
    flute, bass = Track("flute", 73), Track("bass", 32)
    one, other = of((60, 0, 1, 0), tracks=(flute,)), of((40, 0, 1, 0), (70, 0, 1, 1), tracks=(bass, flute))
    first, second = with_same_tracks([one, other])
    assert first.tracks == second.tracks == (flute, bass)
    assert rows(second) == [(40, 0, 1, 80, 1), (70, 0, 1, 80, 0)]
    twice = of((60, 0, 1, 0), (61, 0, 1, 1), tracks=(flute, flute))
    assert with_same_tracks([one, twice])[1].track.tolist() == [0, 1]


def test_forms_are_letters_or_names():
    assert parse_form("AABA") == ["A", "A", "B", "A"]
    assert parse_form("verse-chorus-verse") == ["verse", "chorus", "verse"]


def test_what_cannot_be_is_one_line(tmp_path, capsys):
    bert, lstm = untrained("bert", "grid"), untrained("lstm", "grid")
    for model, options, message in (
        (bert, {"bars": 30}, "expected bars as a multiple of the 4 sections of AABA, got 30; use 32"),
        (bert, {"bars": 0}, "got 0; use 4"),
        (bert, {"form": "A B"}, "expected a form of letters, as AABA, or of names"),
        (bert, {"form": ""}, "expected a form of letters"),
        (bert, {"remix": 1.5}, r"expected a share to remix in \[0, 1\], got 1.5"),
        (bert, {"tempo": 0.0}, "expected 4 to 1000 quarter notes per minute, got 0.0"),
        (bert, {"seed": -1, "bars": 4}, "expected a seed of at least 0, got -1"),
        (bert, {"seed_piece": of()}, "expected a seed piece with notes, got an empty one"),
        (bert, {"bars": 4, "instruments": ("pian",)}, "did you mean 'piano'"),
        (bert, {"bars": 4, "instruments": ("drums",)}, "a voice with pitches is not played on drums"),
        (
            bert,
            {"bars": 4, "instruments": ("piano",) * 3},
            "expected at most 2 instruments, one a track, got 3",
        ),
        (lstm, {"remix": 0.5}, "remix needs a masked model, got lstm; give one as the remixer"),
        (bert, {"bars": 4, "harmoniser": lstm}, "harmonise needs a model.kind=seq2seq or bert"),
    ):
        with pytest.raises(WavegenError, match=message) as caught:
            wavegen.compose_song(model, **options)
        assert "\n" not in str(caught.value)
    with pytest.raises(SystemExit):
        main(["song", str(tmp_path / "nothing")])
    assert "nothing" in capsys.readouterr().err
