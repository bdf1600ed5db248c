"""Law 5 on real processes: a run that is killed at any moment and started again ends as one that never was."""

import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from wavegen.config import load_config
from wavegen.data.prepare import Clip, write_dataset
from wavegen.runs.checkpoints import Checkpoints
from wavegen.runs.trained import open_codecs
from wavegen.training.state import abstract_state, state_hash
from wavegen.training.step import first_state

STEPS = 60
KILLS = int(os.environ.get("WAVEGEN_KILLS", "2"))
"""How many kill -9 the resume test spreads over a run; 10 takes some minutes."""

CONFIG = """
name: tiny
data: {path: DATASET, sample_rate: 8000, crop: 256, batch_size: 2, augment: {gain_db: 6, input_noise: 1}}
model: {kernel_size: 2, dilations: [1, 2, 4], cycles: 1, residual_channels: 8, gate_channels: 8, skip_channels: 8,
        head_channels: 8, dropout: 0.1}
optimizer: {kind: muon, warmup_steps: 5}
training: {steps: 60, log_every: 1, evaluate_every: 20, evaluate_batches: 2, checkpoint_every: 7, sample_seconds: 0.05,
           sample_count: 1}
"""


@pytest.fixture(scope="module")
def experiment(tmp_path_factory) -> Path:
    """A folder with a dataset and the configuration of a run of a few seconds."""
    folder = tmp_path_factory.mktemp("resume")
    rng = np.random.default_rng(0)
    time_axis = np.arange(4000) / 8000
    clips = [
        Clip(
            f"{split}/{i}",
            (8000 * np.sin(2 * np.pi * (200 + 50 * i) * time_axis) + 300 * rng.standard_normal(4000)).astype(
                np.int16
            ),
            split=split,
        )
        for split in ("train", "valid")
        for i in range(3)
    ]
    write_dataset(folder / "dataset", clips, 8000)
    (folder / "tiny.yaml").write_text(CONFIG.replace("DATASET", str(folder / "dataset")))
    return folder


def start(experiment: Path, name: str) -> subprocess.Popen:
    environment = os.environ | {
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=1",
        # The processes run one program: it is compiled once.
        "JAX_COMPILATION_CACHE_DIR": str(experiment / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = [sys.executable, "-m", "wavegen", "train", str(experiment / "tiny.yaml"), f"name={name}"]
    return subprocess.Popen(
        [*command, "--runs", str(experiment / "runs")],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def final_hash(experiment: Path, name: str) -> str:
    config = load_config(experiment / "tiny.yaml", [f"name={name}"])
    _, state = first_state(config, {}, open_codecs(config))
    with Checkpoints(experiment / "runs" / name / "checkpoints") as checkpoints:
        restored, step, _ = checkpoints.restore(abstract_state(state))
    assert step == STEPS
    return state_hash(restored)


@pytest.fixture(scope="module")
def uninterrupted(experiment) -> str:
    """The hash of the final state of a run that nothing disturbed."""
    process = start(experiment, "whole")
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return final_hash(experiment, "whole")


def steps_logged(experiment: Path, name: str) -> int:
    path = experiment / "runs" / name / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.mark.slow
def test_killed_run_ends_as_the_uninterrupted_one(experiment, uninterrupted, rng):
    for moment in sorted(rng.integers(1, STEPS, KILLS)):
        process = start(experiment, "killed")
        while steps_logged(experiment, "killed") < moment and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    process = start(experiment, "killed")
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert final_hash(experiment, "killed") == uninterrupted


@pytest.mark.slow
def test_sigterm_saves_and_the_rest_ends_the_same(experiment, uninterrupted):
    process = start(experiment, "stopped")
    while steps_logged(experiment, "stopped") < 10 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 143
    assert "run the same command to resume" in output
    process = start(experiment, "stopped")
    output, _ = process.communicate(timeout=300)
    assert "resuming from step" in output
    assert final_hash(experiment, "stopped") == uninterrupted


def test_damaged_newest_checkpoint_is_noticed_and_the_one_before_is_used(experiment, uninterrupted):
    folder = experiment / "runs" / "whole" / "checkpoints"
    newest = max((path for path in folder.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))
    largest = max(
        (path for path in newest.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size
    )
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    config = load_config(experiment / "tiny.yaml")
    _, state = first_state(config, {}, open_codecs(config))
    with Checkpoints(folder) as checkpoints, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _, step, _ = checkpoints.restore(abstract_state(state))
    assert step == int(newest.name) - 4  # checkpoints every 7 steps, and one at the end: 56, then 60
    assert any(largest.name in str(warning.message) for warning in caught)
