"""Stacked LSTM over tokens (Hochreiter and Schmidhuber 1997; with forget gates, Gers et al. 2000).

i, f, o = sigmoid(x W + h U + b),   g = tanh(x W + h U + b)        each its own quarter of W, U and b
c <- f c + i g,   h <- o tanh(c)
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from wavegen.errors import WavegenError
from wavegen.models.base import State
from wavegen.models.initial import normal
from wavegen.models.stepwise import SteppedModel
from wavegen.models.transformer import drop
from wavegen.models.vocabulary import Vocabulary
from wavegen.types import Features, Labels, Logits, Tokens


class LSTM(SteppedModel):
    """An embedding, layers of LSTM cells with dropout before each and after the last, and a head for each codebook.

    Args:
        vocab_size: of the codec.
        codebooks: of the codec; more than one are delayed, see ``wavegen.models.stepwise``.
        width: cells of a layer, and of the embedding.
        layers: of cells.
        dropout: share of each layer's input, and of the head's, that is dropped in training.
        tied: see ``Vocabulary``.
        period: see ``Vocabulary``.
        start_token: of the codec.
        label_sizes: values of each label field; empty for a model without labels.
        random: draws the initial weights.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        codebooks: int = 1,
        width: int = 256,
        layers: int = 2,
        dropout: float = 0.0,
        tied: bool = False,
        period: int = 0,
        start_token: int = 0,
        label_sizes: tuple[int, ...] = (),
        random: np.random.Generator,
    ) -> None:
        self.width, self.layers, self.dropout, self.start_token = width, layers, dropout, start_token
        self.vocabulary = Vocabulary(
            vocab_size, codebooks, width, period=period, tied=tied, label_sizes=label_sizes, random=random
        )
        self.input = normal(random, layers, width, 4 * width, scale=width**-0.5)
        self.recurrent = normal(random, layers, width, 4 * width, scale=width**-0.5)
        # A new cell forgets little (Jozefowicz et al. 2015), else no gradient comes from far back.
        forget = np.repeat(np.array([0.0, 1.0, 0.0, 0.0], np.float32), width)
        self.bias = nnx.Param(jnp.asarray(np.tile(forget, (layers, 1))))

    @property
    def receptive_field(self) -> None:
        """There is no limit."""

    def flops_per_frame(self, frames: int) -> int:
        """Multiply-adds of the matrices, times two; see ``TokenModel``."""
        del frames
        cells = self.layers * 8 * self.width**2
        return 2 * (cells + self.vocabulary.codebooks * self.width * self.vocabulary.size)

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
        cells = jnp.zeros((self.layers, batch, self.width), jnp.float32)
        return {"hidden": cells, "cell": cells, "condition": self.vocabulary.condition(labels)}

    def forward(self, rows: Tokens, memory: State, dropout_key: Array | None) -> Logits:
        """See ``SteppedModel``."""
        return self._run(rows, {**memory, "position": 0}, dropout_key)[0]

    def go_on(self, rows: Tokens, state: State) -> tuple[Logits, State]:
        """See ``SteppedModel``."""
        return self._run(rows, state, None)

    def _run(self, rows: Tokens, state: State, dropout_key: Array | None) -> tuple[Logits, State]:
        keys = [None] * (self.layers + 1)
        if dropout_key is not None:
            keys = list(jax.random.split(dropout_key, self.layers + 1))
        x = self.vocabulary.embed(rows, state["position"], state["condition"])
        hidden, cell = [], []
        for layer in range(self.layers):
            x, h, c = self._layer(
                layer, drop(x, self.dropout, keys[layer]), state["hidden"][layer], state["cell"][layer]
            )
            hidden.append(h)
            cell.append(c)
        logits = self.vocabulary.logits(drop(x, self.dropout, keys[-1]))
        after = {"hidden": jnp.stack(hidden), "cell": jnp.stack(cell)}
        return logits, {**state, **after, "position": state["position"] + rows.shape[1]}

    def _layer(
        self,
        layer: int,
        x: Float[Array, "B N width"],
        hidden: Float[Array, "B width"],
        cell: Float[Array, "B width"],
    ) -> tuple[Float[Array, "B N width"], Float[Array, "B width"], Float[Array, "B width"]]:
        """One layer over all rows: what it says at each, and what it remembers after the last."""
        # What does not wait for the row before is one product for all rows.
        told = x @ self.input[...][layer] + self.bias[...][layer][None, None]
        recurrent = self.recurrent[...][layer]

        def cells(carry: tuple[Array, Array], told: Array) -> tuple[tuple[Array, Array], Array]:
            h, c = carry
            gates = told + jnp.matmul(h.astype(x.dtype), recurrent, preferred_element_type=jnp.float32)
            i, f, g, o = jnp.split(gates, 4, axis=-1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h.astype(x.dtype)

        (hidden, cell), said = lax.scan(cells, (hidden, cell), told.swapaxes(0, 1))
        return said.swapaxes(0, 1), hidden, cell
