"""Both ends of a causal network over tokens: embeddings at the input, logits at the output."""

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from wavegen.errors import WavegenError
from wavegen.kernels.lookup import look_up
from wavegen.models.conditions.base import LabelCondition
from wavegen.networks.initial import normal
from wavegen.types import Labels, Logits, Tokens


class Vocabulary(nnx.Module):
    """The embedding of rows of tokens, and the logits of the next row.

    The input is the sum of a vector for each codebook's token, one for the place in the period, and one for each
    label. Tokens may be ``vocab_size``, which stands for no token.

    Args:
        size: values that a token can take, V.
        codebooks: tokens per row, K.
        width: width of the network.
        period: number of rows after which the kinds of tokens repeat (four voices written one after the other, or the
            fields of an event); 0 is none. Sequences begin at its start.
        tied: whether the output weights of a codebook are its embedding.
        label_sizes: number of values of each label field.
        random: generator of the initial weights.
    """

    def __init__(
        self,
        size: int,
        codebooks: int,
        width: int,
        *,
        period: int,
        tied: bool,
        label_sizes: tuple[int, ...],
        random: np.random.Generator,
    ) -> None:
        self.size, self.codebooks, self.period = size, codebooks, period
        self.embedding = normal(random, codebooks, size + 1, width, scale=codebooks**-0.5)
        self.places = normal(random, period, width, scale=0.5) if period else nnx.data(None)
        self.labels = LabelCondition(label_sizes, width, random=random) if label_sizes else nnx.data(None)
        # The weights are small, so that all values are about equally likely at first.
        self.head = (
            nnx.data(None) if tied else normal(random, codebooks, width, size, scale=0.1 * width**-0.5)
        )

    def condition(self, labels: Labels | None) -> Float[Array, "B 1 width"] | None:
        """Returns the vectors of the labels, which are added to every row.

        Raises:
            WavegenError: if labels are missing, or the model takes none.
        """
        if (labels is None) != (self.labels is None):
            raise WavegenError(
                "this model needs labels; give those of each clip, -1 where unknown"
                if labels is None
                else "this model takes no labels; leave them out"
            )
        return None if labels is None or self.labels is None else self.labels(labels)

    def embed(
        self,
        rows: Tokens,
        first: Int[Array, ""] | int,
        condition: Float[Array, "B #N width"] | None,
    ) -> Float[Array, "B N width"]:
        """Returns the input of the network.

        Args:
            rows: rows of tokens.
            first: number of the token that the first row is to predict, for the place in the period: the row of the
                start token predicts token 0.
            condition: vectors of labels and other conditions to add, one for all rows or one per row.

        Raises:
            WavegenError: if the rows have another number of codebooks.
        """
        if rows.shape[2] != self.codebooks:
            raise WavegenError(
                f"expected tokens of {self.codebooks} codebooks, got {list(rows.shape)}; "
                "use the codec that the model was trained with"
            )
        x = sum(look_up(table, rows[:, :, k]) for k, table in enumerate(self.embedding[...]))
        if self.places is not None:
            x = x + look_up(self.places[...], (first + jnp.arange(rows.shape[1])) % self.period)[None]
        return x if condition is None else x + condition.astype(x.dtype)

    def logits(self, x: Float[Array, "B N width"]) -> Logits:
        """Returns the logits of each codebook, float32."""
        if self.head is None:
            x, table = x * x.shape[-1] ** -0.5, self.embedding[...][:, :-1].swapaxes(1, 2)
        else:
            table = self.head[...]
        # Plain matrices: the gradient of a product with more axes takes XLA on a CPU three times as long.
        flat = jnp.moveaxis(table, 1, 0).reshape(x.shape[-1], -1)
        rows = jnp.matmul(x.reshape(-1, x.shape[-1]), flat, preferred_element_type=jnp.float32)
        return rows.reshape(*x.shape[:2], self.codebooks, self.size)
