"""The command that trains and compares many models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

if TYPE_CHECKING:
    from wavegen.config.study import Study


def study(
    study: Positional[Path],
    overrides: Positional[tuple[str, ...]] = (),
    /,
    runs: Path = Path("runs"),
    out: Path | None = None,
    dry_run: bool = False,
) -> None:
    """Train datasets x models x settings x seeds into one table, with loss curves and a clip of each.

    The same command goes on where a study stopped: finished experiments are not run again. An experiment that fails is
    named in the table, does not stop the others, and makes the exit status 1.

    Args:
        study: a YAML file, for example configs/study-wavenet-lstm.yaml.
        overrides: changes, written a.b=c: to all experiments (data.path=FOLDER training.steps=200), or to the study
            (seeds=[0] datasets.small.data.path=FOLDER).
        runs: the run folders are RUNS/STUDY/DATASET-MODEL-SETTING-SEED.
        out: folder of table.csv, summary.csv, summary.md, across.csv, curves.csv, curves.png and samples; by default
            studies/STUDY.
        dry_run: list the experiments and their parameters, and train nothing.
    """
    from wavegen.cli.runs import set_up_process
    from wavegen.config.study import load_study

    resolved = load_study(study, overrides)
    set_up_process(max(cell.config.training.mesh.cpu_devices for cell in resolved.cells))
    if dry_run:
        _list(resolved)
        return
    from rich.console import Console

    from wavegen.study.run import run_study
    from wavegen.study.table import summary

    folder = out or Path("studies") / resolved.config.name
    rows = run_study(resolved, runs, folder, Console())
    print(f"\n{summary(rows)}\nstudy    {folder}")
    if len(rows) < len(resolved.cells) or any(row.error for row in rows):
        raise SystemExit(1)


def _list(study: Study) -> None:
    from wavegen.study.run import count_cells, expect_equal

    counts = count_cells(study)
    width = max(map(len, counts))
    for cell in study.cells:
        steps = cell.config.training.steps
        print(f"{cell.config.name:<{width}}  {counts[cell.config.name]:>12,} parameters  {steps:,} steps")
    expect_equal(study, counts)
