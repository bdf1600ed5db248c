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
        piece = Score(60 + np.arange(3), onset, np.full(3, 480), np.full(3, 80), np.zeros(3, int))
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
