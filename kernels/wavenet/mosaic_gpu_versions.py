"""Hides what differs between jax 0.10 and 0.11 in Pallas' Mosaic GPU, and between the GPU and its interpreter."""

from typing import Any

import jax
from jax.experimental.pallas import mosaic_gpu as plgpu


def load(source: Any, layout: Any, interpret: bool) -> jax.Array:
    """Loads from GPU memory, without the vector instructions that only some layouts have, into a layout."""
    if interpret:  # which has no layouts
        return source[...]
    index: tuple[Any, ...] = ((),) if jax.__version_info__ < (0, 11) else ()
    return plgpu.load(source, *index, layout=layout, optimized=False)


def interpreter(detect_races: bool = False) -> Any:
    """Returns the parameter that runs a kernel in the interpreter; jax has not made it public.

    Args:
        detect_races: whether to look for accesses to shared memory that no barrier orders, see ``races_found``.
    """
    from jax._src.pallas.mosaic_gpu.interpret.params import InterpretGPUParams

    return InterpretGPUParams(detect_races=detect_races)


def races_found() -> bool:
    """Returns whether the latest kernel in the interpreter, run with ``detect_races``, had races."""
    from jax._src.pallas.mosaic_gpu.interpret.gpu_callbacks import get_races

    return get_races().races_found
