"""Causal models with a softmax over tokens that resume from a state: reading, scoring and drawing, written once.

Several codebooks are read and predicted in the delay pattern, see ``wavegen.models.layers.delay``. ``step`` then
reads delayed rows, and the law of causal models holds for those; ``read``, ``score`` and ``draw`` take and return
whole frames.

Each token is predicted from all tokens of the rows above its own. As those may belong to the next K - 1 frames, the
likelihood of a clip depends on where it ends, and places after its end contain no token. Training, scores and draws
agree on that: ``objective`` knows the end from the mask, ``score`` is given the frames that follow, and ``draw`` the
number of frames of the clip that are left.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from wavegen.errors import WavegenError
from wavegen.kernels.draw import choose_token, key_words, uniforms
from wavegen.models.base import CausalModel, Choice, State
from wavegen.models.layers.delay import delay, undelay
from wavegen.models.layers.vocabulary import Vocabulary
from wavegen.models.likelihood import accuracy, next_token
from wavegen.networks.base import Examples, Given, Outcome
from wavegen.types import Features, Labels, Logits, Tokens

PIECE = 512
"""Number of frames that are evaluated at once where a state is carried."""


class SteppedModel(CausalModel):
    """A causal model that defines its memory before the first row and how it reads further rows.

    A state contains the memory of the network; "position", the number of the next row; and "recent", the last K
    frames, the newest of which is read next.

    Attributes:
        vocabulary: both ends of the network.
        start_token: the token before the first frame.
    """

    vocabulary: Vocabulary
    start_token: int

    @abstractmethod
    def begin(
        self,
        batch: int,
        labels: Labels | None,
        features: Features | None,
        dropout_key: Array | None = None,
    ) -> State:
        """Returns the network's memory before the first row, conditions included; with dropout if there is a key."""

    @abstractmethod
    def forward(self, rows: Tokens, memory: State, dropout_key: Array | None) -> Logits:
        """Reads rows from the beginning, with dropout if there is a key."""

    @abstractmethod
    def go_on(self, rows: Tokens, state: State) -> tuple[Logits, State]:
        """Reads the next rows, the first of which has the number ``state["position"]``, and advances that number."""

    def __call__(
        self,
        tokens: Tokens,
        labels: Labels | None = None,
        features: Features | None = None,
        *,
        dropout_key: Array | None = None,
    ) -> Logits:
        """See ``TokenModel``."""
        first, second = (None, None) if dropout_key is None else jax.random.split(dropout_key)
        memory = self.begin(tokens.shape[0], labels, features, first)
        return undelay(self.forward(delay(tokens, self.vocabulary.size), memory, second))

    def objective(self, examples: Examples, key: Array | None) -> Outcome:
        """See ``Network``: the exact negative log-likelihood; of whole clips by ``likelihood_in_pieces``."""
        if key is None and self.carries_state:
            return self.likelihood_in_pieces(examples)
        return next_token(self, self.with_ends(examples), key)

    def likelihood_in_pieces(self, examples: Examples) -> Outcome:
        """Returns what ``next_token`` does in evaluation; memory does not grow with the clips but for their tokens."""
        targets, mask = examples["targets"], examples["mask"]
        rows, frames, codebooks = targets.shape
        numbers = jnp.arange(frames)[None]
        end = jnp.max((numbers + 1) * mask, axis=1, keepdims=True)
        tokens = jnp.where((numbers < end)[:, :, None], targets, -1)
        size = min(PIECE, frames)
        padding = -frames % size
        tokens = jnp.pad(tokens, ((0, 0), (0, padding + self.following), (0, 0)), constant_values=-1)
        scored = jnp.pad(mask, ((0, 0), (0, padding)))

        def one(carry: tuple[State, Array, Array], first: Array) -> tuple[tuple[State, Array, Array], None]:
            state, nats, right = carry
            read = lax.dynamic_slice_in_dim(tokens, first, size + self.following, axis=1)
            piece = read[:, :size]
            counted = lax.dynamic_slice_in_dim(scored, first, size, axis=1)[:, :, None]
            logits, state = self._score(piece, state, read[:, size:])
            log_prob = self.log_prob(logits, piece, piece)
            guessed = accuracy(jnp.argmax(logits, axis=-1), piece, jnp.broadcast_to(counted, piece.shape))
            nats = nats - jnp.sum(jnp.where(counted, log_prob, 0.0))
            return (state, nats, right + guessed["accuracy"].astype(jnp.int32)), None

        state = self.init_state(rows, examples.get("labels"), examples.get("features"))
        start = (state, jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32))
        (_, nats, right), _ = lax.scan(one, start, jnp.arange(0, frames + padding, size))
        return Outcome(nats, jnp.sum(mask, dtype=jnp.int32) * codebooks, {"accuracy": right}, {})

    @property
    def following(self) -> int:
        """See ``CausalModel``."""
        return self.vocabulary.codebooks - 1

    def with_ends(self, examples: Examples) -> Examples:
        """Returns examples whose inputs show where clips end.

        With several codebooks the last frame of a clip is read, too, since rows below it predict its later codebooks;
        the inputs are one frame longer than the targets. Frames after the last one of the mask contain no tokens.
        """
        if not self.following:
            return examples
        targets, mask = examples["targets"], examples["mask"]
        numbers = jnp.arange(targets.shape[1] + 1)[None]
        end = jnp.max(numbers[:, 1:] * mask, axis=1, keepdims=True)
        inputs = jnp.concatenate([examples["inputs"], targets[:, -1:]], axis=1)
        inputs = jnp.where((numbers <= end)[:, :, None], inputs, self.vocabulary.size)
        return {**examples, "inputs": inputs}

    def log_prob(self, logits: Logits, targets: Tokens, inputs: Tokens) -> Float[Array, "B N K"]:
        """See ``TokenModel``."""
        del inputs
        # A masked sum rather than a gather: its derivative is elementwise, that of a gather is a scatter.
        values = jnp.arange(logits.shape[-1])[None, None, None]
        chosen = jnp.sum(jnp.where(values == targets[..., None], logits, 0), axis=-1)
        return chosen - jax.nn.logsumexp(logits, axis=-1)

    def init_state(self, batch: int, labels: Labels | None = None, features: Features | None = None) -> State:
        """See ``CausalModel``."""
        codebooks = self.vocabulary.codebooks
        nothing = jnp.full((batch, codebooks, codebooks), self.vocabulary.size, jnp.int32)
        return {
            **self.begin(batch, labels, features),
            "recent": nothing.at[:, -1].set(self.start_token),
            "position": jnp.zeros((), jnp.int32),
        }

    def step(self, token: Int[Array, "B K"], state: State) -> tuple[Float[Array, "B K V"], State]:
        """See ``CausalModel``; reads one row."""
        logits, after = self.go_on(token[:, None], state)
        return logits[:, 0], after

    def read(self, tokens: Tokens, state: State) -> State:
        """See ``CausalModel``."""
        return self._score(tokens, state)[1]

    def score(
        self, tokens: Tokens, state: State, then: Int[Array, "B M K"] | None = None
    ) -> tuple[Float[Array, "B N K"], State]:
        """See ``CausalModel``."""
        logits, after = self._score(tokens, state, then)
        return self.log_prob(logits, tokens, tokens), after

    def draw(
        self,
        state: State,
        frames: int,
        key: Array,
        *,
        choice: Choice,
        left: int | Int[Array, ""] | None = None,
        implementation: str | None = None,
    ) -> tuple[Tokens, State]:
        """See ``CausalModel``; a loop over ``step``.

        Raises:
            WavegenError: if an implementation is named.
        """
        if implementation is not None:
            raise WavegenError(
                "expected no choice of implementation for this model, which has only one, "
                f"got implementation={implementation!r}; leave it out"
            )
        recent, position = state["recent"], state["position"]
        codebooks = recent.shape[2]
        rows = delay(recent, -1)[:, codebooks - 1 :]
        # The first rows contain tokens of known frames, the last ones of a clip places after its end.
        known = jnp.pad(rows[:, 1:], ((0, 0), (0, frames), (0, 0)), constant_values=-1)
        frame = jnp.arange(frames + codebooks - 1)[:, None] - jnp.arange(codebooks)[None]
        ended = (frame >= (frames if left is None else left))[None]
        known = jnp.where(ended, self.vocabulary.size, known)
        row = rows[:, 0]
        drawn, after = draw_rows(self.step, row, state, position, known[:, :frames], key, choice)
        if codebooks > 1:
            # The last frames end in rows that the next call draws again, as the numbers that are drawn are the same.
            more, _ = draw_rows(
                self.step, drawn[:, -1], after, position + frames, known[:, frames:], key, choice
            )
            drawn = jnp.concatenate([drawn, more], axis=1)
        tokens = undelay(drawn)
        return tokens, {**after, "recent": _latest(recent, tokens)}

    def _score(
        self, tokens: Tokens, state: State, then: Int[Array, "B M K"] | None = None
    ) -> tuple[Logits, State]:
        """Returns the logits of these frames, and the state after them."""
        recent, (batch, frames, codebooks) = state["recent"], tokens.shape
        then = jnp.zeros((batch, 0, codebooks), tokens.dtype) if then is None else then
        inputs = jnp.concatenate([recent, tokens, then], axis=1)
        inputs = jnp.where(inputs < 0, self.vocabulary.size, inputs)
        # From the row that reads the newest frame so far to that which predicts the last token.
        rows = delay(inputs, self.vocabulary.size)[:, codebooks - 1 : frames + 2 * (codebooks - 1)]
        logits, after = self.go_on(rows[:, :frames], state)
        if codebooks > 1:
            rest, _ = self.go_on(rows[:, frames:], after)
            logits = jnp.concatenate([logits, rest], axis=1)
        return undelay(logits), {**after, "recent": _latest(recent, tokens)}


