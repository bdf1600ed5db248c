"""Compiles the kernel for a CPU with g++ and runs it there, in place of a GPU."""

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from wavegen.kernels.wavenet import cuda
from wavegen.kernels.wavenet.cuda.gpu import ARGUMENTS, NUMBERS
from wavegen.kernels.wavenet.cuda.plan import Plan

HERE, KERNEL = Path(__file__).parent, Path(cuda.__file__).parent
OUTCOMES = ("done", "deadlock", "message astray", "bytes counted wrong")
KINDS = ("barrier", "wait", "expect", "send")
FAULTS = ("none", "left out", "flipped", "shifted")
RESULTS = ("tokens", "rings_after", "outputs")
COMPILER = shutil.which("g++")


class Params(ctypes.Structure):
    """The same as in params.h."""

    _fields_ = [(name, ctypes.c_void_p) for name in (*ARGUMENTS, *RESULTS)] + [
        (name, ctypes.c_int) for name in NUMBERS
    ]


@cache
def build(plan: Plan) -> ctypes.CDLL:
    folder = Path(tempfile.mkdtemp(prefix="wavenet-emulator-"))
    library = folder / "emulator.so"
    command = [COMPILER, "-std=c++17", "-O1", "-shared", "-fPIC", "-w", "-DWAVENET_EMULATOR", *plan.defines()]
    done = subprocess.run(
        [*command, f"-I{KERNEL}", f"-I{HERE}", str(HERE / "emulator.cpp"), "-o", str(library)],
        capture_output=True,
        text=True,
    )
    assert not done.returncode, done.stderr[-3000:]
    loaded = ctypes.CDLL(str(library))
    shutil.rmtree(folder)
    return loaded


def sites(plan: Plan) -> list[tuple[int, str]]:
    """Lines of kernel.h where the last run synchronised, and how."""
    lines, kinds = (ctypes.c_int * 64)(), (ctypes.c_int * 64)()
    count = build(plan).emulated_sites(lines, kinds)
    return [(lines[n], KINDS[kinds[n]]) for n in range(count)]


class Failed(Exception):
    """The emulator saw that the kernel does not work."""


class Emulator:
    """What launches the kernel, with a schedule by seed and a fault at a line."""

    def __init__(self, seed: int = 1, site: int = 0, fault: str = "none") -> None:
        self.seed, self.site, self.fault = seed, site, fault

    def __call__(
        self,
        plan: Plan,
        given: Mapping[str, jax.Array],
        numbers: Mapping[str, int],
        clusters: int,
        results: tuple[jax.ShapeDtypeStruct, ...],
    ) -> list[jax.Array]:
        arrays = {name: np.array(given[name]) for name in ARGUMENTS}
        after = [np.full(r.shape, -1, r.dtype) for r in results]
        after[1] = arrays["rings"]  # the same memory
        arrays |= dict(zip(RESULTS, after, strict=True))
        pointers = [
            arrays[name].ctypes.data if arrays[name].size else None for name in (*ARGUMENTS, *RESULTS)
        ]
        params = Params(*pointers, *(numbers[name] for name in NUMBERS))
        outcome = build(plan).emulate(
            ctypes.byref(params), clusters, self.seed, self.site, FAULTS.index(self.fault)
        )
        if outcome:
            raise Failed(OUTCOMES[outcome])
        return [jnp.asarray(x) for x in after]
