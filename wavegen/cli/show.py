"""What commands print and write: printed facts, and the files of audio and of notes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wavegen.errors import WavegenError

if TYPE_CHECKING:
    from wavegen.audio import Audio
    from wavegen.notes.performance import Performance
    from wavegen.notes.score import Score


def print_facts(facts: Mapping[str, object], width: int = 13) -> None:
    """Prints one line per fact: its name, padded to ``width`` characters, and its value."""
    for name, value in facts.items():
        print(f"{name:<{width}}{value}")


def numbered(path: Path, count: int, suffix: str) -> list[Path]:
    """Returns the files of ``count`` results: ``PATH-0`` with the suffix, ``PATH-1`` and so on."""
    return [path.with_name(f"{path.name}-{row}{suffix}") for row in range(count)]


def unused(path: Path, holds: Callable[[Path], bool]) -> Path:
    """Returns a path for results at which nothing else lies: PATH, or PATH-2 and so on before its suffix.

    Files of one name in two folders have results of one name, and a folder may hold anything.

    Args:
        path: where the results would lie.
        holds: whether nothing lies at a path, or these very results, which a command that is run again makes.
    """
    suffix = path.suffix if path.suffix == ".wav" else ""
    names = (f"{path.name.removesuffix(suffix)}-{number}{suffix}" for number in itertools.count(2))
    return next(free for free in itertools.chain([path], map(path.with_name, names)) if holds(free))


def _hold(files: Sequence[Path], clips: Sequence[Audio]) -> bool:
    """Whether files are missing, or hold these clips."""
    return all(not file.exists() or _holds(file, clip) for file, clip in zip(files, clips, strict=True))


def _holds(file: Path, clip: Audio) -> bool:
    from wavegen.audio import Audio

    try:
        there = Audio.read(file)
    except WavegenError:  # whatever it is, it is something else
        return False
    same = there.sample_rate == clip.sample_rate and there.samples.shape == clip.samples.shape
    return same and bool((there.to_pcm16() == clip.to_pcm16()).all())


def write_clips(clips: Sequence[Audio], path: Path) -> None:
    """Writes clips as ``PATH-0.wav`` and so on, each with a picture of its spectrogram, and prints the files."""
    path = unused(path, lambda free: _hold(numbered(free, len(clips), ".wav"), clips))
    files = numbered(path, len(clips), ".wav")
    for clip, file in zip(clips, files, strict=True):
        clip.write(file)
    for file in files:
        draw_recording(file)


def write_audio(audio: Audio, file: Path) -> None:
    """Writes one WAV file without a picture, and prints its path."""
    file = unused(file, lambda free: _hold([free], [audio]))
    audio.write(file)
    print_facts({"audio": file})


def write_comparison(result: Audio, original: Audio, file: Path) -> None:
    """Writes what came back as a WAV file, with a picture of its spectrogram and the original's, and prints both."""
    file = unused(file, lambda free: _hold([free], [result]))
    result.write(file)
    _draw(file, {"reconstructed": result, "recorded": original})


def draw_recording(file: Path) -> None:
    """Draws the spectrogram of a WAV file next to it, and prints the paths of both."""
    from wavegen.audio import Audio

    _draw(file, {file.stem: Audio.read(file)})


def write_scores(scores: Sequence[Score], path: Path) -> None:
    """Writes scores as ``PATH-0.mid`` and so on, each played on the piano and drawn, and prints the files."""
    from wavegen.notes.midi import midi_bytes, write_midi
    from wavegen.notes.render import render

    def hold(free: Path) -> bool:
        files = numbered(free, len(scores), ".mid")
        return all(
            file.read_bytes() == midi_bytes(score) if file.exists() else not file.with_suffix(".wav").exists()
            for file, score in zip(files, scores, strict=True)
        )

    path = unused(path, hold)
    from wavegen.pictures.notes import plot_notes

    for score, file in zip(scores, numbered(path, len(scores), ".mid"), strict=True):
        write_midi(file, score)
        audio, picture = file.with_suffix(".wav"), file.with_suffix(".png")
        render(score).write(audio)
        plot_notes(picture, {file.stem: score})
        print_facts({"notes": file, "audio": audio, "piano roll": picture})


def settle(written: Sequence[Path], path: Path, wanted: Path) -> list[Path]:
    """Gives results that equal those of an earlier run of the command their place, and returns where results lie.

    Args:
        written: the files, whose names begin with that of ``path``.
        path: what ``unused`` gave while their contents were not known yet.
        wanted: what it was asked for.
    """
    places = [file.with_name(wanted.name + file.name.removeprefix(path.name)) for file in written]
    if path == wanted or not all(
        place.is_file() and place.read_bytes() == file.read_bytes()
        for place, file in zip(places, written, strict=True)
    ):
        return list(written)
    for place, file in zip(places, written, strict=True):
        file.replace(place)
    return places


def write_performance(notes: Performance, path: Path, melody: bool) -> Path:
    """Writes the notes that a model plays: a melody as ``PATH.txt``, anything else as ``PATH.mid``."""
    from wavegen.atomic import atomic_write
    from wavegen.notes.midi import write_midi
    from wavegen.notes.score import from_performance

    file = path.with_name(f"{path.name}.txt" if melody else f"{path.name}.mid")
    if melody:
        with atomic_write(file) as opened:
            opened.write(notes.text().encode())
    else:
        write_midi(file, from_performance(notes))
    return file


def write_json(tree: Mapping[str, Any], file: Path) -> None:
    """Writes figures and what they depend on as JSON, and prints the path."""
    import json

    from wavegen.atomic import atomic_write

    with atomic_write(file) as opened:
        opened.write(json.dumps(tree, indent=2).encode())
    print_facts({"json": file})


def _draw(file: Path, recordings: dict[str, Audio]) -> None:
    from wavegen.pictures.audio import spectrograms

    picture = spectrograms(file.with_suffix(".png"), recordings)
    print_facts({"audio": file, "spectrogram": picture})
