"""The GPU kernel of ``mosaic_gpu``, in which one block of threads runs the loop over time for a tile of 64 streams.

Every matrix is cut into blocks of 64 x 64, and the blocks of one sample lie in memory in the order in which the
kernel multiplies with them: they are a tape that is read in a loop. A few blocks are always being copied into a ring
of shared memory, so that the tensor cores wait for the tape's bandwidth, not for its latency.

Activations are stacks of 64 x 64 slices in shared memory: bfloat16 where they are multiplied, float32 where they
are summed. Ring rows lie in GPU memory; those of a layer are copied while the layer before is computed.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, Float, Int

from . import mosaic_gpu_versions as versions
from .mosaic_gpu_weights import BLOCK, Sizes

FLOAT, INDEX = jnp.float32, jnp.int32
LAYOUT = plgpu.Layout.WGMMA
ROWS, COLUMNS = LAYOUT.reduce(1), LAYOUT.reduce(0)
"""Layouts of one number per row, and of one per column, of a block in registers."""
SWIZZLED = (plgpu.TilingTransform((8, BLOCK)), plgpu.SwizzleTransform(2 * BLOCK))
"""How the tensor cores read a bfloat16 block."""


@dataclass(frozen=True)
class Plan:
    """Holds what is fixed when the kernel is compiled.

    Attributes:
        sizes: blocks of every width, and the tape's length.
        steps: number of samples to generate.
        slots: number of blocks of the tape in shared memory.
        logits: whether to return the network's outputs.
        interpret: whether to run in the interpreter.
    """

    sizes: Sizes
    steps: int
    slots: int
    logits: bool
    interpret: bool


class Tape:
    """Holds blocks of weights in shared memory; block n of the endless tape lies in slot n mod slots."""

    def __init__(self, plan: Plan, source: Any, held: Any, arrived: Any):
        self.plan, self.source, self.held, self.arrived = plan, source, held, arrived

    def start(self, n: Int[Array, ""]) -> None:
        """Starts copying a block into its slot, which must have been read."""
        slot = lax.rem(n, self.plan.slots)
        block = self.source.at[lax.rem(n, self.plan.sizes.tape)]
        plgpu.copy_gmem_to_smem(block, self.held.at[slot], self.arrived.at[slot])

    def wait_for(self, n: Int[Array, ""]) -> Any:
        """Returns a block once it is in its slot."""
        slot = lax.rem(n, self.plan.slots)
        plgpu.barrier_wait(self.arrived.at[slot])
        return self.held.at[slot]

    def product(self, n: Int[Array, ""], slices: list[Any]) -> tuple[Float[Array, "B O"], Int[Array, ""]]:
        """Multiplies slices of an activation with blocks from n on; returns the sum and the next block's number."""

        def multiply(sum_):
            for j, x in enumerate(slices):
                plgpu.wgmma(sum_, x, self.wait_for(n + j))
            return sum_[...]

        total = pl.run_scoped(multiply, plgpu.ACC((BLOCK, BLOCK), FLOAT))
        for j in range(len(slices)):
            self.start(n + j + self.plan.slots)
        return total, n + len(slices)


