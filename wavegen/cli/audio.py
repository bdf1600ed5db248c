"""Commands that make audio."""

from __future__ import annotations

import math
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from tyro.conf import Positional

from wavegen.errors import WavegenError

if TYPE_CHECKING:
    from wavegen.audio import Audio
    from wavegen.generation.audio import AudioGenerator
    from wavegen.generation.codec import Reconstructor
    from wavegen.notes.performance import Performance


def sample(
    run: Positional[Path | None] = None,
    /,
    seconds: Annotated[float | None, tyro.conf.arg(aliases=["--continue"])] = None,
    count: int = 1,
    seed: int = 0,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    prompt: Path | None = None,
    inpaint: tuple[str, ...] = (),
    vary: float | None = None,
    periodic: int | None = None,
    compression: int | None = None,
    notes: Path | None = None,
    like: Path | None = None,
    labels: tuple[str, ...] = (),
    passes: tuple[int, ...] = (),
    guidance: float | None = None,
    vocoder: Path | None = None,
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("generated"),
    precision: Literal["float32", "bfloat16"] = "float32",
    implementation: str | None = None,
) -> None:
    """Generate audio: new clips, or changes of a recording.

    A WaveNet's audio is written to disk as it comes; Ctrl-C keeps what is written.

    Args:
        run: a run folder or a .safetensors file; none: the instrument that comes with the package.
        seconds: length of what is generated, after the prompt; a note-conditioned model plays its notes to the end by
            default, a vocoder as long as its recording.
        count: clips.
        seed: the same seed gives the same clips.
        temperature: below 1 calmer, above 1 wilder, 0 always the likeliest token; by default the experiment's own.
        top_k: draw among the k likeliest tokens; 0 is all. For causal models.
        top_p: draw among the likeliest tokens that together have this probability.
        prompt: a recording to continue; with --inpaint, --vary, --periodic or --compression, to change.
        inpaint: seconds of the prompt to fill in anew, written 2.0:3.5. For masked models.
        vary: share of the prompt to draw anew, 0 to 1. For masked models.
        periodic: keep every so many frames of the prompt, for example 7, and draw those between anew. For masked
            models.
        compression: keep the first so many codebooks of the prompt, the coarse ones, and draw the others anew; with
            --periodic, of the frames that it keeps. For masked models.
        notes: a MIDI file, or a melody as text (see wavegen.notes.performance), for note-conditioned models; none: a
            melody is composed from the seed.
        like: a recording that a vocoder turns into its tokens or spectrogram and back.
        labels: values of label fields, written field=value.
        passes: of a masked model, for each codebook, the last number for all further ones; more are slower and better.
        guidance: of a masked model: how far its labels are exaggerated, 1 is not at all.
        vocoder: a WaveNet run that speaks a masked model's tokens, in place of the codec's own decoder.
        out: folder for the WAV files and their spectrograms.
        precision: of a WaveNet's weights; bfloat16 is faster where a network is large, and draws other audio.
        implementation: of the sampling kernel of a WaveNet, by name.
    """
    import wavegen
    from wavegen.audio import Audio

    generator = wavegen.load(run, precision=precision)
    name = f"{run.stem if run else 'piano-wavenet'}-seed{seed}"
    heard = Audio.read(prompt) if prompt else None
    if isinstance(generator, wavegen.NoteGenerator):
        raise WavegenError(f"{run} is a model of notes; try wavegen compose {run}")
    if isinstance(generator, wavegen.Reconstructor):
        raise WavegenError(
            f"{run} is a codec, which generates nothing; try wavegen reconstruct {run} RECORDING"
        )
    if isinstance(generator, wavegen.AudioGenerator):
        refuse("a WaveNet", inpaint=inpaint, vary=vary, periodic=periodic, compression=compression)
        refuse("a WaveNet", passes=passes, guidance=guidance, vocoder=vocoder)
        _stream(
            generator,
            out / name,
            seconds,
            _notes(generator, notes, seed, seconds),
            count=count,
            seed=seed,
            drawing=wavegen.Drawing(temperature, top_k, top_p),
            prompt=heard,
            like=Audio.read(like) if like else None,
            labels=pairs(labels),
            implementation=implementation,
        )
        return
    refuse("a masked model", notes=notes, like=like, implementation=implementation)
    drawing = wavegen.Drawing(temperature, top_k, top_p, passes=passes or None, guidance=guidance)
    options: dict[str, Any] = {
        "count": count,
        "seed": seed,
        "labels": pairs(labels),
        "drawing": drawing,
    }
    redrawn = periodic is not None or compression is not None
    ways = bool(inpaint) + (vary is not None) + redrawn
    if ways > 1:
        raise WavegenError(
            "--inpaint, --vary, and --periodic or --compression are ways to change the prompt; give one of them"
        )
    if ways and heard is None:
        raise WavegenError("there is nothing to change; give a recording with --prompt")
    if heard is not None and inpaint:
        refuse("inpainting", seconds=seconds, vocoder=vocoder)
        _write(generator.inpaint(heard, [_span(text) for text in inpaint], **options), out / name)
        return
    options["vocoder"] = wavegen.load(vocoder) if vocoder else None
    if heard is not None and vary is not None:
        refuse("varying", seconds=seconds)
        clips = generator.vary(heard, vary, **options)
    elif heard is not None and redrawn:
        refuse("redrawing", seconds=seconds)
        period = 1 if periodic is None else periodic
        clips = generator.redraw(heard, period=period, codebooks=compression, **options)
    else:
        clips = generator.generate(3.0 if seconds is None else seconds, prompt=heard, **options)
    _write(clips, out / name)


