"""The machine on which something is timed, and timing in alternation."""

import os
import platform
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

import jax

from wavegen.kernels import native

Name = TypeVar("Name", bound=Hashable)


def time_in_turns(
    calls: Mapping[Name, Callable[[], object]],
    rounds: int,
    report: Callable[[str], None] = lambda text: None,
) -> dict[Name, list[float]]:
    """Times all calls in alternation, so that a busy moment of the machine affects all of them.

    Args:
        calls: functions by name; they are compiled already, and their work is done when they return.
        rounds: number of rounds; in each, every function is called once.
        report: called with a line of progress before each round.

    Returns:
        The seconds of every call in every round.
    """
    seconds: dict[Name, list[float]] = {name: [] for name in calls}
    for turn in range(rounds):
        report(f"round {turn + 1} of {rounds}")
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def processors() -> int:
    """Returns how many processors this process may use, which is also the number of XLA's threads."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def has_native_library() -> bool:
    """Returns whether the CPU sampler, and the measurement of its peaks, can run."""
    try:
        native.load()
    except NotImplementedError:
        return False
    return True


def has_peaks() -> bool:
    """Returns whether the peaks of the device can be measured: those of CPUs with the native library."""
    return jax.default_backend() == "cpu" and has_native_library()


def machine() -> dict[str, Any]:
    """Returns a description of the machine, without which a time means nothing."""
    model = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
        model = names[0] if names else model
    return {
        "processor": model,
        "processors": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "python": platform.python_version(),
        "native": native.status(),
    }
