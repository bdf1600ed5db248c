"""Commands on runs: training one or many, measuring one, and packing one into a file."""

from __future__ import annotations

import os
import shlex
import textwrap
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from wavegen.cli.ranges import Count, Orders, Temperature
from wavegen.cli.show import print_facts
from wavegen.cli.work import shown
from wavegen.errors import WavegenError

if TYPE_CHECKING:
    from wavegen.config import Config
    from wavegen.config.study import Study


def train(
    config: Positional[Path], overrides: Positional[tuple[str, ...]] = (), /, runs: Path = Path("runs")
) -> None:
    """Trains a model; run it again to resume.

    Args:
        config: a YAML file, or the name of a configuration that comes with the package: quickstart, or another that
            ``wavegen configs`` lists.
        overrides: changes to it, written a.b=c: optimizer.learning_rate=1e-3 name=slow
        runs: the run folder is RUNS/NAME.
    """
    from wavegen.config import load_config

    resolved = load_config(config, overrides)
    set_up_process(resolved.training.mesh.cpu_devices)
    from wavegen.training.loop import train as run

    folder = run(resolved, runs / resolved.name)
    print_facts({"run": folder, "next": _next_command(resolved, folder)})


def _next_command(config: Config, folder: Path) -> str:
    """Returns the command that uses what a run has learned."""
    from wavegen.models.base import SourceModel
    from wavegen.models.kinds import KINDS

    if config.model.is_codec:
        command, *files = "reconstruct", "RECORDING"
    elif issubclass(KINDS[type(config.model)], SourceModel):
        command, *files = "harmonise", "MELODY.mid"
    else:
        command, *files = ("compose",) if config.codec.of == "notes" else ("sample",)
    return shlex.join(["wavegen", command, str(folder), *files])


def configs(name: Positional[str | None] = None, /) -> None:
    """Lists the configurations and studies that come with the package, or prints one of them.

    ``wavegen train NAME`` and ``wavegen study NAME`` take these names. To change more than overrides can, write one to
    a file and edit it: wavegen configs quickstart > mine.yaml

    Args:
        name: of a configuration or a study, whose file is printed; without it all are listed.
    """
    from wavegen.config.shipped import describe, shipped

    experiments, studies = shipped(), shipped("studies")
    if name is not None:
        there = experiments | studies
        if name not in there:
            raise WavegenError(
                f"expected the name of a configuration, got {name!r}; there are {', '.join(there)}"
            )
        print(there[name].read_text(encoding="utf-8"), end="")
        return
    for title, files in (("wavegen train NAME", experiments), ("wavegen study NAME", studies)):
        print(f"{title}\n")
        for file, path in files.items():
            print(f"  {file}")
            task, cost, expect = describe(path)
            for line in (task, f"Cost: {cost}", f"Expect: {expect}"):
                print(textwrap.fill(line, 100, initial_indent=" " * 4, subsequent_indent=" " * 6))
        print()


def models(name: Positional[str | None] = None, /) -> None:
    """Lists the trained models that come with the package, or prints the model card of one of them.

    Commands take these names in place of a run, and so does ``wavegen.load``.

    Args:
        name: of a model, whose card is printed; without it all are listed.
    """
    from wavegen.runs.shipped import read_card, shipped

    there = shipped()
    if name is not None:
        if name not in there:
            raise WavegenError(
                f"expected the name of a shipped model, got {name!r}; there are {', '.join(there)}"
            )
        print(there[name].with_suffix(".md").read_text(encoding="utf-8"), end="")
        return
    for name, path in there.items():
        what, _, licence = read_card(path)
        print(f"{name}  ({path.stat().st_size / 2**20:.1f} MB, {licence.rstrip('.')})")
        print(textwrap.fill(what, 100, initial_indent="  ", subsequent_indent="  "))
    print("\n`wavegen models NAME` prints a model's card with its figures.")


def study(
    study: Positional[Path],
    overrides: Positional[tuple[str, ...]] = (),
    /,
    runs: Path = Path("runs"),
    out: Path | None = None,
    dry_run: bool = False,
) -> None:
    """Trains datasets x models x settings x seeds, and compares them in one table; run it again to resume.

    The table has a row per experiment, and comes with loss curves and a clip of each. Finished experiments are not run
    again. An experiment that fails is named in the table, does not stop the others, and makes the exit status 1.

    Args:
        study: a YAML file, or the name of a study that comes with the package; see ``wavegen configs``.
        overrides: changes, written a.b=c: to all experiments (data.path=FOLDER training.steps=200), or to the study
            (seeds=[0] datasets.small.data.path=FOLDER).
        runs: the run folders are RUNS/STUDY/DATASET-MODEL-SETTING-SEED.
        out: folder for table.csv, summary.csv, summary.md, across.csv, curves.csv, curves.png and samples; by default
            studies/STUDY.
        dry_run: list the experiments and their parameters, and train nothing.
    """
    from wavegen.config.study import load_study

    resolved = load_study(study, overrides)
    set_up_process(max(cell.config.training.mesh.cpu_devices for cell in resolved.cells))
    if dry_run:
        _list_experiments(resolved)
        return
    from wavegen.study.run import run_study
    from wavegen.study.table import summary

    folder = out or Path("studies") / resolved.config.name
    rows = run_study(resolved, runs, folder, partial(print, flush=True))
    print(f"\n{summary(rows)}")
    print_facts({"study": folder})
    if any(row.error for row in rows):
        raise SystemExit(1)