def tokens_of(given: Given) -> dict[str, Any]:
    """Returns the arguments that describe its tokens and labels to a network of this kind.

    Raises:
        WavegenError: if there is no codec.
    """
    codec = given.tokens
    return {
        "vocab_size": codec.vocab_size,
        "codebooks": codec.codebooks,
        "start_token": codec.start_token,
        "period": codec.places,
        "label_sizes": given.label_sizes,
    }


def _latest(recent: Int[Array, "B recent K"], tokens: Tokens) -> Int[Array, "B recent K"]:
    return jnp.concatenate([recent, tokens], axis=1)[:, -recent.shape[1] :]


def draw_rows(
    step: Callable[[Array, State], tuple[Array, State]],
    row: Int[Array, "B K"],
    state: State,
    position: Int[Array, ""],
    known: Int[Array, "B N K"],
    key: Array,
    choice: Choice,
) -> tuple[Tokens, State]:
    """Draws rows one after the other.

    The random number of a token is a function of the key, the row's number, the codebook and the clip's place in the
    batch, as in ``wavegen.kernels``.

    Args:
        step: the step of the model.
        row: the row that is read first.
        state: the state before it.
        position: number of the first row that is drawn.
        known: tokens that replace drawn ones; -1 is none. Their number is that of the rows to draw.
        key: PRNG key of the clips.
        choice: how tokens are drawn.

    Returns:
        The rows, and the state in which the last of them is drawn but not yet read.
    """
    words, clips = key_words(key), jnp.arange(row.shape[0])
    temperature = jnp.atleast_1d(jnp.asarray(choice.temperature, jnp.float32))
    codebooks = row.shape[1]

    def draw_one(carry: tuple[Array, State, Array], known: Array) -> tuple[tuple[Array, State, Array], Array]:
        row, state, position = carry
        logits, state = step(row, state)
        drawn = []
        for k in range(codebooks):
            frame, level = position - k, logits[:, k]
            if choice.allowed is not None:
                level = jnp.where(choice.allowed[frame % len(choice.allowed)][None], level, -jnp.inf)
            drawn.append(
                choose_token(
                    level,
                    uniforms(words, position * codebooks + k, clips)[0],
                    temperature[frame % len(temperature)],
                    choice.top_k or None,
                    None if choice.top_p == 1 else choice.top_p,
                )
            )
        row = jnp.where(known < 0, jnp.stack(drawn, axis=1), known)
        return (row, state, position + 1), row

    (_, state, _), rows = jax.lax.scan(draw_one, (row, state, position), known.swapaxes(0, 1))
    return rows.swapaxes(0, 1), state