def kernel(plan: Plan, *refs: Any) -> None:
    """Generates all samples of one tile of streams."""
    names = [*INPUTS, "tokens", *(["logits"] if plan.logits else []), *scratch_types(plan)]
    ref = dict(zip(names, refs, strict=True))
    sizes, interpret = plan.sizes, plan.interpret
    streams = pl.ds(lax.axis_index("tile") * BLOCK, BLOCK)
    tape = Tape(plan, ref["tape"], ref["held"], ref["arrived"])
    h, h_bf16, z, skip, wide, hidden = (ref[name] for name in ("h", "h_bf16", "z", "skip", "wide", "hidden"))
    past = sizes.past * sizes.residual

    def per_column(source: Any) -> Float[Array, "B O"]:
        row = versions.load(source, COLUMNS, interpret)
        return lax.broadcast_in_dim(row, (BLOCK, BLOCK), (1,))

    def per_row(x: Array) -> Array:
        return lax.broadcast_in_dim(x, (BLOCK, BLOCK), (0,))

    def column_numbers() -> Int[Array, "B O"]:
        if interpret:
            return lax.broadcasted_iota(INDEX, (BLOCK, BLOCK), 1)
        return plgpu.broadcasted_iota(INDEX, (BLOCK, BLOCK), 1, layout=LAYOUT)

    def start_taps(layer: Int[Array, ""], t: Int[Array, ""]) -> None:
        start, dilation = ref["rows"][layer, 0], ref["rows"][layer, 1]
        size = sizes.past * dilation
        parity = lax.rem(layer, INDEX(2))
        for j in range(sizes.past):
            row = start + lax.rem(t + j * dilation, size)  # t - (past - j) dilation, modulo the size
            for k in range(sizes.residual):
                source = ref["rings"].at[row, streams, pl.ds(k * BLOCK, BLOCK)]
                target = ref["taps"].at[parity * past + j * sizes.residual + k]
                plgpu.copy_gmem_to_smem(source, target, ref["taps_arrived"].at[parity])

    def embed(token: Int[Array, "B"], n: Int[Array, ""]) -> Int[Array, ""]:
        for v in range(sizes.output):
            here = column_numbers() + v * BLOCK == per_row(token)
            wide[v] = here.astype(FLOAT).astype(jnp.bfloat16)
        plgpu.commit_smem()
        for r in range(sizes.residual):
            total, n = tape.product(n, [wide.at[v] for v in range(sizes.output)])
            h[r] = total + per_column(ref["input_bias"].at[r])
        for s in range(sizes.skip):
            skip[s] = per_column(ref["skip_bias"].at[s])
        return n

    def run_layer(t: Int[Array, ""], layer: Int[Array, ""], n: Int[Array, ""]) -> Int[Array, ""]:
        parity = lax.rem(layer, INDEX(2))
        plgpu.barrier_wait(ref["taps_arrived"].at[parity])

        @pl.when(layer + 1 < sizes.layers)
        def _():
            start_taps(layer + 1, t)

        start, dilation = ref["rows"][layer, 0], ref["rows"][layer, 1]
        row = start + lax.rem(t, sizes.past * dilation)
        plgpu.wait_smem_to_gmem(0)  # the layer before no longer needs h_bf16
        for r in range(sizes.residual):
            h_bf16[r] = h[r].astype(jnp.bfloat16)
        plgpu.commit_smem()
        for r in range(sizes.residual):
            plgpu.copy_smem_to_gmem(h_bf16.at[r], ref["rings"].at[row, streams, pl.ds(r * BLOCK, BLOCK)])
        read = [ref["taps"].at[parity * past + j] for j in range(past)]
        read += [h_bf16.at[r] for r in range(sizes.residual)]
        for g in range(sizes.gate):
            tanh, n = tape.product(n, read)
            tanh = jnp.tanh(tanh + per_column(ref["dilated_bias"].at[layer, g, 0]))
            sigmoid, n = tape.product(n, read)
            sigmoid = sigmoid + per_column(ref["dilated_bias"].at[layer, g, 1])
            z[g] = (tanh / (1 + jnp.exp(-sigmoid))).astype(jnp.bfloat16)
        plgpu.commit_smem()
        gated = [z.at[g] for g in range(sizes.gate)]
        for r in range(sizes.residual):
            total, n = tape.product(n, gated)
            h[r] = h[r] + total + per_column(ref["residual_bias"].at[layer, r])
        for s in range(sizes.skip):
            total, n = tape.product(n, gated)
            skip[s] = skip[s] + total
        return n

    def head(i: Int[Array, ""], n: Int[Array, ""]) -> Int[Array, ""]:
        """Leaves the logits in ``skip``."""
        for s in range(sizes.skip):
            wide[s] = jnp.maximum(skip[s], 0.0).astype(jnp.bfloat16)
        plgpu.commit_smem()
        for j in range(sizes.hidden):
            total, n = tape.product(n, [wide.at[s] for s in range(sizes.skip)])
            hidden[j] = jnp.maximum(total + per_column(ref["hidden_bias"].at[j]), 0.0).astype(jnp.bfloat16)
        plgpu.commit_smem()
        for v in range(sizes.output):
            total, n = tape.product(n, [hidden.at[j] for j in range(sizes.hidden)])
            skip[v] = total + per_column(ref["output_bias"].at[v])
            if plan.logits:
                ref["logits"][i, v, streams] = skip[v]
        return n

    def draw(i: Int[Array, ""]) -> Int[Array, "B"]:
        """Draws as ``draw.choose_token`` does, with weights of 16 bits in the running sum."""
        temperature = ref["numbers"][0]
        divisor = jnp.where(temperature > 0, temperature, 1.0)
        highest = jnp.max(skip[0], axis=1)
        for v in range(1, sizes.output):
            highest = jnp.maximum(highest, jnp.max(skip[v], axis=1))
        uniform = versions.load(ref["uniform"].at[i, streams], ROWS, interpret)
        best = jnp.zeros_like(highest)
        sum_ = jnp.zeros_like(highest)
        for v in range(sizes.output):
            order = FLOAT(sizes.output * BLOCK) - (column_numbers() + v * BLOCK).astype(FLOAT)
            best = jnp.maximum(best, jnp.max(jnp.where(skip[v] == per_row(highest), order, 0.0), axis=1))
            weight = jnp.exp((skip[v] - per_row(highest)) / divisor)
            coarse = weight.astype(jnp.bfloat16)
            wide[0] = coarse
            wide[1] = (weight - coarse.astype(FLOAT)).astype(jnp.bfloat16)
            plgpu.commit_smem()

            def multiply(total):
                plgpu.wgmma(total, wide.at[0], ref["triangle"])
                plgpu.wgmma(total, wide.at[1], ref["triangle"])
                return total[...]

            running = per_row(sum_) + pl.run_scoped(multiply, plgpu.ACC((BLOCK, BLOCK), FLOAT))
            skip[v] = running
            sum_ = jnp.max(running, axis=1)
        threshold = per_row(uniform * sum_)
        drawn = jnp.zeros_like(highest)
        for v in range(sizes.output):
            drawn = drawn + jnp.sum(jnp.where(skip[v] <= threshold, 1.0, 0.0), axis=1)
        best = FLOAT(sizes.output * BLOCK) - best
        token = jnp.where(jnp.full_like(drawn, temperature) > 0, drawn, best).astype(INDEX)
        forced = versions.load(ref["forced"].at[i, streams], ROWS, interpret)
        return jnp.where(forced < 0, token, forced)

    def step(i: Int[Array, ""], carry):
        token, n = carry
        t = ref["integers"][0] + i
        start_taps(INDEX(0), t)
        n = embed(token, n)
        n = lax.fori_loop(0, sizes.layers, partial(run_layer, t), n)
        n = head(i, n)
        token = draw(i)
        ref["tokens"][i, streams] = token
        plgpu.wait_smem_to_gmem(0)  # the last layer's ring row, which the next sample may read
        return token, n

    plgpu.copy_gmem_to_smem(ref["ones"], ref["triangle"], ref["triangle_arrived"])
    plgpu.barrier_wait(ref["triangle_arrived"])
    for n in range(plan.slots):
        tape.start(INDEX(n))
    token = versions.load(ref["newest"].at[streams], ROWS, interpret)
    _, n = lax.fori_loop(0, plan.steps, step, (token, INDEX(0)))
    for j in range(plan.slots):  # copies must end before their memory is freed
        tape.wait_for(n + j)


