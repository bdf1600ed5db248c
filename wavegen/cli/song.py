"""The command that makes a whole song."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from tyro.conf import Positional

from wavegen.errors import WavegenError

if TYPE_CHECKING:
    from rich.progress import Progress


def song(
    run: Positional[Path],
    /,
    bars: int | None = None,
    seconds: float | None = None,
    form: str = "AABA",
    seed: int = 0,
    seed_piece: Path | None = None,
    harmonise: Path | None = None,
    remixer: Path | None = None,
    remix: float = 0.0,
    instruments: tuple[str, ...] = (),
    tempo: float | None = None,
    labels: tuple[str, ...] = (),
    temperature: tuple[str, ...] = (),
    top_k: int | None = None,
    top_p: float | None = None,
    soundfont: Path | None = None,
    sample_rate: int = 16000,
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("generated/song"),
) -> None:
    """Compose a song: MIDI, audio, a stem for each track, a piano roll, and a log; the same seed makes the same bytes.

    A model of audio makes audio alone, in seconds in place of bars.

    Args:
        run: which generates the sections.
        bars: of the song, a multiple of its sections; 32 unless given.
        seconds: of the song, for models of audio; 16 unless given.
        form: the sections in turn: letters, as AABA, or names, as verse-chorus-verse-chorus.
        seed: of all that is drawn.
        seed_piece: a MIDI file that the song begins with; for models of audio a recording that it continues.
        harmonise: a run that writes voices to the highest line of the sections.
        remixer: a masked run that varies sections that come back; by default the one that harmonises or generates.
        remix: share of the notes, or frames, of a section that comes back to draw anew. For masked models.
        instruments: who plays a grid's voices, from the highest on, as reed strings; for a model of events the only
            ones to play.
        tempo: quarter notes a minute.
        labels: values of label fields, written field=value.
        temperature: below 1 calmer, above 1 wilder; several numbers are for the codec's fields in turn,
            or, of events, by name: pitch=1.1 duration=0.8.
        top_k: draw among the k likeliest tokens; 0 is all. For causal models.
        top_p: draw among the likeliest tokens that together have this probability.
        soundfont: an .sf2 or .sf3 file that plays every instrument, and drums; by default the shipped piano plays.
        sample_rate: Hz, of the notes' audio.
        out: folder of the files.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    import wavegen
    from wavegen.audio import Audio
    from wavegen.cli.audio import pairs, refuse
    from wavegen.cli.notes import drawing_of, open_notes
    from wavegen.generation.audio_song import compose_audio_song
    from wavegen.notes.midi import read_midi

    model = wavegen.load(run)
    if isinstance(model, wavegen.Reconstructor):
        raise WavegenError(f"{run} is a codec, which generates nothing; give a model's run")
    with Progress(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()) as shown:
        composing = _Shown(shown, "composing")
        if isinstance(model, wavegen.NoteGenerator):
            refuse("a model of notes", seconds=seconds)
            made = wavegen.compose_song(
                model,
                bars=32 if bars is None else bars,
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
                progress=composing,
            )
            playing = _Shown(shown, "playing")
            files = made.write(out, sample_rate=sample_rate, soundfont=soundfont, progress=playing)
        else:
            refuse("a model of audio", bars=bars, harmonise=harmonise, remixer=remixer, tempo=tempo)
            refuse("a model of audio", instruments=instruments, temperature=temperature, soundfont=soundfont)
            refuse("a model of audio", top_k=top_k, top_p=top_p)
            files = compose_audio_song(
                model,
                seconds=16.0 if seconds is None else seconds,
                form=form,
                seed=seed,
                seed_piece=Audio.read(seed_piece) if seed_piece else None,
                remix=remix,
                labels=pairs(labels),
                progress=composing,
            ).write(out)
    print(*(f"file         {file}" for file in files), sep="\n")


class _Shown:
    """A bar of stages."""

    def __init__(self, bars: Progress, what: str) -> None:
        self._bars, self._what, self._task = bars, what, bars.add_task(what, total=None)

    def __call__(self, stage: str, done: int, total: int) -> None:
        self._bars.update(
            self._task, completed=done, total=total, description=f"{self._what}: {stage}".ljust(32)
        )
