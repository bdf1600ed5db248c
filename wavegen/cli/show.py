"""What commands show and write: progress, printed lines, and the files of audio and of notes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wavegen.errors import WavegenError

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

    from wavegen.audio import Audio
    from wavegen.notes.performance import Performance
    from wavegen.notes.score import Score


class Progress:
    """One line per task on the terminal: a text, a bar, and the time that is left or, at the end, was taken.

    Args:
        aside: write to the error output and erase the lines at the end, for commands whose output is a table.

    Example:
        >>> from wavegen.cli.show import Progress
        >>> with Progress(aside=True) as progress:
        ...     line = progress.line("encoding", total=2)
        ...     line.update("encoding the second file", done=1)
    """

    def __init__(self, aside: bool = False) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.table import Column

        text = TextColumn("{task.description}", markup=False, table_column=Column(min_width=28))
        # A console that is made here, not rich's own, follows a redirection of the standard output.
        console = Console(stderr=aside)
        self._bars = Progress(
            text,
            BarColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
            transient=aside,
            # What is erased at the end is not for a file, where it would leave empty lines.
            disable=aside and not console.is_terminal,
        )

    def __enter__(self) -> Progress:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def line(self, text: str, total: float | None = None) -> Line:
        """Adds a line.

        Args:
            text: what is done.
            total: how much there is to do, in any unit; None means that it is not known.
        """
        return Line(self._bars, text, total)


class Line:
    """A line of a ``Progress``.

    Args:
        bars: all lines.
        text: see ``Progress.line``.
        total: see ``Progress.line``.
    """

    def __init__(self, bars: Bars, text: str, total: float | None) -> None:
        self._bars, self._task = bars, bars.add_task(text, total=total)

    def update(self, text: str | None = None, done: float | None = None, total: float | None = None) -> None:
        """Changes what the line shows; None leaves a part as it is.

        Args:
            text: what is done now.
            done: how much has been done, in the unit of the total.
            total: see ``Progress.line``.
        """
        self._bars.update(self._task, description=text, completed=done, total=total)


def print_facts(facts: Mapping[str, object], width: int = 13) -> None:
    """Prints one line per fact: its name, padded to ``width`` characters, and its value."""
    for name, value in facts.items():
        print(f"{name:<{width}}{value}")


def numbered(path: Path, count: int, suffix: str) -> list[Path]:
    """Returns the files of ``count`` results: ``PATH-0`` with the suffix, ``PATH-1`` and so on."""
    return [path.with_name(f"{path.name}-{row}{suffix}") for row in range(count)]


def _unused(path: Path, holds: Callable[[Path], bool]) -> Path:
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
    path = _unused(path, lambda free: _hold(numbered(free, len(clips), ".wav"), clips))
    files = numbered(path, len(clips), ".wav")
    for clip, file in zip(clips, files, strict=True):
        clip.write(file)
    for file in files:
        draw_recording(file)


def write_audio(audio: Audio, file: Path) -> None:
    """Writes one WAV file without a picture, and prints its path."""
    file = _unused(file, lambda free: _hold([free], [audio]))
    audio.write(file)
    print_facts({"audio": file})


def write_comparison(result: Audio, original: Audio, file: Path) -> None:
    """Writes what came back as a WAV file, with a picture of its spectrogram and the original's, and prints both."""
    file = _unused(file, lambda free: _hold([free], [result]))
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

    path = _unused(path, hold)
    from wavegen.pictures.notes import plot_notes

    for score, file in zip(scores, numbered(path, len(scores), ".mid"), strict=True):
        write_midi(file, score)
        audio, picture = file.with_suffix(".wav"), file.with_suffix(".png")
        render(score).write(audio)
        plot_notes(picture, {file.stem: score})
        print_facts({"notes": file, "audio": audio, "piano roll": picture})


def write_performance(notes: Performance, path: Path, melody: bool) -> None:
    """Writes the notes that a model plays: a melody as ``PATH.txt``, anything else as ``PATH.mid``."""
    from wavegen.atomic import atomic_write
    from wavegen.notes.midi import write_midi
    from wavegen.notes.score import from_performance

    if melody:
        with atomic_write(path.with_name(f"{path.name}.txt")) as file:
            file.write(notes.text().encode())
    else:
        write_midi(path.with_name(f"{path.name}.mid"), from_performance(notes))


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
