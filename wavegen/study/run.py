"""A study, from its first experiment to its table: every experiment is a run, and resumes where it stopped."""

import shutil
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from itertools import groupby
from pathlib import Path

from wavegen.config import Config
from wavegen.config.study import Cell, Study
from wavegen.data.open import open_dataset
from wavegen.data.plan import digest
from wavegen.errors import WavegenError
from wavegen.locks import locked
from wavegen.study.curves import write_curves
from wavegen.study.measure import FILE, Figures, count_of, measure, read_figures, write_figures
from wavegen.study.table import Row, write_tables
from wavegen.training.loop import train


def run_study(study: Study, runs: Path, out: Path, report: Callable[[str], None]) -> list[Row]:
    """Trains and measures what is not done yet; the tables, curves and clips are written anew after each experiment.

    Args:
        study: what is to be done.
        runs: the runs go to ``runs/STUDY/CELL``.
        out: folder of tables, curves and clips.
        report: called with lines of progress.

    Returns:
        A row for each experiment.

    Raises:
        KeyboardInterrupt: after SIGINT, when the state of the experiment is saved; SystemExit after SIGTERM and SIGHUP.
        WavegenError: models that are to have equal parameters have not, or the tables cannot be written.
    """
    counts = count_cells(study)
    expect_equal(study, counts)
    folder = runs / study.config.name
    with locked(folder, "study"):
        return _run_cells(study, counts, folder, out, report)


def _run_cells(
    study: Study, counts: Mapping[str, int], folder: Path, out: Path, report: Callable[[str], None]
) -> list[Row]:
    rows: list[Row] = []
    start, done = time.monotonic(), 0
    for number, cell in enumerate(study.cells, start=1):
        name = cell.config.name
        line = f"{number} of {len(study.cells)}: {name}, {counts[name]:,} parameters"
        if done:
            gone = time.monotonic() - start
            left = sum(not (folder / c.config.name / FILE).exists() for c in study.cells[number - 1 :])
            line += f", {_clock(gone)} gone, about {_clock(gone / done * left)} left"
        report(f"\n{line}")
        fresh = not (folder / name / FILE).exists()
        try:
            figures = _run_cell(study, cell, folder / name)
        except WavegenError as error:
            report(f"{name} failed: {error}")
            rows.append(Row(cell, None, str(error)))
        except (KeyboardInterrupt, SystemExit):  # by which a training ends that a signal stopped
            report("run the same command to resume the study")
            raise
        else:
            rows.append(Row(cell, figures))
            done += fresh
        write_tables(rows, out)
        write_curves([row.cell for row in rows], folder, out)
        _copy_sample(folder / name, out / "samples", name)
    return rows


def count_cells(study: Study) -> dict[str, int]:
    """Parameters of each experiment by name; seeds make no difference.

    Raises:
        WavegenError: see ``count_of``.
    """
    counts: dict[tuple[str, str, str], int] = {}
    for cell in study.cells:
        if _kind(cell) not in counts:
            counts[_kind(cell)] = count_of(cell.config)
    return {cell.config.name: counts[_kind(cell)] for cell in study.cells}


def expect_equal(study: Study, counts: Mapping[str, int]) -> None:
    """Checks that the models of each dataset and setting are as large as ``equal_parameters`` asks.

    Raises:
        WavegenError: they are not.
    """
    allowed = study.config.equal_parameters
    if allowed is None:
        return
    for _, group in groupby(study.cells, key=lambda cell: (cell.seed, cell.dataset, cell.setting)):
        cells = list(group)
        sizes = {cell.model: counts[cell.config.name] for cell in cells}
        apart = max(sizes.values()) / min(sizes.values()) - 1
        if apart > allowed:
            told = ", ".join(f"{model} {size:,}" for model, size in sizes.items())
            raise WavegenError(
                f"expected models within {allowed:.1%} of each other (equal_parameters), got {told} parameters, "
                f"{apart:.1%} apart (dataset {cells[0].dataset}, setting {cells[0].setting}); change a width"
            )


def _run_cell(study: Study, cell: Cell, run: Path) -> Figures:
    """The figures of an experiment, which are measured only if they are not there."""
    asked, others = study.config, _others(study, cell)
    request = digest(
        {
            "config": cell.config.model_dump(mode="json"),
            "others": {name: config.data.model_dump(mode="json") for name, config in others.items()},
            "samples": asked.samples.model_dump(),
            "train_batches": asked.train_batches,
        }
    )
    figures = read_figures(run, request)
    if figures is None:
        train(cell.config, run)
        figures = measure(run, cell.config, others, asked.samples, asked.train_batches)
        write_figures(run, figures, request)
    return figures


def _others(study: Study, cell: Cell) -> dict[str, Config]:
    """The same experiment on the datasets on whose tokens a model of this one can be measured."""
    same = [c for c in study.cells if (*_kind(c)[1:], c.seed) == (*_kind(cell)[1:], cell.seed)]
    return {
        c.dataset: c.config for c in same if c == cell or (_agree(cell.config, c.config) and _opens(c.config))
    }


def _agree(one: Config, other: Config) -> bool:
    """Whether tokens mean the same; the numbers of labels never do."""
    rates = (one.data.sample_rate, other.data.sample_rate)
    return one.codec == other.codec and rates[0] == rates[1] and not one.model.label_fields


def _opens(config: Config) -> bool:
    try:
        open_dataset(config).split("test")
    except WavegenError:
        # The experiments on this dataset report it.
        return False
    return True


def _copy_sample(run: Path, folder: Path, name: str) -> None:
    for file in run.glob("sample.*"):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, folder / f"{name}{file.suffix}")


def _kind(cell: Cell) -> tuple[str, str, str]:
    return cell.dataset, cell.model, cell.setting


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
