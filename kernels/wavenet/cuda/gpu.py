"""The GPU that the kernel runs on: what it offers, and how the native library launches there."""

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache

import jax
import numpy as np
from jaxtyping import Array

from ... import native
from ...dispatch import platform
from . import compiler
from .plan import SHARED_MEMORY, WARPS, Plan

ARGUMENTS = (
    *("ahead", "current", "past", "residual", "skip", "hidden", "output"),
    *("residual_bias", "skip_bias", "hidden_bias", "output_bias", "input_bias", "table", "base"),
    *("rings_of_layers", "history", "integers", "floats", "inputs", "forced", "rings"),
)
"""The kernel's arrays in the order of ``Params`` in params.h, before its results: tokens, rings, outputs."""
NUMBERS = ("batch", "steps", "groups_of_cluster", "frames", "base_groups", "condition_hop", "patience")
"""The numbers behind them, int32."""
_HANDLER = "wavegen_cuda_launch"

Launch = Callable[
    [Plan, Mapping[str, Array], Mapping[str, int], int, tuple[jax.ShapeDtypeStruct, ...]], list[Array]
]
"""Runs the kernel: the plan, its arrays, its numbers, clusters and results; an array without elements is not given."""


@dataclass(frozen=True)
class Runner:
    """Runs the kernel somewhere: on a GPU, or in a test.

    Attributes:
        name: that messages give it.
        shared_memory: bytes that a block can have.
        multiprocessors: how many blocks run at once.
        launch: see ``Launch``.
    """

    name: str
    shared_memory: int
    multiprocessors: int
    launch: Launch = field(compare=False)


@cache
def library() -> ctypes.CDLL:
    """Loads the native library, and registers its launcher with XLA for GPUs.

    Raises:
        NotImplementedError: it was not built or is of an older version, or there is no CUDA driver.
    """
    path = native.find()
    try:
        loaded = ctypes.CDLL(str(path))
        handler = jax.ffi.pycapsule(getattr(loaded, _HANDLER))
        error = loaded.wavegen_cuda_error
    except (OSError, AttributeError) as reason:
        raise NotImplementedError(f"native kernels cannot be loaded, reinstall wavegen: {reason}") from reason
    error.restype = ctypes.c_char_p
    if text := error().decode():
        raise NotImplementedError(text)
    jax.ffi.register_ffi_target(_HANDLER, handler, platform="CUDA")
    return loaded


def check_capability(capability: str) -> int:
    """Returns the major number of a compute capability, of 9.0 or more.

    Raises:
        NotImplementedError: it is less: GPUs before Hopper have no clusters.
    """
    major = int(capability.partition(".")[0])
    if major < min(SHARED_MEMORY):
        raise NotImplementedError(f"needs a GPU of compute capability 9.0 or more, this one has {capability}")
    return major


def runner() -> Runner:
    """Returns what runs the kernel on this process' first GPU.

    Raises:
        NotImplementedError: JAX does not compute on a GPU, this one has no clusters, or something to compile and launch
            with is missing.
    """
    if (on := platform()) != "gpu":
        raise NotImplementedError(f"runs on GPUs only, JAX computes on {on}")
    return _runner()


@cache
def _runner() -> Runner:
    try:
        device = jax.local_devices(backend="cuda")[0]
    except RuntimeError as reason:  # GPUs of another maker
        raise NotImplementedError(f"runs on CUDA GPUs only: {reason}") from reason
    capability = str(device.compute_capability)
    major = check_capability(capability)
    library()
    compiler.nvrtc()

    def launch(plan, given, numbers, clusters, results):
        call = jax.ffi.ffi_call(_HANDLER, results, input_output_aliases={ARGUMENTS.index("rings"): 1})
        return call(
            *(given[name] for name in ARGUMENTS),
            file=str(compiler.cubin(plan, capability)),
            entry=compiler.ENTRY,
            numbers=np.asarray([numbers[name] for name in NUMBERS], np.int64),
            kept=np.int64(ARGUMENTS.index("rings")),
            keeper=np.int64(1),
            clusters=np.int64(clusters),
            blocks=np.int64(plan.blocks),
            threads=np.int64(32 * WARPS),
            shared_bytes=np.int64(plan.shared_bytes),
        )

    room = SHARED_MEMORY.get(major, min(SHARED_MEMORY.values()))  # the least, of GPUs to come
    return Runner(f"{device.device_kind} ({capability})", room, device.core_count, launch)
