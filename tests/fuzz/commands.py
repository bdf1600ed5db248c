"""The commands that the fault injectors disturb, on tiny inputs, and what must come out of each."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import array_record.python.array_record_module
import grain.python
import matplotlib.backends.backend_agg
import matplotlib.figure
import numpy as np
import scipy.signal
import scipy.stats
from faults import Command, run
from inputs import MODEL, RATE, pcm, tone, write_codec

import wavegen.__main__
import wavegen.cli
import wavegen.data.tokenize
import wavegen.evaluation.figures
import wavegen.study.run
import wavegen.training.codebook
from wavegen.audio import Audio
from wavegen.config import load_config
from wavegen.data import prepare
from wavegen.data.open import open_dataset
from wavegen.data.write import Clip, write_dataset
from wavegen.runs.checkpoints import Checkpoints
from wavegen.runs.trained import open_codecs
from wavegen.training.state import abstract_state, state_hash
from wavegen.training.step import first_state

# Imported once for all the processes that are forked: most of what a command of this size does is imports.
IMPORTED = (
    array_record.python.array_record_module, grain.python, matplotlib.backends.backend_agg, matplotlib.figure,
    scipy.signal, scipy.stats, wavegen.data.tokenize, wavegen.evaluation.figures, wavegen.study.run,
    wavegen.training.codebook,
)  # fmt: skip
RUN = """
name: tiny
data: {path: HERE/data, cache: HERE/cache, sample_rate: 8000, crop: 256, batch_size: 2}
optimizer: {warmup_steps: 2}
training: {steps: 6, log_every: 1, evaluate_every: 3, evaluate_batches: 1, checkpoint_every: 2, sample_seconds: 0.05,
           sample_count: 1}
model: MODEL
"""
STUDY = """
name: study
base: HERE/tiny.yaml
datasets: {one: {}}
models: {tiny: {training.steps: 2, optimizer.warmup_steps: 0}}
seeds: [0, 1]
train_batches: 1
samples: {seconds: 0.02, count: 1}
"""


@dataclass(frozen=True)
class Case:
    """A command, and what must be equal whatever happened before it ended well.

    Attributes:
        command: arguments, from the folder for its results.
        result: what it leaves in that folder; a function to be called in a process of its own, which prints it.
    """

    command: Callable[[Path], Command]
    result: Callable[[Path], object]


def make_inputs(workshop: Path) -> None:
    """Writes recordings, configurations, a dataset, a run and files of trained models, where they are missing."""
    rng = np.random.default_rng(0)
    splits = ["train"] * 4 + ["valid"] * 2 + ["test"] * 2
    for number, split in enumerate(splits):
        path = workshop / "recordings" / split / f"{number}.{'flac' if number % 3 else 'wav'}"
        if not path.exists():
            Audio(tone(rng, 1000 + 100 * number), RATE).write(path)
    if not (workshop / "data").exists():
        clips = [Clip(f"{s}/{n}", pcm(rng, 700 + n), {"n": str(n)}, s) for n, s in enumerate(splits)]
        write_dataset(workshop / "data", clips, RATE, shard_samples=2000)
    (workshop / "tiny.yaml").write_text(
        RUN.replace("HERE", str(workshop)).replace("MODEL", json.dumps(MODEL))
    )
    if not (workshop / "tiny.safetensors").exists():
        for command in (
            lambda: write_codec(workshop / "codec.safetensors", seed=0),
            ["train", f"{workshop}/tiny.yaml", "--runs", f"{workshop}/runs"],
            ["export", f"{workshop}/runs/tiny", f"{workshop}/tiny.safetensors"],
        ):
            ended = run(command, workshop)
            assert ended.status == 0, ended
    (workshop / "study.yaml").write_text(STUDY.replace("HERE", str(workshop)))


def cases(workshop: Path) -> dict[str, Case]:
    """Returns every command that writes, by name."""
    there, books = str(workshop), ["--size", "4", "--n-fft", "128", "--hop-length", "64", "--bands", "4"]

    def prepared(backend: str, workers: int) -> Callable[[Path], Command]:
        return lambda out: partial(_prepare, workshop / "recordings", out / "data", backend, workers)

    def trained(out: Path) -> list[str]:
        return ["train", f"{there}/tiny.yaml", "--runs", str(out)]

    return {
        "train": Case(trained, run_result),
        "prepare memmap": Case(prepared("memmap", 1), files),
        "prepare memmap, 2 workers": Case(prepared("memmap", 2), files),
        "prepare array_record": Case(prepared("array_record", 1), files),
        "prepare array_record, 2 workers": Case(prepared("array_record", 2), files),
        "sample": Case(
            lambda out: ["sample", f"{there}/tiny.safetensors", "--seconds", "0.05", "-o", str(out)], files
        ),
        "tokenize": Case(
            lambda out: ["tokenize", f"{there}/codec.safetensors", f"{there}/data", "-o", f"{out}/data"],
            files,
        ),
        "fit-codebook": Case(
            lambda out: [*("fit-codebook", f"{there}/data", *books), "-o", f"{out}/book.safetensors"], files
        ),
        "export": Case(lambda out: ["export", f"{there}/runs/tiny", f"{out}/model.safetensors"], files),
        "study": Case(
            lambda out: ["study", f"{there}/study.yaml", "--runs", f"{out}/runs", "--out", f"{out}/out"],
            study_result,
        ),
    }


def _prepare(recordings: Path, out: Path, backend: str, workers: int) -> None:
    """The command, with a recording or two a shard, so that there is something to divide."""
    prepare.prepare.__kwdefaults__["shard_bytes"] = 4000
    split = ["--valid", "valid/*", "--test", "test/*"]
    options = ["--sample-rate", str(RATE), "--backend", backend, "--workers", str(workers)]
    wavegen.__main__.run(["prepare", str(recordings), "-o", str(out), *options, *split])


def files(folder: Path) -> object:
    """The sha256 of every file that is not a lock, by its path."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


