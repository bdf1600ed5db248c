"""Specifies the sampler, sample after sample, in code written to be read; float64 weights give float64 arithmetic."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from ..draw import uniforms
from .call import Call, Generated
from .companding import code_value, expand
from .int8 import product
from .shapes import WaveNetShape, Weights
from .state import State, advance, input_table, ring_sizes, ring_starts


def outputs_of_step(
    weights: Weights,
    shape: WaveNetShape,
    state: State,
    inputs: Float[Array, "B R"] | None,
    condition: Float[Array, "B C"] | None,
) -> tuple[Float[Array, "B O"], Float[Array, "rows B R"]]:
    """Reads the newest token; returns the next one's outputs, and the rings with this step's layer inputs."""
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

    multiply = product if shape.int8 else jnp.matmul
    skip = weights["skip_bias"][None]
    sizes, starts = ring_sizes(weights, shape), ring_starts(weights, shape)
    for layer, dilation in enumerate(shape.dilations):
        size, start = int(sizes[layer]), int(starts[layer])
        kernel = weights["dilated"][layer]
        lags = [(taps - 1 - j) * dilation for j in range(taps - 1)]
        past = jnp.concatenate([rings[start + (t - lag) % size] for lag in lags], axis=-1)
        a = multiply(past, kernel[:-1].reshape(-1, kernel.shape[-1]))
        a = a + multiply(h, kernel[-1]) + weights["dilated_bias"][layer][None]
        if condition is not None:
            a = a + condition @ weights["condition"][layer]
        rings = rings.at[start + t % size].set(h)
        gate = a.shape[-1] // 2
        z = jnp.tanh(a[:, :gate]) * jax.nn.sigmoid(a[:, gate:])
        skip = skip + multiply(z, weights["skip"][layer])
        h = h + multiply(z, weights["residual"][layer]) + weights["residual_bias"][layer][None]

    skip = skip.astype(jnp.promote_types(dtype, jnp.float32))
    hidden = jax.nn.relu(multiply(jax.nn.relu(skip), weights["hidden"]) + weights["hidden_bias"][None])
    return multiply(hidden, weights["output"]) + weights["output_bias"][None], rings


@jax.jit
def generate(call: Call) -> Generated:
    """Generates; see ``api.wavenet_generate``."""

    def step(state: State, i: Int[Array, ""]) -> tuple[State, tuple[Int[Array, "B"], Float[Array, "B O"]]]:
        inputs = None if call.inputs is None else call.inputs[:, i].astype(call.dtype)
        condition = None if call.condition is None else call.condition[:, call.frame_of(i)].astype(call.dtype)
        outputs, rings = outputs_of_step(call.weights, call.shape, state, inputs, condition)
        uniform = uniforms(call.key, state["position"], call.rows)
        forced = None if call.forced is None else call.forced[:, i]
        token = call.choose(outputs, state["history"], uniform, forced)
        return advance(state, rings, token[:, None]), (token, outputs)

    state, (tokens, outputs) = lax.scan(step, call.state, jnp.arange(call.steps))
    return tokens.T, state, outputs.swapaxes(0, 1) if call.return_logits else None
