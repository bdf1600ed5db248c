"""The TPU kernel of ``pallas_tpu`` runs the loop over time in one call, with weights and rings in VMEM throughout.

The grid is (tiles of the batch, chunks of 128 samples). Within a chunk tokens and random numbers are columns of
one vector; a chunk starts from what scratch memory kept of the one before. Everything known before a sample
(taps, condition, bias) is computed before what waits for the token, so that the compiler can fill the gaps of
the chain with it. The condition is copied from HBM frame by frame, one frame ahead of its use.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float, Int

from .pallas_tpu_draw import amplitude, choose_from_mixture, choose_token, column, lanes, uniforms
from .pallas_tpu_weights import LANES, precision
from .shapes import WaveNetShape

CHUNK = LANES
"""Samples per grid step: as many as a vector has lanes."""


@dataclass(frozen=True)
class Plan:
    """Holds what is fixed when the kernel is compiled.

    Attributes:
        shape: the network's static half.
        steps: number of samples to generate.
        tile: streams per kernel step, a multiple of 8.
        hop: samples per frame of the condition.
        cut: whether top_k and top_p are in use.
        vmem_limit: bytes of VMEM that the compiler may use.
        interpret: whether to run in the interpreter.
    """

    shape: WaveNetShape
    steps: int
    tile: int
    hop: int
    cut: bool
    vmem_limit: int | None
    interpret: Any


def dot(x: Float[Array, "B I"], weights: Any) -> Float[Array, "B O"]:
    """Multiplies by weights [I, O] (an array or a reference) in their dtype, and sums in float32."""
    return lax.dot_general(
        x.astype(weights.dtype),
        weights[...],
        (((1,), (0,)), ((), ())),
        precision=precision(weights.dtype),
        preferred_element_type=jnp.float32,
    )


def first_input(
    plan: Plan, weights: dict[str, Any], token: Int[Array, "B 1"], recent: Int[Array, "B N"]
) -> Float[Array, "B R"]:
    """Returns the input convolution at the newest token; missing tokens (negative) add nothing."""
    h = weights["input_bias"][...]
    table = weights["embedding"] if "embedding" in weights else weights["scalar"]
    taps = table.shape[0]
    for j in range(taps):
        tap = token if j == taps - 1 else recent[:, taps - 1 - j : taps - j]
        if "embedding" in weights:
            shape = (plan.tile, table.shape[1])
            h = h + dot((lax.broadcasted_iota(jnp.int32, shape, 1) == tap).astype(jnp.float32), table[j])
        else:
            level = tap.astype(jnp.float32) * (2 / (plan.shape.vocab_size - 1)) - 1
            rows = table[j].astype(jnp.float32)
            value = level * rows[:1] + amplitude(tap, plan.shape.vocab_size, plan.shape.mu) * rows[1:]
            h = h + jnp.where(tap < 0, 0, value)
    return h


def run_layers(
    plan: Plan,
    weights: dict[str, Any],
    rings: Any,
    bias: Any,
    t: Int[Array, ""],
    h: Float[Array, "B R"],
) -> Float[Array, "B S"]:
    """Runs all layers for one sample and writes its ring rows; returns the sum of the skips."""
    dilated = weights["dilated"]
    taps, gate = dilated.shape[1], dilated.shape[3] // 2
    sizes = [(taps - 1) * dilation for dilation in plan.shape.dilations]
    starts = [sum(sizes[:layer]) for layer in range(len(sizes))]
    phases = {size: lax.rem(t, size) for size in sorted(set(sizes))}

    def row(layer: int, lag: int) -> Int[Array, ""]:
        size = sizes[layer]
        if lag % size == 0:
            return starts[layer] + phases[size]
        past = phases[size] - lag
        return starts[layer] + jnp.where(past < 0, past + size, past)

    known = []
    for layer, dilation in enumerate(plan.shape.dilations):
        a = bias[layer].astype(jnp.float32)
        for j in range(taps - 1):
            a = a + dot(rings[row(layer, (taps - 1 - j) * dilation)], dilated[layer, j])
        known.append(a)

    skip = weights["skip_bias"][...]
    before = z = h
    for layer in range(len(sizes)):
        current = dilated[layer, taps - 1]
        if layer > 0 and "ahead" in weights:
            a = known[layer] + dot(before, current) + dot(z, weights["ahead"][layer - 1])
        else:
            a = known[layer] + dot(h, current)
        rings[row(layer, 0)] = h.astype(rings.dtype)
        # A sigmoid by a tanh takes one step of the unit for transcendental functions instead of two.
        z = jnp.tanh(a[:, :gate]) * (0.5 + 0.5 * jnp.tanh(0.5 * a[:, gate:]))
        skip = skip + dot(z, weights["skip"][layer])
        before, h = h, h + dot(z, weights["residual"][layer]) + weights["residual_bias"][layer]
    return skip


def kernel(plan: Plan, rings_before, given, rings_after, out, scratch) -> None:
    """Generates one chunk of one tile."""
    weights, rings, recent_tokens = given["weights"], scratch["rings"], scratch["recent"]
    tile, chunk = pl.program_id(0), pl.program_id(1)
    position, row_offset, offset, top_k = (given["integers"][j] for j in range(4))
    temperature, top_p = (given["numbers"][j] for j in range(2))
    cut = {"top_k": top_k, "top_p": top_p} if plan.cut else {}
    streams = pl.ds(tile * plan.tile, plan.tile)
    start = chunk * CHUNK

    @pl.when(chunk == 0)
    def _():
        pltpu.sync_copy(rings_before.at[:, streams], rings)
        recent_tokens[...] = given["history"][...]

    def frame_of(i: Int[Array, ""] | int) -> Int[Array, ""]:
        return jnp.minimum(lax.div(offset + i, plan.hop), given["frames"].shape[0] - 1)

    def copy_of(frame: Int[Array, ""]):
        slot = lax.rem(frame, 2)
        source = given["frames"].at[frame, :, streams]
        return pltpu.make_async_copy(source, scratch["frames"].at[slot], scratch["frame_copied"].at[slot])

    def frame_bias(i: Int[Array, ""]):
        """Waits for the frame of sample i if it is new, and starts to copy the next one."""
        frame = frame_of(i)

        @pl.when(i == 0)
        def _():
            copy_of(frame).start()

        @pl.when((i == 0) | (frame != frame_of(i - 1)))
        def _():
            copy_of(frame).wait()

            @pl.when(frame < frame_of(plan.steps - 1))
            def _():
                copy_of(frame + 1).start()

        return scratch["frames"].at[lax.rem(frame, 2)]

    row = row_offset + tile * plan.tile
    uniform = uniforms((given["key"][0], given["key"][1]), position + start, row, (plan.tile, CHUNK))

    def step(i, carry):
        token, recent, tokens = carry
        bias = frame_bias(start + i) if "frames" in given else weights["dilated_bias"]
        h = first_input(plan, weights, token, recent)
        if "inputs" in given:
            h = h + given["inputs"][i].astype(jnp.float32)
        skip = run_layers(plan, weights, rings, bias, position + start + i, h)
        y = jnp.maximum(dot(jnp.maximum(skip, 0), weights["hidden"]) + weights["hidden_bias"][...], 0)
        outputs = dot(y, weights["output"]) + weights["output_bias"][...]
        if "outputs" in out:
            out["outputs"][i] = outputs
        triangle = given["triangle"][...]
        drawn = column(uniform[0], i), column(uniform[1], i)
        if plan.shape.head == "softmax":
            token = choose_token(outputs, drawn[0], triangle, temperature, **cut)
        else:
            token = choose_from_mixture(outputs, plan.shape, recent, drawn, triangle, temperature)
        if "forced" in given:
            forced = column(given["forced"][...], i).astype(jnp.int32)
            token = jnp.where(forced < 0, token, forced)
        recent = jnp.where(lanes(recent) == 0, token, pltpu.roll(recent, 1, axis=1))
        return token, recent, jnp.where(lanes(tokens) == i, token, tokens)

    recent = recent_tokens[...]
    empty = jnp.zeros((plan.tile, CHUNK), jnp.int32)
    count = jnp.minimum(plan.steps - start, CHUNK)
    _, recent, tokens = lax.fori_loop(0, count, step, (recent[:, :1], recent, empty))
    recent_tokens[...] = recent
    out["tokens"][...] = tokens

    @pl.when(chunk == pl.num_programs(1) - 1)
    def _():
        pltpu.sync_copy(rings, rings_after.at[:, streams])


def launch(plan: Plan, rings: Float[Array, "rows B R"], given: dict[str, Any], logits: bool):
    """Runs the kernel on padded arrays.

    Args:
        plan: the kernel's constants.
        rings: before the first sample.
        given: "weights", "triangle"; "history" [B, N], newest first; scalars "integers" (position, row offset,
            condition offset, top_k), "numbers" (temperature, top_p), "key"; and, where they are used,
            "inputs" [T, B, R], "forced" [B, T], "frames" [F, L, B, 2G].
        logits: whether to return the network's outputs.

    Returns:
        The rings after the last sample, and "tokens" [B, T] with "outputs" [T, B, O] if ``logits``; T is padded to
        whole chunks.
    """
    rows, batch, residual = rings.shape
    chunks = pl.cdiv(plan.steps, CHUNK)
    anywhere = pl.BlockSpec(memory_space=pl.ANY)
    per_sample = pl.BlockSpec((plan.tile, CHUNK), lambda b, c: (b, c))

    def samples_first(width: int) -> pl.BlockSpec:
        return pl.BlockSpec((CHUNK, plan.tile, width), lambda b, c: (c, b, 0))

    scalars = pl.BlockSpec(memory_space=pltpu.SMEM)
    specs: dict[str, Any] = {
        "weights": jax.tree.map(lambda _: pl.BlockSpec(memory_space=pltpu.VMEM), given["weights"]),
        "triangle": pl.BlockSpec(memory_space=pltpu.VMEM),
        "history": pl.BlockSpec((plan.tile, given["history"].shape[1]), lambda b, c: (b, 0)),
        "inputs": samples_first(residual),
        "forced": per_sample,
        "frames": anywhere,
        "integers": scalars,
        "numbers": scalars,
        "key": scalars,
    }
    shapes = {"tokens": jax.ShapeDtypeStruct((batch, chunks * CHUNK), jnp.int32)}
    out_specs = {"tokens": per_sample}
    if logits:
        width = given["weights"]["output"].shape[1]
        shapes["outputs"] = jax.ShapeDtypeStruct((chunks * CHUNK, batch, width), jnp.float32)
        out_specs["outputs"] = samples_first(width)
    scratch = {
        "rings": pltpu.VMEM((rows, plan.tile, residual), rings.dtype),
        "recent": pltpu.VMEM((plan.tile, given["history"].shape[1]), jnp.int32),
    }
    if "frames" in given:
        _, layers, _, gates = given["frames"].shape
        scratch["frames"] = pltpu.VMEM((2, layers, plan.tile, gates), given["frames"].dtype)
        scratch["frame_copied"] = pltpu.SemaphoreType.DMA((2,))
    return pl.pallas_call(
        partial(kernel, plan),
        grid=(batch // plan.tile, chunks),
        in_specs=[anywhere, {name: specs[name] for name in given}],
        out_specs=[anywhere, out_specs],
        out_shape=[jax.ShapeDtypeStruct(rings.shape, rings.dtype), shapes],
        scratch_shapes=[scratch],
        input_output_aliases={0: 0},
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary"), vmem_limit_bytes=plan.vmem_limit
        ),
        interpret=plan.interpret,
        name="wavenet_generate",
    )(rings, given)
