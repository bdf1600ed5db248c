"""Defines what a sampler carries from one sample to the next: ring buffers, past tokens and the position."""

from typing import TypedDict

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32

from .shapes import WaveNetShape, Weights


class State(TypedDict):
    """State of a batch of streams: a plain pytree of fixed shapes, which can be scanned, donated and saved.

    Attributes:
        rings: inputs of every layer's dilated convolution, dtype of the weights. Layer l owns n = (K-1)
            dilation rows from ``ring_starts`` on; the input of position t lies in row start + t mod n, so
            that the row about to be overwritten is the oldest tap. Zeros before the first token.
        history: the latest tokens, the next input last; -1 where there is none yet. There are ``reach`` of them.
        position: number of tokens read so far, which is the position of the next output and its counter for random
            numbers.
    """

    rings: Float[Array, "rows B R"]
    history: Int32[Array, "B reach"]
    position: Int32[Array, ""]


def ring_sizes(weights: Weights, shape: WaveNetShape) -> np.ndarray:
    """Returns the rows that each layer owns, int64 [L]."""
    return (weights["dilated"].shape[1] - 1) * np.asarray(shape.dilations)


def ring_starts(weights: Weights, shape: WaveNetShape) -> np.ndarray:
    """Returns each layer's first row, int64 [L]."""
    sizes = ring_sizes(weights, shape)
    return np.cumsum(sizes) - sizes


def input_table(weights: Weights) -> Float[Array, "J V R"]:
    """Returns the kernel of the input convolution: embedding or scalar."""
    return weights["embedding"] if "embedding" in weights else weights["scalar"]


def reach(weights: Weights, shape: WaveNetShape) -> int:
    """Returns how many past tokens the input convolution and the linear prediction need."""
    return max(input_table(weights).shape[0], shape.linear_prediction)


def wavenet_init_state(weights: Weights, shape: WaveNetShape, batch: int) -> State:
    """Returns the state before the first sample: only the start token has been read.

    Args:
        weights: the network.
        shape: its static half.
        batch: number B of streams.

    Returns:
        Rings of zeros, a history that ends with the start token, and position 0.

    Example:
        >>> from wavegen.kernels import WaveNetShape, wavenet_init_state
        >>> from wavegen.kernels.wavenet.shapes import Net
        >>> net = Net(WaveNetShape(dilations=(1, 2, 4)), residual=8)
        >>> state = wavenet_init_state(net.random_weights(), net.shape, batch=2)
        >>> state["rings"].shape, state["history"].tolist()
        ((7, 2, 8), [[128], [128]])
    """
    rows, residual = int(ring_sizes(weights, shape).sum()), weights["residual"]
    return {
        "rings": jnp.zeros((rows, batch, residual.shape[-1]), residual.dtype),
        "history": jnp.full((batch, reach(weights, shape)), -1, jnp.int32).at[:, -1].set(shape.start_token),
        "position": jnp.zeros((), jnp.int32),
    }


def advance(state: State, rings: Float[Array, "rows B R"], tokens: Int32[Array, "B N"]) -> State:
    """Returns the state after N more tokens, given the rings after them."""
    read = jnp.concatenate([state["history"], tokens], axis=1)
    history = read[:, -state["history"].shape[1] :]
    return {"rings": rings, "history": history, "position": state["position"] + tokens.shape[1]}
