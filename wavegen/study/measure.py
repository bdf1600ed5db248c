"""What one experiment of a study came to, measured once and kept beside its run."""

import json
import math
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import jax

from wavegen.atomic import atomic_write
from wavegen.config import Config
from wavegen.config.study import SampleConfig
from wavegen.data.open import open_dataset
from wavegen.errors import WavegenError
from wavegen.metrics import read_metrics
from wavegen.runs.checkpoints import Checkpoints
from wavegen.runs.trained import open_codecs, open_trained, rebuild
from wavegen.study.drawing import draw_samples
from wavegen.training.evaluate import evaluate_split
from wavegen.training.state import count_parameters
from wavegen.training.step import first_state, make_evaluation_step, metric_of

FILE = "figures.json"
"""Where a run keeps its figures."""


@dataclass(frozen=True)
class Figures:
    """Figures of one trained model, at the checkpoint that validated best; None where there is nothing to measure.

    Attributes:
        parameters: how many numbers it learned.
        unit: of the likelihoods: "bits per sample" of audio, "nats per token" of notes and learned tokens. Those of a
            masked model are of masked tokens given the others: compare them with those of masked models alone.
        train: negative log-likelihood of (a part of) the training split, without dropout or augmentation.
        valid: of the validation split.
        test: of the test split.
        accuracy: share of the test split's tokens whose likeliest value is right.
        best_step: of the checkpoint.
        steps_per_second: median over the run's rows, of training alone.
        tokens_per_second: drawn, all clips together, after a first draw that compiles.
        repetition: share of the 4-grams of generated clips that occurred before in the clip, mean of the clips.
        test_repetition: the same of as long beginnings of the test split's clips.
        across: likelihood of each dataset's test split whose tokens are the same.
    """

    parameters: int
    unit: str
    train: float
    valid: float
    test: float
    accuracy: float | None
    best_step: int
    steps_per_second: float | None
    tokens_per_second: float | None
    repetition: float | None
    test_repetition: float | None
    across: dict[str, float]


def unit_of(config: Config) -> tuple[str, float]:
    """The unit of an experiment's likelihoods, and what its run's own metric is multiplied by."""
    name, _ = metric_of(config)
    return ("bits per sample", 1.0) if name == "bits_per_sample" else ("nats per token", math.log(2))


def count_of(config: Config) -> int:
    """How many parameters the model of an experiment has; nothing is trained.

    Raises:
        WavegenError: the codec, or the data that the model takes labels from, cannot be opened.
    """
    codecs = open_codecs(config)
    labels = open_dataset(config).labels if config.model.label_fields else {}
    return count_parameters(jax.eval_shape(lambda: first_state(config, labels, codecs)[1])["params"])


def measure(
    run: Path, config: Config, others: Mapping[str, Config], request: SampleConfig, train_batches: int
) -> Figures:
    """Measures a finished run, and writes a clip that it generates beside it.

    Args:
        run: its folder.
        config: its experiment.
        others: the same experiment on each dataset, this one too, by their names.
        request: what it is to generate.
        train_batches: of the training split that are measured.

    Raises:
        WavegenError: the data cannot be used, or no checkpoint has a finite validation figure.
    """
    with Checkpoints(run / "checkpoints") as checkpoints:
        best = checkpoints.best_step()
    if best is None:
        raise WavegenError(
            f"no checkpoint of {run} has a finite validation figure; lower optimizer.learning_rate"
        )
    trained = open_trained(run, best)
    graph, params = rebuild(trained)
    step = jax.jit(make_evaluation_step(config, graph))
    name, _ = metric_of(config)
    unit, factor = unit_of(config)

    def figures(split: str, of: Config = config, batches: int | None = None) -> dict[str, float]:
        result, _ = evaluate_split(of, graph, params, trained.codecs, split, batches=batches, step=step)
        return result.figures | {name: result.figures[name] * factor}

    test = figures("test")
    across = {
        dataset: figures("test", config.model_copy(update={"data": other.data}))[name]
        for dataset, other in others.items()
        if other != config
    }
    drawn = draw_samples(run, best, config, request)
    speeds = [
        row["steps_per_second"] for row in read_metrics(run / "metrics.jsonl") if "steps_per_second" in row
    ]
    return Figures(
        parameters=count_parameters(params),
        unit=unit,
        train=figures("train", batches=train_batches)[name],
        valid=figures("valid")[name],
        test=test[name],
        accuracy=test.get("accuracy"),
        best_step=best,
        steps_per_second=statistics.median(speeds) if speeds else None,
        tokens_per_second=drawn.tokens_per_second,
        repetition=drawn.repetition,
        test_repetition=drawn.test_repetition,
        across={dataset: across.get(dataset, test[name]) for dataset in others},
    )


def write_figures(run: Path, figures: Figures, request: str) -> None:
    """Keeps figures beside a run, whole or not at all, with what they were asked for."""
    with atomic_write(run / FILE) as file:
        file.write(json.dumps({"request": request, **asdict(figures)}, indent=1).encode())


def read_figures(run: Path, request: str) -> Figures | None:
    """The figures kept beside a run, if they are what is asked for now.

    Raises:
        WavegenError: the file is damaged.
    """
    path = run / FILE
    if not path.exists():
        return None
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
        return Figures(**row) if row.pop("request") == request else None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WavegenError(f"{path} is damaged ({error}); delete it to measure the run again") from None
