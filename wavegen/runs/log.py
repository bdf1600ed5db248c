"""The log of a run: ``metrics.jsonl`` that survives crashes, TensorBoard, and a progress bar or plain lines.

The JSON lines are the record; the others display it. A row is one line, so that a crash can tear only the last line.
What cannot be written, because the disk is full or the terminal is gone, costs a warning and never a training.
"""

import errno
import json
import math
import os
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import jax
import numpy as np
from jaxtyping import Float, UInt8
from rich.console import Console

from wavegen.atomic import atomic_write
from wavegen.metrics import read_row
from wavegen.progress import Progress, TerminalConsole
from wavegen.runs.tensorboard import EventFile


class RunLog:
    """The log of one run, in ``folder/metrics.jsonl`` and ``folder/tensorboard``; only process 0 writes.

    A run that resumes at ``start_step`` drops the rows after it, so that the file continues as if the run had never
    stopped. This requires that the row of step s is written before the checkpoint of step s. ``log`` waits for its
    metrics to be computed on the device. A loop that passes the metrics of the step before the one just dispatched
    keeps the device busy.

    Args:
        folder: folder of the run; created if missing.
        total_steps: number of steps at which the bar is full.
        start_step: number of updates before this start.
        audio_seconds_per_step: seconds of audio in one global batch.
        flops_per_step: floating-point operations of one step by formula; 0 if unknown (XLA's own count takes the body
            of a scan once).
        console: console for the bar or the lines; None is the standard output.

    Raises:
        WavegenError: if a line of ``metrics.jsonl`` other than a torn last one is not a row of this log.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        total_steps: int,
        start_step: int = 0,
        audio_seconds_per_step: float = 0.0,
        flops_per_step: float = 0.0,
        console: Console | None = None,
    ) -> None:
        self._writes = jax.process_index() == 0
        self._total_steps = total_steps
        self._audio_seconds = audio_seconds_per_step
        self._flops = flops_per_step
        self._last_step = start_step
        self._last_time = time.perf_counter()
        if not self._writes:
            return
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "metrics.jsonl"
        if path.exists():
            _cut(path, start_step)
        self._failed: set[str] = set()  # the parts that could not be written the last time
        self._path = path
        self._file = path.open("ab", buffering=0)
        self._tensorboard: EventFile | None = None
        with self._spared("tensorboard"):
            self._tensorboard = EventFile(folder / "tensorboard", start_step + 1)
        self._bar = _ProgressBar(console or TerminalConsole(file=sys.stdout), total_steps, start_step)

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Writes a row of training: the metrics, the speed since the last such row, and the time.

        Args:
            step: number of updates at which the metrics were computed.
            metrics: scalars by name, from Python or the device; one that is not finite is written as null.
        """
        if not self._writes:
            return
        row = _to_host(metrics)
        now = time.perf_counter()
        speed = (step - self._last_step) / max(now - self._last_time, 1e-9)
        self._last_step, self._last_time = step, now
        row["steps_per_second"] = speed
        if self._audio_seconds:
            row["audio_seconds_per_second"] = speed * self._audio_seconds
        if self._flops:
            row["gflops_per_second"] = speed * self._flops / 1e9
        self._write(step, row)
        self._bar.show(step, row)

    def evaluation(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Writes and shows a row that is not of training, such as ``{"valid/bits_per_sample": 2.1}``."""
        if not self._writes:
            return
        row = _to_host(metrics)
        self._write(step, row)
        self._bar.say(f"step {step}  " + "  ".join(f"{name} {value:.4g}" for name, value in row.items()))

    def audio(self, step: int, name: str, samples: Float[np.ndarray, "T C"], sample_rate: int) -> None:
        """Adds audio to TensorBoard: one clip, float32 in [-1, 1], with ``sample_rate`` in Hz."""
        if self._writes and self._tensorboard is not None:
            with self._spared("tensorboard"):
                self._tensorboard.audio(step, name, samples, sample_rate)

    def image(self, step: int, name: str, pixels: UInt8[np.ndarray, "height width 3"]) -> None:
        """Adds a picture to TensorBoard."""
        if self._writes and self._tensorboard is not None:
            with self._spared("tensorboard"):
                self._tensorboard.image(step, name, pixels)

    def say(self, line: str) -> None:
        """Prints one line, above the bar if there is one."""
        if self._writes:
            self._bar.say(line)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Excludes the time inside from the speed, for evaluation or for writing samples."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._last_time += time.perf_counter() - start

    def flush(self) -> None:
        """Writes every row to the disk; it belongs before a checkpoint, whose resume expects the rows up to it."""
        if not self._writes:
            return
        with self._spared(self._path.name):
            os.fsync(self._file.fileno())
        if self._tensorboard is not None:
            with self._spared("tensorboard"):
                self._tensorboard.flush()

    def close(self) -> None:
        """Flushes and closes the file, TensorBoard and the bar."""
        if not self._writes:
            return
        self.flush()
        self._file.close()
        if self._tensorboard is not None:
            with self._spared("tensorboard"):
                self._tensorboard.close()
        self._bar.close()

    def _write(self, step: int, row: Mapping[str, float]) -> None:
        whole = {"step": step, "time": round(time.time(), 3)}
        finite = {name: value if math.isfinite(value) else None for name, value in row.items()}
        with self._spared(self._path.name):
            # Without a buffer the operating system has the row now: a killed process loses nothing.
            _append(self._file, (json.dumps(whole | finite) + "\n").encode())
        if self._tensorboard is not None:
            with self._spared("tensorboard"):
                for name, value in row.items():
                    if math.isfinite(value):
                        self._tensorboard.scalar(step, name, value)

    @contextmanager
    def _spared(self, part: str) -> Iterator[None]:
        """Turns a failed write into a warning, the first time in a row."""
        try:
            yield
        except OSError as error:
            if part not in self._failed:
                self._failed.add(part)
                warnings.warn(
                    f"{self._path.with_name(part)} cannot be written ({error.strerror or error}); the training goes on "
                    "without what belongs there",
                    stacklevel=5,
                )
        else:
            self._failed.discard(part)


class _ProgressBar:
    """A live bar on a terminal, and one line per row elsewhere."""

    def __init__(self, console: Console, total: int, start: int) -> None:
        self._console = console
        self._total = total
        self._progress: Progress | None = None
        if console.is_terminal:
            self._progress = Progress(console=console).start()
            self._line = self._progress.line(f"step {start}/{total}", total, start)

    def show(self, step: int, row: Mapping[str, float]) -> None:
        units = {
            "steps_per_second": "steps/s",
            "audio_seconds_per_second": "audio-s/s",
            "gflops_per_second": "GFLOP/s",
        }
        words = [f"{name} {value:.4g}" for name, value in row.items() if name not in units]
        words += [f"{row[name]:.3g} {unit}" for name, unit in units.items() if name in row]
        text = "  ".join([f"step {step}/{self._total}", *words])
        if self._progress:
            with self._without_terminal():
                self._line.update(text, step)
            return
        left = (self._total - step) / row["steps_per_second"] if row["steps_per_second"] else math.inf
        clock = (
            f"{int(left) // 3600}:{int(left) // 60 % 60:02}:{int(left) % 60:02}"
            if math.isfinite(left)
            else "?"
        )
        self.say(f"{text}  {clock} left")

    def say(self, line: str) -> None:
        with self._without_terminal():
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        if self._progress:
            with self._without_terminal():
                self._progress.stop()

    @contextmanager
    def _without_terminal(self) -> Iterator[None]:
        """Goes on in silence where the output is closed or full."""
        try:
            yield
        except (OSError, ValueError):  # the latter from a file object that was closed
            self._console = Console(quiet=True)
            self._progress = None
            # What is still buffered would fail again when the program ends.
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _to_host(metrics: Mapping[str, Any]) -> dict[str, float]:
    # A list, because device_get would sort the names of a dict.
    return dict(zip(metrics, map(float, jax.device_get(list(metrics.values()))), strict=True))


def _cut(path: Path, last_step: int) -> None:
    """Drops the rows after ``last_step`` and a torn last line; whole or not at all."""
    lines = path.read_bytes().splitlines(keepends=True)
    if lines and not lines[-1].endswith(b"\n"):
        lines.pop()
    rows = [read_row(line, number, path) for number, line in enumerate(lines, start=1)]
    with atomic_write(path) as file:
        file.writelines(line for line, row in zip(lines, rows, strict=True) if row["step"] <= last_step)


def _append(file: BinaryIO, line: bytes) -> None:
    """Appends a line, or nothing of it."""
    end = os.fstat(file.fileno()).st_size
    try:
        if file.write(line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError:
        file.truncate(end)
        raise
