"""Work that is waited for: in turn, followed, stopped with what there is, and none ends the others."""

import asyncio
import io
import threading

import numpy as np
import pytest
import soundfile

from wavegen.app.jobs import Job, Worker, follow
from wavegen.errors import WavegenError

RATE = 8000


def counting(steps: int, gate: threading.Semaphore | None = None):
    """Work that makes a block of two clips each time it may."""

    def work(job: Job) -> None:
        job.progress("counting", 0, steps)
        for step in range(steps):
            if gate is not None:
                assert gate.acquire(timeout=10)
            job.add(np.full((2, 10), step / steps, np.float32))
            job.progress("counting", step + 1, steps)

    return work


def wait(job: Job) -> None:
    async def listen() -> None:
        async for _ in follow(job):
            pass

    asyncio.run(asyncio.wait_for(listen(), 10))


def test_jobs_are_done_in_turn_and_say_how_many_are_before_them():
    worker, gate = Worker(longest=2), threading.Semaphore(0)
    first, second, third = (Job(name, counting(2, gate), RATE) for name in "abc")
    worker.submit(first)
    gate.release()
    while first.done < 1:
        pass
    worker.submit(second)
    worker.submit(third)
    assert [worker.ahead(job) for job in (first, second, third)] == [0, 1, 2]
    assert first.seconds_left > 0
    assert second.seconds_left is None
    with pytest.raises(WavegenError, match="2 jobs are waiting already"):
        worker.submit(Job("d", counting(1), RATE))
    second.stop()
    assert (second.state, worker.ahead(third)) == ("stopped", 1)
    for _ in range(3):
        gate.release()
    wait(third)
    assert [job.state for job in (first, second, third)] == ["done", "stopped", "done"]
    assert second.blocks == []
    worker.close()


def test_a_job_that_is_stopped_keeps_what_it_made():
    worker, gate = Worker(), threading.Semaphore(0)
    job = Job("a", counting(100, gate), RATE)
    worker.submit(job)
    gate.release()
    while not job.blocks:
        pass
    job.stop()
    gate.release()
    wait(job)
    assert job.state == "stopped"
    made = 10 * len(job.blocks)
    assert made in (10, 20)
    results = job.results()
    assert [*results] == ["0.wav", "1.wav"]
    samples, rate = soundfile.read(io.BytesIO(results["1.wav"]), dtype="int16")
    assert (len(samples), rate) == (made, RATE)
    assert job.size == 2 * made * 2
    worker.close()


def test_a_failing_job_is_one_line_and_the_next_one_is_done():
    def refuses(job: Job) -> None:
        raise WavegenError("expected a, got b")

    def breaks(job: Job) -> None:
        raise ZeroDivisionError("secret")

    worker = Worker()
    jobs = [Job(name, work, RATE) for name, work in (("a", refuses), ("b", breaks), ("c", counting(1)))]
    for job in jobs:
        worker.submit(job)
    wait(jobs[-1])
    assert [job.state for job in jobs] == ["failed", "failed", "done"]
    assert jobs[0].error == "expected a, got b"
    assert jobs[1].error == "ZeroDivisionError in wavegen; this is a fault of the program"
    worker.close()


def test_whoever_follows_gets_every_block_once_and_the_end():
    async def collect() -> list[float]:
        worker, gate = Worker(), threading.Semaphore(2)
        job = Job("a", counting(5, gate), RATE)
        worker.submit(job)
        blocks = []
        async for block in follow(job):
            if block is not None:
                blocks.append(block[0, 0])
                gate.release()
        assert job.ended
        assert not job.listeners
        worker.close()
        return blocks

    assert asyncio.run(asyncio.wait_for(collect(), 10)) == [round(32768 * step / 5) for step in range(5)]


def test_closing_does_not_wait_for_a_step_that_has_no_end():
    worker, gate = Worker(), threading.Semaphore(0)
    running, waiting = (Job(name, counting(9, gate), RATE) for name in "ab")
    worker.submit(running)
    worker.submit(waiting)
    while running.state == "waiting":
        pass
    worker.close(timeout=0.1)
    assert waiting.state == "stopped"
    gate.release()
    wait(running)
    assert running.state == "stopped"
