"""Event files for TensorBoard, written at once by the caller's thread.

``tensorboardX.SummaryWriter`` hands events to a thread, which dies of the first failed write; what waits for it then
waits for ever. Its parts are used here without the thread.
"""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog


class EventFile:
    """One event file in a folder; every method raises ``OSError`` where it cannot be written.

    Args:
        folder: created if missing.
        first_step: events from this step on in older files are hidden.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._writer = EventsWriter(os.path.join(folder, "events"))
        self._write(first_step, session_log=SessionLog(status=SessionLog.START))

    def scalar(self, step: int, name: str, value: float) -> None:
        """Adds a number."""
        self._write(step, summary=summary.scalar(name, value))

    def audio(self, step: int, name: str, samples: Float[np.ndarray, "T C"], sample_rate: int) -> None:
        """Adds a clip in [-1, 1]."""
        self._write(step, summary=summary.audio(name, samples, sample_rate=sample_rate))

    def image(self, step: int, name: str, pixels: UInt8[np.ndarray, "height width 3"]) -> None:
        """Adds a picture."""
        self._write(step, summary=summary.image(name, pixels, dataformats="HWC"))

    def flush(self) -> None:
        """Hands what was added to the operating system."""
        self._writer.flush()

    def close(self) -> None:
        """Flushes and closes the file."""
        self._writer.close()

    def _write(self, step: int, **content: Any) -> None:
        self._writer.write_event(Event(wall_time=time.time(), step=step, **content))
