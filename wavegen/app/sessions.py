"""Sessions: what one tab or script has uploaded and asked for, under a token that only it knows; all of it bounded."""

import secrets
import threading
import time
from dataclasses import dataclass, field

from wavegen.app.jobs import Job
from wavegen.app.uploads import Upload
from wavegen.errors import WavegenError

MOST, IDLE_SECONDS = 64, 3600.0
"""Sessions at a time, and the silence after which one is forgotten."""
JOBS, WAITING, UPLOADS = 20, 4, 8
"""What one session keeps: jobs, those of them that wait or run, and uploads; the oldest go."""
RESULT_BYTES, UPLOAD_BYTES = 512 << 20, 512 << 20
"""Of the results and uploads of all sessions; the oldest go, results only when their jobs have ended."""


@dataclass(eq=False)
class Session:
    """Of one tab or script.

    Attributes:
        jobs: by their ids, the oldest first.
        uploads: by their ids, the oldest first.
        seen: when it last asked for anything.
    """

    jobs: dict[str, Job] = field(default_factory=dict)
    uploads: dict[str, Upload] = field(default_factory=dict)
    seen: float = field(default_factory=time.monotonic)

    def keep_upload(self, upload: Upload) -> str:
        """Keeps an upload, and returns its id."""
        name = secrets.token_urlsafe(16)
        self.uploads[name] = upload
        while len(self.uploads) > UPLOADS:
            del self.uploads[next(iter(self.uploads))]
        return name

    def keep_job(self, job: Job) -> None:
        """Keeps a job that is to be submitted.

        Raises:
            WavegenError: as many of this session's as may are waiting or running.
        """
        if sum(not each.ended for each in self.jobs.values()) >= WAITING:
            raise WavegenError(f"{WAITING} jobs of this session are waiting or running; stop one, or wait")
        self.jobs[job.id] = job
        self._drop(len(self.jobs) - JOBS)

    def _drop(self, count: int) -> None:
        ended = [name for name, job in self.jobs.items() if job.ended]
        for name in ended[: max(count, 0)]:
            del self.jobs[name]


class Sessions:
    """All sessions, by their tokens."""

    def __init__(self) -> None:
        self._all: dict[str, Session] = {}
        self._lock = threading.Lock()

    def begin(self) -> str:
        """Begins a session, and returns its token.

        Raises:
            WavegenError: there are as many as may be.
        """
        with self._lock:
            self._forget()
            if len(self._all) >= MOST:
                raise WavegenError(f"{MOST} sessions are open already; try again later")
            token = secrets.token_urlsafe(32)
            self._all[token] = Session()
            return token

    def find(self, token: str) -> Session | None:
        """The session of a token; None if there is none any more."""
        with self._lock:
            self._forget()
            session = self._all.get(token)
            if session is not None:
                session.seen = time.monotonic()
            return session

    def make_room(self) -> None:
        """Drops the oldest results and uploads while all together are too large."""
        with self._lock:
            each = self._all.values()
            jobs = [(s.jobs, name, job.size, job.ended) for s in each for name, job in s.jobs.items()]
            uploads = [(s.uploads, name, one.size, True) for s in each for name, one in s.uploads.items()]
            for kept, most in ((jobs, RESULT_BYTES), (uploads, UPLOAD_BYTES)):
                total = sum(size for _, _, size, _ in kept)
                for holder, name, size, may_go in kept:
                    if total > most and may_go:
                        del holder[name]
                        total -= size

    def _forget(self) -> None:
        now = time.monotonic()
        for token, session in [*self._all.items()]:
            busy = any(not job.ended for job in session.jobs.values())
            if now - session.seen > IDLE_SECONDS and not busy:
                del self._all[token]
