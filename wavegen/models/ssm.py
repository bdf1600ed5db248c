"""Diagonal state-space layers over tokens, at one rate or several (S4D, Gu et al. 2022, arXiv:2206.11893).

Each channel of a layer is filtered by N damped oscillators (complex numbers, h before the first row is zero):

    h_t = lambda h_(t-1) + x_t,    lambda = exp(-a + i theta),    a = exp(decay),    theta = exp(phase)
    y_t = Re(sum over the oscillators of gamma c h_t) + d x_t,    gamma = sqrt(1 - |lambda|^2)

The exponentials keep every oscillator stable, and gamma its output near the size of a white input (the LRU, Orvieto
et al. 2023, arXiv:2303.06349, sections 3.3 and 3.4). Channels are then mixed by a gated linear unit, and a layer adds
to what it read in normalised form (Goel et al. 2022, arXiv:2202.09729, section 4):

    x <- x + (A z) * sigmoid(B z),    z = GELU(y),    y from x / RMS(x)

In training a clip is cut into chunks of L rows. Within a chunk the filter is a product with a triangular Toeplitz
matrix of the impulse response ``k_t = Re(sum gamma c lambda^t)``; what came before enters through the state at the
chunk's beginning, which is moved on by ``h <- lambda^L h + sum lambda^(L-1-s) x_s``: one short scan over chunks (the
scheme of Dao and Gu 2024, arXiv:2405.21060, section 6, with decays that do not depend on the input).

Activations have their channels first, ``[width, B, N]``: then the filters of all channels are one batched product, and
mixing channels is one plain product, without a transposition between them.

With ``pooling``, layers also run at lower rates (Goel et al. 2022, section 4.2). A frame of p rows ends at row j p, so
that it holds nothing of a later row, and what the lower rate makes of it is added to rows j p to j p + p - 1.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Int

from wavegen.config.models import SSMConfig
from wavegen.errors import WavegenError
from wavegen.models.base import State
from wavegen.models.layers.oscillators import Layer, normalise
from wavegen.models.layers.transformer import drop
from wavegen.models.layers.vocabulary import Vocabulary
from wavegen.models.stepwise import SteppedModel, tokens_of
from wavegen.networks.base import Given
from wavegen.networks.initial import normal
from wavegen.types import Features, Labels, Logits, Tokens


class SSM(SteppedModel):
    """An embedding, layers of oscillators at each rate, the lowest rate first, and a head for each codebook.

    Args:
        vocab_size: of the codec.
        codebooks: of the codec; more than one are delayed, see ``wavegen.models.stepwise``.
        width: channels.
        layers: at each rate.
        state: oscillators of a channel, N.
        pooling: rows of a frame of the next lower rate, each at least 2; empty for one rate.
        longest: rows after which the slowest oscillator has decayed to 1 / e at first, at least 2.
        chunk: rows that training reads by one product, L.
        smooth: neighbouring token values begin with similar embeddings, as the levels of samples should.
        dropout: share of what each layer mixes, and of the head's input, that is dropped in training.
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
        width: int = 128,
        layers: int = 6,
        state: int = 16,
        pooling: tuple[int, ...] = (),
        longest: int = 2000,
        chunk: int = 64,
        smooth: bool = False,
        dropout: float = 0.0,
        tied: bool = False,
        period: int = 0,
        start_token: int = 0,
        label_sizes: tuple[int, ...] = (),
        random: np.random.Generator,
    ) -> None:
        self.width, self.dropout, self.start_token = width, dropout, start_token
        self.pooling, self.chunk = pooling, chunk
        self.vocabulary = Vocabulary(
            vocab_size, codebooks, width, period=period, tied=tied, label_sizes=label_sizes, random=random
        )
        if smooth:
            table = self.vocabulary.embedding
            table[...] = table[...].at[:, :-1].set(_sinusoids(random, codebooks, vocab_size, width))
        sizes = {"width": width, "layers": layers, "state": state, "longest": longest, "chunk": chunk}
        self.rate = Rate(pooling, **sizes, random=random)
        # A tied embedding, which layers add to, would begin by predicting that each token is repeated.
        self.gain = nnx.Param(jnp.full(width, 0.1 if tied else 1.0, jnp.float32))

    @classmethod
    def make(cls, config: SSMConfig, given: Given, random: np.random.Generator) -> "SSM":
        """See ``Network``."""
        sizes = config.model_dump(exclude={"kind", "label_fields"})
        return cls(**tokens_of(given), **sizes, random=random)

    @property
    def receptive_field(self) -> None:
        """There is no limit."""

    def flops_per_frame(self, frames: int) -> int:
        """Multiply-adds of the matrices, times two; see ``TokenModel``."""
        return 2 * (
            self.rate.products(frames) + self.vocabulary.codebooks * self.width * self.vocabulary.size
        )

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
        # XLA would compute what a step needs of the filters anew for every row, which takes as long as all else.
        return {
            "condition": self.vocabulary.condition(labels),
            "filters": self.rate.filters(),
            "rate": self.rate.begin(batch),
        }

    def forward(self, rows: Tokens, memory: State, dropout_key: Array | None) -> Logits:
        """See ``SteppedModel``."""
        first, second = (None, None) if dropout_key is None else jax.random.split(dropout_key)
        x = self.vocabulary.embed(rows, 0, memory["condition"])
        x = self.rate(jnp.moveaxis(x, 2, 0), self.dropout, first)
        return self._logits(drop(jnp.moveaxis(normalise(x), 0, 2), self.dropout, second))

    def go_on(self, rows: Tokens, state: State) -> tuple[Logits, State]:
        """See ``SteppedModel``; by chunks where a chunk and a frame of the lowest rate begin, else row after row."""
        x = self.vocabulary.embed(rows, state["position"], state["condition"])
        frame = math.prod(self.pooling)
        whole = rows.shape[1] // math.lcm(frame, self.chunk) * math.lcm(frame, self.chunk)
        parts = []
        if whole:
            begins = state["position"] % frame == 0
            y, state = lax.cond(begins, self._by_chunks, self._by_rows, x[:, :whole], state)
            parts.append(y)
        if whole < rows.shape[1]:
            y, state = self._by_rows(x[:, whole:], state)
            parts.append(y)
        return self._logits(jnp.concatenate(parts, axis=1)), state

    def _by_chunks(
        self, x: Float[Array, "B N width"], state: State
    ) -> tuple[Float[Array, "B N width"], State]:
        y, rate = self.rate.resume(jnp.moveaxis(x, 2, 0), state["rate"])
        after = {**state, "rate": rate, "position": state["position"] + x.shape[1]}
        return jnp.moveaxis(normalise(y), 0, 2), after

    def _by_rows(self, x: Float[Array, "B N width"], state: State) -> tuple[Float[Array, "B N width"], State]:
        def one(carry: tuple[State, Array], x: Array) -> tuple[tuple[State, Array], Array]:
            rate, position = carry
            y, rate = self.rate.step(x.T[:, :, None], rate, state["filters"], position)
            return (rate, position + 1), normalise(y)[:, :, 0].T

        (rate, position), y = lax.scan(one, (state["rate"], state["position"]), x.swapaxes(0, 1))
        return y.swapaxes(0, 1), {**state, "rate": rate, "position": position}

    def _logits(self, x: Float[Array, "B N width"]) -> Logits:
        return self.vocabulary.logits(x * self.gain[...][None, None])


