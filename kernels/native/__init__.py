"""The C++ kernels: found, loaded and registered with XLA on first use.

They are built when wavegen is installed where there is a C++ compiler; without them XLA runs everything. Two
environment variables steer them, read at every call:

- `WAVEGEN_INSTRUCTION_SET`: one of `INSTRUCTION_SETS`, instead of the best that the machine offers.
- `WAVEGEN_THREADS`: how many threads may share a batch, instead of one a processor.
"""

import ctypes
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

INSTRUCTION_SETS = ("generic", "avx2", "avx512")
"""Numbered as in wavegen_native.cpp; each includes the ones before it."""

_HANDLERS = ("wavegen_instruction_set", "wavegen_peaks", "wavegen_wavenet_generate")


@dataclass(frozen=True)
class Settings:
    """How a native call runs.

    Attributes:
        instruction_set: an index of `INSTRUCTION_SETS`.
        threads: at most so many, at least one.
    """

    instruction_set: int
    threads: int


@cache
def load() -> Path:
    """Load the library and register its handlers with XLA.

    Returns:
        Where it was found.

    Raises:
        NotImplementedError: it was not built, or cannot be loaded; one line that says how to mend it.
    """
    # In an editable install the package has two folders: the sources and where the library was built.
    found = [file for folder in __path__ for file in Path(folder).glob("*wavegen_native*.so")]
    if not found:
        raise NotImplementedError(
            "native kernels were not built, XLA is used instead; to get them install a C++17 compiler (g++, "
            "clang++), then wavegen again with pip install --force-reinstall --no-deps --no-cache-dir"
        )
    try:
        library = ctypes.CDLL(str(found[0]))
        handlers = [jax.ffi.pycapsule(getattr(library, name)) for name in _HANDLERS]
    except (OSError, AttributeError) as reason:
        raise NotImplementedError(f"native kernels cannot be loaded, reinstall wavegen: {reason}") from reason
    for name, handler in zip(_HANDLERS, handlers, strict=True):
        jax.ffi.register_ffi_target(name, handler, platform="cpu")
    return found[0]


@cache
def best_instruction_set() -> int:
    """Return the index in `INSTRUCTION_SETS` of the best that this machine offers, asked through XLA.

    Raises:
        NotImplementedError: there is no native library.
    """
    load()
    with jax.ensure_compile_time_eval(), jax.default_device(jax.local_devices(backend="cpu")[0]):
        return int(jax.ffi.ffi_call("wavegen_instruction_set", jax.ShapeDtypeStruct((), jnp.int32))())


def settings() -> Settings:
    """Return what the environment and the machine say.

    Raises:
        NotImplementedError: there is no native library.
        ValueError: an environment variable says what cannot be.
    """
    best = best_instruction_set()
    name = os.environ.get("WAVEGEN_INSTRUCTION_SET", INSTRUCTION_SETS[best])
    if name not in INSTRUCTION_SETS[: best + 1]:
        raise ValueError(
            f"WAVEGEN_INSTRUCTION_SET must be one of {', '.join(INSTRUCTION_SETS[: best + 1])} on this machine, "
            f"got {name!r}"
        )
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    text = os.environ.get("WAVEGEN_THREADS", str(available))
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"WAVEGEN_THREADS must be a whole number of at least 1, got {text!r}")
    return Settings(INSTRUCTION_SETS.index(name), min(int(text), available))


def peaks(working_set: int) -> tuple[float, float]:
    """Measure one core with the chosen instruction set, which takes a second.

    Args:
        working_set: bytes that are read over and over.

    Returns:
        Floating-point operations per second, and bytes per second.

    Raises:
        NotImplementedError: there is no native library.
    """
    chosen = settings().instruction_set
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        call = jax.ffi.ffi_call("wavegen_peaks", jax.ShapeDtypeStruct((2,), jnp.float32))
        operations, read = call(instruction_set=np.int64(chosen), bytes=np.int64(working_set))
    return float(operations), float(read)


def status() -> str:
    """Return one line: what was loaded and what is chosen, or why nothing was and how to get it."""
    try:
        path, chosen = load(), settings()
    except NotImplementedError as reason:
        return str(reason)
    best, used = INSTRUCTION_SETS[best_instruction_set()], INSTRUCTION_SETS[chosen.instruction_set]
    return f"native kernels: {used} chosen, {best} found, {chosen.threads} thread(s), loaded from {path}"
