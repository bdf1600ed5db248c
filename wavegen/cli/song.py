"""The command that makes a whole song."""

from __future__ import annotations

from pathlib import Path

from tyro.conf import Positional

from wavegen.cli.notes import open_notes
from wavegen.cli.options import Flat, NoteDrawing, Out, pairs, refuse
from wavegen.cli.ranges import Bars, Rate, Seconds, Seed, Share, Tempo
from wavegen.cli.show import print_facts
from wavegen.cli.work import Work, stopping
from wavegen.errors import WavegenError
from wavegen.progress import Progress


def song(
    run: Positional[Path],
    /,
    bars: Bars | None = None,
    seconds: Seconds | None = None,
    form: str = "AABA",
    seed: Seed = 0,
    seed_piece: Path | None = None,
    harmonise: Path | None = None,
    remixer: Path | None = None,
    remix: Share = 0.0,
    instruments: tuple[str, ...] = (),
    tempo: Tempo | None = None,
    labels: tuple[str, ...] = (),
    soundfont: Path | None = None,
    sample_rate: Rate = 16000,
    out: Out = Path("generated/song"),
    *,
    drawing: Flat[NoteDrawing],
) -> None:
    """Composes a song: MIDI, audio, a stem per track, a piano roll and a log.

    The same seed makes the same bytes. A model of audio makes audio alone, in seconds instead of bars. Ctrl-C keeps the
    sections that are whole.

    Args:
        run: the run that generates the sections.
        bars: length of the song, a multiple of the number of its sections; by default 32.
        seconds: length of the song, for models of audio; by default 16.
        form: the sections in order: letters, for example AABA, or names, for example verse-chorus-verse-chorus.
        seed: of everything that is drawn.
        seed_piece: a MIDI file that the song begins with; for models of audio a recording that it continues.
        harmonise: a run that adds voices to the highest line of the sections.
        remixer: a masked run that varies sections that return; by default the run that harmonises or generates.
        remix: share of the notes, or frames, of a section that returns to draw anew. For masked models.
        instruments: which instruments play a grid's voices, from the highest on, for example reed strings; for a model
            of events the only instruments that play.
        tempo: quarter notes per minute.
        labels: values of the model's label fields, written field=value.
        soundfont: an .sf2 or .sf3 file that plays every instrument, and drums; by default the piano of the package
            plays.
        sample_rate: of the notes' audio, in Hz.
        out: folder for the files.
        drawing: how tokens are drawn.
    """
    import wavegen
    from wavegen.audio import Audio
    from wavegen.generation.audio_song import compose_audio_song
    from wavegen.notes.midi import read_midi

    model = wavegen.load(run)
    if isinstance(model, wavegen.Reconstructor):
        raise WavegenError(f"{run} is a codec, which generates nothing; give a model's run")
    with Progress() as progress, stopping("pass or block") as stop:
        composing = Work(progress, "composing", stop)
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
                drawing=drawing.drawing(),
                progress=composing,
            )
            playing = Work(progress, "playing")
            files = made.write(out, sample_rate=sample_rate, soundfont=soundfont, progress=playing)
        else:
            refuse("a model of audio", bars=bars, harmonise=harmonise, remixer=remixer, tempo=tempo)
            refuse("a model of audio", instruments=instruments, soundfont=soundfont, **vars(drawing))
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
    for file in files:
        print_facts({"file": file})
    stop.interrupt()
