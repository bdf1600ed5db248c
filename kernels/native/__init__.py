"""Finds the C++ kernels, loads them and registers them with XLA on first use.

They are built when wavegen is installed where there is a C++ compiler; without them XLA runs everything. Three
environment variables control them. Two are read at every call:

- ``WAVEGEN_INSTRUCTION_SET`` is one of ``INSTRUCTION_SETS``, instead of the best that the machine offers.
- ``WAVEGEN_THREADS`` is the number of threads that may share a batch, instead of one per processor.

One is read when the library is loaded:

- ``WAVEGEN_NATIVE_LIBRARY`` is a file to load instead of the installed one, such as a build with sanitizers.
"""

import ctypes
import os
import sysconfig
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

INSTRUCTION_SETS = ("generic", "avx2", "avx_vnni", "avx512", "avx512_vnni", "amx")
"""Names in the order of their numbers in wavegen_native.cpp, the better ones last. Those with "vnni" differ from the
ones before them in products of 8 bits alone. "amx" is "avx512_vnni" and the tile unit, which multiplies bfloat16
weights with 16 rows or more and rounds these to bfloat16 too."""

_HANDLERS = ("wavegen_instruction_sets", "wavegen_peaks", "wavegen_wavenet_generate")


@dataclass(frozen=True)
class Settings:
    """Determines how a native call runs.

    Attributes:
        instruction_set: an index of ``INSTRUCTION_SETS``.
        threads: the most threads that may share a batch, at least one.
    """

    instruction_set: int
    threads: int


def find() -> Path:
    """Returns where the library is.

    Raises:
        NotImplementedError: it was not built; the message says how to build it.
        ValueError: ``WAVEGEN_NATIVE_LIBRARY`` names no file.
    """
    if named := os.environ.get("WAVEGEN_NATIVE_LIBRARY"):
        if not Path(named).is_file():
            raise ValueError(f"WAVEGEN_NATIVE_LIBRARY must name a file, got {named!r}")
        return Path(named)
    # An editable install builds it where packages are installed, away from the sources; an import hook, such as that of
    # the tests' type checks, can hide that folder from the package's path.
    installed = Path(sysconfig.get_path("platlib"), *__name__.split("."))
    folders = dict.fromkeys([*map(Path, __path__), installed])
    found = [file for folder in folders for file in folder.glob("*wavegen_native*.so")]
    if not found:
        raise NotImplementedError(
            "native kernels were not built, XLA is used instead; to get them install a C++17 compiler (g++, "
            "clang++), then wavegen again with pip install --force-reinstall --no-deps --no-cache-dir"
        )
    return found[0]


@cache
def host() -> jax.Device:
    """Returns the device on which native code runs.

    Raises:
        NotImplementedError: JAX has no CPU backend; the message says how to get it.
    """
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError as reason:
        platforms = os.environ.get("JAX_PLATFORMS", "")
        raise NotImplementedError(
            f"native kernels need JAX's CPU backend, which JAX_PLATFORMS={platforms!r} leaves out; "
            f"set JAX_PLATFORMS={platforms},cpu"
        ) from reason


@cache
def load() -> Path:
    """Loads the library and registers its handlers with XLA.

    Returns:
        The path at which it was found.

    Raises:
        NotImplementedError: it was not built, or cannot be loaded, or JAX has no CPU backend; the message says how to
            mend that.
        ValueError: ``WAVEGEN_NATIVE_LIBRARY`` names no file.
    """
    host()
    path = find()
    try:
        library = ctypes.CDLL(str(path))
        handlers = [jax.ffi.pycapsule(getattr(library, name)) for name in _HANDLERS]
    except (OSError, AttributeError) as reason:
        raise NotImplementedError(f"native kernels cannot be loaded, reinstall wavegen: {reason}") from reason
    for name, handler in zip(_HANDLERS, handlers, strict=True):
        jax.ffi.register_ffi_target(name, handler, platform="cpu")
    return path


@cache
def instruction_sets() -> tuple[str, ...]:
    """Returns which of ``INSTRUCTION_SETS`` this machine offers, the best last.

    Raises:
        NotImplementedError: there is no native library.
    """
    load()
    with jax.ensure_compile_time_eval(), jax.default_device(host()):
        found = int(jax.ffi.ffi_call("wavegen_instruction_sets", jax.ShapeDtypeStruct((), jnp.int32))())
    return tuple(name for number, name in enumerate(INSTRUCTION_SETS) if found >> number & 1)


def settings() -> Settings:
    """Returns the settings that the environment and the machine determine.

    Raises:
        NotImplementedError: there is no native library.
        ValueError: an environment variable has an impossible value.
    """
    offered = instruction_sets()
    name = os.environ.get("WAVEGEN_INSTRUCTION_SET", offered[-1])
    if name not in offered:
        raise ValueError(
            f"WAVEGEN_INSTRUCTION_SET must be one of {', '.join(offered)} on this machine, got {name!r}"
        )
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    text = os.environ.get("WAVEGEN_THREADS", str(available))
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"WAVEGEN_THREADS must be a whole number of at least 1, got {text!r}")
    return Settings(INSTRUCTION_SETS.index(name), min(int(text), available))


def peaks(working_set: int) -> tuple[float, float]:
    """Measures one core with the chosen instruction set, which takes a second.

    Args:
        working_set: bytes that are read repeatedly.

    Returns:
        Floating-point operations per second, and bytes per second.

    Raises:
        NotImplementedError: there is no native library.
    """
    chosen = settings().instruction_set
    with jax.default_device(host()):
        call = jax.ffi.ffi_call("wavegen_peaks", jax.ShapeDtypeStruct((2,), jnp.float32))
        operations, read = call(instruction_set=np.int64(chosen), bytes=np.int64(working_set))
    return float(operations), float(read)


def status() -> str:
    """Returns one line on what was loaded and what is chosen, or on why nothing was loaded and how to mend that."""
    try:
        path, chosen = load(), settings()
    except NotImplementedError as reason:
        return str(reason)
    best, used = instruction_sets()[-1], INSTRUCTION_SETS[chosen.instruction_set]
    return f"native kernels: {used} chosen, {best} found, {chosen.threads} thread(s), loaded from {path}"
