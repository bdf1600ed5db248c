"""The sampler for Hopper GPUs that aims at throughput: each block of threads runs the loop over time for 64 streams.

One stream is no faster than 64, so this is for large batches: 132 multiprocessors run 132 tiles at once. For few
streams there is ``mosaic_gpu_cluster``.

It compiles for the H100 (benchmarks/speed/compile_targets.py) and, in Pallas' interpreter, agrees with the reference.
It has never run on a GPU. The interpreter models neither the layout of values in registers nor which work of the tensor
cores and the copies overlaps: only a GPU can show that these are right.

This module holds what surrounds the kernel: it decides which networks the kernel takes and how they share its memory,
and converts to its layout and back.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from .call import Call, Generated
from .checks import check_floating
from .mosaic_gpu_weights import BLOCK, Sizes, biases_of, pad, sizes_of, tape_of
from .state import advance, ring_starts

SHARED_MEMORY = 227 * 2**10
"""Bytes that one block of threads can have at compute capability 9.0 (CUDA C++ programming guide, table of limits)."""
RESERVED = 2 * 2**10
"""Bytes of it that are left to barriers and to the compiler's own scratch memory."""
MOST_SLOTS, FEWEST_SLOTS = 8, 4
"""Numbers of blocks of weights in flight: more than the first hide no more latency, fewer than the second wait."""


def choose_slots(sizes: Sizes) -> int:
    """Returns how many blocks of weights shared memory holds in addition to the activations.

    Raises:
        NotImplementedError: it holds too few.
    """
    block = 2 * BLOCK * BLOCK
    slots = (SHARED_MEMORY - RESERVED - sizes.shared_bytes) // block
    if slots < FEWEST_SLOTS:
        need = (sizes.shared_bytes + FEWEST_SLOTS * block + RESERVED) / 2**10
        raise NotImplementedError(
            f"activations need {need:.0f} KiB of shared memory, a Hopper multiprocessor has "
            f"{SHARED_MEMORY // 2**10} KiB"
        )
    return min(slots, MOST_SLOTS)


def check_network(call: Call) -> None:
    """Checks that a Hopper kernel, this one or the cluster's, can do what is asked.

    Raises:
        NotImplementedError: it cannot; the message names the first reason.
    """
    check_floating(call.shape)
    if call.dtype != jnp.bfloat16:
        raise NotImplementedError(f"takes bfloat16 weights, not {call.dtype}")
    if call.shape.head != "softmax":
        raise NotImplementedError(f"draws from a softmax only, not from a {call.shape.head}")
    if "embedding" not in call.weights or len(call.weights["embedding"]) != 1:
        raise NotImplementedError("takes an embedding of the newest token only as its input")
    for name in ("inputs", "condition", "top_k", "top_p"):
        if getattr(call, name) is not None:
            raise NotImplementedError(f"takes no {name}")


def check_device() -> None:
    """Checks that there is a Hopper GPU.

    Raises:
        NotImplementedError: there is none.
    """
    backend = jax.default_backend()
    if backend != "gpu":
        raise NotImplementedError(f"runs on Hopper GPUs only, the default backend is {backend}")
    capability = jax.local_devices()[0].compute_capability
    if capability != "9.0":
        raise NotImplementedError(f"runs on Hopper GPUs (9.0) only, this one is of {capability}")


def generate(call: Call, *, interpret: bool = False) -> Generated:
    """Generates; see ``api.wavenet_generate``.

    Args:
        call: with bfloat16 weights, whose products are summed in float32; whatever is multiplied with them is rounded
            to bfloat16 too.
        interpret: run in Pallas' interpreter, on any machine.

    Raises:
        NotImplementedError: there is no Hopper GPU, or the kernel does not take the network or an option.
    """
    check_network(call)
    if call.batch % BLOCK:
        raise NotImplementedError(f"takes whole tiles of {BLOCK} streams, not {call.batch}")
    if not interpret:
        check_device()
    return run(call, slots=choose_slots(sizes_of(call.weights, call.shape)), interpret=interpret)


@partial(jax.jit, static_argnames=("slots", "interpret"))
def run(call: Call, *, slots: int, interpret: bool) -> Generated:
    """Cuts everything into blocks, runs the kernel, and undoes the layout."""
    from .mosaic_gpu_kernel import Plan, launch

    weights, shape, state = call.weights, call.shape, call.state
    starts, dilations = jnp.asarray(ring_starts(weights, shape)), jnp.asarray(shape.dilations)
    given: dict[str, Any] = biases_of(weights) | {
        "tape": tape_of(weights),
        "ones": jnp.triu(jnp.ones((BLOCK, BLOCK), jnp.bfloat16)),
        "rows": jnp.stack([starts, dilations], axis=1).astype(jnp.int32),
        "integers": state["position"][None],
        "numbers": jnp.asarray(call.temperature, jnp.float32)[None],
        "newest": state["history"][:, -1],
        "uniform": call.uniforms()[0],
        "forced": call.forced_tokens().T,
    }
    plan = Plan(sizes_of(weights, shape), call.steps, slots, call.return_logits, interpret)
    rings, tokens, *outputs = launch(plan, pad(state["rings"], -1), given)
    logits = None
    if call.return_logits:  # [T, V blocks, B, 64]
        wide = jnp.moveaxis(outputs[0], 1, 2).reshape(call.steps, call.batch, -1)
        logits = wide[..., : shape.outputs].swapaxes(0, 1)
    return tokens.T, advance(state, rings[..., : call.residual], tokens.T), logits
