"""The command that makes datasets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

from wavegen.cli.options import Out
from wavegen.cli.ranges import Decibels, Machine, Machines, Rate, Workers
from wavegen.errors import WavegenError

if TYPE_CHECKING:
    from wavegen.codecs.notes.base import NoteCodec


def prepare(
    folder: Positional[Path],
    /,
    out: Out,
    sample_rate: Rate = 16000,
    channels: Literal[1, 2] = 1,
    codec: Literal["note_grid", "note_events"] | None = None,
    codec_options: tuple[str, ...] = (),
    label_pattern: str | None = None,
    valid: str = "0.05",
    test: str = "0.05",
    split_by: str | None = None,
    pedal: bool = True,
    trim_silence_db: Decibels | None = None,
    backend: Literal["memmap", "array_record"] = "memmap",
    workers: Workers | None = None,
    shard_index: Machine = 0,
    num_shards: Machines = 1,
) -> None:
    """Makes a dataset, in shards with checksums, of a folder of recordings or of MIDI files.

    The report says what was skipped, cut, clipped or mixed away, and which files are copies of others; the manifest
    keeps it file by file.

    Args:
        folder: searched with its subfolders for anything that libsndfile reads, or for MIDI files.
        out: the dataset's folder: a new or empty one, or a dataset, which is resumed or replaced.
        sample_rate: in Hz; recordings are resampled to it.
        channels: 1 mixes recordings to mono; 2 is stereo: mono ones are duplicated, and more than two channels are
            mixed to mono and duplicated.
        codec: store the tokens of MIDI files, on a grid of voices or as events.
        codec_options: as in a configuration, without "codec.": voices=2 low=48, or steps_per_quarter=4.
        label_pattern: reads labels from the path: '{digit}_{speaker}_{take}', '{genre}/*', or 'folder'.
        valid: the validation split: a fraction (0.05), labels ('take=5-9'), a path pattern ('valid/*') or one with a
            fraction that holds where no file matches it ('valid/* | 0.05').
        test: the test split, in the same form.
        split_by: a label field, or "folder": all files with one value, or in one folder, get the same split, and
            fractions are of the values: --label-pattern '{speaker}_{take}' --split-by speaker.
        pedal: notes of MIDI files last until they fall silent, as the pedals say; without, as the keys are held.
        trim_silence_db: cut off ends that are this many dB quieter than the loudest moment.
        backend: format of the shards; memmap works everywhere.
        workers: number of processes; by default one per processor.
        shard_index: this machine's number among num-shards, from 0.
        num_shards: number of machines that share the work and the output folder.
    """
    from wavegen.data.prepare import prepare as run

    if codec_options and codec is None:
        raise WavegenError("--codec-options are those of --codec note_grid or note_events; give one of them")
    report = run(
        folder,
        out,
        sample_rate=sample_rate,
        channels=channels,
        label_pattern=label_pattern,
        split={"test": _fraction(test), "valid": _fraction(valid)},
        split_by=split_by,
        pedal=pedal,
        trim_silence_db=trim_silence_db,
        backend=backend,
        codec=None if codec is None else _note_codec(codec, codec_options),
        workers=workers,
        shard_index=shard_index,
        num_shards=num_shards,
    )
    print(report)


def _note_codec(kind: str, options: tuple[str, ...]) -> NoteCodec:
    from wavegen.codecs.make import make_codec
    from wavegen.codecs.notes.base import NoteCodec
    from wavegen.config import resolve

    # An LSTM reads any codec: nothing but the options can be wrong.
    tree = {"model": {"kind": "lstm"}, "codec": {"kind": kind}}
    codec = make_codec(resolve(tree, [f"codec.{option}" for option in options]).codec)
    assert isinstance(codec, NoteCodec)
    return codec


def _fraction(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
