"""Ancestral sampling, one frame after the other, in chunks that stream; and the exact likelihood of given frames."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, PyTree

from wavegen.models.base import Choice, State
from wavegen.networks.base import with_parameters
from wavegen.types import Features, Labels, Tokens

_PLAIN = Choice()


@partial(jax.jit, static_argnames=("graph", "batch"))
def _start(graph: nnx.GraphDef, params: PyTree, batch: int, labels: Any, features: Any) -> State:
    return with_parameters(graph, params).init_state(batch, labels, features)


@partial(jax.jit, static_argnames="graph", donate_argnames="state")
def _read(graph: nnx.GraphDef, params: PyTree, tokens: Tokens, state: State) -> State:
    return with_parameters(graph, params).read(tokens, state)


@partial(jax.jit, static_argnames="graph", donate_argnames="state")
def _score(
    graph: nnx.GraphDef, params: PyTree, tokens: Tokens, state: State, then: Int[Array, "B M K"]
) -> tuple[Array, State]:
    return with_parameters(graph, params).score(tokens, state, then)


@partial(
    jax.jit,
    static_argnames=("graph", "frames", "top_k", "top_p", "implementation"),
    donate_argnames="state",
)
def _draw(
    graph: nnx.GraphDef,
    params: PyTree,
    state: State,
    frames: int,
    left: Int[Array, ""],
    key: Array,
    temperature: Array,
    top_k: int,
    top_p: float,
    allowed: Array | None,
    implementation: str | None,
) -> tuple[Tokens, State]:
    choice = Choice(temperature, top_k, top_p, allowed)
    return with_parameters(graph, params).draw(
        state, frames, key, choice=choice, left=left, implementation=implementation
    )


def _on(device: jax.Device | None) -> AbstractContextManager[None]:
    return nullcontext() if device is None else jax.default_device(device)


def stream(
    graph: nnx.GraphDef,
    params: PyTree,
    frames: int,
    key: Array,
    *,
    batch: int = 1,
    choice: Choice = _PLAIN,
    prompt: Tokens | None = None,
    labels: Labels | None = None,
    features: Features | None = None,
    chunk: int = 2000,
    implementation: str | None = None,
    device: jax.Device | None = None,
) -> Iterator[Tokens]:
    """Generates tokens chunk by chunk.

    The tokens depend on the key and the row, not on ``chunk``: any way of cutting gives the same ones.

    Args:
        graph: of the model, from ``parameters``.
        params: of the model.
        frames: how many to generate after the prompt.
        key: of the clip.
        batch: clips side by side.
        choice: how tokens are drawn.
        prompt: what the clips begin with; it is not yielded.
        labels: for models with global conditioning.
        features: for models with local conditioning; they span the prompt and what is generated.
        chunk: frames per piece.
        implementation: of the kernel; None is the best one here.
        device: that draws, see ``CausalModel.sampling_device``; the parameters must lie on it. None is where JAX
            computes by default.

    Yields:
        Pieces of ``chunk`` frames, where JAX computes by default; the last one may be shorter.
    """
    temperature, allowed = choice.temperature, choice.allowed
    if device is not None:
        key, temperature, allowed, prompt, labels, features = jax.device_put(
            (key, temperature, allowed, prompt, labels, features), device
        )
    with _on(device):
        state = _start(graph, params, batch, labels, features)
        if prompt is not None and prompt.shape[1]:
            state = _read(graph, params, prompt, state)
    done = 0
    while done < frames:
        # The last piece is drawn whole and cut, which saves a compilation for its odd length.
        with _on(device):
            piece, state = _draw(
                graph,
                params,
                state,
                min(chunk, frames),
                jnp.asarray(frames - done, jnp.int32),
                key,
                temperature,
                choice.top_k,
                choice.top_p,
                allowed,
                implementation,
            )
        if device is not None:
            piece = jnp.asarray(jax.device_get(piece))
        yield piece[:, : frames - done]
        done += piece.shape[1]


def log_likelihood(
    graph: nnx.GraphDef,
    params: PyTree,
    tokens: Int[np.ndarray, "B N K"],
    *,
    labels: Labels | None = None,
    features: Features | None = None,
    window: int = 8192,
) -> Float[np.ndarray, "B N K"]:
    """The exact log-likelihood of whole clips, each frame given all before it and the first one given silence.

    Args:
        graph: of the model, from ``parameters``.
        params: of the model.
        tokens: the clips.
        labels: for models with global conditioning.
        features: for models with local conditioning; they span the tokens.
        window: frames per pass; the result does not depend on it beyond rounding.

    Returns:
        ln p, in nats, float64.
    """
    batch, length = tokens.shape[:2]
    following = with_parameters(graph, params).following
    # Where frames that follow matter, there are none after the end; elsewhere a model may know of tokens alone.
    padding = ((0, 0), (0, -length % window + following), (0, 0))
    padded = jnp.asarray(np.pad(tokens, padding, constant_values=-1 if following else 0))
    state = _start(graph, params, batch, labels, features)
    pieces = []
    for first in range(0, length, window):
        last = first + window
        then = padded[:, last : last + following]
        piece, state = _score(graph, params, padded[:, first:last], state, then)
        pieces.append(np.asarray(piece, np.float64))
    return np.concatenate(pieces, axis=1)[:, :length]
