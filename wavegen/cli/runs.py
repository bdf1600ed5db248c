"""Commands on runs: train, evaluate, report, export."""

from __future__ import annotations

import os
from pathlib import Path

from tyro.conf import Positional


def train(
    config: Positional[Path], overrides: Positional[tuple[str, ...]] = (), /, runs: Path = Path("runs")
) -> None:
    """Train a model; the same command goes on where a run stopped.

    Args:
        config: a YAML file, for example configs/quickstart.yaml.
        overrides: changes to it, written a.b=c: optimizer.learning_rate=1e-3 name=slow
        runs: the run folder is RUNS/NAME.
    """
    from wavegen.config import load_config

    resolved = load_config(config, overrides)
    set_up_process(resolved.training.mesh.cpu_devices)
    from wavegen.training.loop import train as run

    folder = run(resolved, runs / resolved.name)
    print(f"run      {folder}\nlisten   python sample.py {folder}")


def evaluate(run: Positional[Path], /, data: Path | None = None, split: str = "test") -> None:
    """Measure a model on a split: exact likelihood in bits, or how well a codec reconstructs.

    Args:
        run: a run folder or a .safetensors file.
        data: a folder of recordings or a prepared dataset; by default the run's own.
        split: train, valid or test.
    """
    from wavegen.models.kinds import make_model
    from wavegen.networks.base import parameters
    from wavegen.runs.trained import fitting, open_trained
    from wavegen.training.evaluate import evaluate_split

    trained = open_trained(run)
    model = make_model(trained.config, trained.codecs, trained.labels)
    graph, fresh = parameters(model)
    result, files = evaluate_split(
        trained.config, graph, fitting(trained.params, fresh), trained.codecs, split, data
    )
    what = "clips" if trained.config.model.is_codec else "tokens"
    print(f"{split} split, {result.count:,} {what} of {files} files")
    for name, value in result.figures.items():
        print(f"{name:<18}{value:.4f}")


def report(
    run: Positional[Path | None] = None,
    /,
    out: Path | None = None,
    clips: int = 4,
    temperature: float | None = None,
) -> None:
    """Play held-out melodies and print the figures that tell good audio from bad, beside controls.

    Args:
        run: a note-conditioned run folder or .safetensors file; none: the instrument that comes with the package.
        out: folder for the audio, the pictures and the figures; by default RUN/report, or generated/report.
        clips: held-out melodies to play.
        temperature: below 1 calmer, above 1 wilder; by default the experiment's own.
    """
    from wavegen.evaluation.instrument import write_report
    from wavegen.generation.load import load_generator
    from wavegen.samplers.drawing import Drawing

    place = run if run is not None and run.is_dir() else Path("generated")
    print(
        write_report(
            load_generator(run),
            out or place / "report",
            clips=clips,
            drawing=Drawing(temperature),
            run=run,
        )
    )


def export(run: Positional[Path], out: Positional[Path]) -> None:
    """Write a run's averaged weights and configuration as one safetensors file.

    Args:
        run: a run folder.
        out: NAME.safetensors.
    """
    import wavegen

    path = wavegen.load(run).save(out)
    print(f"{path}: {path.stat().st_size:,} bytes")


def set_up_process(cpu_devices: int) -> None:
    """Says what must be said before JAX starts: into how many devices the CPU is split, and to keep freed memory."""
    from wavegen.training.malloc import keep_freed_memory

    keep_freed_memory()
    if cpu_devices > 1:
        os.environ["XLA_FLAGS"] = (
            f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={cpu_devices}".strip()
        )
