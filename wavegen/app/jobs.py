"""Work that is waited for: one queue for all, progress, and a Stop that keeps what there is. No web and no JAX here."""

import asyncio
import io
import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import soundfile
from jaxtyping import Float, Int16

from wavegen.audio import Audio
from wavegen.errors import WavegenError
from wavegen.stopping import Stopped

_LOG = logging.getLogger(__name__)
State = Literal["waiting", "running", "done", "stopped", "failed"]


@dataclass(eq=False)
class Job:
    """One piece of work and what came of it.

    The worker calls ``work``, which calls ``progress`` and adds results; whoever wants to follow it leaves a function
    in ``listeners``, which is called in the worker's thread.

    Attributes:
        title: what it is, for a person.
        work: does it; what it raises ends the job alone.
        sample_rate: Hz, of audio that it makes.
        id: names it; a secret, but it is looked up in its own session only.
        state: it ends as "done", "stopped" or "failed".
        error: one line, where it failed.
        what: is being done.
        done: steps so far.
        total: of how many.
        blocks: audio so far, ``[clips, samples]``.
        files: other results so far, by name.
        listeners: called after each change.
    """

    title: str
    work: Callable[["Job"], None]
    sample_rate: int = 0
    id: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    state: State = "waiting"
    error: str = ""
    what: str = ""
    done: int = 0
    total: int = 0
    blocks: list[Int16[np.ndarray, "clips T"]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    listeners: set[Callable[[], None]] = field(default_factory=set)
    _stop: threading.Event = field(default_factory=threading.Event)
    _started: float = 0.0

    @property
    def ended(self) -> bool:
        """Whether nothing will change any more."""
        return self.state in ("done", "stopped", "failed")

    @property
    def seconds_left(self) -> float | None:
        """From the speed so far; None where there is none yet."""
        if self.ended:
            return 0.0
        if not self.done:
            return None
        return (time.monotonic() - self._started) / self.done * (self.total - self.done)

    def progress(self, what: str, done: int, total: int) -> None:
        """The library's ``ProgressCallback``.

        Raises:
            Stopped: the job was stopped.
        """
        self.what, self.done, self.total = what, done, total
        if self._stop.is_set():
            raise Stopped
        self._changed()

    def add(self, block: Float[np.ndarray, "clips T"]) -> None:
        """Adds audio in [-1, 1], of which a listener can be told at once."""
        self.blocks.append(Audio(block.T, self.sample_rate).to_pcm16().T)
        self._changed()

    def results(self) -> Mapping[str, bytes]:
        """Files of all that there is: ``0.wav`` for the first clip of audio, ``1.wav`` for the next, and the others."""
        clips = np.concatenate(self.blocks, axis=1) if self.blocks else ()
        return {
            f"{row}.wav": wav_bytes(clip, self.sample_rate) for row, clip in enumerate(clips)
        } | self.files

    @property
    def size(self) -> int:
        """Bytes of all results."""
        return sum(block.nbytes for block in tuple(self.blocks)) + sum(map(len, tuple(self.files.values())))

    def stop(self) -> None:
        """Ends it at once if it waits, or after the step that is running; what was made stays."""
        self._stop.set()
        if self.state == "waiting":
            self.end("stopped")

    def run(self) -> None:
        """Does the work; called by the worker."""
        if self.ended:
            return
        self._started = time.monotonic()
        self.state = "running"
        self._changed()
        try:
            self.work(self)
            self.end("stopped" if self._stop.is_set() else "done")
        except Stopped:
            self.end("stopped")
        except WavegenError as error:
            self.end("failed", str(error))
        except Exception as error:  # The next one's work is not to end with this one's.
            _LOG.exception("the job %r failed", self.title)
            self.end("failed", f"{type(error).__name__} in wavegen; this is a fault of the program")

    def end(self, state: State, error: str = "") -> None:
        """Ends it as ``state``."""
        self.state, self.error = state, error
        self._changed()

    def _changed(self) -> None:
        for listener in tuple(self.listeners):
            listener()


class Worker:
    """Does jobs one after the other in a thread of its own: a sampler fills a core, and two would only share it.

    Args:
        longest: jobs that may wait.
    """

    def __init__(self, longest: int = 32) -> None:
        self.longest = longest
        self._waiting: deque[Job] = deque()
        self._running: Job | None = None
        self._change = threading.Condition()
        self._closed = False
        # A process that ends does not wait for a step that has no end.
        self._thread = threading.Thread(target=self._work, daemon=True, name="jobs")
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Puts a job at the end of the queue.

        Raises:
            WavegenError: as many as may are waiting.
        """
        with self._change:
            if sum(not each.ended for each in self._waiting) >= self.longest:
                raise WavegenError(f"{self.longest} jobs are waiting already; try again later")
            self._waiting.append(job)
            self._change.notify()

    def ahead(self, job: Job) -> int:
        """Number of jobs that are done before this one: 0 if it is running or has ended."""
        with self._change:
            line = [each for each in self._waiting if not each.ended]
            return line.index(job) + (self._running is not None) if job in line else 0

    def close(self, timeout: float = 2.0) -> None:
        """Stops everything, and waits at most so many seconds for the step that is running."""
        with self._change:
            self._closed = True
            for job in (*self._waiting, *([self._running] if self._running else ())):
                job.stop()
            self._change.notify()
        self._thread.join(timeout)

    def _work(self) -> None:
        while True:
            with self._change:
                self._running = None
                while not self._waiting and not self._closed:
                    self._change.wait()
                if self._closed:
                    return
                self._running = job = self._waiting.popleft()
            job.run()


async def follow(job: Job) -> AsyncIterator[Int16[np.ndarray, "clips T"] | None]:
    """Yields the blocks of a job, those that there are first, and None after changes, until it has ended."""
    loop, changed = asyncio.get_running_loop(), asyncio.Event()

    def wake() -> None:
        loop.call_soon_threadsafe(changed.set)

    job.listeners.add(wake)
    try:
        sent = 0
        while True:
            changed.clear()
            ended = job.ended  # Read before the blocks, so that none is missed.
            for block in job.blocks[sent:]:
                sent += 1
                yield block
            yield None
            if ended:
                return
            await changed.wait()
    finally:
        job.listeners.discard(wake)


def wav_bytes(samples: Int16[np.ndarray, "T *C"], sample_rate: int) -> bytes:
    """A WAV file of 16 bits."""
    file = io.BytesIO()
    soundfile.write(file, samples, sample_rate, "PCM_16", format="WAV")
    return file.getvalue()
