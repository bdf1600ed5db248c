"""The sampler for Hopper GPUs, for throughput: each block of threads runs the loop over time for 64 streams.

One stream is no faster than 64, so this is for large batches: 132 multiprocessors carry 132 tiles at once. For few
streams there is `mosaic_gpu_cluster`.

It has met the compiler for the H100 (benchmarks/speed/compile_targets.py) and, in Pallas' interpreter, the reference.
It has never run on a GPU. The interpreter knows neither the layout of values in registers nor what of the tensor
cores' and the copies' work overlaps: that these are right, only a GPU can tell.

Here is what surrounds the kernel: which networks it takes, what it costs in shared memory, and the way in and out
of its layout.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt32

from ..draw import uniforms
from .mosaic_gpu_weights import BLOCK, Sizes, biases_of, pad, sizes_of, tape_of
from .shapes import WaveNetShape, Weights
from .state import State, reach, ring_starts

SHARED_MEMORY = 227 * 2**10
"""Bytes that one block of threads can have: compute capability 9.0, CUDA C++ programming guide, table of limits."""
RESERVED = 2 * 2**10
"""Bytes of it left to barriers and to the compiler's own scratch."""
MOST_SLOTS, FEWEST_SLOTS = 8, 4
"""Blocks of weights on their way: more than these hide no more latency; fewer than these wait."""


def choose_slots(sizes: Sizes) -> int:
    """Return how many blocks of weights shared memory holds beside the activations.

    Raises:
        NotImplementedError: too few.
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


def check_network(weights: Weights, shape: WaveNetShape, given: dict[str, Any]) -> None:
    """Check that a Hopper kernel, this one or the cluster's, can do what is asked.

    Raises:
        NotImplementedError: the first thing that it cannot do.
    """
    dtype = weights["residual"].dtype
    if dtype != jnp.bfloat16:
        raise NotImplementedError(f"takes bfloat16 weights, not {dtype}")
    if shape.head != "softmax":
        raise NotImplementedError(f"draws from a softmax only, not from a {shape.head}")
    if "embedding" not in weights or len(weights["embedding"]) != 1:
        raise NotImplementedError("takes an embedding of the newest token only as its input")
    for name in ("inputs", "condition", "top_k", "top_p"):
        if given[name] is not None:
            raise NotImplementedError(f"takes no {name}")


def check_device() -> None:
    """Check that there is a Hopper GPU.

    Raises:
        NotImplementedError: there is none.
    """
    backend = jax.default_backend()
    if backend != "gpu":
        raise NotImplementedError(f"runs on Hopper GPUs only, the default backend is {backend}")
    capability = jax.local_devices()[0].compute_capability
    if capability != "9.0":
        raise NotImplementedError(f"runs on Hopper GPUs (9.0) only, this one is of {capability}")


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
    batch = state["history"].shape[0]
    options = {"inputs": inputs, "condition": condition, "top_k": top_k, "top_p": top_p}
    check_network(weights, shape, options)
    if batch % BLOCK:
        raise NotImplementedError(f"takes whole tiles of {BLOCK} streams, not {batch}")
    if not interpret:
        check_device()
    slots = choose_slots(sizes_of(weights, shape))
    given = {"key": key, "forced": forced, "temperature": temperature, "row_offset": row_offset}
    layout = {"return_logits": return_logits, "slots": slots, "interpret": interpret}
    return run(weights, shape, state, steps, **given, **layout)


@partial(jax.jit, static_argnames=("shape", "steps", "return_logits", "slots", "interpret"))
def run(
    weights, shape, state, steps, *, key, forced, temperature, row_offset, return_logits, slots, interpret
):
    """Cut everything into blocks, run the kernel, and undo the layout. For arguments see `generate`."""
    from .mosaic_gpu_kernel import Plan, call

    batch, residual = state["history"].shape[0], weights["residual"].shape[-1]
    positions = state["position"] + jnp.arange(steps)
    draws = jax.vmap(uniforms, (None, 0, None))(key, positions, jnp.arange(batch) + row_offset)
    if forced is None:
        forced = jnp.full((batch, steps), -1, jnp.int32)
    starts, dilations = jnp.asarray(ring_starts(weights, shape)), jnp.asarray(shape.dilations)
    given: dict[str, Any] = biases_of(weights) | {
        "tape": tape_of(weights),
        "ones": jnp.triu(jnp.ones((BLOCK, BLOCK), jnp.bfloat16)),
        "rows": jnp.stack([starts, dilations], axis=1).astype(jnp.int32),
        "integers": state["position"][None],
        "numbers": jnp.asarray(temperature, jnp.float32)[None],
        "newest": state["history"][:, -1],
        "uniform": draws[0],
        "forced": forced.T,
    }
    plan = Plan(sizes_of(weights, shape), steps, slots, return_logits, interpret)
    rings, tokens, *outputs = call(plan, pad(state["rings"], -1), given)
    after: State = {
        "rings": rings[..., :residual],
        "history": jnp.concatenate([state["history"], tokens.T], axis=1)[:, -reach(weights, shape) :],
        "position": state["position"] + steps,
    }
    logits = None
    if return_logits:  # [T, V blocks, B, 64]
        wide = jnp.moveaxis(outputs[0], 1, 2).reshape(steps, batch, -1)
        logits = wide[..., : shape.outputs].swapaxes(0, 1)
    return tokens.T, after, logits