def run_result(folder: Path, name: str = "tiny") -> object:
    """The state of a run, its samples and its figures: all but times and speeds."""
    path = folder / name
    config = load_config(path / "config.yaml")
    codecs = open_codecs(config, path)
    _, state = first_state(config, open_dataset(config).labels, codecs)
    with Checkpoints(path / "checkpoints") as checkpoints:
        restored, step, _ = checkpoints.restore(abstract_state(state))
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    figures = [{k: v for k, v in row.items() if k != "time" and "second" not in k} for row in rows]
    return {"a step": [step, state_hash(restored), files(path / "samples")], "rows": figures}


def study_result(folder: Path) -> object:
    """The runs of a study, their figures, and what is in its tables but speeds."""
    runs = sorted(path.name for path in (folder / "runs" / "study").iterdir() if path.is_dir())
    found = [run_result(folder / "runs" / "study", name) for name in runs]
    measured = [json.loads((folder / "runs" / "study" / name / "figures.json").read_text()) for name in runs]
    figures = [{k: v for k, v in row.items() if "second" not in k} for row in measured]
    return [runs, found, figures, sorted(path.name for path in (folder / "out").iterdir())]


def result_of(case: Case, folder: Path) -> str:
    """What a command has left, computed in a process of its own.

    Raises:
        AssertionError: it cannot be computed.
    """
    ended = run(lambda: print(json.dumps(case.result(folder), sort_keys=True)), folder)
    assert ended.status == 0, f"what is in {folder} cannot be read: {ended.errors[-1000:]}"
    return ended.out


def wrong_after(case: Case, folder: Path, expected: str, rows: bool = True) -> str:
    """Lets a command end that was disturbed; returns what is wrong with what it leaves, "" if nothing is.

    Args:
        case: the command.
        folder: of its results.
        expected: what ``reference`` returned.
        rows: whether the rows of the log of a training must be equal, too.
    """
    ended = run(case.command(folder), folder)
    if ended.status != 0:
        return f"the next start: {ended}"
    left = [p.name for p in folder.rglob("*") if p.name.endswith(".part") or "checkpoint-tmp" in p.name]
    if left:
        return f"after the next start {left} are left"
    found = result_of(case, folder)
    if not rows:
        found, expected = found.partition('"rows"')[0], expected.partition('"rows"')[0]
    return "" if found == expected else f"the next start gives {found[-400:]}, expected {expected[-400:]}"


def reference(case: Case, folder: Path) -> tuple[str, int]:
    """What a command leaves that nothing disturbs, and how often it changes its folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    ended = run(case.command(folder), folder)
    assert ended.status == 0, ended
    return result_of(case, folder), ended.calls
