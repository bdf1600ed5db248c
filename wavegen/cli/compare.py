"""Commands that judge sets of recordings: distances beside controls, listeners, and pages for listening tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from wavegen.cli.options import Out
from wavegen.cli.ranges import Clips, Count, Seconds, Seed, Temperature, TrainingSteps
from wavegen.cli.show import print_facts
from wavegen.errors import WavegenError
from wavegen.progress import Progress

if TYPE_CHECKING:
    from wavegen.audio import Audio


def compare(
    generated: Positional[Path],
    reference: Positional[Path],
    /,
    embedding: Path | None = None,
    clips: Clips = 200,
    seconds: Seconds = 3.0,
    temperature: Temperature | None = None,
    seed: Seed = 0,
    out: Out = Path("comparison"),
) -> None:
    """Measures how far generated clips are from recordings, beside controls made from the recordings.

    The recordings are divided into two halves: one is what every row is compared with, and of the other the controls
    are made. Recordings are cut to the longest generated clip. A row is worth what separates it from the controls.

    Args:
        generated: a folder of clips, or a run or .safetensors file, from which clips are drawn first.
        reference: a folder of recordings.
        embedding: between whose vectors distances are measured: a listener (see wavegen train-listener), or a folder of
            an audio encoder in the layout of Hugging Face; by default statistics of log-mel frames.
        clips: of a set at most; and how many are drawn from a run.
        seconds: length of the clips that are drawn from a run; 60 shows whether a model dies out.
        temperature: of what is drawn from a run; by default the experiment's own.
        seed: of all choices.
        out: folder for comparison.json, comparison.png, spectrograms.png, and clips that are drawn.
    """
    from wavegen.evaluation import comparison
    from wavegen.evaluation.drawn import is_run
    from wavegen.evaluation.embeddings.log_mel import RATE
    from wavegen.evaluation.embeddings.open import open_embedding
    from wavegen.evaluation.sets import read_folder
    from wavegen.pictures.audio import spectrograms
    from wavegen.pictures.bars import bars

    with Progress(aside=True) as progress:
        line = progress.line("reading recordings")

        def show(what: str, done: int, total: int) -> None:
            line.update(what, done=done, total=total)

        if is_run(generated):
            _expect_no_clips(out)
        # Two sets are made of them. A wrong path is noticed before anything is drawn.
        recordings = read_folder(reference, 2 * clips, seed, lambda d, t: show("reading recordings", d, t))
        if is_run(generated):
            own = _drawn(generated, clips, seconds, temperature, seed, out, show)
        else:
            own = list(read_folder(generated, clips, seed, lambda d, t: show("reading clips", d, t)).values())
            own = [clip.resample(own[0].sample_rate) for clip in own]
        result = comparison.compare(
            own,
            list(recordings.values()),
            open_embedding(embedding, min(own[0].sample_rate, RATE)),
            most=clips,
            seed=seed,
            progress=lambda what, done, total: show(f"measuring {what}", done, total),
        )
    out.mkdir(parents=True, exist_ok=True)
    (out / "comparison.json").write_text(result.json() + "\n", encoding="utf-8")
    bars(
        out / "comparison.png",
        {
            figure.title: {
                name: (getattr(row, field), getattr(row, f"{field}_error", None))
                for name, row in result.rows.items()
            }
            for field, figure in comparison.FIGURES.items()
        },
        {name: row.course for name, row in result.rows.items() if row.course},
    )
    spectrograms(out / "spectrograms.png", result.examples)
    print(result.text())
    print()
    print_facts(
        {"figures": out / "comparison.json", "pictures": f"{out}/comparison.png, {out}/spectrograms.png"}
    )


def _expect_no_clips(out: Path) -> None:
    """Refuses a folder with clips of an earlier call, with which those of this one would be mixed."""
    if any((out / "clips").glob("*")):
        raise WavegenError(
            f"expected no clips in {out / 'clips'}, got some; remove them, or choose another --out"
        )


def _drawn(
    run: Path,
    count: int,
    seconds: float,
    temperature: float | None,
    seed: int,
    out: Path,
    show: Callable[[str, int, int], None],
) -> list[Audio]:
    """Draws clips, and writes them below ``out``."""
    from wavegen.evaluation.drawn import draw
    from wavegen.samplers.drawing import Drawing

    clips = draw(
        run,
        count,
        seconds,
        seed=seed,
        drawing=Drawing(temperature),
        progress=lambda done, total: show("drawing clips", done, total),
    )
    for number, clip in enumerate(clips):
        clip.write(out / "clips" / f"{number:03}.wav")
    return clips


def train_listener(
    dataset: Positional[Path],
    /,
    out: Out,
    label: str | None = None,
    steps: TrainingSteps = 1200,
    held_out: str = "test",
    seed: Seed = 0,
) -> None:
    """Trains a small classifier of labelled recordings, for wavegen compare, and prints its accuracy.

    Args:
        dataset: a prepared dataset with labels.
        out: NAME.safetensors.
        label: the label field that it learns; may be left out where there is only one.
        steps: training steps of 64 recordings each.
        held_out: the split that the accuracy is of.
        seed: of the weights and of the order of the recordings.
    """
    from wavegen.data.dataset import Dataset
    from wavegen.evaluation.embeddings.train_listener import train_on_dataset

    if out.suffix != ".safetensors":
        raise WavegenError(f"expected --out NAME.safetensors, got {out.name}; rename it")
    with Progress() as progress:
        line = progress.line("training", steps)
        listener = train_on_dataset(
            Dataset.open(dataset),
            label,
            held_out=held_out,
            steps=steps,
            seed=seed,
            progress=lambda done, loss: line.update(f"loss {loss:.3f} nats", done),
        )
    listener.save(out)
    print(
        f"{out}: understands {listener.accuracy:.1%} of {listener.held_out} recordings of the {held_out} split; "
        f"{listener.field}: {', '.join(listener.labels)}"
    )


def listen_test(
    folders: Positional[tuple[Path, ...]],
    /,
    out: Out = Path("listen.html"),
    questions: Count = 20,
    seed: Seed = 0,
) -> None:
    """Writes a page that asks which of two clips sounds better, without saying whose they are.

    The page is one file with the audio inside, and needs no network. Clips have one loudness; the order is another one
    for each visitor; the answers are downloaded as CSV. Clips of the same name in two folders are compared with each
    other.

    Args:
        folders: two or more folders of clips, one per system, whose names the answers give.
        out: NAME.html.
        questions: number of pairs of clips.
        seed: of the choice of the clips.
    """
    from wavegen.evaluation.listening import write_page
    from wavegen.evaluation.sets import read_folder

    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        raise WavegenError(f"expected folders of different names, got {', '.join(names)}; rename one")
    with Progress(aside=True) as progress:
        line = progress.line("reading clips", len(folders))
        systems = {}
        for done, (name, folder) in enumerate(zip(names, folders, strict=True)):
            systems[name] = read_folder(folder, max(questions, 100), seed)
            line.update(done=done + 1)
    write_page(out, systems, questions=questions, seed=seed)
    print(
        f"{out}: {questions} questions about {', '.join(names)}, {out.stat().st_size / 1e6:.1f} MB; open it in a "
        "browser"
    )
