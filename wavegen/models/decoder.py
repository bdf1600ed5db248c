"""A causal transformer over tokens, in segments with a memory: see ``wavegen.models.layers.memory``.

Each block may also read a source, a sequence that is known as a whole: see ``wavegen.models.seq2seq``.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from wavegen.config.models import DecoderConfig
from wavegen.errors import WavegenError
from wavegen.models.base import State
from wavegen.models.layers.delay import delay, undelay
from wavegen.models.layers.memory import MemoryAttention, Reach
from wavegen.models.layers.transformer import CrossAttention, RMSNorm, SwiGLU, drop
from wavegen.models.layers.vocabulary import Vocabulary
from wavegen.models.likelihood import likelihood
from wavegen.models.stepwise import SteppedModel, tokens_of
from wavegen.networks.base import Examples, Given, Outcome
from wavegen.types import Features, Labels, Logits, Tokens


class Decoder(SteppedModel):
    """An embedding, blocks of attention and gated layers, and a head for each codebook.

    Args:
        vocab_size: of the codec.
        codebooks: of the codec; more than one are delayed, see ``wavegen.models.stepwise``.
        width: of the frames inside; a multiple of twice the heads.
        layers: blocks.
        heads: of attention.
        hidden: units of the gated layers; None is 8/3 of the width, rounded up to a multiple of 64.
        reach: segment, memory and compressed memory of each layer.
        dropout: share of what each layer adds that is dropped in training.
        tied: see ``Vocabulary``.
        period: see ``Vocabulary``.
        start_token: of the codec.
        label_sizes: values of each label field; empty for a model without labels.
        cross: the blocks read a source too.
        memory_loss: weight of the loss from which the compression of memories learns.
        random: draws the initial weights.

    Raises:
        WavegenError: the heads do not divide the width into even parts, or the parts of the reach do not fit.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        codebooks: int = 1,
        width: int = 384,
        layers: int = 6,
        heads: int = 6,
        hidden: int | None = None,
        reach: Reach,
        dropout: float = 0.0,
        tied: bool = False,
        period: int = 0,
        start_token: int = 0,
        label_sizes: tuple[int, ...] = (),
        cross: bool = False,
        memory_loss: float = 1.0,
        random: np.random.Generator,
    ) -> None:
        if width % (2 * heads):
            raise WavegenError(
                f"expected a width that is a multiple of twice the heads, got width {width} and {heads} heads; "
                f"try width {-(-width // (2 * heads)) * 2 * heads}"
            )
        reach.check()
        self.width, self.dropout, self.reach, self.start_token = width, dropout, reach, start_token
        self.memory_loss = memory_loss
        self.hidden = -(-8 * width // 3 // 64) * 64 if hidden is None else hidden
        self.vocabulary = Vocabulary(
            vocab_size, codebooks, width, period=period, tied=tied, label_sizes=label_sizes, random=random
        )
        scale = (2 * layers) ** -0.5
        self.blocks = nnx.List(
            [
                DecoderBlock(width, heads, self.hidden, reach, cross=cross, scale=scale, random=random)
                for _ in range(layers)
            ]
        )
        self.norm = RMSNorm(width)

    @classmethod
    def make(cls, config: Any, given: Given, random: np.random.Generator) -> "Decoder":
        """See ``Network``; the section is a ``DecoderConfig``."""
        return cls(**tokens_of(given), **sizes_of(config), random=random)

    def objective(self, examples: Examples, key: Array | None) -> Outcome:
        """See ``SteppedModel``; in training also the loss from which the compression of memories learns."""
        if key is None or not self.reach.compressed:
            return super().objective(examples, key)
        examples = self.with_ends(examples)
        logits, lost = self.with_memory_loss(
            examples["inputs"], examples.get("labels"), examples.get("features"), dropout_key=key
        )
        logits = logits[:, : examples["targets"].shape[1]]
        plain = likelihood(self, logits, examples)
        nats, scored = plain.total, plain.scored
        figures = {"memory_loss": lost * scored}
        return Outcome(nats + self.memory_loss * lost * scored, scored, figures, {}, nats)

    @property
    def receptive_field(self) -> int:
        """Frames that the last one of a segment depends on; see ``Reach.through``."""
        return self.reach.through(len(self.blocks)) + self.vocabulary.codebooks - 1

    @property
    def alignment(self) -> int:
        """See ``Network``: segments are cut from the beginning of a clip."""
        return 1 if self.carries_state else self.reach.segment

    def flops_per_frame(self, frames: int) -> int:
        """Multiply-adds of the matrices and of attention, times two; see ``TokenModel``."""
        keys = frames if frames <= self.reach.segment else self.reach.segment + self.reach.entries
        block = 4 * self.width**2 + 3 * self.width * self.hidden + 2 * keys * self.width
        if self.reach.compressed and frames > self.reach.segment:
            block += self.width**2 + 3 * self.width**2 // self.reach.rate
        return 2 * (len(self.blocks) * block + self.vocabulary.codebooks * self.width * self.vocabulary.size)

    def begin(
        self,
        batch: int,
        labels: Labels | None,
        features: Features | None,
        dropout_key: Array | None = None,
    ) -> State:
        """See ``SteppedModel``.

        Raises:
            WavegenError: labels missing or not taken; features given.
        """
        if features is not None:
            raise WavegenError("this model takes no features; leave them out")
        return {
            "condition": self.vocabulary.condition(labels),
            "blocks": [block.attention.begin(batch) for block in self.blocks],
            "sources": [None for _ in self.blocks],
        }

    def forward(self, rows: Tokens, memory: State, dropout_key: Array | None) -> Logits:
        """See ``SteppedModel``."""
        return self._forward(rows, memory, dropout_key)[0]

    def with_memory_loss(
        self,
        tokens: Tokens,
        labels: Labels | None = None,
        features: Features | None = None,
        *,
        dropout_key: Array | None = None,
    ) -> tuple[Logits, Float[Array, ""]]:
        """What the model returns for these tokens, and what its compression is to minimise.

        Args:
            tokens: see ``TokenModel``.
            labels: see ``TokenModel``.
            features: see ``TokenModel``.
            dropout_key: see ``TokenModel``.

        Returns:
            The logits; and the sum over layers of ``MemoryAttention.reconstruction``, from which only compressions
            learn, as they do from nothing else.
        """
        first, second = (None, None) if dropout_key is None else jax.random.split(dropout_key)
        memory = self.begin(tokens.shape[0], labels, features, first)
        logits, lost = self._forward(delay(tokens, self.vocabulary.size), memory, second)
        return undelay(logits), sum(lost, jnp.zeros(()))

    def _forward(
        self, rows: Tokens, memory: State, dropout_key: Array | None
    ) -> tuple[Logits, list[Float[Array, ""]]]:
        x = self.vocabulary.embed(rows, 0, memory["condition"])
        length = x.shape[1]
        if length > self.reach.segment:
            x = jnp.pad(x, ((0, 0), (0, -length % self.reach.segment), (0, 0)))
        lost = []
        for i, (block, source) in enumerate(zip(self.blocks, memory["sources"], strict=True)):
            key = None if dropout_key is None else jax.random.fold_in(dropout_key, i)
            if self.reach.compressed:
                lost.append(block.attention.reconstruction(block.attention_norm(x)))
            x = block(x, source, dropout=self.dropout, dropout_key=key)
        return self.vocabulary.logits(self.norm(x[:, :length])), lost

    def go_on(self, rows: Tokens, state: State) -> tuple[Logits, State]:
        """See ``SteppedModel``; at most a segment at once."""
        size = min(rows.shape[1], self.reach.segment)
        whole = rows.shape[1] // size * size

        def one(state: State, rows: Array) -> tuple[State, Array]:
            logits, state = self._go_on(rows, state)
            return state, logits

        pieces = rows[:, :whole].reshape(len(rows), -1, size, rows.shape[2]).swapaxes(0, 1)
        after, logits = lax.scan(one, state, pieces)
        logits = logits.swapaxes(0, 1).reshape(len(rows), whole, *logits.shape[3:])
        if whole < rows.shape[1]:
            rest, after = self._go_on(rows[:, whole:], after)
            logits = jnp.concatenate([logits, rest], axis=1)
        return logits, after

    def _go_on(self, rows: Tokens, state: State) -> tuple[Logits, State]:
        position = state["position"]
        x = self.vocabulary.embed(rows, position, state["condition"])
        memories = []
        for block, memory, source in zip(self.blocks, state["blocks"], state["sources"], strict=True):
            x, memory = block.go_on(x, memory, source, position)
            memories.append(memory)
        after = {**state, "blocks": memories, "position": position + rows.shape[1]}
        return self.vocabulary.logits(self.norm(x)), after


def sizes_of(config: DecoderConfig) -> dict[str, Any]:
    """The fields of a section as arguments of ``Decoder``."""
    sizes = config.model_dump(include={"width", "layers", "heads", "dropout", "tied"})
    return {**sizes, "reach": Reach(**config.reach.model_dump()), "memory_loss": config.memory_loss}


class Source(NamedTuple):
    """What a block reads of a source.

    Attributes:
        keys: of its frames.
        values: of its frames.
        there: which frames there are.
    """

    keys: Float[Array, "B F heads D"]
    values: Float[Array, "B F heads D"]
    there: Bool[Array, "B 1 1 F"]


class DecoderBlock(nnx.Module):
    """Attention with a memory, attention to a source if there is one, and a gated layer.

    Each is added to what it read in normalised form.

    Args:
        width: of the frames; see ``Attention``.
        heads: of attention.
        hidden: units of the gated layer.
        reach: of attention.
        cross: a source is read.
        scale: see ``Block``.
        random: draws the initial weights.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        reach: Reach,
        *,
        cross: bool,
        scale: float,
        random: np.random.Generator,
    ) -> None:
        self.attention_norm, self.gated_norm = RMSNorm(width), RMSNorm(width)
        self.attention = MemoryAttention(width, heads, reach, scale=scale, random=random)
        self.gated = SwiGLU(width, hidden, scale=scale, random=random)
        if cross:
            self.cross_norm = RMSNorm(width)
            self.cross = CrossAttention(width, heads, scale=scale, random=random)

    def __call__(
        self,
        x: Float[Array, "B N width"],
        source: Source | None,
        *,
        dropout: float,
        dropout_key: Array | None,
    ) -> Float[Array, "B N width"]:
        """Whole sequences; ``dropout`` is the share dropped where a key is given."""
        keys = [None] * 3 if dropout_key is None else list(jax.random.split(dropout_key, 3))
        x = x + drop(self.attention(self.attention_norm(x)), dropout, keys[0])
        if source is not None:
            x = x + drop(self._consult(x, source, jnp.arange(x.shape[1])), dropout, keys[1])
        return x + drop(self.gated(self.gated_norm(x)), dropout, keys[2])

    def go_on(
        self, x: Float[Array, "B N width"], memory: State, source: Source | None, position: Int[Array, ""]
    ) -> tuple[Float[Array, "B N width"], State]:
        """The next frames; see ``MemoryAttention``."""
        read, memory = self.attention.go_on(self.attention_norm(x), memory, position)
        x = x + read
        if source is not None:
            x = x + self._consult(x, source, position + jnp.arange(x.shape[1]))
        return x + self.gated(self.gated_norm(x)), memory

    def _consult(
        self, x: Float[Array, "B N width"], source: Source, positions: Int[Array, "N"]
    ) -> Float[Array, "B N width"]:
        return self.cross(self.cross_norm(x), positions, *source)
