"""The run log: one row a line, whole after a crash and after a resume."""

import io
import json
import math
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from wavegen.errors import WavegenError
from wavegen.metrics import read_metrics
from wavegen.runs.log import RunLog


def read_rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def run_log(folder: Path, start: int, stop: int, **options) -> str:
    out = io.StringIO()
    with RunLog(
        folder, total_steps=100, start_step=start, console=Console(file=out, width=200), **options
    ) as log:
        for step in range(start + 10, stop + 1, 10):
            log.log(step, {"loss": jnp.float32(step / 8), "learning_rate": 0.5})
    return out.getvalue()


def test_rows_hold_the_metrics_and_the_speed(tmp_path):
    told = run_log(tmp_path, 0, 20, audio_seconds_per_step=32.0, flops_per_step=2e9)
    rows = read_rows(tmp_path)
    assert [(row["step"], row["loss"], row["learning_rate"]) for row in rows] == [
        (10, 1.25, 0.5),
        (20, 2.5, 0.5),
    ]
    for row in rows:
        assert row["audio_seconds_per_second"] == pytest.approx(32 * row["steps_per_second"])
        assert row["gflops_per_second"] == pytest.approx(2 * row["steps_per_second"])
    first, second = told.splitlines()
    assert first.startswith("step 10/100  loss 1.25  learning_rate 0.5  ")
    assert all(unit in second for unit in (" steps/s  ", " audio-s/s  ", " GFLOP/s  ", ":00 left"))


def test_a_resumed_log_equals_the_uninterrupted_one_in_steps(tmp_path):
    run_log(tmp_path / "whole", 0, 60)
    run_log(tmp_path / "cut", 0, 40)
    with (tmp_path / "cut/metrics.jsonl").open("a") as file:
        file.write('{"step": 50, "lo')  # killed in the middle of a row
    run_log(tmp_path / "cut", 20, 60)
    steps = [[row["step"] for row in read_rows(tmp_path / name)] for name in ("whole", "cut")]
    assert steps[0] == steps[1] == [10, 20, 30, 40, 50, 60]


@pytest.mark.parametrize(
    "row",
    [
        b'{"step"  10}',
        b'{"step": "10"}',
        b'{"step": true}',
        b'{"step": 10, "loss": []}',
        b'{"step": 10, "l\xffss": 1}',
        b"[10]",
        b"[" * 100_000,
    ],
)
def test_a_damaged_row_before_the_last_is_one_line(tmp_path, row):
    run_log(tmp_path, 0, 20)
    path = tmp_path / "metrics.jsonl"
    damaged = row + b"\n" + path.read_bytes()
    path.write_bytes(damaged)
    message = r"row like \{\"step\": 1, ...\} in line 1 of .*metrics.jsonl, got "
    with pytest.raises(WavegenError, match=message):
        run_log(tmp_path, 20, 40)
    with pytest.raises(WavegenError, match=message):
        read_metrics(path)
    assert path.read_bytes() == damaged  # nothing was lost


def test_numbers_that_are_not_finite_are_null_in_the_file(tmp_path):
    with RunLog(tmp_path, total_steps=10, console=Console(file=io.StringIO())) as log:
        log.log(1, {"loss": math.nan})
        log.evaluation(1, {"valid/loss": math.inf, "valid/bits_per_sample": 2.5})
    training, evaluation = read_rows(tmp_path)
    assert training["loss"] is None
    assert (evaluation["valid/loss"], evaluation["valid/bits_per_sample"]) == (None, 2.5)
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()


def test_rows_are_on_the_disk_as_soon_as_they_are_written(tmp_path):
    log = RunLog(tmp_path, total_steps=10, console=Console(file=io.StringIO()))
    log.log(1, {"loss": 1.0})
    assert read_rows(tmp_path)[0]["loss"] == 1.0
    log.close()


def test_time_in_a_pause_is_not_in_the_speed(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("wavegen.runs.log.time.perf_counter", lambda: clock[0])
    with RunLog(tmp_path, total_steps=10, console=Console(file=io.StringIO())) as log:
        clock[0] = 1.0
        with log.paused():
            clock[0] = 100.0
        clock[0] = 101.0
        log.log(4, {"loss": 1.0})
    assert read_rows(tmp_path)[0]["steps_per_second"] == pytest.approx(2.0)


def test_a_terminal_gets_a_bar_with_the_numbers(tmp_path):
    out = io.StringIO()
    terminal = Console(file=out, force_terminal=True, width=160)
    with RunLog(
        tmp_path, total_steps=50, console=terminal, audio_seconds_per_step=8.0, flops_per_step=1e9
    ) as log:
        log.log(20, {"loss": 1.25})
        log.say("a line [not markup] above the bar")
    told = out.getvalue()
    for words in (
        "\x1b[",
        "20/50",
        "loss 1.25",
        "steps/s",
        "audio-s/s",
        "GFLOP/s",
        "line [not markup] above",
    ):
        assert words in told


def test_tensorboard_gets_scalars_audio_and_images(tmp_path):
    with RunLog(tmp_path, total_steps=10, console=Console(file=io.StringIO())) as log:
        log.log(1, {"loss": 1.0})
        log.audio(1, "clip", np.zeros((800, 1), np.float32), 8000)
        log.image(1, "spectrogram", np.zeros((8, 9, 3), np.uint8))
    (events,) = (tmp_path / "tensorboard").iterdir()
    content = events.read_bytes()
    for part in (b"loss", b"audio/wav", b"PNG"):
        assert part in content
