"""The sampler for Hopper GPUs that aims at latency: a cluster of blocks of threads keeps the network in shared memory.

One sample passes through all layers in sequence, each where its weights are, and the multiprocessors of the cluster
wait for it in turn. So this is for few streams, up to 16 of which cost as much as one; ``mosaic_gpu`` is for many.

It compiles for the H100 (benchmarks/speed/compile_targets.py) and, in Pallas' interpreter, agrees with the reference.
It has never run on a GPU. The interpreter has no clusters' shared memory: there the stages are threads of one block. So
the schedule, the messages and the arithmetic are tested; only a GPU can show that the instructions which carry a
message to another multiprocessor are right, and how fast they are.

This module holds what surrounds the kernel: it decides which networks the kernel takes, and converts to its layout and
back.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from .call import Call, Generated
from .mosaic_gpu import SHARED_MEMORY, check_device, check_network
from .mosaic_gpu_cluster_weights import STREAMS, Division, biases_by_stage, divide, weights_of
from .mosaic_gpu_weights import pad, sizes_of
from .state import advance, ring_starts

RESERVED = 4 * 2**10
"""Bytes of shared memory that are left to barriers and to the compiler's own scratch memory."""


def generate(call: Call, *, interpret: bool = False) -> Generated:
    """Generates; see ``api.wavenet_generate``. Arguments and errors are those of ``mosaic_gpu.generate``."""
    check_network(call)
    division = divide(sizes_of(call.weights, call.shape), SHARED_MEMORY - RESERVED)
    if not interpret:
        check_device()
    return run(call, division=division, interpret=interpret)


@partial(jax.jit, static_argnames=("division", "interpret"))
def run(call: Call, *, division: Division, interpret: bool) -> Generated:
    """Divides the network among the stages, runs the kernel, and undoes the layout."""
    from .mosaic_gpu_cluster_kernel import Plan, launch

    weights, shape, state = call.weights, call.shape, call.state
    idle = division.layers * (division.stages - 1) - call.layers
    past = weights["dilated"].shape[1] - 1
    end, padding = len(state["rings"]), -call.batch % STREAMS
    starts = jnp.asarray([*ring_starts(weights, shape), *[end] * idle], jnp.int32)
    dilations = jnp.asarray([*shape.dilations, *[1] * idle], jnp.int32)
    more = ((0, past if idle else 0), (0, padding), (0, 0))
    rings = jnp.swapaxes(pad(jnp.pad(state["rings"], more), -1), 1, 2)
    given: dict[str, Any] = {
        "weights": weights_of(weights, division),
        "biases": biases_by_stage(weights, division).reshape(division.stages, -1),
        "rows": jnp.stack([starts, dilations], axis=1),
        "integers": state["position"][None],
        "numbers": jnp.asarray(call.temperature, jnp.float32)[None],
        "newest": jnp.pad(state["history"][:, -1], (0, padding)),
        "uniform": jnp.pad(call.uniforms()[0], ((0, 0), (0, padding))),
        "forced": jnp.pad(call.forced_tokens(), ((0, padding), (0, 0))).T,
    }
    plan = Plan(division, call.steps, call.return_logits, interpret)
    rings, tokens, *outputs = launch(plan, rings, given)
    tokens = tokens[1:, : call.batch].T
    after = advance(state, jnp.swapaxes(rings, 1, 2)[:end, : call.batch, : call.residual], tokens)
    logits = jnp.moveaxis(outputs[0], -1, 0)[: call.batch, :, : shape.outputs] if call.return_logits else None
    return tokens, after, logits
