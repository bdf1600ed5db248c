"""The sampler for Hopper GPUs, for latency: a cluster of blocks of threads keeps the whole network in shared memory.

One sample passes all layers after each other, each where its weights are, and the multiprocessors of the cluster
wait for it in turn: so this is for few streams, up to 16 of which cost as much as one. `mosaic_gpu` is for many.

It has met the compiler for the H100 (benchmarks/speed/compile_targets.py) and, in Pallas' interpreter, the reference.
It has never run on a GPU. The interpreter knows no clusters' shared memory: there the stages are threads of one block.
So the schedule, the messages and the arithmetic are tested; that the instructions which carry a message to another
multiprocessor do what they should, and how fast, only a GPU can tell.

Here is what surrounds the kernel: which networks it takes, and the way in and out of its layout.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt32

from ..draw import uniforms
from .mosaic_gpu import SHARED_MEMORY, check_device, check_network
from .mosaic_gpu_cluster_weights import STREAMS, biases_by_stage, divide, weights_of
from .mosaic_gpu_weights import pad, sizes_of
from .shapes import WaveNetShape, Weights
from .state import State, reach, ring_sizes, ring_starts

RESERVED = 4 * 2**10
"""Bytes of shared memory left to barriers and to the compiler's own scratch."""


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
    interpret: bool = False,
) -> tuple[Int[Array, "B T"], State, Float[Array, "B T O"] | None]:
    """Generate; see `api.wavenet_generate`.

    Args:
        weights: bfloat16, with float32 sums; whatever is multiplied with them is rounded to bfloat16 too.
        shape: see there; softmax head.
        state: see there.
        steps: see there.
        key: see there.
        inputs: None.
        condition: None.
        condition_hop: without meaning here.
        condition_offset: without meaning here.
        forced: see there.
        temperature: see there.
        top_k: None.
        top_p: None.
        row_offset: see there.
        return_logits: see there.
        interpret: run in Pallas' interpreter, on any machine.

    Raises:
        NotImplementedError: no Hopper GPU here, or a network or option that the kernel does not take.
    """
    options = {"inputs": inputs, "condition": condition, "top_k": top_k, "top_p": top_p}
    check_network(weights, shape, options)
    division = divide(sizes_of(weights, shape), SHARED_MEMORY - RESERVED)
    if not interpret:
        check_device()
    given = {"key": key, "forced": forced, "temperature": temperature, "row_offset": row_offset}
    layout = {"return_logits": return_logits, "division": division, "interpret": interpret}
    return run(weights, shape, state, steps, **given, **layout)


@partial(jax.jit, static_argnames=("shape", "steps", "return_logits", "division", "interpret"))
def run(
    weights, shape, state, steps, *, key, forced, temperature, row_offset, return_logits, division, interpret
):
    """Divide the network among the stages, run the kernel, and undo the layout. For arguments see `generate`."""
    from .mosaic_gpu_cluster_kernel import Plan, call

    batch, residual = state["history"].shape[0], weights["residual"].shape[-1]
    padded = batch + -batch % STREAMS
    positions = state["position"] + jnp.arange(steps)
    draws = jax.vmap(uniforms, (None, 0, None))(key, positions, jnp.arange(padded) + row_offset)
    if forced is None:
        forced = jnp.full((batch, steps), -1, jnp.int32)
    idle = division.layers * (division.stages - 1) - len(shape.dilations)
    past = weights["dilated"].shape[1] - 1
    end = int(ring_sizes(weights, shape).sum())
    starts = jnp.asarray([*ring_starts(weights, shape), *[end] * idle], jnp.int32)
    dilations = jnp.asarray([*shape.dilations, *[1] * idle], jnp.int32)
    more = ((0, past if idle else 0), (0, padded - batch), (0, 0))
    rings = jnp.swapaxes(pad(jnp.pad(state["rings"], more), -1), 1, 2)
    given: dict[str, Any] = {
        "weights": weights_of(weights, division),
        "biases": biases_by_stage(weights, division).reshape(division.stages, -1),
        "rows": jnp.stack([starts, dilations], axis=1),
        "integers": state["position"][None],
        "numbers": jnp.asarray(temperature, jnp.float32)[None],
        "newest": jnp.pad(state["history"][:, -1], (0, padded - batch)),
        "uniform": draws[0],
        "forced": jnp.pad(forced, ((0, padded - batch), (0, 0))).T,
    }
    rings, tokens, *outputs = call(Plan(division, steps, return_logits, interpret), rings, given)
    tokens = tokens[1:, :batch].T
    after: State = {
        "rings": jnp.swapaxes(rings, 1, 2)[:end, :batch, :residual],
        "history": jnp.concatenate([state["history"], tokens], axis=1)[:, -reach(weights, shape) :],
        "position": state["position"] + steps,
    }
    logits = jnp.moveaxis(outputs[0], -1, 0)[:batch, :, : shape.outputs] if return_logits else None
    return tokens, after, logits
