"""The portable sampler is one ``lax.scan`` over time, in a form that XLA compiles well.

Reading and writing the rings layer by layer makes XLA copy them whole at every layer. So a step reads the
taps of all layers first, a barrier keeps the reads before the writes, and all rows are written at the end:
the rings are then updated in place. What is known before the loop is computed before it: condition rows and
random numbers.

The rest of the step has a form for each platform, as their costs differ. These are the costs of 20 layers, 64
residual and 128 skip channels with a batch of 8; those of the CPU were measured, the others are estimates of the
compiler for the real target:

| platform | taps and skips | layers | instead of |
| --- | --- | --- | --- |
| cpu | one product for all layers | a loop: as quick as straight code, compiles in a third of the time | |
| tpu v5e | in the layer | unrolled: 63,000 cycles a step | 186,000 with one product, 165,000 in a loop |
| others (H100) | one product for all layers | unrolled: 95 kernels a step | 153 in the layer |
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from .call import Call, Generated
from .checks import check_floating
from .forward import head, input_convolution
from .shapes import Weights
from .state import State, advance, ring_sizes, ring_starts


@dataclass(frozen=True)
class StepForm:
    """Describes how one step is laid out for a platform."""

    batched: bool
    """Whether taps and skips of all layers are one product each, instead of one per layer."""
    unrolled: bool
    """Whether the layers are straight code instead of a loop."""


CPU = StepForm(batched=True, unrolled=False)
GPU = StepForm(batched=True, unrolled=True)
TPU = StepForm(batched=False, unrolled=True)


def run_layers(
    weights: Weights,
    h: Float[Array, "B R"],
    taps: Float[Array, "L B KR"],
    bias: Float[Array, "L #B G2"],
    form: StepForm,
) -> tuple[Float[Array, "L B R"], Float[Array, "B S"]]:
    """Runs all layers for one sample; returns every layer's input and the sum of the skips."""
    count, _, _, gates = weights["dilated"].shape
    kernel = weights["dilated"][:, :-1].reshape(count, -1, gates)
    skip = jnp.broadcast_to(weights["skip_bias"][None], (h.shape[0], weights["skip_bias"].shape[0]))
    each = {"bias": bias, "kernel": weights["dilated"][:, -1]}
    each |= {name: weights[name] for name in ("residual", "residual_bias")}
    if form.batched:
        each["bias"] = bias + jnp.einsum("lbr,lrg->lbg", taps, kernel)
    else:
        each |= {"taps": taps, "past_kernel": kernel, "skip": weights["skip"]}

    def layer(carry, own):
        h, skip = carry
        a = h @ own["kernel"] + own["bias"]
        if not form.batched:
            a = a + own["taps"] @ own["past_kernel"]
        tanh, sigmoid = jnp.split(a, 2, axis=-1)
        z = jnp.tanh(tanh) * jax.nn.sigmoid(sigmoid)
        if not form.batched:
            skip = skip + z @ own["skip"]
        return (h + z @ own["residual"] + own["residual_bias"][None], skip), (h, z)

    (_, skip), (layer_inputs, gated) = lax.scan(layer, (h, skip), each, unroll=count if form.unrolled else 1)
    if form.batched:
        skip = skip + jnp.einsum("lbg,lgs->bs", gated, weights["skip"])
    return layer_inputs, skip


@partial(jax.jit, static_argnames="form")
def generate(call: Call, form: StepForm | None = None) -> Generated:
    """Generates; see ``api.wavenet_generate``. Without a form it has that of the platform which runs it."""
    weights, shape = call.weights, call.shape
    check_floating(shape)
    taps = weights["dilated"].shape[1] - 1
    sizes = jnp.asarray(ring_sizes(weights, shape), jnp.int32)
    starts = jnp.asarray(ring_starts(weights, shape), jnp.int32)
    lags = jnp.asarray(np.outer(shape.dilations, np.arange(taps, 0, -1)), jnp.int32)
    bias = weights["dilated_bias"][None, :, None]
    if call.condition is not None:
        bias = bias + jnp.einsum("bfc,lcg->flbg", call.condition.astype(call.dtype), weights["condition"])
    each = {
        "frame": call.frame_of(jnp.arange(call.steps)),
        "uniform": call.uniforms(),
        "inputs": None if call.inputs is None else call.inputs.astype(call.dtype).swapaxes(0, 1),
        "forced": None if call.forced is None else call.forced.swapaxes(0, 1),
    }

    def step(form: StepForm, state: State, now):
        t = state["position"]
        tap_rows = starts[:, None] + (t - lags) % sizes[:, None]
        past, rings = lax.optimization_barrier((state["rings"][tap_rows], state["rings"]))
        past = past.swapaxes(1, 2).reshape(call.layers, call.batch, -1)

        h = input_convolution(weights, shape, state["history"], 1)[:, 0]
        if now["inputs"] is not None:
            h = h + now["inputs"]
        layer_inputs, skip = run_layers(weights, h, past, bias[now["frame"]], form)
        rings = rings.at[starts + t % sizes].set(layer_inputs, unique_indices=True, indices_are_sorted=True)
        outputs = head(weights, skip[:, None])[:, 0]
        token = call.choose(outputs, state["history"], now["uniform"], now["forced"])
        return advance(state, rings, token[:, None]), (token, outputs if call.return_logits else None)

    def loop(form: StepForm, state: State):
        return lax.scan(partial(step, form), state, each)

    if form is None:
        forms = {name: partial(loop, form) for name, form in (("cpu", CPU), ("tpu", TPU), ("default", GPU))}
        state, (tokens, outputs) = lax.platform_dependent(call.state, **forms)
    else:
        state, (tokens, outputs) = loop(form, call.state)
    return tokens.T, state, outputs.swapaxes(0, 1) if call.return_logits else None
