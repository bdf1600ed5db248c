"""The specification: sample after sample, written to be read; float64 weights give float64 arithmetic."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, UInt32

from ..draw import choose_token, uniforms
from .companding import amplitude, code_value, expand
from .head import choose_from_mixture, mixture_parameters
from .shapes import WaveNetShape, Weights
from .state import State, input_table, ring_sizes, ring_starts


def outputs_of_step(
    weights: Weights,
    shape: WaveNetShape,
    state: State,
    inputs: Float[Array, "B R"] | None,
    condition: Float[Array, "B C"] | None,
) -> tuple[Float[Array, "B O"], Float[Array, "rows B R"]]:
    """Read the newest token: return the next one's outputs and the rings with this step's layer inputs."""
    dtype = weights["residual"].dtype
    rings, t = state["rings"], state["position"]
    taps = weights["dilated"].shape[1]

    h = weights["input_bias"][None]
    for j, table in enumerate(reversed(input_table(weights))):
        token = state["history"][:, -1 - j]
        if "embedding" in weights:
            value = table[token]
        else:
            u = code_value(token, shape.vocab_size, dtype)
            value = jnp.stack([u, expand(u, shape.mu)], axis=-1) @ table
        h = h + jnp.where(token[:, None] < 0, 0, value)
    if inputs is not None:
        h = h + inputs

    skip = weights["skip_bias"][None]
    sizes, starts = ring_sizes(weights, shape), ring_starts(weights, shape)
    for layer, dilation in enumerate(shape.dilations):
        size, start = int(sizes[layer]), int(starts[layer])
        a = h @ weights["dilated"][layer, -1] + weights["dilated_bias"][layer][None]
        for j in range(taps - 1):
            past = rings[start + (t - (taps - 1 - j) * dilation) % size]
            a = a + past @ weights["dilated"][layer, j]
        if condition is not None:
            a = a + condition @ weights["condition"][layer]
        rings = rings.at[start + t % size].set(h)
        gate = a.shape[-1] // 2
        z = jnp.tanh(a[:, :gate]) * jax.nn.sigmoid(a[:, gate:])
        skip = skip + z @ weights["skip"][layer]
        h = h + z @ weights["residual"][layer] + weights["residual_bias"][layer][None]

    skip = skip.astype(jnp.promote_types(dtype, jnp.float32))
    hidden = jax.nn.relu(jax.nn.relu(skip) @ weights["hidden"] + weights["hidden_bias"][None])
    return hidden @ weights["output"] + weights["output_bias"][None], rings


@partial(jax.jit, static_argnames=("shape", "steps", "condition_hop", "return_logits"))
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
) -> tuple[Int[Array, "B T"], State, Float[Array, "B T O"] | None]:
    """Generate; see `api.wavenet_generate`."""
    rows = jnp.arange(state["history"].shape[0]) + row_offset
    dtype = weights["residual"].dtype

    def step(state: State, i: Int[Array, ""]) -> tuple[State, tuple[Int[Array, "B"], Float[Array, "B O"]]]:
        now = None if inputs is None else inputs[:, i].astype(dtype)
        frame = None
        if condition is not None:
            frame = jnp.minimum((condition_offset + i) // condition_hop, condition.shape[1] - 1)
            frame = condition[:, frame].astype(dtype)
        outputs, rings = outputs_of_step(weights, shape, state, now, frame)
        uniform = uniforms(key, state["position"], rows)
        if shape.head == "softmax":
            token = choose_token(outputs, uniform[0], temperature, top_k, top_p)
        else:
            past = state["history"][:, ::-1][:, : shape.linear_prediction]
            amplitudes = amplitude(past, shape.vocab_size, shape.mu, dtype)
            parameters = mixture_parameters(outputs, shape, amplitudes)
            token = choose_from_mixture(*parameters, uniform, shape.vocab_size, temperature)
        if forced is not None:
            token = jnp.where(forced[:, i] < 0, token, forced[:, i])
        history = jnp.concatenate([state["history"][:, 1:], token[:, None]], axis=1)
        return {"rings": rings, "history": history, "position": state["position"] + 1}, (token, outputs)

    state, (tokens, outputs) = lax.scan(step, state, jnp.arange(steps))
    return tokens.T, state, outputs.swapaxes(0, 1) if return_logits else None