INPUTS = (
    *(
        "tape",
        "ones",
        "input_bias",
        "dilated_bias",
        "residual_bias",
        "skip_bias",
        "hidden_bias",
        "output_bias",
    ),
    *("rows", "integers", "numbers", "newest", "uniform", "forced", "rings"),
)


def scratch_types(plan: Plan) -> dict[str, Any]:
    """Returns the kernel's shared memory and barriers."""
    sizes = plan.sizes
    past, wide = sizes.past * sizes.residual, max(2, sizes.output, sizes.skip)

    def blocks(count: int) -> Any:
        return plgpu.SMEM((count, BLOCK, BLOCK), jnp.bfloat16, transforms=SWIZZLED)

    return {
        "held": blocks(plan.slots),
        "taps": blocks(2 * past),
        "h_bf16": blocks(sizes.residual),
        "z": blocks(sizes.gate),
        "wide": blocks(wide),
        "hidden": blocks(sizes.hidden),
        "triangle": plgpu.SMEM((BLOCK, BLOCK), jnp.bfloat16, transforms=SWIZZLED),
        "h": plgpu.SMEM((sizes.residual, BLOCK, BLOCK), FLOAT),
        "skip": plgpu.SMEM((max(sizes.skip, sizes.output), BLOCK, BLOCK), FLOAT),
        "arrived": plgpu.Barrier(num_barriers=plan.slots),
        "taps_arrived": plgpu.Barrier(num_arrivals=past, num_barriers=2),
        "triangle_arrived": plgpu.Barrier(),
    }


def launch(plan: Plan, rings: Float[Array, "rows B R"], given: dict[str, Any]) -> tuple[Array, ...]:
    """Runs the kernel.

    Args:
        plan: the kernel's constants.
        rings: of the state, their channels padded to whole blocks.
        given: the other ``INPUTS``: "tape" [N, 64, 64] and biases of ``mosaic_gpu_weights``; "ones", the triangle
            whose product with a row is its running sum; "rows" [L, 2] (ring start, dilation); "integers"
            (position), "numbers" (temperature); "newest" [B], the tokens before the first; "uniform" and
            "forced" [T, B].

    Returns:
        The rings after the last sample, tokens [T, B] and, if the plan has logits, these [T, V blocks, B, 64].
    """
    batch = given["newest"].shape[0]
    out = [jax.ShapeDtypeStruct((plan.steps, batch), INDEX)]
    if plan.logits:
        out.append(jax.ShapeDtypeStruct((plan.steps, plan.sizes.output, batch, BLOCK), FLOAT))
    scratch = scratch_types(plan).values()

    def with_scratch(*refs: Any) -> None:
        pl.run_scoped(partial(kernel, plan, *refs), *scratch, collective_axes=())

    updated = jax.new_ref(rings, memory_space=plgpu.GMEM)
    run = pl.kernel(  # ``plgpu.kernel`` takes no mutable ``jax.Ref``
        with_scratch,
        out_type=tuple(out),
        mesh=plgpu.Mesh(grid=(batch // BLOCK,), grid_names=("tile",)),
        compiler_params=plgpu.CompilerParams(lowering_semantics=plgpu.LoweringSemantics.Warpgroup),
        interpret=versions.interpreter() if plan.interpret else False,
        name="wavenet_generate",
    )
    outputs = run(*(given[name] for name in INPUTS if name != "rings"), updated)
    return jax.freeze(updated), *outputs
