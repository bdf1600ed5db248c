"""A codec whose networks were learned, frozen: what a token model reads and writes through."""

from dataclasses import dataclass, replace
from functools import partial

import jax
from flax import nnx
from jaxtyping import PyTree

from wavegen.codecs.base import Codec
from wavegen.errors import WavegenError
from wavegen.models.base import parameters, with_parameters
from wavegen.types import Tokens, Waveform


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["params"],
    meta_fields=["graph", "vocab_size", "codebooks", "hop_length", "sample_rate", "card"],
)
@dataclass(frozen=True, eq=False)
class LearnedCodec(Codec):
    """Networks as pure parameters, so that `jax.jit` takes the codec as an argument instead of baking it in.

    Attributes:
        params: weights, as plain dicts.
        graph: structure of the networks, which have `encode` and `decode`.
        vocab_size: see `Codec`.
        codebooks: how many are used: the first ones.
        hop_length: see `Codec`.
        sample_rate: Hz, of the audio that it reads and writes.
        card: JSON, from which the networks can be built again.
    """

    params: PyTree
    graph: nnx.GraphDef
    vocab_size: int
    codebooks: int
    hop_length: int
    sample_rate: int
    card: str

    mu = 0
    start_token = 0

    @classmethod
    def freeze(cls, network: nnx.Module, *, sample_rate: int, card: str) -> "LearnedCodec":
        """Freeze networks with the attributes and methods of a codec."""
        graph, params = parameters(network)
        sizes = (network.vocab_size, network.codebooks, network.hop_length)
        return cls(params, graph, *sizes, sample_rate, card)

    def with_levels(self, levels: int) -> "LearnedCodec":
        """The same codec at a lower bit rate: only the first codebooks.

        Raises:
            WavegenError: there are not so many.
        """
        if not 1 <= levels <= self.codebooks:
            raise WavegenError(f"this codec has {self.codebooks} codebooks, {levels} were asked for; ask for fewer")
        return replace(self, codebooks=levels)

    def encode(self, audio: Waveform) -> Tokens:
        """See `Codec.encode`."""
        return with_parameters(self.graph, self.params).encode(audio, levels=self.codebooks)

    def decode(self, tokens: Tokens) -> Waveform:
        """See `Codec.decode`."""
        return with_parameters(self.graph, self.params).decode(tokens)
