"""A bidirectional transformer over the tokens of a codec, some of which are masked.

Devlin et al. 2019 (BERT); Chang et al. 2022 (MaskGIT, arXiv:2202.04200); for tokens of several codebooks, summed at the
input and predicted by one head each: Borsos et al. 2023 (SoundStorm, arXiv:2305.09636).
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from wavegen.config.models import BertConfig, MaskingConfig
from wavegen.errors import WavegenError
from wavegen.kernels.lookup import look_up
from wavegen.models.base import MaskedModel
from wavegen.models.conditions.base import LabelCondition
from wavegen.models.layers.transformer import Block, RMSNorm
from wavegen.models.masking import MASKINGS, masked_token
from wavegen.networks.base import Examples, Given, Outcome
from wavegen.networks.initial import normal
from wavegen.types import Features, Labels, Logits, Tokens


class Bert(MaskedModel):
    """Embeddings summed over codebooks, blocks of attention, and a head for each codebook.

    Attention sees distances alone, and where all tokens are masked all frames are alike: the first and the last
    frame of a clip carry a learned vector each, from which every frame can read where it is.

    Args:
        vocab_size: of the codec.
        codebooks: of the codec.
        width: of the frames inside; a multiple of twice the heads.
        layers: blocks.
        heads: of attention.
        hidden: units of the gated layers; None is 8/3 of the width, rounded up to a multiple of 64.
        dropout: share of what each layer adds that is dropped in training.
        period: frames after which the kinds of tokens recur, at whose start clips begin; 0 is none.
        label_sizes: values of each label field; empty for a model without labels.
        masking: what is masked in training.
        label_smoothing: see ``masked_token``.
        label_dropout: see ``masked_token``.
        random: draws the initial weights.

    Raises:
        WavegenError: the heads do not divide the width into even parts.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        codebooks: int,
        width: int = 384,
        layers: int = 6,
        heads: int = 6,
        hidden: int | None = None,
        dropout: float = 0.0,
        period: int = 0,
        label_sizes: tuple[int, ...] = (),
        masking: MaskingConfig = MaskingConfig(),
        label_smoothing: float = 0.1,
        label_dropout: float = 0.1,
        random: np.random.Generator,
    ) -> None:
        if width % (2 * heads):
            raise WavegenError(
                f"expected a width that is a multiple of twice the heads, got width {width} and {heads} heads; "
                f"try width {-(-width // (2 * heads)) * 2 * heads}"
            )
        self.vocab_size, self.codebooks, self.width, self.dropout = vocab_size, codebooks, width, dropout
        self.masking, self.label_smoothing, self.label_dropout = masking, label_smoothing, label_dropout
        self.hidden = -(-8 * width // 3 // 64) * 64 if hidden is None else hidden
        self.embedding = normal(random, codebooks, vocab_size + 1, width, scale=codebooks**-0.5)
        self.edges = normal(random, 2, width, scale=1.0)
        self.places = normal(random, period, width, scale=0.5) if period else nnx.data(None)
        self.labels = LabelCondition(label_sizes, width, random=random) if label_sizes else nnx.data(None)
        scale = (2 * layers) ** -0.5
        self.blocks = nnx.List(
            [Block(width, heads, self.hidden, scale=scale, random=random) for _ in range(layers)]
        )
        self.norm = RMSNorm(width)
        # Small, so that all values start out about equally likely.
        self.head = normal(random, codebooks, width, vocab_size, scale=0.1 * width**-0.5)

    @classmethod
    def make(cls, config: BertConfig, given: Given, random: np.random.Generator) -> "Bert":
        """See ``Network``."""
        return cls(
            vocab_size=given.tokens.vocab_size,
            codebooks=given.tokens.codebooks,
            width=config.width,
            layers=config.layers,
            heads=config.heads,
            dropout=config.dropout,
            period=given.tokens.places,
            label_sizes=given.label_sizes,
            masking=config.masking,
            label_smoothing=config.label_smoothing,
            label_dropout=config.label_dropout,
            random=random,
        )

    def objective(self, examples: Examples, key: Array | None) -> Outcome:
        """See ``masked_token``."""
        return masked_token(
            self,
            examples,
            key,
            masking=MASKINGS[self.masking.scheme](self.masking),
            label_smoothing=self.label_smoothing,
            label_dropout=self.label_dropout,
        )

    def flops_per_frame(self, frames: int) -> int:
        """Multiply-adds of the matrices and of attention, times two; see ``TokenModel``."""
        block = 4 * self.width**2 + 3 * self.width * self.hidden + 2 * frames * self.width
        return 2 * (len(self.blocks) * block + self.codebooks * self.width * self.vocab_size)

    def __call__(
        self,
        tokens: Tokens,
        labels: Labels | None = None,
        features: Features | None = None,
        *,
        dropout_key: Array | None = None,
        valid: Bool[Array, "B N"] | None = None,
    ) -> Logits:
        """See ``MaskedModel``.

        Raises:
            WavegenError: tokens of another number of codebooks; labels missing or not taken; features given.
        """
        if features is not None:
            raise WavegenError("this model takes no features; leave them out")
        frames = self._frames(tokens, labels, dropout_key, valid)
        return jnp.einsum("bnw,kwv->bnkv", frames, self.head[...], preferred_element_type=jnp.float32)

    def level_logits(
        self,
        tokens: Tokens,
        level: Int[Array, "B"],
        labels: Labels | None = None,
        *,
        dropout_key: Array | None = None,
        valid: Bool[Array, "B N"] | None = None,
    ) -> Float[Array, "B N V"]:
        """See ``MaskedModel``."""
        frames = self._frames(tokens, labels, dropout_key, valid)
        return jnp.einsum("bnw,bwv->bnv", frames, self.head[...][level], preferred_element_type=jnp.float32)

    def _frames(
        self,
        tokens: Tokens,
        labels: Labels | None,
        dropout_key: Array | None,
        valid: Bool[Array, "B N"] | None,
    ) -> Float[Array, "B N width"]:
        """What the heads read."""
        if tokens.shape[2] != self.codebooks:
            raise WavegenError(
                f"expected tokens of {self.codebooks} codebooks, got {list(tokens.shape)}; "
                "use the codec that the model was trained with"
            )
        if (labels is None) != (self.labels is None):
            raise WavegenError(
                "this model needs labels; give those of each clip, -1 where unknown"
                if labels is None
                else "this model takes no labels; leave them out"
            )
        everywhere = jnp.ones(tokens.shape[:2], bool) if valid is None else valid
        x = sum(look_up(table, tokens[:, :, k]) for k, table in enumerate(self.embedding[...]))
        if labels is not None and self.labels is not None:
            x = x + self.labels(labels)
        positions = jnp.arange(tokens.shape[1])
        if self.places is not None:
            table = self.places[...]
            x = x + look_up(table, positions % len(table))[None]
        x = x + _edges(everywhere).astype(x.dtype) @ self.edges[...]
        # Where nothing valid is, nothing must stand: attention gives it no weight, but 0 times NaN is NaN.
        x = jnp.where(everywhere[..., None], x, 0)
        mask = None if valid is None else valid[:, None, None, :]
        for i, block in enumerate(self.blocks):
            key = None if dropout_key is None else jax.random.fold_in(dropout_key, i)
            x = block(x, positions, mask, dropout=self.dropout, dropout_key=key)
        return self.norm(x)


def _edges(valid: Bool[Array, "B N"]) -> Bool[Array, "B N 2"]:
    """Which frames are the first of a clip, and which the last."""
    padded = jnp.pad(valid, ((0, 0), (1, 1)))
    return jnp.stack([valid & ~padded[:, :-2], valid & ~padded[:, 2:]], axis=-1)