def evaluate(
    run: Positional[Path], /, data: Path | None = None, split: str = "test", orders: Orders = 16
) -> None:
    """Measures a model on a split: its likelihood in bits, a bound of it, or how well a codec reconstructs.

    Causal models have exact likelihoods ("bits"). Of masked models and autoencoders of windows an upper bound is given
    ("bound_bits"), with the standard error that its random orders leave; "masked_bits", by which a masked model's
    training is judged, are of masked tokens given the others under one random mask, and are no likelihood.

    Args:
        run: a run folder or a .safetensors file.
        data: a folder of recordings or a prepared dataset; by default the run's own. A file that was trained on
            recordings needs it: the path that it names is of another place.
        split: train, valid or test.
        orders: passes of the bound of a masked model, for each codebook; more make it steadier.
    """
    from wavegen.config.data import DataConfig
    from wavegen.runs.trained import open_trained, rebuild, without_paths
    from wavegen.training.evaluate import evaluate_split

    trained = open_trained(run)
    config = trained.config if run.is_dir() else without_paths(trained.config, run, data)
    graph, params = rebuild(trained)
    given = config, graph, params, trained.codecs, split, data
    with shown("evaluating") as work:
        result, files = evaluate_split(*given, orders=orders, new_in=DataConfig().cache, progress=work)
    what = "clips" if trained.config.model.is_codec else "tokens"
    print(f"{split} split, {result.count:,} {what} of {files} files")
    print_facts({name: f"{value:.4f}" for name, value in result.figures.items()}, width=22)


def report(
    run: Positional[Path | None] = None,
    /,
    out: Path | None = None,
    clips: Count = 4,
    temperature: Temperature | None = None,
) -> None:
    """Plays held-out melodies on a model, and prints measures of the audio next to controls.

    Args:
        run: a run folder or a .safetensors file of a model that is conditioned on notes; by default the instrument that
            comes with the package.
        out: folder for the audio, the pictures and the figures; by default RUN/report, or generated/report.
        clips: number of held-out melodies to play.
        temperature: below 1 the output is calmer, above 1 wilder; by default the experiment's own.
    """
    from wavegen.evaluation.instrument import write_report
    from wavegen.generation.load import load_generator
    from wavegen.samplers.drawing import Drawing

    place = run if run is not None and run.is_dir() else Path("generated")
    with shown("report") as work:
        text = write_report(
            load_generator(run),
            out or place / "report",
            clips=clips,
            drawing=Drawing(temperature),
            run=run,
            progress=work,
        )
    print(text)


def export(run: Positional[Path], out: Positional[Path]) -> None:
    """Writes a run's averaged weights and configuration as one .safetensors file.

    Args:
        run: a run folder.
        out: NAME.safetensors.
    """
    import wavegen

    path = wavegen.load(run).save(out)
    print(f"{path}: {path.stat().st_size:,} bytes")


def set_up_process(cpu_devices: int) -> None:
    """Makes the settings that must precede JAX: the number of devices of the CPU, and keeping freed memory."""
    from wavegen.training.malloc import keep_freed_memory

    keep_freed_memory()
    flags = [os.environ["XLA_FLAGS"]] if "XLA_FLAGS" in os.environ else []
    if cpu_devices > 1:
        flags.append(f"--xla_force_host_platform_device_count={cpu_devices}")
    if metadata.version("jaxlib").startswith("0.11."):
        # Two Fourier transforms at once wait for each other for ever on a CPU (openxla/xla, pull request 46347).
        flags.append("--xla_cpu_multi_thread_eigen=false")
    if flags:
        os.environ["XLA_FLAGS"] = " ".join(flags)


def _list_experiments(study: Study) -> None:
    from wavegen.study.run import count_cells, expect_equal

    counts = count_cells(study)
    width = max(map(len, counts))
    for cell in study.cells:
        steps = cell.config.training.steps
        print(f"{cell.config.name:<{width}}  {counts[cell.config.name]:>12,} parameters  {steps:,} steps")
    expect_equal(study, counts)
