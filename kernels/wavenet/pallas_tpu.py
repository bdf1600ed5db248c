"""The sampler for TPUs: the whole loop in one kernel that keeps weights and rings on chip.

Estimated from the compiler's schedule, never timed: see benchmarks/speed/compile_targets.py. Here is what surrounds
the kernel: which networks it takes, what it costs in on-chip memory, and the way in and out of its padded layout.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt32

from .pallas_tpu_weights import (
    SUBLANES,
    output_groups,
    pad_frames,
    pad_to,
    pad_weights,
    take_groups,
    whole,
)
from .shapes import WaveNetShape, Weights
from .state import State, reach

RESERVED = 4 * 2**20
"""Bytes of VMEM left to the compiler, for what it spills and for its own buffers."""


def tiled_bytes(x: jax.ShapeDtypeStruct | jax.Array) -> int:
    """Return the bytes that an array takes in VMEM, in whole tiles of 8 x 128 words."""
    item = jnp.dtype(x.dtype).itemsize
    *outer, rows, width = (1, *x.shape)[-max(x.ndim, 2) :]
    tiles = whole(rows, SUBLANES) * whole(width) * item
    return int(np.prod(outer, dtype=np.int64)) * tiles


def vmem_bytes(
    weights: Mapping[str, Any],
    shape: WaveNetShape,
    tile: int,
    *,
    inputs: bool,
    forced: bool,
    logits: bool,
    look_ahead: bool,
) -> int:
    """Return what the kernel keeps in VMEM for a tile of streams; blocks of samples count twice."""
    padded = jax.eval_shape(partial(pad_weights, shape=shape, look_ahead=look_ahead), weights)
    dtype, samples = weights["residual"].dtype, 128
    layers, taps, residual, gates = padded["dilated"].shape
    levels, outputs = whole(output_groups(shape)[0]), padded["output"].shape[1]

    def array(*size: int, dtype: Any = dtype) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(size, dtype)

    once = [*padded.values(), array(levels, levels, dtype=jnp.float32)]
    once += [array((taps - 1) * sum(shape.dilations), tile, residual)]
    once += [array(2, layers, tile, gates)] * ("condition" in weights)
    twice = [array(tile, samples, dtype=jnp.int32)] * (2 + forced)  # tokens out, history, forced
    twice += [array(samples, tile, residual)] * inputs
    twice += [array(samples, tile, outputs, dtype=jnp.float32)] * logits
    return sum(map(tiled_bytes, once)) + 2 * sum(map(tiled_bytes, twice))


def choose_tile(batch: int, cores: int, capacity: int, bytes_of_tile: Callable[[int], int]) -> int:
    """Return the most streams that one kernel step can run: the fewer steps, the more each weight is used.

    Args:
        batch: streams.
        cores: that share the tiles.
        capacity: bytes of VMEM of one core.
        bytes_of_tile: what a tile takes, `vmem_bytes`.

    Raises:
        NotImplementedError: not even the smallest fits.
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


def generate(
    weights: Weights,
    shape: WaveNetShape,
    state: State,
    steps: int,
    *,
    key: UInt32[Array, "2"],
    inputs: Float[Array, "B T R"] | None,
    condition: Float[Array, "B F C"] | None,
    condition_hop: int,
    condition_offset: Int[Array, ""] | int,
    forced: Int[Array, "B T"] | None,
    temperature: Float[Array, ""] | float,
    top_k: Int[Array, ""] | int | None,
    top_p: Float[Array, ""] | float | None,
    row_offset: Int[Array, ""] | int,
    return_logits: bool,
    look_ahead: bool = True,
    interpret: Any = False,
) -> tuple[Int[Array, "B T"], State, Float[Array, "B T O"] | None]:
    """Generate; see `api.wavenet_generate`.

    Args:
        weights: float32 (products unshortened) or bfloat16 (float32 sums; the head's inputs are rounded too).
        shape: see there.
        state: see there.
        steps: see there.
        key: see there.
        inputs: see there.
        condition: see there.
        condition_hop: see there.
        condition_offset: see there.
        forced: see there.
        temperature: see there.
        top_k: see there.
        top_p: see there.
        row_offset: see there.
        return_logits: see there.
        look_ahead: multiply each residual kernel with the next layer's beforehand, see
            `pallas_tpu_weights.pad_weights`: a shorter chain of products, the same sums in another order.
        interpret: run in Pallas' interpreter, on any machine; True or `pltpu.InterpretParams`.

    Raises:
        NotImplementedError: no TPU here, weights of another type, or a network too large for VMEM.
    """
    dtype = weights["residual"].dtype
    if dtype not in (jnp.float32, jnp.bfloat16):
        raise NotImplementedError(f"takes float32 or bfloat16 weights, not {dtype}")
    if not interpret and jax.default_backend() != "tpu":
        raise NotImplementedError(f"runs on TPU only, the default backend is {jax.default_backend()}")
    batch = state["history"].shape[0]
    used = {"inputs": inputs is not None, "forced": forced is not None, "logits": return_logits}

    def bytes_of_tile(tile: int) -> int:
        return vmem_bytes(weights, shape, tile, look_ahead=look_ahead, **used)

    tile, vmem_limit = whole(batch, SUBLANES), None
    if not interpret:
        from jax.experimental.pallas import tpu as pltpu  # 0.3 s to import

        chip = pltpu.get_tpu_info()
        tile = choose_tile(batch, chip.num_cores, chip.vmem_capacity_bytes, bytes_of_tile)
        vmem_limit = bytes_of_tile(tile) + RESERVED
    return run(
        weights,
        shape,
        state,
        steps,
        key=key,
        inputs=inputs,
        condition=condition,
        condition_hop=condition_hop,
        condition_offset=condition_offset,
        forced=forced,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        row_offset=row_offset,
        return_logits=return_logits,
        look_ahead=look_ahead,
        tile=tile,
        vmem_limit=vmem_limit,
        interpret=interpret,
    )


