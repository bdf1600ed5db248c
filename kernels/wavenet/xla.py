"""The portable sampler: one `lax.scan` over time that XLA compiles well.

Reading and writing the rings layer by layer makes XLA copy them whole at every layer. So a step reads the
taps of all layers first, a barrier keeps the reads before the writes, and all rows are written at the end:
the rings are then updated in place. What is known before the loop is computed before it: condition rows and
random numbers.

The rest of the step has a form for each platform, as their costs differ (20 layers, 64 residual, 128 skip
channels, batch 8; compiled for real targets, estimates by the compiler, none of them timed except on CPU):

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
from jaxtyping import Array, Float, Int, UInt32

from ..draw import choose_token, uniforms
from .companding import amplitude
from .forward import head, input_convolution
from .head import choose_from_mixture, mixture_parameters
from .shapes import WaveNetShape, Weights
from .state import State, ring_sizes, ring_starts


@dataclass(frozen=True)
class StepForm:
    """How one step is laid out for a platform."""

    batched: bool
    """Taps and skips of all layers in one product each, not in the layer."""
    unrolled: bool
    """Layers as straight code, not as a loop."""


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
    """Run all layers for one sample; return every layer's input and the sum of the skips."""
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


@partial(jax.jit, static_argnames=("shape", "steps", "condition_hop", "return_logits", "form"))
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
    form: StepForm | None = None,
) -> tuple[Int[Array, "B T"], State, Float[Array, "B T O"] | None]:
    """Generate; see `api.wavenet_generate`. `form` None = that of the platform which runs it."""
    batch = state["history"].shape[0]
    taps = weights["dilated"].shape[1] - 1
    dtype = weights["residual"].dtype
    sizes = jnp.asarray(ring_sizes(weights, shape), jnp.int32)
    starts = jnp.asarray(ring_starts(weights, shape), jnp.int32)
    lags = jnp.asarray(np.outer(shape.dilations, np.arange(taps, 0, -1)), jnp.int32)

    rows = jnp.arange(batch) + row_offset
    positions = state["position"] + jnp.arange(steps)
    bias = weights["dilated_bias"][None, :, None]
    frames = jnp.zeros(steps, jnp.int32)
    if condition is not None:
        bias = bias + jnp.einsum("bfc,lcg->flbg", condition.astype(dtype), weights["condition"])
        frames = jnp.minimum((condition_offset + jnp.arange(steps)) // condition_hop, condition.shape[1] - 1)
    each = {
        "frame": frames,
        "uniform": jax.vmap(uniforms, (None, 0, None))(key, positions, rows),
        "inputs": None if inputs is None else inputs.astype(dtype).swapaxes(0, 1),
        "forced": None if forced is None else forced.swapaxes(0, 1),
    }

    def step(form: StepForm, state: State, now):
        t = state["position"]
        tap_rows = starts[:, None] + (t - lags) % sizes[:, None]
        past, rings = lax.optimization_barrier((state["rings"][tap_rows], state["rings"]))
        past = past.swapaxes(1, 2).reshape(len(shape.dilations), batch, -1)

        h = input_convolution(weights, shape, state["history"], 1)[:, 0]
        if inputs is not None:
            h = h + now["inputs"]
        layer_inputs, skip = run_layers(weights, h, past, bias[now["frame"]], form)
        rings = rings.at[starts + t % sizes].set(layer_inputs, unique_indices=True, indices_are_sorted=True)
        outputs = head(weights, skip[:, None])[:, 0]

        if shape.head == "softmax":
            token = choose_token(outputs, now["uniform"][0], temperature, top_k, top_p)
        else:
            heard = state["history"][:, ::-1][:, : shape.linear_prediction]
            parameters = mixture_parameters(outputs, shape, amplitude(heard, shape.vocab_size, shape.mu))
            token = choose_from_mixture(*parameters, now["uniform"], shape.vocab_size, temperature)
        if forced is not None:
            token = jnp.where(now["forced"] < 0, token, now["forced"])
        history = jnp.concatenate([state["history"][:, 1:], token[:, None]], axis=1)
        state = {"rings": rings, "history": history, "position": t + 1}
        return state, (token, outputs if return_logits else None)

    def loop(form: StepForm, state: State):
        return lax.scan(partial(step, form), state, each)

    if form is None:
        forms = {name: partial(loop, form) for name, form in (("cpu", CPU), ("tpu", TPU), ("default", GPU))}
        state, (tokens, outputs) = lax.platform_dependent(state, **forms)
    else:
        state, (tokens, outputs) = loop(form, state)
    return tokens.T, state, outputs.swapaxes(0, 1) if return_logits else None