class Rate(nnx.Module):
    """Layers at one rate, after those at lower rates.

    Args:
        pooling: rows of this rate in a frame of the next lower one, and so on down; empty for the lowest.
        width: channels.
        layers: at each rate.
        state: see ``Layer``.
        longest: see ``Layer``.
        chunk: see ``Layer``.
        random: draws the initial weights.
    """

    def __init__(
        self,
        pooling: tuple[int, ...],
        *,
        width: int,
        layers: int,
        state: int,
        longest: int,
        chunk: int,
        random: np.random.Generator,
    ) -> None:
        sizes = {"width": width, "state": state, "longest": longest, "chunk": chunk}
        self.layers = nnx.List([Layer(**sizes, random=random) for _ in range(layers)])
        self.pool = pooling[0] if pooling else 0
        if self.pool:
            self.down = normal(random, width, self.pool, width, scale=(self.pool * width) ** -0.5)
            self.up = normal(random, width, width, self.pool, scale=width**-0.5)
            self.lower = Rate(pooling[1:], layers=layers, **sizes, random=random)

    def products(self, rows: int) -> int:
        """Multiply-adds of a row in a clip of so many."""
        here = sum(layer.products(rows) for layer in self.layers)
        if not self.pool:
            return here
        frames = -(-rows // self.pool)
        return here + (self.down.size + self.up.size + self.lower.products(frames)) * frames // rows

    def filters(self) -> State:
        """What steps need of the filters; see ``Layer.coefficients``."""
        here: State = {"layers": [layer.coefficients(2) for layer in self.layers]}
        return here | ({"lower": self.lower.filters()} if self.pool else {})

    def begin(self, batch: int) -> State:
        """What the layers remember before the first row."""
        state: State = {"layers": [layer.begin(batch) for layer in self.layers]}
        if self.pool:
            width = len(self.down[...])
            state["recent"] = jnp.zeros((width, batch, self.pool - 1), self.down.dtype)
            state["added"] = jnp.zeros((width, batch, self.pool), self.up.dtype)
            state["lower"] = self.lower.begin(batch)
        return state

    def __call__(
        self, x: Float[Array, "width B N"], dropout: float, key: Array | None
    ) -> Float[Array, "width B N"]:
        """Whole sequences; ``dropout`` is the share dropped where a key is given."""
        keys = [None] * (len(self.layers) + 1)
        if key is not None:
            keys = list(jax.random.split(key, len(keys)))
        if self.pool:
            rows = x.shape[2]
            # Rows after the end of the last frame are in none.
            ended = jnp.pad(
                x[:, :, : (rows - 1) // self.pool * self.pool + 1], ((0, 0), (0, 0), (self.pool - 1, 0))
            )
            x = x + self._raise(self.lower(self._lower(ended), dropout, keys[-1]))[:, :, :rows]
        for layer, one in zip(self.layers, keys[:-1], strict=True):
            x = layer(x, dropout, one)
        return x

    def resume(self, x: Float[Array, "width B N"], state: State) -> tuple[Float[Array, "width B N"], State]:
        """The next rows, the first of which is the first of a frame; N is a multiple of the lowest rate's frame."""
        after = dict(state)
        if self.pool:
            ended = jnp.concatenate([state["recent"], x], axis=2)
            after["recent"] = ended[:, :, x.shape[2] :]
            y, after["lower"] = self.lower.resume(self._lower(ended[:, :, : x.shape[2]]), state["lower"])
            added = self._raise(y)
            after["added"] = added[:, :, -self.pool :]
            x = x + added
        after["layers"] = []
        for layer, oscillators in zip(self.layers, state["layers"], strict=True):
            x, oscillators = layer.resume(x, oscillators)
            after["layers"].append(oscillators)
        return x, after

    def step(
        self, x: Float[Array, "width B 1"], state: State, filters: State, position: Int[Array, ""]
    ) -> tuple[Float[Array, "width B 1"], State]:
        """The next row, the number of which is ``position``."""
        after = dict(state)
        if self.pool:
            frame, place = jnp.concatenate([state["recent"], x], axis=2), position % self.pool

            def lower() -> tuple[Array, State]:
                x, number = self._lower(frame), position // self.pool
                y, lower = self.lower.step(x, state["lower"], filters["lower"], number)
                return self._raise(y), lower

            added, after["lower"] = lax.cond(place == 0, lower, lambda: (state["added"], state["lower"]))
            after |= {"recent": frame[:, :, 1:], "added": added}
            x = x + lax.dynamic_slice_in_dim(added, place, 1, axis=2)
        after["layers"] = []
        for layer, hidden, known in zip(self.layers, state["layers"], filters["layers"], strict=True):
            x, hidden = layer.step(x, hidden, *known)
            after["layers"].append(hidden)
        return x, after

    def _lower(self, x: Float[Array, "width B rows"]) -> Float[Array, "width B frames"]:
        frames = x.reshape(*x.shape[:2], -1, self.pool)
        return jnp.einsum("wbfp,wpv->vbf", frames, self.down[...])

    def _raise(self, x: Float[Array, "width B frames"]) -> Float[Array, "width B rows"]:
        rows = jnp.einsum("vbf,vwp->wbfp", normalise(x), self.up[...])
        return rows.reshape(*rows.shape[:2], -1)


def _sinusoids(random: np.random.Generator, *shape: int) -> Float[Array, "K V width"]:
    """Random sinusoids of the token's value."""
    codebooks, size, width = shape
    value = np.linspace(-1.0, 1.0, size)[None, :, None]
    frequency = 3 * random.standard_normal((codebooks, 1, width))
    shift = random.uniform(0, 2 * np.pi, (codebooks, 1, width))
    return jnp.asarray(np.sin(frequency * value + shift) * codebooks**-0.5, jnp.float32)
