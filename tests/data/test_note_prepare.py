"""Folders of MIDI files become datasets on the command line."""

import numpy as np
import pytest

from wavegen.cli import main
from wavegen.codecs.make import make_codec
from wavegen.codecs.notes.base import Interleaved
from wavegen.codecs.notes.events import NoteEvents
from wavegen.config import resolve
from wavegen.data.open import open_dataset
from wavegen.notes.midi import write_midi
from wavegen.notes.score import Score


@pytest.fixture
def folder(tmp_path):
    """Four pieces, one of which has two notes at once, and a file that is none."""
    for n in range(4):
        onset = np.array([0, 480, 480 if n == 3 else 960])
        piece = Score(
            (60, 62, 64, 61)[n] + np.arange(3), onset, np.full(3, 480), np.full(3, 80), np.zeros(3, int)
        )
        write_midi(tmp_path / "midi" / f"{('train', 'valid', 'test', 'train')[n]}_{n}.mid", piece)
    (tmp_path / "midi" / "train_9.mid").write_text("no MIDI file")
    return tmp_path


SPLITS = ["--label-pattern", "{split}_{n}", "--valid", "split=valid", "--test", "split=test"]


def test_a_prepared_folder_is_data_for_the_same_codec(folder, capsys):
    out = folder / "dataset"
    options = ["--codec-options", "voices=1", "low=48", "high=72"]
    main(["prepare", str(folder / "midi"), "-o", str(out), "--codec", "note_grid", *options, *SPLITS])
    printed = capsys.readouterr().out
    assert "1 files            12 frames" in printed
    assert "train_9.mid" in printed
    assert "expected one note at a time, got two on track 0 at step 4" in printed
    codec = {"kind": "note_grid", "voices": 1, "low": 48, "high": 72}
    config = resolve({"data": {"path": str(out)}, "codec": codec, "model": {"kind": "lstm"}})
    dataset = open_dataset(config)
    files = dataset.split("train")
    tokens = dataset.read(files, 0, 0, int(files.length[0]))
    assert make_codec(config.codec).decode(tokens).pitch.tolist() == [60, 61, 62]


def test_events_keep_what_a_grid_cannot(folder, capsys):
    out = folder / "dataset"
    arguments = ["prepare", str(folder / "midi"), "-o", str(out), "--codec", "note_events", *SPLITS]
    main(arguments)
    assert "train           2 files            30 frames" in capsys.readouterr().out
    config = resolve(
        {"data": {"path": str(out)}, "codec": {"kind": "note_events"}, "model": {"kind": "lstm"}}
    )
    assert open_dataset(config).codec == Interleaved(NoteEvents()).fingerprint
    main(arguments)
    assert "0 shard(s) written, 1 already there" in capsys.readouterr().out


def test_pieces_without_notes_are_skipped_and_others_are_kept(folder, capsys):
    write_midi(folder / "midi" / "train_8.mid", Score(*np.zeros((5, 0), int)))
    arguments = [
        "prepare",
        str(folder / "midi"),
        "-o",
        str(folder / "out"),
        "--codec",
        "note_events",
        *SPLITS,
    ]
    main(arguments)
    printed = capsys.readouterr().out
    assert "train_8.mid: expected notes, got none; remove it" in printed
    assert "train           2 files            30 frames" in printed


def test_the_pedal_can_be_left_out(folder, tmp_path, capsys):
    (tmp_path / "held").mkdir()
    events = bytes.fromhex("00b0407f 00903c40 8360803c00 8360b04000 00ff2f00")
    data = b"MThd\0\0\0\6\0\0\0\1\1\xe0MTrk" + len(events).to_bytes(4) + events
    (tmp_path / "held" / "a.mid").write_bytes(data)
    grid = ["--codec", "note_grid", "--codec-options", "voices=1", "--valid", "0", "--test", "0"]
    main(["prepare", str(tmp_path / "held"), "-o", str(tmp_path / "sound"), *grid])
    printed = capsys.readouterr().out
    assert "8 frames" in printed
    assert "notes that a pedal holds: 1 in 1 file(s)" in printed
    main(["prepare", str(tmp_path / "held"), "-o", str(tmp_path / "keys"), "--no-pedal", *grid])
    printed = capsys.readouterr().out
    assert "4 frames" in printed
    assert "pedal holds" not in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--codec", "note_grid", "--codec-options", "voice=2"],
            "unknown configuration key 'codec.voice'; did you",
        ),
        (["--codec", "note_grid", "--codec-options", "low=90"], "low 90 must not be above high 81"),
        (["--codec", "note_events", "--codec-options", "steps"], "an override is written key=value"),
        (["--codec-options", "voices=2"], "--codec-options are those of --codec note_grid or note_events"),
        ([], "expected recordings"),
    ],
)
def test_what_cannot_be_is_one_line(folder, arguments, message, capsys):
    with pytest.raises(SystemExit):
        main(["prepare", str(folder / "midi"), "-o", str(folder / "out"), *arguments])
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
