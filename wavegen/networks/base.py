"""What every network shares: parameters as pure pytrees, and what an objective makes of a batch."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PyTree


class Outcome(NamedTuple):
    """What an objective made of a batch; see ``add_outcomes``.

    Attributes:
        total: the loss, summed, to be minimised.
        scored: how many tokens or clips it is a sum over; `total / scored` does not depend on the size of a batch.
        figures: parts of the loss and whatever else is worth a curve, summed likewise.
        statistics: integer histograms and sums from which a quantizer learns; free of gradients.
    """

    total: Float[Array, ""]
    scored: Int[Array, ""]
    figures: dict[str, Array]
    statistics: dict[str, Array]


def add_outcomes(one: Outcome, other: Outcome) -> Outcome:
    """The outcome of two parts of a batch together.

    Everything adds up but vectors to which an unused entry may move: those are the ones of the second part.
    """
    both: Outcome = jax.tree.map(jnp.add, one, other)
    if "candidates" in both.statistics:
        return both._replace(statistics=both.statistics | {"candidates": other.statistics["candidates"]})
    return both


Objective = Callable[[Any, Mapping[str, Array], Array | None], Outcome]
"""`(model, examples, key) -> outcome`; without a key, as in evaluation, nothing is random and nothing dropped."""


def parameters(model: nnx.Module) -> tuple[nnx.GraphDef, PyTree]:
    """Splits a model into its structure and its parameters, a tree of plain dicts."""
    graph, state = nnx.split(model)
    return graph, nnx.to_pure_dict(state)


def with_parameters(graph: nnx.GraphDef, params: PyTree) -> Any:
    """The model with these parameters: the inverse of ``parameters``."""
    return nnx.merge(graph, params)


def frame_mask(
    context: Int[Array, "B"], length: Int[Array, "B"], frames: int, hop: int
) -> Bool[Array, "B N"]:
    """Which token frames count: those that begin at or after `context` and before `length`.

    Args:
        context: leading samples that are only read, a multiple of `hop`.
        length: valid samples.
        frames: N.
        hop: samples a frame.
    """
    begin = jnp.arange(frames)[None] * hop
    return (begin >= context[:, None]) & (begin < length[:, None])
