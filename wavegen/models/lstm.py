"""Stacked LSTM over tokens (Hochreiter and Schmidhuber 1997; with forget gates, Gers et al. 2000).

i, f, o = sigmoid(x W + h U + b),   g = tanh(x W + h U + b)        each its own quarter of W, U and b
c <- f c + i g,   h <- o tanh(c)
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from wavegen.errors import WavegenError
from wavegen.models.base import State
from wavegen.models.layers.transformer import drop
from wavegen.models.layers.vocabulary import Vocabulary
from wavegen.models.stepwise import SteppedModel, tokens_of
from wavegen.networks.base import Given
from wavegen.networks.initial import normal
from wavegen.types import Features, Labels, Logits, Tokens


class LSTM(SteppedModel):
    """An embedding, layers of LSTM cells with dropout before each and after the last, and a head for each codebook.

    Args:
        vocab_size: of the codec.
        codebooks: of the codec; more than one are delayed, see ``wavegen.models.stepwise``.
        width: cells of a layer, and of the embedding.
        layers: of cells.
        dropout: share of each layer's input, and of the head's, that is dropped in training.
        residual: a layer adds to what it read (Wu et al. 2016, arXiv:1609.08144, section 3.1).
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
        residual: bool = False,
        tied: bool = False,
        period: int = 0,
        start_token: int = 0,
        label_sizes: tuple[int, ...] = (),
        random: np.random.Generator,
    ) -> None:
        self.width, self.layers, self.dropout, self.start_token = width, layers, dropout, start_token
        self.residual = residual
        self.vocabulary = Vocabulary(
            vocab_size, codebooks, width, period=period, tied=tied, label_sizes=label_sizes, random=random
        )
        self.input = normal(random, layers, width, 4 * width, scale=width**-0.5)
        self.recurrent = normal(random, layers, width, 4 * width, scale=width**-0.5)
        # A new cell forgets little (Jozefowicz et al. 2015), else no gradient comes from far back.
        forget = np.repeat(np.array([0.0, 1.0, 0.0, 0.0], np.float32), width)
        self.bias = nnx.Param(jnp.asarray(np.tile(forget, (layers, 1))))

    @classmethod
    def make(cls, config: Any, given: Given, random: np.random.Generator) -> "LSTM":
        """See ``Network``; the section is an ``LSTMConfig``."""
        sizes = config.model_dump(include={"width", "layers", "dropout", "tied"})
        return cls(**tokens_of(given), **sizes, random=random)

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

    def conditions(self, rows: int, state: State) -> Float[Array, "B #rows width"] | None:
        """What is added to the embeddings of the next rows."""
        del rows
        condition: Array | None = state["condition"]
        return condition

    def _run(self, rows: Tokens, state: State, dropout_key: Array | None) -> tuple[Logits, State]:
        keys = [None] * (self.layers + 1)
        if dropout_key is not None:
            keys = list(jax.random.split(dropout_key, self.layers + 1))
        conditions = self.conditions(rows.shape[1], state)
        x = self.vocabulary.embed(rows, state["position"], conditions)
        hidden, cell = [], []
        for layer in range(self.layers):
            output, h, c = self._layer(
                layer, drop(x, self.dropout, keys[layer]), state["hidden"][layer], state["cell"][layer]
            )
            x = x + output if self.residual else output
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
        """One layer over all rows: its output at each, and what it remembers after the last."""
        # What does not wait for the row before is one product for all rows.
        given = x @ self.input[...][layer] + self.bias[...][layer][None, None]
        given = given.astype(jnp.float32).swapaxes(0, 1)
        hiddens, cells = recur(given, self.recurrent[...][layer], hidden, cell)
        return hiddens.swapaxes(0, 1).astype(x.dtype), hiddens[-1], cells[-1]


@jax.custom_vjp
def recur(
    given: Float[Array, "N B gates"],
    recurrent: Float[Array, "width gates"],
    hidden: Float[Array, "B width"],
    cell: Float[Array, "B width"],
) -> tuple[Float[Array, "N B width"], Float[Array, "N B width"]]:
    """The cells of a layer, row after row; ``hidden`` and ``cell`` are from before the first one.

    The derivative is written out: JAX's own adds each row's share to that of the recurrent weights, which for a small
    batch costs more than all else; here it is one product for all rows.

    Args:
        given: ``x W + b``, float32.
        recurrent: U.
        hidden: h, float32.
        cell: c, float32.

    Returns:
        h and c after each row.
    """

    def one(carry: tuple[Array, Array], given: Array) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        hidden, cell = carry
        i, f, g, o = _gates(given, hidden, recurrent)
        cell = f * cell + i * g
        after = (o * jnp.tanh(cell), cell)
        return after, after

    return lax.scan(one, (hidden, cell), given)[1]


def _gates(
    given: Float[Array, "*rows gates"],
    hidden: Float[Array, "*rows width"],
    recurrent: Float[Array, "width gates"],
) -> tuple[Array, Array, Array, Array]:
    recurred = jnp.matmul(hidden.astype(recurrent.dtype), recurrent, preferred_element_type=jnp.float32)
    i, f, g, o = jnp.split(given + recurred, 4, axis=-1)
    return jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)


def _recur_forward(given: Array, recurrent: Array, hidden: Array, cell: Array) -> tuple[Any, Any]:
    hiddens, cells = recur(given, recurrent, hidden, cell)
    before = (jnp.concatenate([hidden[None], hiddens[:-1]]), jnp.concatenate([cell[None], cells[:-1]]))
    return (hiddens, cells), (given, recurrent, *before, cells)


def _recur_backward(saved: Any, slopes: tuple[Array, Array]) -> tuple[Array, Array, Array, Array]:
    given, recurrent, hidden_before, cell_before, cells = saved
    i, f, g, o = _gates(given, hidden_before, recurrent)
    squashed = jnp.tanh(cells)
    # By how much each gate moves c, and the output gate h, times the gate's own slope.
    by_cell = jnp.concatenate([g * i * (1 - i), cell_before * f * (1 - f), i * (1 - g * g)], axis=-1)
    by_hidden = squashed * o * (1 - o)
    through = o * (1 - squashed * squashed)
    back = recurrent.T

    def one(carry: tuple[Array, Array], row: Any) -> tuple[tuple[Array, Array], Array]:
        hidden, cell = carry
        of_hidden, of_cell, forget, by_cell, by_hidden, through = row
        hidden = hidden + of_hidden
        cell = cell + of_cell + hidden * through
        slope = jnp.concatenate([jnp.tile(cell, 3) * by_cell, hidden * by_hidden], axis=-1)
        earlier = jnp.matmul(slope.astype(back.dtype), back, preferred_element_type=jnp.float32)
        return (earlier, cell * forget), slope

    nothing = jnp.zeros_like(slopes[0][0])
    rows = (*slopes, f, by_cell, by_hidden, through)
    (of_hidden, of_cell), slope = lax.scan(one, (nothing, nothing), rows, reverse=True)
    of_recurrent = jnp.einsum("nbh,nbg->hg", hidden_before, slope).astype(recurrent.dtype)
    return slope, of_recurrent, of_hidden, of_cell


recur.defvjp(_recur_forward, _recur_backward)
