"""Defines what ``wavenet_generate`` passes to each of its implementations."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt32

from ..draw import choose_token, uniforms
from .companding import amplitude
from .head import choose_from_mixture, mixture_parameters
from .shapes import WaveNetShape, Weights
from .state import State

STATIC = {"static": True}

Generated = tuple[Int[Array, "B T"], State, Float[Array, "B T O"] | None]
"""Tokens, the state after them, and the network's outputs if the call asks for them."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Call:
    """The checked arguments of ``wavenet_generate``, which documents them.

    A call is a pytree. Its arrays and numbers are leaves; the shape, the steps, the hop, whether logits are returned
    and which options are None belong to its structure. A function that is jitted over a call is therefore compiled
    once for all calls that differ in numbers only.

    Attributes:
        key: the two words of the key.
        forced: int32.
        top_k: None for all tokens.
        top_p: None for the whole probability.
    """

    weights: Weights
    shape: WaveNetShape = field(metadata=STATIC)
    state: State
    steps: int = field(metadata=STATIC)
    key: UInt32[Array, "2"]
    inputs: Float[Array, "B T R"] | None = None
    condition: Float[Array, "B F C"] | None = None
    condition_hop: int = field(default=1, metadata=STATIC)
    condition_offset: Int[Array, ""] | int = 0
    forced: Int[Array, "B T"] | None = None
    temperature: Float[Array, ""] | float = 1.0
    top_k: Int[Array, ""] | int | None = None
    top_p: Float[Array, ""] | float | None = None
    row_offset: Int[Array, ""] | int = 0
    return_logits: bool = field(default=False, metadata=STATIC)

    @property
    def batch(self) -> int:
        """The number B of streams."""
        return self.state["history"].shape[0]

    @property
    def layers(self) -> int:
        """The number L of layers."""
        return len(self.shape.dilations)

    @property
    def residual(self) -> int:
        """The number R of residual channels."""
        return self.weights["residual"].shape[-1]

    @property
    def dtype(self) -> jnp.dtype:
        """The dtype of weights and rings."""
        return self.weights["residual"].dtype

    @property
    def rows(self) -> Int[Array, "B"]:
        """The number of each stream, its counter for random numbers."""
        return jnp.arange(self.batch) + self.row_offset

    def uniforms(self) -> tuple[Float[Array, "T B"], Float[Array, "T B"]]:
        """Returns the random numbers of all steps."""
        positions = self.state["position"] + jnp.arange(self.steps)
        return jax.vmap(uniforms, (None, 0, None))(self.key, positions, self.rows)

    def frame_of(self, step: Int[Array, "*s"]) -> Int[Array, "*s"]:
        """Returns the frame of the condition that holds at a step; the last one holds for all that follow it."""
        if self.condition is None:
            return jnp.zeros_like(step)
        return jnp.minimum((self.condition_offset + step) // self.condition_hop, self.condition.shape[1] - 1)

    def forced_tokens(self) -> Int[Array, "B T"]:
        """Returns the forced tokens as an array in any case: -1 where a token is drawn."""
        if self.forced is None:
            return jnp.full((self.batch, self.steps), -1, jnp.int32)
        return self.forced

    def choose(
        self,
        outputs: Float[Array, "B O"],
        history: Int[Array, "B reach"],
        uniform: tuple[Float[Array, "B"], Float[Array, "B"]],
        forced: Int[Array, "B"] | None,
    ) -> Int[Array, "B"]:
        """Returns the tokens of one step.

        Args:
            outputs: of the network.
            history: the latest tokens, as in the state.
            uniform: the step's random numbers.
            forced: the step's forced tokens.
        """
        shape = self.shape
        if shape.head == "softmax":
            token = choose_token(outputs, uniform[0], self.temperature, self.top_k, self.top_p)
        else:
            past = history[:, ::-1][:, : shape.linear_prediction]
            amplitudes = amplitude(past, shape.vocab_size, shape.mu, outputs.dtype)
            parameters = mixture_parameters(outputs, shape, amplitudes)
            token = choose_from_mixture(*parameters, uniform, shape.vocab_size, self.temperature)
        return token if forced is None else jnp.where(forced < 0, token, forced)
