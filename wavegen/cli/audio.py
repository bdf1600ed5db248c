"""The command that generates audio."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from tyro.conf import Positional

from wavegen.cli.options import AudioDrawing, Flat, LabelledAsk, Out, pairs, refuse, result_name, span
from wavegen.cli.ranges import Codebooks, Period, Seconds, Share
from wavegen.cli.show import draw_recording, numbered, settle, unused, write_clips, write_performance
from wavegen.cli.work import Work, shown
from wavegen.errors import WavegenError
from wavegen.progress import Progress
from wavegen.runs.shipped import INSTRUMENT
from wavegen.stopping import StopRequest

if TYPE_CHECKING:
    from wavegen.audio import Audio
    from wavegen.generation.audio import AudioGenerator
    from wavegen.generation.masked import MaskedGenerator
    from wavegen.notes.performance import Performance


@dataclass(frozen=True)
class Change:
    """How a masked model changes the prompt; without any of these it continues the prompt.

    Attributes:
        inpaint: seconds of the prompt to fill in anew, written 2.0:3.5. For masked models.
        vary: share of the prompt to draw anew, 0 to 1. For masked models.
        periodic: keep every nth frame of the prompt, for example 7 keeps every seventh, and draw the frames between
            anew. For masked models.
        compression: keep the first n codebooks of the prompt, the coarse ones, and draw the others anew; with
            --periodic, keep them only in the frames that it keeps. For masked models.
    """

    inpaint: tuple[str, ...] = ()
    vary: Share | None = None
    periodic: Period | None = None
    compression: Codebooks | None = None

    @property
    def redraws(self) -> bool:
        """Whether frames or codebooks are kept and the rest is drawn anew."""
        return self.periodic is not None or self.compression is not None

    @property
    def task(self) -> str:
        """What is done with the prompt, for the names of results."""
        period = "" if self.periodic is None else f"period{self.periodic}"
        codebooks = "" if self.compression is None else f"codebooks{self.compression}"
        names = {
            "inpaint": bool(self.inpaint),
            f"vary{self.vary}": self.vary is not None,
            period + codebooks: self.redraws,
        }
        return next((name for name, asked in names.items() if asked), "continue")

    @property
    def ways(self) -> int:
        """How many of the ways to change a prompt were asked for."""
        return bool(self.inpaint) + (self.vary is not None) + self.redraws


def sample(
    run: Positional[Path | None] = None,
    /,
    seconds: Annotated[Seconds | None, tyro.conf.arg(aliases=["--continue"])] = None,
    prompt: Path | None = None,
    notes: Path | None = None,
    like: Path | None = None,
    vocoder: Path | None = None,
    out: Out = Path("generated"),
    precision: Literal["float32", "bfloat16", "int8"] = "float32",
    implementation: str | None = None,
    *,
    ask: Flat[LabelledAsk],
    drawing: Flat[AudioDrawing],
    change: Flat[Change],
) -> None:
    """Generates new audio, or changes a recording.

    The audio of a WaveNet is written to disk while it is generated; Ctrl-C keeps what has been written.

    Args:
        run: a run folder or a .safetensors file; by default the instrument that comes with the package.
        seconds: length of what is generated after the prompt; by default a model of notes plays its notes to the end,
            a vocoder makes as much as its recording, and others make 3 seconds.
        prompt: a recording to continue; with --inpaint, --vary, --periodic or --compression, to change.
        notes: a MIDI file, or a melody as text (see wavegen.notes.performance), for models that are conditioned on
            notes; by default a melody is composed from the seed.
        like: a recording that a vocoder turns into its tokens or spectrogram and back.
        vocoder: a WaveNet run that turns a masked model's tokens into audio, in place of the codec's own decoder.
        out: folder for the WAV files and their spectrograms.
        precision: of a WaveNet's weights; bfloat16 is faster if the network is large, int8 (on a CPU) much faster, and
            each draws other audio.
        implementation: of the sampling kernel of a WaveNet, by name.
        ask: how many clips, from which seed and with which labels.
        drawing: how tokens are drawn.
        change: how the prompt is changed.
    """
    import wavegen
    from wavegen.audio import Audio

    generator = wavegen.load(run, precision=precision)
    given = {"like": like, "notes": notes, change.task: prompt}
    tasks = "".join(f"-{task}-{file.stem}" for task, file in given.items() if file)
    path = out / f"{result_name(run) if run else INSTRUMENT}{tasks}-seed{ask.seed}"
    recording = Audio.read(prompt) if prompt else None
    if isinstance(generator, wavegen.NoteGenerator):
        raise WavegenError(f"{run} is a model of notes; try wavegen compose {run}")
    if isinstance(generator, wavegen.Reconstructor):
        raise WavegenError(
            f"{run} is a codec, which generates nothing; try wavegen reconstruct {run} RECORDING"
        )
    if isinstance(generator, wavegen.AudioGenerator):
        refuse("a WaveNet", **vars(change), vocoder=vocoder)
        refuse("a WaveNet", passes=drawing.passes, guidance=drawing.guidance)
        _stream(
            generator,
            path,
            seconds,
            _notes(generator, notes, ask.seed, seconds),
            count=ask.count,
            seed=ask.seed,
            drawing=drawing.drawing(),
            prompt=recording,
            like=Audio.read(like) if like else None,
            labels=pairs(ask.labels),
            implementation=implementation,
        )
        return
    refuse("a masked model", notes=notes, like=like, implementation=implementation)
    with shown("generating") as work:
        clips = _masked(generator, seconds, recording, vocoder, ask, drawing, change, work)
    write_clips(clips, path)


def _masked(
    generator: MaskedGenerator,
    seconds: float | None,
    prompt: Audio | None,
    vocoder: Path | None,
    ask: LabelledAsk,
    drawing: AudioDrawing,
    change: Change,
    work: Work,
) -> list[Audio]:
    """Generates clips by a masked model: new ones, or changes of a prompt."""
    import wavegen

    options: dict[str, Any] = {
        "count": ask.count,
        "seed": ask.seed,
        "labels": pairs(ask.labels),
        "drawing": drawing.drawing(),
        "progress": work,
    }
    if change.ways > 1:
        raise WavegenError(
            "--inpaint, --vary, and --periodic or --compression are ways to change the prompt; give one of them"
        )
    if change.ways and prompt is None:
        raise WavegenError("there is nothing to change; give a recording with --prompt")
    if prompt is not None and change.inpaint:
        refuse("inpainting", seconds=seconds, vocoder=vocoder)
        return generator.inpaint(prompt, [span(text) for text in change.inpaint], **options)
    options["vocoder"] = wavegen.load(vocoder) if vocoder else None
    if prompt is not None and change.vary is not None:
        refuse("varying", seconds=seconds)
        return generator.vary(prompt, change.vary, **options)
    if prompt is not None and change.redraws:
        refuse("redrawing", seconds=seconds)
        period = 1 if change.periodic is None else change.periodic
        return generator.redraw(prompt, period=period, codebooks=change.compression, **options)
    return generator.generate(3.0 if seconds is None else seconds, prompt=prompt, **options)


def _stream(
    generator: AudioGenerator, path: Path, seconds: float | None, notes: Performance | None, **options: Any
) -> None:
    """Writes audio block by block while it is generated; ``path`` is that of the files, without row and suffix."""
    from wavegen.audio import AudioWriter

    if seconds is None and notes is None and options["like"] is None:
        seconds = 3.0
    blocks = generator.stream(seconds, notes=notes, **options)
    total, count = seconds, options["count"]
    # What is at the path is compared at the end: until then nobody knows whether it is the same.
    free = unused(path, lambda name: not any(file.exists() for file in numbered(name, count, ".wav")))
    written = []
    if notes is not None:
        written.append(write_performance(notes, free, melody=generator.network.local.takes == "melody"))
        total = notes.seconds if total is None else total
    elif options["like"] is not None:
        total = options["like"].duration if total is None else total
    files = numbered(free, count, ".wav")
    with ExitStack() as stack:
        writers = [stack.enter_context(AudioWriter(file, generator.sample_rate)) for file in files]
        with Progress() as progress, StopRequest("block") as stop:
            line, start, done = progress.line("starting", total), time.perf_counter(), 0.0
            for block in blocks:
                for writer, row in zip(writers, block, strict=True):
                    writer.write(row)
                done += block.shape[1] / generator.sample_rate
                factor = done * len(files) / (time.perf_counter() - start)
                line.update(f"{done:.1f} s, {factor:.2f} x real time", done)
                if stop.received:
                    break
    for file in settle(written + files, free, path)[len(written) :]:
        draw_recording(file)
    if stop.received:
        print(f"stopped; the {done:.1f} s that were generated are kept", file=sys.stderr)
    stop.interrupt()


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
