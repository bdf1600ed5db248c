"""Ancestral sampling, one frame after the other, in blocks that stream; and the exact likelihood of given frames."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, PyTree

from wavegen.errors import WavegenError
from wavegen.models.base import Choice, State
from wavegen.models.conditions.base import FrameWindow
from wavegen.networks.base import with_parameters
from wavegen.types import Features, Labels, Tokens

_PLAIN = Choice()


@partial(jax.jit, static_argnames=("graph", "batch"))
def _start(graph: nnx.GraphDef, params: PyTree, batch: int, labels: Any, features: Any) -> State:
    return with_parameters(graph, params).init_state(batch, labels, features)


@partial(jax.jit, static_argnames=("graph", "batch"))
def _start_window(graph: nnx.GraphDef, params: PyTree, batch: int, labels: Any, window: FrameWindow) -> State:
    model = with_parameters(graph, params)
    state = model.init_state(batch, labels, window.features)
    return _without(state, model.window_state(labels, window))


@partial(jax.jit, static_argnames="graph", donate_argnames="state")
def _read(
    graph: nnx.GraphDef,
    params: PyTree,
    tokens: Tokens,
    state: State,
    labels: Labels | None,
    window: FrameWindow | None,
) -> State:
    model = with_parameters(graph, params)
    given = {} if window is None else model.window_state(labels, window)
    return _without(model.read(tokens, {**state, **given}), given)


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
    labels: Labels | None,
    window: FrameWindow | None,
    frames: int,
    left: Int[Array, ""],
    key: Array,
    temperature: Array,
    top_k: int,
    top_p: float,
    allowed: Array | None,
    implementation: str | None,
) -> tuple[Tokens, State]:
    model = with_parameters(graph, params)
    given = {} if window is None else model.window_state(labels, window)
    choice = Choice(temperature, top_k, top_p, allowed)
    tokens, state = model.draw(
        {**state, **given}, frames, key, choice=choice, left=left, implementation=implementation
    )
    return tokens, _without(state, given)


def _without(state: State, given: State) -> State:
    """A state between two calls: what a window gives is given anew, in another shape after a prompt."""
    return {name: value for name, value in state.items() if name not in given}


@dataclass(frozen=True)
class Stepper:
    """Draws clips block by block: state in, tokens and state out.

    All blocks have one shape, so that clips of all lengths share one compilation; where the model has a local
    condition, each of them is given the frames that matter to it. A state that was given is used up.

    Attributes:
        graph: of the model, from ``parameters``.
        params: of the model.
        block: frames that are drawn at once.
        batch: clips side by side.
        choice: how tokens are drawn.
        labels: for models with global conditioning.
        implementation: of the kernel; None is the best one here.
        device: that draws, see ``CausalModel.sampling_device``; the parameters must lie on it. None is where JAX
            computes by default.
    """

    graph: nnx.GraphDef
    params: PyTree
    block: int
    batch: int = 1
    choice: Choice = _PLAIN
    labels: Labels | None = None
    implementation: str | None = None
    device: jax.Device | None = None

    def start(self, conditions: FrameWindow | Features | None = None) -> State:
        """The state before the first frame.

        Args:
            conditions: the window of any block, where the model has a local condition; the whole of what a model
                reads as its source, or its latents; or None.
        """
        start = _start_window if isinstance(conditions, FrameWindow) else _start
        with self._on_device():
            return start(self.graph, self.params, self.batch, self.labels, conditions)

    def read(self, tokens: Tokens, state: State, window: FrameWindow | None = None) -> State:
        """The state after a prompt; each length of it is compiled.

        Args:
            tokens: the next frames.
            state: before them.
            window: of these frames, where the model has a local condition.
        """
        with self._on_device():
            return _read(self.graph, self.params, tokens, state, self.labels, window)

    def draw(
        self, state: State, key: Array, *, left: int | None = None, window: FrameWindow | None = None
    ) -> tuple[Tokens, State]:
        """Draws the next block.

        Args:
            state: before it.
            key: of the whole clip, the same for every block.
            left: frames from here to the clip's end; None where it is not known. See ``CausalModel.draw``.
            window: of the block, where the model has a local condition.

        Returns:
            The tokens of ``block`` frames, and the state after them.
        """
        with self._on_device():
            return _draw(
                self.graph,
                self.params,
                state,
                self.labels,
                window,
                self.block,
                np.int32(np.iinfo(np.int32).max if left is None else left),
                key,
                self.choice.temperature,
                self.choice.top_k,
                self.choice.top_p,
                self.choice.allowed,
                self.implementation,
            )

    def stream(
        self,
        frames: int,
        key: Array,
        *,
        prompt: Tokens | Int[np.ndarray, "B N K"] | None = None,
        features: Features | Float[np.ndarray, "B F D"] | None = None,
    ) -> Iterator[Int[np.ndarray, "B N K"]]:
        """Draws whole clips.

        The tokens depend on the key and the row, not on ``block``: any way of cutting gives the same ones.

        Args:
            frames: how many to draw after the prompt.
            key: of the clips.
            prompt: what the clips begin with; it is not yielded.
            features: for models with local conditioning; they span the prompt and what is drawn.

        Yields:
            Blocks; the last one may be shorter.

        Raises:
            WavegenError: there are fewer frames than 1, or more than are counted.
        """
        longest = np.iinfo(np.int32).max - (0 if prompt is None else prompt.shape[1])
        if not 1 <= frames <= longest:
            raise WavegenError(f"expected 1 to {longest:,} frames to draw, got {frames}; draw fewer")
        window = self._windows(features)
        first, position = window(0, self.block), 0
        state = self.start(
            None if features is None else jax.device_put(features, self.device) if first is None else first
        )
        if prompt is not None and prompt.shape[1]:
            position = prompt.shape[1]
            state = self.read(jax.device_put(prompt, self.device), state, window(0, position))
        for done in range(0, frames, self.block):
            # The last block is drawn whole and cut, which saves a compilation for its odd length.
            tokens, state = self.draw(
                state, key, left=frames - done, window=window(position + done, self.block)
            )
            yield np.asarray(tokens)[:, : frames - done]

    def _on_device(self) -> AbstractContextManager[None]:
        return nullcontext() if self.device is None else jax.default_device(self.device)

    def _windows(
        self, features: Features | Float[np.ndarray, "B F D"] | None
    ) -> Callable[[int, int], FrameWindow | None]:
        local = with_parameters(self.graph, self.params).local
        if local is None or features is None:
            return lambda position, samples: None
        return partial(local.window, np.asarray(features))


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
