"""What a figure depends on: the machine, and taking turns on it."""

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
    """Seconds of every call in every round: one of each in turn, so that a busy moment of the machine hits all.

    Args:
        calls: compiled, and done when they return.
        rounds: of which the median counts.
        report: told what is going on.
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
    """Processors that this process may use, which are the threads of XLA."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def has_native_library() -> bool:
    """Return whether the CPU sampler, and the measurement of its peaks, can run."""
    try:
        native.load()
    except NotImplementedError:
        return False
    return True


def has_peaks() -> bool:
    """Return whether the peaks of the device can be measured: those of CPUs with the native library."""
    return jax.default_backend() == "cpu" and has_native_library()


def machine() -> dict[str, Any]:
    """Return what a figure depends on."""
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
