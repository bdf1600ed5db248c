"""The GPU kernel of ``mosaic_gpu_cluster``, whose stages, the cluster's blocks of threads, form a ring.

Every stage keeps its part of the weights in shared memory for the whole call. A sample passes around the ring once: the
last stage embeds the token and sends the first layer's input, each stage runs its layers and sends the residual and the
sum of the skips to the next, and the last one draws the next token. Each stage has room for one message, and needs no
more: the next one cannot be sent before the token is drawn, and the token depends on what every stage made of this one.

Activations have channels as rows and streams as columns, so that the weights are the tensor cores' 64 rows. The part of
the dilated convolution that depends on the past only is multiplied while the other stages work.

In the interpreter, which has no cluster's shared memory, the stages are the threads of one block: the kernel, its
messages and its barriers are the same, but each stage's memory is a slice of one array.
"""

import math
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
from .mosaic_gpu_cluster_weights import STREAMS, Division
from .mosaic_gpu_weights import BLOCK

FLOAT, INDEX = jnp.float32, jnp.int32
LAYOUT = plgpu.Layout.WGMMA
ROWS, COLUMNS = LAYOUT.reduce(1), LAYOUT.reduce(0)
"""Layouts of one number per channel, and of one per stream."""
SWIZZLED = (plgpu.TilingTransform((8, STREAMS)), plgpu.SwizzleTransform(2 * STREAMS))
"""How the tensor cores read bfloat16 whose rows are as short as the streams are few."""
SENT = (plgpu.TilingTransform((8, STREAMS)), plgpu.SwizzleTransform(4 * STREAMS))
"""How messages lie in float32, so that neither their stores nor their loads conflict."""
LOG2_E = math.log2(math.e)


@dataclass(frozen=True)
class Plan:
    """Holds what is fixed when the kernel is compiled.

    Attributes:
        division: of the network among the stages.
        steps: number of samples to generate.
        logits: whether to return the network's outputs.
        interpret: whether to run in the interpreter.
    """

    division: Division
    steps: int
    logits: bool
    interpret: bool


