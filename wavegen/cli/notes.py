"""Commands that generate, change and play scores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

from wavegen.cli.options import Ask, Flat, LabelledAsk, Out, PieceDrawing, VoiceDrawing, pairs, result_name
from wavegen.cli.ranges import Length, Rate, Seed, Share, Voice
from wavegen.cli.show import write_audio, write_scores
from wavegen.cli.work import Work, shown, stopping
from wavegen.errors import WavegenError
from wavegen.progress import Progress

if TYPE_CHECKING:
    from wavegen.generation.notes import NoteGenerator


def compose(
    run: Positional[Path],
    /,
    length: Length | None = None,
    prompt: Path | None = None,
    out: Out = Path("generated"),
    *,
    ask: Flat[LabelledAsk],
    drawing: Flat[PieceDrawing],
) -> None:
    """Generates scores, or continues one: MIDI files, piano rolls, and audio on the piano.

    Ctrl-C keeps the notes so far of a causal model.

    Args:
        run: a run of a model of notes.
        length: how much is generated after the prompt: steps of a grid, or notes of a codec of events; by default 128,
            or for a variational autoencoder one window, which is also the most that it generates.
        prompt: a MIDI file to continue.
        out: folder for the files.
        ask: how many pieces, from which seed and with which labels.
        drawing: how tokens are drawn.
    """
    import wavegen
    from wavegen.notes.midi import read_midi

    model = open_notes(run)
    usual = model.steps if isinstance(model, wavegen.WindowGenerator) else 128
    with Progress(aside=True) as lines, stopping("pass or block of notes") as stop:
        pieces = model.generate(
            usual if length is None else length,
            count=ask.count,
            seed=ask.seed,
            prompt=read_midi(prompt) if prompt else None,
            labels=pairs(ask.labels),
            drawing=drawing.drawing(),
            progress=Work(lines, "composing", stop),
        )
    write_scores(pieces, out / f"{result_name(run)}-seed{ask.seed}")
    stop.interrupt()


def harmonise(
    run: Positional[Path],
    melody: Positional[Path],
    /,
    voice: Voice = 0,
    out: Out = Path("generated"),
    *,
    ask: Flat[Ask],
    drawing: Flat[VoiceDrawing],
) -> None:
    """Adds the other voices to a melody, which stays as it is.

    Args:
        run: a run of an encoder-decoder or a masked model of a grid of voices.
        melody: a MIDI file with one track.
        voice: which voice the melody is; 0 is the highest.
        out: folder for the files.
        ask: how many harmonisations, from which seed.
        drawing: how tokens are drawn.
    """
    from wavegen.notes.midi import read_midi

    model, line = open_notes(run), read_midi(melody)
    with shown("harmonising") as work:
        pieces = model.harmonise(
            line,
            voice=voice,
            count=ask.count,
            seed=ask.seed,
            drawing=drawing.drawing(),
            progress=work,
        )
    write_scores(pieces, out / f"{melody.stem}-harmonised{ask.seed}")


def remix(
    run: Positional[Path],
    piece: Positional[Path],
    /,
    share: Share = 0.3,
    what: Literal["notes", "pitches", "durations"] = "notes",
    out: Out = Path("generated"),
    *,
    ask: Flat[Ask],
    drawing: Flat[VoiceDrawing],
) -> None:
    """Draws a share of a piece's notes anew, or only their pitches or durations.

    Everything else in the piece stays as it is.

    Args:
        run: a run of a masked model of notes; durations need a codec of events.
        piece: a MIDI file; a grid of voices needs one track per voice.
        share: of the notes, 0 to 1.
        what: what is changed about those notes.
        out: folder for the files.
        ask: how many remixes, from which seed.
        drawing: how tokens are drawn.
    """
    from wavegen.notes.midi import read_midi

    model, notes = open_notes(run), read_midi(piece)
    with shown("remixing") as work:
        pieces = model.remix(
            notes,
            share,
            what,
            count=ask.count,
            seed=ask.seed,
            drawing=drawing.drawing(),
            progress=work,
        )
    write_scores(pieces, out / f"{piece.stem}-remix{ask.seed}")


def render(
    piece: Positional[Path],
    /,
    run: Path | None = None,
    soundfont: Path | None = None,
    sample_rate: Rate | None = None,
    seed: Seed = 0,
    pedal: bool = True,
    out: Out = Path("generated"),
) -> None:
    """Plays a MIDI file on the piano of the package, a SoundFont, or a trained model.

    Args:
        piece: a MIDI file.
        run: a run of a WaveNet that is conditioned on notes; its audio is drawn, at its own rate.
        soundfont: an .sf2 or .sf3 file; needs pip install 'wavegen[soundfont]'.
        sample_rate: in Hz; by default 16000.
        seed: of a model: the same seed gives the same audio.
        pedal: notes last until they fall silent, as the pedals of the file say; without, as the keys are held.
        out: folder for the WAV file.
    """
    from wavegen.notes.midi import read_midi
    from wavegen.notes.render import render as play

    notes = read_midi(piece, pedal=pedal)
    if not len(notes):
        raise WavegenError(f"{piece} has no notes to play; give another piece")
    if run is None and soundfont is None and notes.drum.all():
        raise WavegenError(
            f"{piece} has nothing but drums, which the piano does not play; give a --soundfont"
        )
    if run is None:
        audio = play(notes, 16_000 if sample_rate is None else sample_rate, soundfont=soundfont)
    elif soundfont is not None or sample_rate is not None:
        raise WavegenError(
            "--run plays with its own sound at its own rate; leave --soundfont and --sample-rate out"
        )
    else:
        from wavegen.generation.load import load_generator

        model = load_generator(run)
        with shown("playing") as work:
            audio = model.generate(notes=notes, seed=seed, progress=work)[0]
    write_audio(audio, out / f"{piece.stem}.wav")


def open_notes(run: Path) -> NoteGenerator:
    """Opens a run of a model of notes.

    Raises:
        WavegenError: the run is of a model of audio, or is no run.
    """
    import wavegen

    model = wavegen.load(run)
    if not isinstance(model, wavegen.NoteGenerator):
        raise WavegenError(f"{run} makes audio, not notes; try wavegen sample {run}")
    return model
