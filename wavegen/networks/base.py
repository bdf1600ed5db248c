"""The contract of networks, and what all of them share: parameters as pure pytrees, and outcomes of a batch."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PyTree

from wavegen.codecs.base import Codec, Codecs
from wavegen.config.data import DataConfig
from wavegen.errors import WavegenError

Examples = Mapping[str, Array]
"""What ``wavegen.data.device.make_example`` made of a batch, by name."""


class Given(NamedTuple):
    """What a network is built for, besides its own section of the configuration.

    Attributes:
        data: the section of the data: sample rate, channels and crop.
        codecs: that it reads through; ``Codecs(None)`` for a network that is a codec itself.
        label_sizes: values of each label field that it is conditioned on.
    """

    data: DataConfig
    codecs: Codecs = Codecs(None)
    label_sizes: tuple[int, ...] = ()

    @property
    def tokens(self) -> Codec:
        """The codec of a model's tokens.

        Raises:
            WavegenError: there is none.
        """
        if self.codecs.tokens is None:
            raise WavegenError("expected a codec for the model's tokens, got none; open it with open_codecs")
        return self.codecs.tokens


class Outcome(NamedTuple):
    """What an objective made of a batch; see ``add_outcomes``.

    Attributes:
        total: the loss, summed, to be minimised.
        scored: how many tokens or clips it is a sum over; ``total / scored`` does not depend on the size of a batch.
        figures: parts of the loss and whatever else is worth a curve, summed likewise.
        statistics: integer histograms and sums from which a quantizer learns; free of gradients.
        nats: the part of the total that is a likelihood, or a bound of one; None where the total is nothing else.
    """

    total: Float[Array, ""]
    scored: Int[Array, ""]
    figures: dict[str, Array]
    statistics: dict[str, Array]
    nats: Float[Array, ""] | None = None


def add_outcomes(one: Outcome, other: Outcome) -> Outcome:
    """The outcome of two parts of a batch together.

    Everything adds up but vectors to which an unused entry may move: those are the ones of the second part.
    """
    both: Outcome = jax.tree.map(jnp.add, one, other)
    if "candidates" in both.statistics:
        return both._replace(statistics=both.statistics | {"candidates": other.statistics["candidates"]})
    return both


class Network(nnx.Module):
    """What a run trains: a model of tokens, or a codec that learns."""

    @classmethod
    @abstractmethod
    def make(cls, config: Any, given: Given, random: np.random.Generator) -> "Network":
        """The network that its section of the configuration describes, with fresh weights.

        Args:
            config: the section whose line in the table of networks names this class.
            given: what it is built for.
            random: draws the weights.

        Raises:
            WavegenError: the section does not fit what is given.
        """

    @abstractmethod
    def objective(self, examples: Examples, key: Array | None) -> Outcome:
        """What training minimises, summed over a batch.

        Args:
            examples: what ``reads`` returned.
            key: of whatever is random in training. Without it, as in evaluation, nothing is random and nothing is
                dropped.
        """

    def reads(self, examples: Examples, codecs: Codecs) -> dict[str, Array]:
        """What of a batch this network reads, with the conditions that it computes from the clips themselves.

        Unless a member says otherwise these are all examples but "features", and "labels" only where there are fields.

        Args:
            examples: see ``Examples``.
            codecs: that the network reads through.
        """
        del codecs
        labelled = examples["labels"].shape[1] > 0
        return {k: x for k, x in examples.items() if k != "features" and (labelled or k != "labels")}

    def context(self, longest: int) -> int:
        """Frames before a window that its first output depends on, when a clip is evaluated window by window.

        Unless a member says otherwise none: the network reads windows as it does in training.

        Args:
            longest: frames of the longest clip.
        """
        del longest
        return 0

    @property
    def alignment(self) -> int:
        """Frames at whose multiples a window must begin to be read as the same part of a whole clip is."""
        return 1

    @abstractmethod
    def flops_per_frame(self, frames: int) -> int:
        """Floating-point operations of the forward pass for one frame of a clip of so many (a multiply-add is two)."""


def parameters(model: nnx.Module) -> tuple[nnx.GraphDef, PyTree]:
    """Splits a model into its structure and its parameters, a tree of plain dicts."""
    graph, state = nnx.split(model)
    return graph, nnx.to_pure_dict(state)


def with_parameters(graph: nnx.GraphDef, params: PyTree) -> Any:
    """The model with these parameters: the inverse of ``parameters``."""
    return nnx.merge(graph, params)


_EXACT = {"decay", "phase"}
"""Logarithms of rates and frequencies: 8 bits of a frequency are another oscillator after a few hundred samples."""


def in_precision(params: PyTree, dtype: Any) -> PyTree:
    """The parameters in the type of the arithmetic, but for those whose meaning it would change."""

    def cast(path: Sequence[Any], x: Array) -> Array:
        return x if getattr(path[-1], "key", None) in _EXACT else x.astype(dtype)

    return jax.tree.map_with_path(cast, params)


def frame_mask(
    context: Int[Array, "B"], length: Int[Array, "B"], frames: int, hop: int
) -> Bool[Array, "B N"]:
    """Which token frames count: those that begin at or after ``context`` and before ``length``.

    Args:
        context: leading samples that are only read, a multiple of ``hop``.
        length: valid samples.
        frames: N.
        hop: samples a frame.
    """
    begin = jnp.arange(frames)[None] * hop
    return (begin >= context[:, None]) & (begin < length[:, None])
