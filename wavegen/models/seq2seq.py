"""Encoder and decoder: one sequence of tokens written while another one is read (Vaswani et al. 2017)."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array

from wavegen.codecs.base import Codec, Codecs
from wavegen.config.models import Seq2SeqConfig
from wavegen.data.device import shift
from wavegen.errors import WavegenError
from wavegen.models.base import SourceModel, State
from wavegen.models.decoder import Decoder, Source, sizes_of
from wavegen.models.layers.transformer import Block, RMSNorm
from wavegen.models.layers.vocabulary import Vocabulary
from wavegen.models.stepwise import tokens_of
from wavegen.networks.base import Examples, Given
from wavegen.types import Features, Labels


class Seq2Seq(Decoder, SourceModel):
    """A ``Decoder`` whose blocks also read a source, which an encoder has read in both directions.

    The source comes as features: its tokens as numbers, ``[B, F, D]`` for D codebooks; frames of negative numbers are
    padding. Attention to it sees how far a frame of the source is from the frame that is written, where the source's
    frame f stands at ``f source_hop``.

    Args:
        source_vocab_size: values of a token of the source.
        source_codebooks: tokens per frame of the source.
        source_hop: frames that are written for one of the source.
        source_period: as ``period``, of the source.
        encoder_layers: blocks of the encoder.
        random: draws the initial weights.
        options: of ``Decoder``.

    Raises:
        WavegenError: see ``Decoder``.
    """

    def __init__(
        self,
        *,
        source_vocab_size: int,
        source_codebooks: int = 1,
        source_hop: int = 1,
        source_period: int = 0,
        encoder_layers: int = 3,
        random: np.random.Generator,
        **options: Any,
    ) -> None:
        super().__init__(cross=True, random=random, **options)
        self.source_hop, self.source_voices = source_hop, source_codebooks
        heads, scale = self.blocks[0].cross.query.shape[1], (2 * encoder_layers) ** -0.5
        self.source = Vocabulary(
            source_vocab_size,
            source_codebooks,
            self.width,
            period=source_period,
            tied=True,
            label_sizes=(),
            random=random,
        )
        self.encoder = nnx.List(
            [Block(self.width, heads, self.hidden, scale=scale, random=random) for _ in range(encoder_layers)]
        )
        self.encoder_norm = RMSNorm(self.width)

    @classmethod
    def make(cls, config: Any, given: Given, random: np.random.Generator) -> "Seq2Seq":
        """See ``Network``; the section is a ``Seq2SeqConfig``, and the codec writes voices one after the other."""
        c: Seq2SeqConfig = config
        grid, source = given.tokens.plain, c.source_voices
        written = grid.codebooks - source
        return cls(
            **tokens_of(given) | {"period": grid.period * written},
            **sizes_of(c),
            source_vocab_size=given.tokens.vocab_size,
            source_codebooks=source,
            source_hop=written,
            source_period=grid.period,
            encoder_layers=c.encoder_layers,
            random=random,
        )

    @property
    def carries_state(self) -> bool:
        """See ``SteppedModel``: the source reaches over the whole clip."""
        return True

    def reads(self, examples: Examples, codecs: Codecs) -> dict[str, Array]:
        """See ``Network``: the first voices of the clips are the source, the others are to be written."""
        codec = codecs.tokens
        assert codec is not None, "the codec was there when the model was made"
        return super().reads(examples, codecs) | part_voices(examples, codec, self.source_voices)

    def flops_per_frame(self, frames: int) -> int:
        """As ``Decoder``, and for a source of ``frames / source_hop`` frames; see ``TokenModel``."""
        source = -(-frames // self.source_hop)
        encoder_block = 4 * self.width**2 + 3 * self.width * self.hidden + 2 * source * self.width
        encoder = len(self.encoder) * encoder_block + len(self.blocks) * 2 * self.width**2
        cross = len(self.blocks) * (2 * self.width**2 + 2 * source * self.width)
        return super().flops_per_frame(frames) + 2 * (encoder * source // frames + cross)

    def begin(
        self,
        batch: int,
        labels: Labels | None,
        features: Features | None,
        dropout_key: Array | None = None,
    ) -> State:
        """See ``SteppedModel``; reads the source, once.

        Raises:
            WavegenError: no source, or one of another number of codebooks; labels missing or not taken.
        """
        if features is None:
            raise WavegenError("this model needs features, the tokens of its source; give those of each clip")
        tokens = features.astype(jnp.int32)
        there = (tokens >= 0).all(axis=-1)
        x = self.source.embed(jnp.where(tokens >= 0, tokens, self.source.size), 0, None)
        positions = jnp.arange(x.shape[1])
        mask = there[:, None, None, :]
        for i, block in enumerate(self.encoder):
            key = None if dropout_key is None else jax.random.fold_in(dropout_key, i)
            x = block(x, positions, mask, dropout=self.dropout, dropout_key=key)
        x = self.encoder_norm(x)
        memory = super().begin(batch, labels, None)
        memory["sources"] = [
            Source(*block.cross.keys_values(x, positions * self.source_hop), mask) for block in self.blocks
        ]
        return memory


def part_voices(examples: Mapping[str, Array], codec: Codec, voices: int) -> dict[str, Array]:
    """Makes of the first voices of clips the source, and of the others what is to be written.

    Args:
        examples: what ``make_example`` made of notes: targets [B, N * K, 1], mask and length.
        codec: of K voices, one after the other.
        voices: of the source, S.

    Returns:
        features: float32 [B, N, S], the source's tokens as numbers; -1 behind the clip's end.
        targets, inputs, mask: as of ``make_example``, of the other voices, [B, N * (K - S), 1].
    """
    rows, width = len(examples["targets"]), codec.interleaving
    frames = examples["targets"].reshape(rows, -1, width)
    there = jnp.arange(frames.shape[1])[None] * width < examples["length"][:, None]
    source = jnp.where(there[:, :, None], frames[:, :, :voices], -1)
    targets = frames[:, :, voices:].reshape(rows, -1, 1)
    return {
        "features": source.astype(jnp.float32),
        "targets": targets,
        "inputs": shift(targets, codec.start_token),
        "mask": examples["mask"].reshape(rows, -1, width)[:, :, voices:].reshape(rows, -1),
    }
