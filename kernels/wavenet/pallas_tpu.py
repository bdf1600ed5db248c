"""The sampler for TPUs runs the whole loop in one kernel that keeps weights and rings on chip.

Its speed is estimated from the compiler's schedule, see benchmarks/speed/compile_targets.py, and was never measured.
This module holds what surrounds the kernel: it decides which networks the kernel takes and how many streams fit into
on-chip memory, and converts to its padded layout and back.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .call import Call, Generated
from .checks import check_floating
from .pallas_tpu_weights import (
    SUBLANES,
    output_groups,
    pad_frames,
    pad_to,
    pad_weights,
    take_groups,
    whole,
)
from .state import advance

RESERVED = 4 * 2**20
"""Bytes of VMEM that are left to the compiler, for what it spills and for its own buffers."""


def tiled_bytes(x: jax.ShapeDtypeStruct | jax.Array) -> int:
    """Returns the bytes that an array takes in VMEM, where it fills whole tiles of 8 x 128 words."""
    item = jnp.dtype(x.dtype).itemsize
    *outer, rows, width = (1, *x.shape)[-max(x.ndim, 2) :]
    tiles = whole(rows, SUBLANES) * whole(width) * item
    return int(np.prod(outer, dtype=np.int64)) * tiles


def vmem_bytes(call: Call, tile: int, look_ahead: bool) -> int:
    """Returns the bytes that the kernel keeps in VMEM for a tile of streams; blocks of samples count twice."""
    weights, samples = call.weights, 128
    padded = jax.eval_shape(partial(pad_weights, shape=call.shape, look_ahead=look_ahead), weights)
    layers, taps, residual, gates = padded["dilated"].shape
    levels, outputs = whole(output_groups(call.shape)[0]), padded["output"].shape[1]

    def array(*size: int, dtype: Any = call.dtype) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(size, dtype)

    once = [*padded.values(), array(levels, levels, dtype=jnp.float32)]
    once += [array((taps - 1) * sum(call.shape.dilations), tile, residual)]
    once += [array(2, layers, tile, gates)] * (call.condition is not None)
    twice = [array(tile, samples, dtype=jnp.int32)] * (2 + (call.forced is not None))  # tokens out, history
    twice += [array(samples, tile, residual)] * (call.inputs is not None)
    twice += [array(samples, tile, outputs, dtype=jnp.float32)] * call.return_logits
    return sum(map(tiled_bytes, once)) + 2 * sum(map(tiled_bytes, twice))


def choose_tile(batch: int, cores: int, capacity: int, bytes_of_tile: Callable[[int], int]) -> int:
    """Returns the most streams that one kernel step can run: the fewer steps, the more each weight is used.

    Args:
        batch: number of streams.
        cores: number of cores that share the tiles.
        capacity: bytes of VMEM of one core.
        bytes_of_tile: the bytes that a tile takes, see ``vmem_bytes``.

    Raises:
        NotImplementedError: not even the smallest tile fits.
    """
    tile = whole(-(-batch // cores), SUBLANES)
    while bytes_of_tile(tile) + RESERVED > capacity:
        if tile == SUBLANES:
            need, have = (bytes_ / 2**20 for bytes_ in (bytes_of_tile(tile) + RESERVED, capacity))
            raise NotImplementedError(
                f"weights and rings need {need:.1f} MiB of on-chip memory, this TPU core has {have:.0f} MiB"
            )
        tile = whole(tile // 2, SUBLANES)
    return tile


def generate(call: Call, *, look_ahead: bool = True, interpret: Any = False) -> Generated:
    """Generates; see ``api.wavenet_generate``.

    Args:
        call: with float32 weights (whose products are not shortened) or bfloat16 ones (whose products are summed in
            float32; the head's inputs are rounded to bfloat16 too).
        look_ahead: multiply each residual kernel with the next layer's beforehand, which gives the same sums in another
            order by a shorter chain of products, see ``pallas_tpu_weights.pad_weights``.
        interpret: run in Pallas' interpreter, on any machine; True or ``pltpu.InterpretParams``.

    Raises:
        NotImplementedError: there is no TPU, the weights have another dtype, or the network is too large for VMEM.
    """
    if call.dtype not in (jnp.float32, jnp.bfloat16):
        raise NotImplementedError(f"takes float32 or bfloat16 weights, not {call.dtype}")
    check_floating(call.shape)
    if not interpret and jax.default_backend() != "tpu":
        raise NotImplementedError(f"runs on TPU only, the default backend is {jax.default_backend()}")
    tile, vmem_limit = whole(call.batch, SUBLANES), None
    if not interpret:
        from jax.experimental.pallas import tpu as pltpu  # 0.3 s to import

        chip = pltpu.get_tpu_info()
        bytes_of_tile = partial(vmem_bytes, call, look_ahead=look_ahead)
        tile = choose_tile(call.batch, chip.num_cores, chip.vmem_capacity_bytes, bytes_of_tile)
        vmem_limit = bytes_of_tile(tile) + RESERVED
    return run(call, look_ahead=look_ahead, tile=tile, vmem_limit=vmem_limit, interpret=interpret)


@partial(jax.jit, static_argnames=("look_ahead", "tile", "vmem_limit", "interpret"))
def run(call: Call, *, look_ahead: bool, tile: int, vmem_limit: int | None, interpret: Any) -> Generated:
    """Lays everything out in tiles, runs the kernel, and undoes the layout."""
    from .pallas_tpu_kernel import CHUNK, Plan, launch

    weights, shape, state, steps = call.weights, call.shape, call.state, call.steps
    batch, groups = whole(call.batch, tile), output_groups(shape)
    width, levels = whole(call.residual), whole(groups[0])
    cut = call.top_k is not None or call.top_p is not None
    top_k = jnp.asarray(0 if call.top_k is None else call.top_k, jnp.int32)
    top_k = jnp.where(top_k == 0, shape.vocab_size, top_k)
    integers = (state["position"], call.row_offset, call.condition_offset, top_k)
    numbers = (call.temperature, 1 if call.top_p is None else call.top_p)
    history = state["history"][:, ::-1]
    given: dict[str, Any] = {
        "weights": pad_weights(weights, shape, look_ahead and call.layers > 1),
        "triangle": jnp.triu(jnp.ones((levels, levels), jnp.float32)),
        "history": pad_to(pad_to(history, whole(history.shape[1]), 1, -1), batch, 0, -1),
        "integers": jnp.stack([jnp.asarray(x, jnp.int32) for x in integers]),
        "numbers": jnp.stack([jnp.asarray(x, jnp.float32) for x in numbers]),
        "key": call.key,
    }
    if call.inputs is not None:
        inputs = pad_to(pad_to(call.inputs.astype(call.dtype).swapaxes(0, 1), batch, 1), width, 2)
        given["inputs"] = pad_to(inputs, whole(steps, CHUNK), 0)
    if call.forced is not None:
        given["forced"] = pad_to(pad_to(call.forced, whole(steps, CHUNK), 1, -1), batch, 0, -1)
    if call.condition is not None:
        given["frames"] = pad_frames(weights, call.condition, given["weights"]["dilated_bias"], batch)
    plan = Plan(shape, steps, tile, call.condition_hop, cut, vmem_limit, interpret)
    rings = pad_to(pad_to(state["rings"], batch, 1), width, 2)
    rings, out = launch(plan, rings, given, call.return_logits)
    tokens = out["tokens"][: call.batch, :steps]
    after = advance(state, rings[:, : call.batch, : call.residual], tokens)
    logits = None
    if call.return_logits:
        logits = take_groups(out["outputs"][:steps, : call.batch], groups).swapaxes(0, 1)
    return tokens, after, logits
