"""The C++ kernels: found, loaded and registered with XLA on first use.

They are built when wavegen is installed where there is a C++ compiler; without them XLA runs everything.
"""

import ctypes
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp

INSTRUCTION_SETS = ("generic", "AVX2", "AVX-512")
"""Numbered as in wavegen_native.cpp."""

_HANDLERS = ("wavegen_instruction_set",)


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
    except OSError as reason:
        raise NotImplementedError(f"native kernels cannot be loaded, reinstall wavegen: {reason}") from reason
    for name in _HANDLERS:
        jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(getattr(library, name)), platform="cpu")
    return found[0]


def instruction_set() -> str:
    """Return the best instruction set of `INSTRUCTION_SETS` that this machine offers, asked through XLA.

    Raises:
        NotImplementedError: there is no native library.
    """
    load()
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        number = jax.ffi.ffi_call("wavegen_instruction_set", jax.ShapeDtypeStruct((), jnp.int32))()
    return INSTRUCTION_SETS[int(number)]


def status() -> str:
    """Return one line: what was loaded, or why nothing was and how to get it."""
    try:
        return f"native kernels: {instruction_set()}, loaded from {load()}"
    except NotImplementedError as reason:
        return str(reason)
