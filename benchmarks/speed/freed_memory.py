"""What it brings on a CPU that training keeps freed memory (wavegen/training/malloc.py).

    python benchmarks/speed/freed_memory.py configs/fsdd-codec.yaml data.path=FOLDER

Trains the same experiment in processes of their own, by turns as glibc does by default and with freed memory kept.
Prints for each the median of its steps a second (over pieces of ten steps, the first left out), and the page faults
and the seconds of the system of the whole process.
"""

import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import tyro

PROGRAM = """
import sys
from wavegen.config import load_config
from wavegen.training.malloc import keep_freed_memory
kept, config, folder, *overrides = sys.argv[1:]
if kept == "kept" and not keep_freed_memory():
    raise SystemExit("expected glibc, got another C library; there is nothing to compare")
from wavegen.training.loop import train
train(load_config(config, overrides), folder)
"""


def measure(kept: str, config: Path, overrides: list[str]) -> dict[str, float]:
    """Figures of one training."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as folder:
        call = [sys.executable, "-c", PROGRAM, kept, str(config), folder, *overrides]
        subprocess.run(call, check=True, stdout=subprocess.DEVNULL)
        rows = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "steps_per_second": median(
            [row["steps_per_second"] for row in rows if "steps_per_second" in row][1:]
        ),
        "page_faults": after.ru_minflt - before.ru_minflt,
        "system_seconds": after.ru_stime - before.ru_stime,
    }


def main(
    config: tyro.conf.Positional[Path],
    overrides: tyro.conf.Positional[tuple[str, ...]] = (),
    /,
    steps: int = 60,
    turns: int = 2,
) -> None:
    """Train by turns and print a line for each training.

    Args:
        config: a YAML file.
        overrides: changes to it.
        steps: of each training.
        turns: trainings of each kind.
    """
    short = [f"training.{name}={steps}" for name in ("steps", "evaluate_every", "checkpoint_every")]
    short += ["training.log_every=10", "training.evaluate_batches=1", "optimizer.warmup_steps=1"]
    for _ in range(turns):
        for kept in ("default", "kept"):
            print(kept, json.dumps(measure(kept, config, [*overrides, *short])), flush=True)


if __name__ == "__main__":
    tyro.cli(main)
