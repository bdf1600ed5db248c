"""Commands that make and play scores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from tyro.conf import Positional

from wavegen.errors import WavegenError

if TYPE_CHECKING:
    from wavegen.generation.notes import NoteGenerator
    from wavegen.generation.windows import WindowGenerator
    from wavegen.notes.score import Score
    from wavegen.samplers.drawing import Drawing

_Out = Annotated[Path, tyro.conf.arg(aliases=["-o"])]


def compose(
    run: Positional[Path],
    /,
    length: int | None = None,
    prompt: Path | None = None,
    count: int = 1,
    seed: int = 0,
    temperature: tuple[str, ...] = (),
    top_k: int | None = None,
    top_p: float | None = None,
    labels: tuple[str, ...] = (),
    instruments: tuple[str, ...] = (),
    pitches: tuple[int, int] | None = None,
    out: _Out = Path("generated"),
) -> None:
    """Generate scores, or continue one: MIDI files, piano rolls, and audio on the piano.

    Args:
        run: of a model of notes.
        length: what is generated after the prompt: steps of the grid, or notes of a codec of events; by default 128,
            or a window of a variational autoencoder, which writes no more.
        prompt: a MIDI file to continue.
        count: pieces.
        seed: the same seed gives the same pieces.
        temperature: below 1 calmer, above 1 wilder; several numbers are for the codec's fields in turn,
            or, of events, by name: pitch=1.1 duration=0.8.
        top_k: draw among the k likeliest tokens; 0 is all. For causal models.
        top_p: draw among the likeliest tokens that together have this probability.
        labels: values of label fields, written field=value.
        instruments: the only ones that play, as piano bass drums; for a codec of events.
        pitches: the lowest and the highest MIDI number.
        out: folder of the files.
    """
    import wavegen
    from wavegen.cli.audio import pairs
    from wavegen.notes.midi import read_midi

    model = open_notes(run)
    usual = model.steps if isinstance(model, wavegen.WindowGenerator) else 128
    pieces = model.generate(
        usual if length is None else length,
        count=count,
        seed=seed,
        prompt=read_midi(prompt) if prompt else None,
        labels=pairs(labels),
        drawing=replace(drawing_of(temperature, top_k, top_p), instruments=instruments, pitches=pitches),
    )
    _write(pieces, out / f"{run.stem}-seed{seed}")


def harmonise(
    run: Positional[Path],
    melody: Positional[Path],
    /,
    voice: int = 0,
    count: int = 1,
    seed: int = 0,
    temperature: tuple[str, ...] = (),
    top_p: float | None = None,
    out: _Out = Path("generated"),
) -> None:
    """Add the other voices to a melody, which stays as it is.

    Args:
        run: of an encoder-decoder or a masked model of a grid of voices.
        melody: a MIDI file of one track.
        voice: which voice the melody is, from the highest, 0, down.
        count: harmonisations.
        seed: the same seed gives the same ones.
        temperature: below 1 calmer, above 1 wilder.
        top_p: draw among the likeliest tokens that together have this probability.
        out: folder of the files.
    """
    from wavegen.notes.midi import read_midi

    drawing = drawing_of(temperature, None, top_p)
    pieces = open_notes(run).harmonise(
        read_midi(melody), voice=voice, count=count, seed=seed, drawing=drawing
    )
    _write(pieces, out / f"{melody.stem}-harmonised{seed}")


def remix(
    run: Positional[Path],
    piece: Positional[Path],
    /,
    share: float = 0.3,
    what: Literal["notes", "pitches", "durations"] = "notes",
    count: int = 1,
    seed: int = 0,
    temperature: tuple[str, ...] = (),
    top_p: float | None = None,
    out: _Out = Path("generated"),
) -> None:
    """Draw a share of a piece's notes anew, or only their pitches or durations; all else stays as it is.

    Args:
        run: of a masked model of notes; for durations one of events.
        piece: a MIDI file; for a grid of voices one track a voice.
        share: of the notes, 0 to 1.
        what: changes of those notes.
        count: remixes.
        seed: the same seed gives the same ones.
        temperature: below 1 calmer, above 1 wilder.
        top_p: draw among the likeliest tokens that together have this probability.
        out: folder of the files.
    """
    from wavegen.notes.midi import read_midi

    drawing = drawing_of(temperature, None, top_p)
    pieces = open_notes(run).remix(read_midi(piece), share, what, count=count, seed=seed, drawing=drawing)
    _write(pieces, out / f"{piece.stem}-remix{seed}")


def interpolate(
    run: Positional[Path],
    first: Positional[Path],
    last: Positional[Path],
    /,
    steps: int = 7,
    out: _Out = Path("generated"),
) -> None:
    """Go from one piece, or recording, to another in the space of an autoencoder; the ends are reconstructions.

    Args:
        run: of a variational autoencoder of notes, for MIDI files; of a codec, for recordings.
        first: where the way begins.
        last: where it ends.
        steps: pieces, the two ends included; all of them in a row are one more MIDI file.
        out: folder of the files.
    """
    import wavegen
    from wavegen.cli.audio import interpolate_audio
    from wavegen.notes.arrange import concatenate, with_same_tracks
    from wavegen.notes.midi import read_midi

    model, path = wavegen.load(run), out / f"{first.stem}-to-{last.stem}"
    if isinstance(model, wavegen.Reconstructor):
        interpolate_audio(model, first, last, steps, path)
        return
    if not isinstance(model, wavegen.WindowGenerator):
        raise WavegenError(
            f"interpolating takes a model.kind=window_vae or a codec, got {model.config.model.kind}; train one with "
            "configs/chorales-vae.yaml"
        )
    pieces = model.interpolate(read_midi(first), read_midi(last), steps)
    _write(pieces, path)
    _write([concatenate(with_same_tracks(pieces))], path.with_name(f"{path.name}-all"))


def reconstruct_notes(model: WindowGenerator, run: Path, piece: Path, out: Path) -> None:
    """Send a piece through an autoencoder, and print how much of it comes back."""
    from wavegen.notes.midi import read_midi

    notes = read_midi(piece)
    result = model.reconstruct(notes)
    print(f"accuracy     {model.accuracy(notes):.4f} of the tokens")
    _write([result], out / f"{run.stem}-{piece.stem}")


def render(
    piece: Positional[Path],
    /,
    run: Path | None = None,
    soundfont: Path | None = None,
    sample_rate: int | None = None,
    seed: int = 0,
    out: _Out = Path("generated"),
) -> None:
    """Play a MIDI file: on the shipped piano, on the instruments of a SoundFont, or by a model that has learned to.

    Args:
        piece: a MIDI file.
        run: of a WaveNet that is conditioned on notes; its audio is drawn, at its own rate.
        soundfont: an .sf2 or .sf3 file; needs pip install 'wavegen[soundfont]'.
        sample_rate: Hz; 16000 unless given.
        seed: of a model: the same seed gives the same audio.
        out: folder of the WAV file.
    """
    from wavegen.notes.midi import read_midi
    from wavegen.notes.render import render as play

    notes = read_midi(piece)
    if run is None:
        audio = play(notes, 16_000 if sample_rate is None else sample_rate, soundfont=soundfont)
    elif soundfont is not None or sample_rate is not None:
        raise WavegenError(
            "--run plays with its own sound at its own rate; leave --soundfont and --sample-rate out"
        )
    else:
        from wavegen.generation.load import load_generator

        audio = load_generator(run).generate(notes=notes, seed=seed)[0]
    path = out / f"{piece.stem}.wav"
    path.parent.mkdir(parents=True, exist_ok=True)
    audio.write(path)
    print(f"audio        {path}")


def open_notes(run: Path) -> NoteGenerator:
    """A run of a model of notes."""
    import wavegen

    model = wavegen.load(run)
    if not isinstance(model, wavegen.NoteGenerator):
        raise WavegenError(f"{run} makes audio, not notes; try wavegen sample {run}")
    return model


def drawing_of(temperature: tuple[str, ...], top_k: int | None, top_p: float | None) -> Drawing:
    """How tokens are drawn, as the command line says it."""
    from wavegen.cli.audio import pairs
    from wavegen.samplers.drawing import Drawing

    try:
        if "=" in "".join(temperature):
            return Drawing({name: float(value) for name, value in pairs(temperature).items()}, top_k, top_p)
        numbers = tuple(map(float, temperature))
    except ValueError:
        raise WavegenError(
            f"a temperature is a number, or field=number as pitch=1.1, got {' '.join(temperature)}"
        ) from None
    return Drawing(None if not numbers else numbers[0] if len(numbers) == 1 else numbers, top_k, top_p)


def _write(pieces: list[Score], path: Path) -> None:
    from wavegen.notes.midi import write_midi
    from wavegen.notes.render import render as play
    from wavegen.pictures.notes import plot_notes

    path.parent.mkdir(parents=True, exist_ok=True)
    for row, notes in enumerate(pieces):
        file = path.with_name(f"{path.name}-{row}.mid")
        write_midi(file, notes)
        audio, picture = file.with_suffix(".wav"), file.with_suffix(".png")
        play(notes).write(audio)
        plot_notes(picture, {file.stem: notes})
        print(f"notes        {file}\naudio        {audio}\npiano roll   {picture}")
