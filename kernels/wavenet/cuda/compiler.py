"""Compiles the kernel with NVRTC, a library that comes with jax[cuda13], and keeps what it compiled in a folder.

NVRTC is opened when it is needed. It compiles for one GPU to machine code ("cubin"); never to PTX, as the driver may be
older than NVRTC and refuse its PTX.
"""

import ctypes
import ctypes.util
import hashlib
import importlib.util
import os
import tempfile
from functools import cache
from pathlib import Path

from .plan import Plan

ENTRY = "Sample"
"""The name of the kernel in a cubin."""


def sources() -> dict[str, str]:
    """Returns the text of each file of the kernel by name."""
    return {file.name: file.read_text() for file in sorted(Path(__file__).parent.glob("*.h"))}


@cache
def nvrtc() -> ctypes.CDLL:
    """Opens NVRTC: that of the environment's packages, else the system's.

    Raises:
        NotImplementedError: there is none; the message says how to get it.
    """
    spec = importlib.util.find_spec("nvidia")
    packages = list(spec.submodule_search_locations or ()) if spec else []
    files = [file for folder in packages for file in sorted(Path(folder).glob("*/lib/libnvrtc.so.*"))]
    system = ctypes.util.find_library("nvrtc")
    for name in [*map(str, reversed(files)), *([system] if system else [])]:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise NotImplementedError("there is no NVRTC to compile it; install wavegen[cuda], or nvidia-cuda-nvrtc")


def version() -> str:
    """Returns NVRTC's version."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check(nvrtc().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
    return f"{major.value}.{minor.value}"


def _check(status: int) -> None:
    if status:
        text = nvrtc().nvrtcGetErrorString
        text.restype = ctypes.c_char_p
        raise RuntimeError(f"NVRTC failed: {text(status).decode()}")


def compile_kernel(plan: Plan, capability: str) -> tuple[bytes, str]:
    """Compiles the kernel.

    Args:
        plan: what it is compiled for.
        capability: the GPU's compute capability, such as "9.0".

    Returns:
        The cubin, and the assembler's report of registers and spills.

    Raises:
        NotImplementedError: there is no NVRTC, or it cannot compile for this GPU.
    """
    library = nvrtc()
    headers = {name: text.encode() for name, text in sources().items()}
    count = len(headers)
    program = ctypes.c_void_p()
    _check(
        library.nvrtcCreateProgram(
            ctypes.byref(program),
            b'#include "kernel.h"\n',
            b"wavenet.cu",
            count,
            (ctypes.c_char_p * count)(*headers.values()),
            (ctypes.c_char_p * count)(*(name.encode() for name in headers)),
        )
    )
    try:
        architecture = f"--gpu-architecture=sm_{capability.replace('.', '')}"
        options = [architecture, "--std=c++17", "--ptxas-options=-v", *plan.defines()]
        encoded = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        status = library.nvrtcCompileProgram(program, len(options), encoded)
        log = (
            _read(library.nvrtcGetProgramLogSize, library.nvrtcGetProgramLog, program).decode().strip("\0\n")
        )
        if status:
            errors = [line for line in log.splitlines() if "error" in line]
            raise NotImplementedError(
                f"NVRTC {version()} cannot compile it for {capability}: {(errors or [log])[0]}"
            )
        return _read(library.nvrtcGetCUBINSize, library.nvrtcGetCUBIN, program), log
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def _read(size_of, read, program: ctypes.c_void_p) -> bytes:
    size = ctypes.c_size_t()
    _check(size_of(program, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    _check(read(program, buffer))
    return buffer.raw


def cache_folder() -> Path:
    """Returns where cubins are kept: ``WAVEGEN_CACHE``, or the user's cache folder."""
    if named := os.environ.get("WAVEGEN_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wavegen"


def cubin_name(plan: Plan, capability: str, compiler: str) -> str:
    """Returns the name of a cubin's file: by GPU, and by a digest of source, network and compiler."""
    digest = hashlib.sha256()
    for name, text in sources().items():
        digest.update(f"{name}\0{text}\0".encode())
    digest.update("\0".join([compiler, *plan.defines()]).encode())
    return f"wavenet-sm{capability.replace('.', '')}-{digest.hexdigest()[:24]}.cubin"


def cubin(plan: Plan, capability: str) -> Path:
    """Returns the file of the kernel for a plan and a GPU, compiled before or now.

    Raises:
        NotImplementedError: there is no NVRTC, it cannot compile for this GPU, or the folder cannot be written.
    """
    file = cache_folder() / cubin_name(plan, capability, version())
    if file.is_file():
        return file
    code, _ = compile_kernel(plan, capability)
    try:
        write(file, code)
    except OSError as reason:
        raise NotImplementedError(
            f"the compiled kernel cannot be kept ({reason}); set WAVEGEN_CACHE to a folder that can be written"
        ) from reason
    return file


def write(file: Path, code: bytes) -> None:
    """Writes a file that gets its name when it is complete, so that other processes never read half of it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=file.parent, prefix=file.stem, delete=False) as unfinished:
        try:
            unfinished.write(code)
            unfinished.flush()
            os.fsync(unfinished.fileno())
            os.replace(unfinished.name, file)
        except BaseException:
            os.unlink(unfinished.name)
            raise