class Stage:
    """Does what all stages do: holds weights and biases, multiplies, sends and receives."""

    def __init__(self, plan: Plan, ref: dict[str, Any]):
        self.plan, self.ref = plan, ref
        self.number = lax.axis_index("stage")
        self.slice = self.number if plan.interpret else 0

    def own(self, name: str) -> Any:
        """Returns this stage's slice of a shared array or of the barriers."""
        return self.ref[name].at[self.slice]

    def load_weights(self) -> None:
        """Fills shared memory with this stage's weights and biases, once."""
        for name, held in (("weights", "held"), ("biases", "bias")):

            def load(n: Int[Array, ""], nothing: None, name: str = name, held: str = held) -> None:
                rows = pl.ds(pl.multiple_of(n * BLOCK, BLOCK), BLOCK)
                source = self.ref[name].at[self.number, rows]
                plgpu.copy_gmem_to_smem(source, self.own(held).at[rows], self.own("loaded"))
                plgpu.barrier_wait(self.own("loaded"))

            lax.fori_loop(0, self.ref[name].shape[1] // BLOCK, load, None)

    def product(self, first: int, outputs: int, x: list[Any]) -> Float[Array, "C B"]:
        """Multiplies the matrix that starts at a row with blocks of an activation."""
        return self.product_of_all([(first, x)], outputs)

    def product_of_all(self, factors: list[tuple[int, list[Any]]], outputs: int) -> Float[Array, "C B"]:
        """Sums the products of several matrices."""

        def multiply(sum_):
            for first, x in factors:
                for k, block in enumerate(x):
                    plgpu.wgmma(sum_, self.own("held").at[pl.ds(first + k * outputs, outputs)], block)
            return sum_[...]

        return pl.run_scoped(multiply, plgpu.ACC((outputs, STREAMS), FLOAT))

    def bias(self, first: int, blocks: int) -> Float[Array, "C B"]:
        """Returns biases, the same for every stream."""
        source = self.own("bias").at[pl.ds(first * BLOCK, blocks * BLOCK)]
        column = versions.load(source, ROWS, self.plan.interpret)
        return lax.broadcast_in_dim(column, (blocks * BLOCK, STREAMS), (0,))

    def slices(self, name: str, first: int, blocks: int) -> list[Any]:
        """Returns blocks of 64 channels of an activation."""
        return [self.own(name).at[pl.ds((first + n) * BLOCK, BLOCK)] for n in range(blocks)]

    def write(self, name: str, first: int, value: Float[Array, "C B"]) -> list[Any]:
        """Writes blocks of an activation, in bfloat16, and returns them."""
        self.own(name).at[pl.ds(first * BLOCK, value.shape[0])][...] = value.astype(jnp.bfloat16)
        plgpu.commit_smem()
        return self.slices(name, first, value.shape[0] // BLOCK)

    def send(self, name: str, value: Float[Array, "C B"]) -> None:
        """Writes a part of the message into the next stage's memory."""
        to = lax.rem(self.number + 1, INDEX(self.plan.division.stages))
        if self.plan.interpret:
            self.ref[name].at[to][...] = value
            plgpu.barrier_arrive(self.ref[f"{name}_arrived"].at[to])
        else:
            arrived = self.own(f"{name}_arrived")
            plgpu.async_store_smem(value, self.own(name), arrived, cluster_idx=to, cluster_dim="stage")

    def receive(self, name: str) -> Float[Array, "C B"]:
        """Returns a part of the message once it is there."""
        plgpu.barrier_wait(self.own(f"{name}_arrived"))
        return self.own(name)[...]


def run_layers(stage: Stage) -> None:
    """Runs a stage's layers for every sample."""
    plan, ref, division = stage.plan, stage.ref, stage.plan.division
    sizes, layers = division.sizes, range(division.layers)
    residual, gate, skips = (BLOCK * n for n in (sizes.residual, sizes.gate, sizes.skip))
    past = sizes.past * sizes.residual
    position = ref["integers"][0]
    streams = pl.ds(lax.axis_index("tile") * STREAMS, STREAMS)

    def rows_of(j: int) -> tuple[int, int, int, int]:
        """Returns where the matrices of a layer begin: past taps, current one, residual, skip."""
        first = j * division.layer_rows
        current = first + past * 2 * gate
        to_residual = current + sizes.residual * 2 * gate
        return first, current, to_residual, to_residual + sizes.gate * residual

    def ring(j: int) -> tuple[Array, Array]:
        """Returns the first row and the dilation of a layer's ring."""
        layer = stage.number * division.layers + j
        return ref["rows"][layer, 0], ref["rows"][layer, 1]

    def of_the_past(t: Int[Array, ""]) -> list[Float[Array, "C B"]]:
        """Multiplies the past taps of the sample t, whose input need not be there."""
        for j in layers:
            start, dilation = ring(j)
            for k in range(sizes.past):
                row = start + lax.rem(t + k * dilation, sizes.past * dilation)
                target = stage.own("taps").at[pl.ds((j * sizes.past + k) * residual, residual)]
                plgpu.copy_gmem_to_smem(ref["rings"].at[row, :, streams], target, stage.own("taps_arrived"))
        plgpu.barrier_wait(stage.own("taps_arrived"))
        return [
            stage.product(rows_of(j)[0], 2 * gate, stage.slices("taps", j * past, past))
            + stage.bias(j * division.layer_biases, 2 * sizes.gate)
            for j in layers
        ]

    def step(i: Int[Array, ""], sums: list[Float[Array, "C B"]]) -> list[Float[Array, "C B"]]:
        t = position + i
        h = stage.receive("h")
        for j in layers:
            _, current, to_residual, _ = rows_of(j)
            x = stage.write("x", j * sizes.residual, h)
            a = sums[j] + stage.product(current, 2 * gate, x)
            z = stage.write("z", j * sizes.gate, gated(a[:gate], a[gate:]))
            h = h + stage.product(to_residual, residual, z)
            h = h + stage.bias(j * division.layer_biases + 2 * sizes.gate, sizes.residual)
        stage.send("h", h)
        skip = stage.product_of_all(
            [(rows_of(j)[3], stage.slices("z", j * sizes.gate, sizes.gate)) for j in layers], skips
        )
        stage.send("skip", stage.receive("skip") + skip)
        for j in layers:
            start, dilation = ring(j)
            row = start + lax.rem(t, sizes.past * dilation)
            source = stage.own("x").at[pl.ds(j * residual, residual)]
            plgpu.copy_smem_to_gmem(source, ref["rings"].at[row, :, streams])
        plgpu.wait_smem_to_gmem(0)  # the next sample may read them
        return of_the_past(t + 1)

    lax.fori_loop(0, plan.steps, step, of_the_past(position))


def gated(a: Float[Array, "C B"], b: Float[Array, "C B"]) -> Float[Array, "C B"]:
    """Returns tanh(a) sigmoid(b) in few instructions, as every layer waits for it; it cannot overflow."""
    e, f = jnp.exp2(-2 * LOG2_E * jnp.abs(a)), jnp.exp2(-LOG2_E * b)
    root = lax.rsqrt((1 + e) * (1 + f))  # a division takes ten instructions
    return jnp.where(a < 0, e - 1, 1 - e) * root * root


def run_head(stage: Stage) -> None:
    """Embeds the newest token, and draws the next one from what the other stages return, for every sample."""
    plan, ref, sizes = stage.plan, stage.ref, stage.plan.division.sizes
    interpret, temperature = plan.interpret, ref["numbers"][0]
    residual, hidden, levels = (BLOCK * n for n in (sizes.residual, sizes.hidden, sizes.output))
    streams = pl.ds(lax.axis_index("tile") * STREAMS, STREAMS)
    to_hidden = sizes.output * residual
    to_output = to_hidden + sizes.skip * hidden
    to_sums = to_output + sizes.hidden * levels  # matrices of the running and the whole sums

    def per_stream(x: Array) -> Array:
        return lax.broadcast_in_dim(x, (levels, STREAMS), (1,))

    def numbers() -> Int[Array, "V B"]:
        if interpret:
            return lax.broadcasted_iota(INDEX, (levels, STREAMS), 0)
        return plgpu.broadcasted_iota(INDEX, (levels, STREAMS), 0, layout=LAYOUT)

    def embed(token: Int[Array, "B"]) -> None:
        here = stage.write("wide", 0, (numbers() == per_stream(token)).astype(FLOAT))
        stage.send("h", stage.product(0, residual, here) + stage.bias(0, sizes.residual))
        stage.send("skip", stage.bias(sizes.residual, sizes.skip))

    def outputs() -> Float[Array, "V B"]:
        stage.receive("h")
        x = stage.write("wide", 0, jnp.maximum(stage.receive("skip"), 0.0))
        first = sizes.residual + sizes.skip
        total = stage.product(to_hidden, hidden, x) + stage.bias(first, sizes.hidden)
        x = stage.write("wide_too", 0, jnp.maximum(total, 0.0))
        return stage.product(to_output, levels, x) + stage.bias(first + sizes.hidden, sizes.output)

    def draw(logits: Float[Array, "V B"], uniform: Float[Array, "B"]) -> Int[Array, "B"]:
        """Draws as ``draw.choose_token`` does, with weights of 16 bits in the running sum."""
        sharpness = LOG2_E / jnp.where(temperature > 0, temperature, 1.0)
        highest = per_stream(jnp.max(logits, axis=0))
        order = FLOAT(levels) - numbers().astype(FLOAT)
        best = FLOAT(levels) - jnp.max(jnp.where(logits == highest, order, 0.0), axis=0)
        weight = jnp.exp2((logits - highest) * sharpness)
        coarse = weight.astype(jnp.bfloat16)
        heres = stage.write("wide", 0, coarse)
        rests = stage.write("wide_too", 0, weight - coarse.astype(FLOAT))
        before = jnp.zeros((BLOCK, STREAMS), FLOAT)
        running = []
        for here, rest in zip(heres, rests, strict=True):
            sums = stage.product_of_all([(to_sums, [here]), (to_sums, [rest])], 2 * BLOCK)
            running.append(before + sums[:BLOCK])
            before = before + sums[BLOCK:]
        total = jnp.max(running[-1], axis=0)
        threshold = lax.broadcast_in_dim(uniform * total, (BLOCK, STREAMS), (1,))
        below = [jnp.where(part <= threshold, 1.0, 0.0) for part in running]
        drawn = jnp.sum(sum(below[1:], below[0]), axis=0)
        return jnp.where(jnp.full_like(drawn, temperature) > 0, drawn, best).astype(INDEX)

    def step(i: Int[Array, ""], token: Int[Array, "B"]) -> Int[Array, "B"]:
        embed(token)
        ref["tokens"][i, streams] = token  # after the message, which waits for all earlier writes
        uniform = versions.load(ref["uniform"].at[i, streams], COLUMNS, interpret)
        forced = versions.load(ref["forced"].at[i, streams], COLUMNS, interpret)
        logits = outputs()
        if plan.logits:
            ref["logits"][i, :, streams] = logits
        return jnp.where(forced < 0, draw(logits, uniform), forced)

    newest = versions.load(ref["newest"].at[streams], COLUMNS, interpret)
    ref["tokens"][plan.steps, streams] = lax.fori_loop(0, plan.steps, step, newest)


def kernel(plan: Plan, *refs: Any) -> None:
    """Generates all samples of one tile of streams, as one of its stages."""
    names = [*INPUTS, "tokens", *(["logits"] if plan.logits else []), *scratch_types(plan)]
    stage = Stage(plan, dict(zip(names, refs, strict=True)))
    stage.load_weights()
    last = plan.division.stages - 1

    @pl.when(stage.number < last)
    def _():
        run_layers(stage)

    @pl.when(stage.number == last)
    def _():
        run_head(stage)


INPUTS = ("weights", "biases", "rows", "integers", "numbers", "newest", "uniform", "forced", "rings")


def scratch_types(plan: Plan) -> dict[str, Any]:
    """Returns a stage's shared memory and barriers; in the interpreter, those of all stages."""
    division, sizes = plan.division, plan.division.sizes
    stages = division.stages if plan.interpret else 1
    past = division.layers * sizes.past

    def shared(rows: int, dtype: Any, transforms: Any) -> Any:
        return plgpu.SMEM((stages, rows, STREAMS), dtype, transforms=transforms)

    def barrier(arrivals: int = 1) -> Any:
        return plgpu.Barrier(num_arrivals=arrivals, num_barriers=stages)

    return {
        "held": plgpu.SMEM((stages, division.rows, BLOCK), jnp.bfloat16, transforms=SWIZZLED),
        "bias": plgpu.SMEM((stages, division.biases * BLOCK), FLOAT),
        "x": shared(division.layers * sizes.residual * BLOCK, jnp.bfloat16, SWIZZLED),
        "z": shared(division.layers * sizes.gate * BLOCK, jnp.bfloat16, SWIZZLED),
        "taps": shared(past * sizes.residual * BLOCK, jnp.bfloat16, SWIZZLED),
        "wide": shared(division.wide, jnp.bfloat16, SWIZZLED),
        "wide_too": shared(division.wide, jnp.bfloat16, SWIZZLED),
        "h": shared(sizes.residual * BLOCK, FLOAT, SENT),
        "skip": shared(sizes.skip * BLOCK, FLOAT, SENT),
        "loaded": barrier(),
        "taps_arrived": barrier(past),
        "h_arrived": barrier(),
        "skip_arrived": barrier(),
    }


def launch(plan: Plan, rings: Float[Array, "rows R B"], given: dict[str, Any]) -> tuple[Array, ...]:
    """Runs the kernel.

    Args:
        plan: the kernel's constants.
        rings: of the state, channels before streams, both padded; layers that do nothing have further rows.
        given: the other ``INPUTS``: "weights" and "biases" [C, N] of ``mosaic_gpu_cluster_weights``; "rows" [L, 2]
            (ring start, dilation); "integers" (position), "numbers" (temperature); "newest" [B], the tokens
            before the first; "uniform" and "forced" [T, B].

    Returns:
        The rings after the last sample, tokens [1 + T, B], which begin with the newest one before the call, and, if the
        plan has logits, these [T, V, B].
    """
    batch, stages = given["newest"].shape[0], plan.division.stages
    out = [jax.ShapeDtypeStruct((plan.steps + 1, batch), INDEX)]
    if plan.logits:
        out.append(jax.ShapeDtypeStruct((plan.steps, plan.division.sizes.output * BLOCK, batch), FLOAT))
    scratch = scratch_types(plan).values()
    if plan.interpret:
        among: dict[str, Any] = {"num_threads": stages, "thread_name": "stage"}
    else:
        among = {"cluster": (stages,), "cluster_names": ("stage",)}

    def with_scratch(*refs: Any) -> None:
        shared_by = "stage" if plan.interpret else ()
        pl.run_scoped(partial(kernel, plan, *refs), *scratch, collective_axes=shared_by)

    updated = jax.new_ref(rings, memory_space=plgpu.GMEM)
    run = pl.kernel(  # ``plgpu.kernel`` takes no mutable ``jax.Ref``
        with_scratch,
        out_type=tuple(out),
        mesh=plgpu.Mesh(grid=(batch // STREAMS,), grid_names=("tile",), **among),
        compiler_params=plgpu.CompilerParams(
            lowering_semantics=plgpu.LoweringSemantics.Warpgroup,
            approx_math=True,  # 2^x and 1/sqrt(x) in one instruction each, to 22 bits
        ),
        interpret=versions.interpreter(detect_races=True) if plan.interpret else False,
        name="wavenet_generate_cluster",
    )
    outputs = run(*(given[name] for name in INPUTS if name != "rings"), updated)
    return jax.freeze(updated), *outputs
