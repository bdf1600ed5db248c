"""A codec whose networks were learned, frozen: what a token model reads and writes through."""

import hashlib
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import jax
import numpy as np
from flax import nnx
from jaxtyping import PyTree

from wavegen.codecs.base import AudioCodec
from wavegen.errors import WavegenError
from wavegen.networks.base import parameters, with_parameters
from wavegen.types import AnyWaveform, Tokens


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["params"],
    meta_fields=["graph", "sizes", "sample_rate", "card", "audio_channels"],
)
@dataclass(frozen=True, eq=False)
class LearnedCodec(AudioCodec):
    """Networks as pure parameters, so that ``jax.jit`` takes the codec as an argument instead of baking it in.

    Attributes:
        params: weights, as plain dicts.
        graph: structure of the networks, which have ``encode`` and ``decode``.
        sizes: ``vocab_size``, ``codebooks`` (how many are used: the first ones) and ``hop_length``.
        sample_rate: Hz, of the audio that it reads and writes.
        card: JSON from which the networks can be built again; empty for a codec that stays in files of its own.
        audio_channels: see ``AudioCodec``.
    """

    params: PyTree
    graph: nnx.GraphDef
    sizes: tuple[int, int, int]
    sample_rate: int
    card: str
    audio_channels: int = 1

    mu: ClassVar[int] = 0
    start_token: ClassVar[int] = 0

    @property
    def vocab_size(self) -> int:
        """See ``Codec``."""
        return self.sizes[0]

    @property
    def codebooks(self) -> int:
        """See ``Codec``."""
        return self.sizes[1]

    @property
    def hop_length(self) -> int:
        """See ``Codec``."""
        return self.sizes[2]

    @property
    def fingerprint(self) -> str:
        """sha256 of the weights: two codecs with the same one write the same tokens."""
        digest = hashlib.sha256()
        for leaf in jax.tree.leaves(self.params):
            digest.update(np.ascontiguousarray(leaf).tobytes())
        return digest.hexdigest()

    def with_codebooks(self, codebooks: int) -> "LearnedCodec":
        """The same codec at a lower bit rate: only the first codebooks.

        Raises:
            WavegenError: there are not so many.
        """
        if not 1 <= codebooks <= self.codebooks:
            raise WavegenError(
                f"this codec has {self.codebooks} codebooks, {codebooks} were asked for; ask for fewer"
            )
        return replace(self, sizes=(self.vocab_size, codebooks, self.hop_length))

    def encode(self, audio: AnyWaveform) -> Tokens:
        """See ``AudioCodec.encode``."""
        # Codes of fewer codebooks are a prefix of the codes of more.
        return with_parameters(self.graph, self.params).encode(audio)[..., : self.codebooks]

    def decode(self, tokens: Tokens) -> AnyWaveform:
        """See ``AudioCodec.decode``."""
        return with_parameters(self.graph, self.params).decode(tokens)


def freeze(network: Any, *, sample_rate: int, card: str = "") -> LearnedCodec:
    """Freezes networks with the attributes and methods of a codec.

    Args:
        network: its parameters are kept as they are.
        sample_rate: Hz.
        card: see ``LearnedCodec``.
    """
    graph, params = parameters(network)
    sizes = (network.vocab_size, network.codebooks, network.hop_length)
    return LearnedCodec(params, graph, sizes, sample_rate, card, network.audio_channels)
