"""What a trained model of a study generates: a clip to listen to, the speed of drawing, and how much repeats."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Int

from wavegen.audio import Audio
from wavegen.config import Config
from wavegen.config.study import SampleConfig
from wavegen.data.dataset import Dataset
from wavegen.data.open import open_dataset
from wavegen.generation.codec import Reconstructor
from wavegen.generation.load import load
from wavegen.generation.notes import NoteGenerator
from wavegen.generation.requests import to_tokens
from wavegen.notes.harmony import repetition
from wavegen.notes.midi import write_midi
from wavegen.notes.render import render

Clip = TypeVar("Clip")

CLIPS = 64
"""Of the test split, at most, whose repetition is counted."""


class Drawn(NamedTuple):
    """What was found; see ``wavegen.study.measure.Figures``."""

    tokens_per_second: float | None = None
    repetition: float | None = None
    test_repetition: float | None = None


def draw_samples(run: Path, step: int, config: Config, request: SampleConfig) -> Drawn:
    """Generates clips and writes the first one into the run's folder: ``sample.mid`` of notes, and ``sample.wav``.

    A model that needs more than labels to go by (an encoder-decoder, a vocoder) generates nothing. Labels are those of
    the first clip of the test split.

    Args:
        run: folder of the run.
        step: of the checkpoint.
        config: of the run.
        request: how much is generated.
    """
    model = load(run, step=step)
    if isinstance(model, Reconstructor) or not model.sampler.draws_freely:
        return Drawn()
    dataset = open_dataset(config)
    count, seed = request.count, config.seed
    labels = _labels(dataset, config.model.label_fields)
    test = _test_clips(dataset)
    if isinstance(model, NoteGenerator):
        pieces, seconds = _timed(
            lambda: model.generate(request.length, count=count, seed=seed, labels=labels)
        )
        write_midi(run / "sample.mid", pieces[0])
        render(pieces[0]).write(run / "sample.wav")
        tokens, heard = [model.codec.encode(piece) for piece in pieces], test
        frames = request.length * model.codec.interleaving
    else:
        clips, seconds = _timed(
            lambda: model.generate(request.seconds, count=count, seed=seed, labels=labels)
        )
        clips[0].write(run / "sample.wav")
        recorded = [Audio.from_pcm16(clip, dataset.sample_rate) for clip in test]
        tokens, heard = (
            [np.asarray(to_tokens(model.codec, clip, clip.sample_rate))[0] for clip in each]
            for each in (clips, recorded)
        )
        frames = len(tokens[0])
    whole = [clip[:frames] for clip in heard if len(clip) >= frames]
    return Drawn(count * frames * model.codec.codebooks / seconds, _mean(tokens), _mean(whole))


def _timed(draw: Callable[[], list[Clip]]) -> tuple[list[Clip], float]:
    """What is drawn, and in how many seconds: at the second time, as the first one compiles."""
    draw()
    start = time.perf_counter()
    clips = draw()
    return clips, time.perf_counter() - start


def _labels(dataset: Dataset, fields: Sequence[str]) -> dict[str, str]:
    """The labels of the first recording of the test split."""
    row = dataset.split("test").labels[0, dataset.label_columns(fields)]
    return {field: dataset.labels[field][number] for field, number in zip(fields, row, strict=True)}


def _test_clips(dataset: Dataset) -> list[Int[np.ndarray, "N K"]]:
    """Samples or tokens of clips spread evenly over the test split."""
    files = dataset.split("test")
    rows = np.unique(np.linspace(0, len(files) - 1, CLIPS).astype(int))
    return [dataset.read(files, row, 0, int(files.length[row])) for row in map(int, rows)]


def _mean(clips: Sequence[Int[np.ndarray, "N K"]]) -> float | None:
    shares = [repetition(clip) for clip in clips]
    known = [share for share in shares if not np.isnan(share)]
    return float(np.mean(known)) if known else None