def reconstruct(
    run: Positional[Path],
    recording: Positional[Path],
    /,
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("generated"),
    codebooks: Annotated[int | None, tyro.conf.arg(aliases=["--levels"])] = None,
) -> None:
    """Send a recording through a codec, or a vocoder, and measure what comes back; a piece through an autoencoder.

    Args:
        run: a run folder or .safetensors file of a codec, a vocoder, or a variational autoencoder of notes.
        recording: what to send through, mixed to mono for a mono codec, or duplicated for a stereo one; for an
            autoencoder a MIDI file.
        out: folder for the WAV file and its picture, and for the MIDI file.
        codebooks: of the codec, the first so many of which are used; by default all.
    """
    import wavegen
    from wavegen.audio import Audio
    from wavegen.cli.notes import reconstruct_notes
    from wavegen.evaluation.reconstruction import compare
    from wavegen.pictures.audio import spectrograms

    model = wavegen.load(run)
    if isinstance(model, wavegen.WindowGenerator):
        refuse("an autoencoder of notes", codebooks=codebooks)
        reconstruct_notes(model, run, recording, out)
        return
    audio = Audio.read(recording)
    if isinstance(model, wavegen.Reconstructor):
        result = model.reconstruct(audio, codebooks=codebooks)
        share = (codebooks or model.codec.codebooks) / model.codec.codebooks
        print(f"rate         {model.bits_per_second * share:,.0f} bits per second")
    elif isinstance(model, wavegen.AudioGenerator):
        refuse("a vocoder", codebooks=codebooks)
        result = model.generate(like=audio)[0]
    else:
        raise WavegenError(
            f"{run} is a masked model; try wavegen sample {run} --prompt {recording} --vary 0.3"
        )
    original = audio.with_channels(result.channels).resample(model.sample_rate)
    for name, value in compare(result, original).items():
        print(f"{name:<13}{value:.2f}")
    path = out / f"{run.stem}-{recording.stem}.wav"
    out.mkdir(parents=True, exist_ok=True)
    result.write(path)
    picture = spectrograms(path.with_suffix(".png"), {"reconstructed": result, "recorded": original})
    print(f"audio        {path}\nspectrogram  {picture}")


def interpolate_audio(model: Reconstructor, first: Path, last: Path, steps: int, path: Path) -> None:
    """Write what lies between two recordings; ``path`` is where files go, without number and ending."""
    from wavegen.audio import Audio

    _write(model.interpolate(Audio.read(first), Audio.read(last), steps), path)


