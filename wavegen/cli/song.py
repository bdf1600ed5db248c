"""The command that makes a whole song."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from tyro.conf import Positional

if TYPE_CHECKING:
    from rich.progress import Progress


def song(
    run: Positional[Path],
    /,
    bars: int = 32,
    form: str = "AABA",
    seed: int = 0,
    seed_piece: Path | None = None,
    harmonise: Path | None = None,
    remixer: Path | None = None,
    remix: float = 0.0,
    instruments: tuple[str, ...] = (),
    tempo: float | None = None,
    labels: tuple[str, ...] = (),
    temperature: tuple[float, ...] = (),
    top_k: int = 0,
    top_p: float = 1.0,
    soundfont: Path | None = None,
    sample_rate: int = 16000,
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("generated/song"),
) -> None:
    """Compose a song: MIDI, audio, a stem for each track, a piano roll, and a log; the same seed makes the same bytes.

    Args:
        run: of a model of notes, which generates the sections.
        bars: of the song, a multiple of its sections.
        form: the sections in turn: letters, as AABA, or names, as verse-chorus-verse-chorus.
        seed: of all that is drawn.
        seed_piece: a MIDI file that the song begins with.
        harmonise: a run that writes voices to the highest line of the sections.
        remixer: a masked run that varies sections that come back; by default the one that harmonises or generates.
        remix: share of the notes of a section that comes back to draw anew.
        instruments: who plays a grid's voices, from the highest on, as reed strings; for a model of events the only
            ones to play.
        tempo: quarter notes a minute.
        labels: values of label fields, written field=value.
        temperature: below 1 calmer, above 1 wilder; several numbers are for the codec's fields in turn.
        top_k: draw among the k likeliest tokens; 0 is all. For causal models.
        top_p: draw among the likeliest tokens that together have this probability.
        soundfont: an .sf2 or .sf3 file that plays every instrument, and drums; by default the shipped piano plays.
        sample_rate: Hz.
        out: folder of the files.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from wavegen.cli.notes import drawing_of, open_notes
    from wavegen.cli.sample import pairs
    from wavegen.notes.midi import read_midi
    from wavegen.song import compose_song

    with Progress(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()) as bars_shown:
        made = compose_song(
            open_notes(run),
            bars=bars,
            form=form,
            seed=seed,
            seed_piece=read_midi(seed_piece) if seed_piece else None,
            harmoniser=open_notes(harmonise) if harmonise else None,
            remixer=open_notes(remixer) if remixer else None,
            remix=remix,
            instruments=instruments,
            tempo=tempo,
            labels=pairs(labels),
            drawing=drawing_of(temperature, top_k, top_p),
            progress=_Shown(bars_shown, "composing"),
        )
        files = made.write(
            out, sample_rate=sample_rate, soundfont=soundfont, progress=_Shown(bars_shown, "playing")
        )
    minutes = made.notes.seconds(made.notes.onset + made.notes.duration).max(initial=0) / 60
    print(f"song         {len(made.notes)} notes on {len(made.notes.tracks)} tracks, {minutes:.1f} minutes")
    print(*(f"file         {file}" for file in files), sep="\n")


class _Shown:
    """A bar of stages."""

    def __init__(self, bars: Progress, what: str) -> None:
        self._bars, self._what, self._task = bars, what, bars.add_task(what, total=None)

    def __call__(self, stage: str, done: int, total: int) -> None:
        self._bars.update(
            self._task, completed=done, total=total, description=f"{self._what}: {stage}".ljust(32)
        )