@partial(
    jax.jit,
    static_argnames=(
        "shape",
        "steps",
        "condition_hop",
        "return_logits",
        "look_ahead",
        "tile",
        "vmem_limit",
        "interpret",
    ),
)
def run(
    weights,
    shape,
    state,
    steps,
    *,
    key,
    inputs,
    condition,
    condition_hop,
    condition_offset,
    forced,
    temperature,
    top_k,
    top_p,
    row_offset,
    return_logits,
    look_ahead,
    tile,
    vmem_limit,
    interpret,
):
    """Lay everything out in tiles, run the kernel, and undo the layout. For arguments see `generate`."""
    from .pallas_tpu_kernel import CHUNK, Plan, call

    streams, dtype = state["history"].shape[0], weights["residual"].dtype
    batch, groups = whole(streams, tile), output_groups(shape)
    width, levels = whole(weights["residual"].shape[-1]), whole(groups[0])
    cut = top_k is not None or top_p is not None
    keep = jnp.asarray(0 if top_k is None else top_k, jnp.int32)
    integers = (state["position"], row_offset, condition_offset, jnp.where(keep == 0, shape.vocab_size, keep))
    numbers = (temperature, 1 if top_p is None else top_p)
    history = state["history"][:, ::-1]
    given: dict[str, Any] = {
        "weights": pad_weights(weights, shape, look_ahead and len(shape.dilations) > 1),
        "triangle": jnp.triu(jnp.ones((levels, levels), jnp.float32)),
        "history": pad_to(pad_to(history, whole(reach(weights, shape)), 1, -1), batch, 0, -1),
        "integers": jnp.stack([jnp.asarray(x, jnp.int32) for x in integers]),
        "numbers": jnp.stack([jnp.asarray(x, jnp.float32) for x in numbers]),
        "key": key,
    }
    if inputs is not None:
        rows = pad_to(pad_to(inputs.astype(dtype).swapaxes(0, 1), batch, 1), width, 2)
        given["inputs"] = pad_to(rows, whole(steps, CHUNK), 0)
    if forced is not None:
        given["forced"] = pad_to(pad_to(forced, whole(steps, CHUNK), 1, -1), batch, 0, -1)
    if condition is not None:
        given["frames"] = pad_frames(weights, condition, given["weights"]["dilated_bias"], batch)
    plan = Plan(shape, steps, tile, condition_hop, cut, vmem_limit, interpret)
    rings, out = call(plan, pad_to(pad_to(state["rings"], batch, 1), width, 2), given, return_logits)
    tokens = out["tokens"][:streams, :steps]
    after: State = {
        "rings": rings[:, :streams, : weights["residual"].shape[-1]],
        "history": jnp.concatenate([state["history"], tokens], axis=1)[:, -reach(weights, shape) :],
        "position": state["position"] + steps,
    }
    logits = None
    if return_logits:
        logits = take_groups(out["outputs"][:steps, :streams], groups).swapaxes(0, 1)
    return tokens, after, logits