def _stream(
    generator: AudioGenerator, path: Path, seconds: float | None, notes: Performance | None, **options: Any
) -> None:
    """Generates with a bar, block by block; ``path`` is where files go, without row and ending."""
    from wavegen.atomic import atomic_write
    from wavegen.audio import AudioWriter
    from wavegen.notes.midi import write_midi
    from wavegen.notes.score import from_performance

    if seconds is None and notes is None and options["like"] is None:
        seconds = 3.0
    blocks = generator.stream(seconds, notes=notes, **options)
    paths = [path.with_name(f"{path.name}-{row}.wav") for row in range(options["count"])]
    total = math.nan
    if notes is not None:
        if generator.network.local.takes == "melody":
            with atomic_write(path.with_name(f"{path.name}.txt")) as file:
                file.write(notes.text().encode())
        else:
            write_midi(path.with_name(f"{path.name}.mid"), from_performance(notes))
        total = notes.seconds
    elif options["like"] is not None:
        total = options["like"].duration
    with ExitStack() as files:
        writers = [files.enter_context(AudioWriter(path, generator.sample_rate)) for path in paths]
        try:
            with _Progress(total if seconds is None else seconds, options["count"]) as bar:
                for block in blocks:
                    for writer, row in zip(writers, block, strict=True):
                        writer.write(row)
                    bar.advance(block.shape[1] / generator.sample_rate)
        except KeyboardInterrupt:
            kept = min(writer.duration for writer in writers)
            print(f"stopped; the {kept:.1f} s that were generated are kept", file=sys.stderr)
            if not kept:
                return
    _picture(paths)


def _write(clips: list[Audio], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    paths = [path.with_name(f"{path.name}-{row}.wav") for row in range(len(clips))]
    for clip, file in zip(clips, paths, strict=True):
        clip.write(file)
    _picture(paths)


def _picture(paths: list[Path]) -> None:
    from wavegen.audio import Audio
    from wavegen.pictures.audio import spectrograms

    for path in paths:
        picture = spectrograms(path.with_suffix(".png"), {path.stem: Audio.read(path)})
        print(f"audio        {path}\nspectrogram  {picture}")


def _notes(
    generator: AudioGenerator, notes: Path | None, seed: int, seconds: float | None
) -> Performance | None:
    from wavegen.data.plan import MIDI_SUFFIXES
    from wavegen.notes.composer import compose
    from wavegen.notes.midi import read_midi
    from wavegen.notes.performance import Performance

    if notes:
        midi = notes.suffix.lower() in MIDI_SUFFIXES
        return read_midi(notes).pitched() if midi else Performance.read(notes)
    return compose(seed, seconds or 10.0) if generator.plays else None


def refuse(what: str, **options: object) -> None:
    """Options that this kind of model does not take."""
    given = [name for name, value in options.items() if value is not None and value != ()]
    if given:
        raise WavegenError(f"{what} takes no --{given[0].replace('_', '-')}; leave it out")


def _span(text: str) -> tuple[float, float]:
    first, colon, last = text.partition(":")
    try:
        return float(first), float(last if colon else "")
    except ValueError:
        raise WavegenError(
            f"a span is written FIRST:LAST in seconds, for example 2.0:3.5; got '{text}'"
        ) from None


class _Progress:
    """A bar in seconds of audio with the real-time factor."""

    def __init__(self, seconds: float, count: int) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._bar = Progress(BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
        self._task = self._bar.add_task("starting", total=seconds)
        self._count, self._done, self._start = count, 0.0, time.perf_counter()

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def advance(self, seconds: float) -> None:
        self._done += seconds
        factor = self._done * self._count / (time.perf_counter() - self._start)
        self._bar.update(
            self._task, completed=self._done, description=f"{self._done:.1f} s, {factor:.2f} x real time"
        )


def pairs(texts: tuple[str, ...]) -> dict[str, str]:
    """Labels written field=value."""
    bad = [text for text in texts if "=" not in text]
    if bad:
        raise WavegenError(f"a label is written field=value, for example digit=3; got '{bad[0]}'")
    return dict(text.split("=", 1) for text in texts)
