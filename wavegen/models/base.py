"""The contract of token models: tokens in, the distribution of the next ones out."""

from abc import abstractmethod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from wavegen.errors import WavegenError
from wavegen.models.conditions.base import FrameWindow, LocalCondition
from wavegen.networks.base import Network
from wavegen.types import Features, Labels, Logits, Tokens

State = dict[str, Any]
"""What a causal model remembers between steps: a plain pytree, so ``lax.scan``, donation and checkpoints work."""


class Choice(NamedTuple):
    """How a token is drawn from its distribution.

    Attributes:
        temperature: divides the logits; 0 takes the most likely token. An array holds one for each place in a period:
            token n takes that of place n modulo its length.
        top_k: draws among the k most likely tokens; 0 is all.
        top_p: draws among the smallest set of tokens that together have this probability; 1 is all.
        allowed: values that a token may take at each place in a period, at least one; None is all. The others are as
            if their logits were minus infinity.
    """

    temperature: float | Float[Array, ""] | Float[Array, "places"] = 1.0
    top_k: int = 0
    top_p: float = 1.0
    allowed: Bool[Array, "places V"] | None = None


class TokenModel(Network):
    """A network over integer tokens.

    Laws, tested for every member: outputs are finite, a batch row equals the same clip alone, and ``log_prob``
    sums to one over the vocabulary.

    Attributes:
        local: what it is conditioned on at frame rate; None is nothing.
    """

    local: LocalCondition | None = None

    @abstractmethod
    def __call__(
        self,
        tokens: Tokens,
        labels: Labels | None = None,
        features: Features | None = None,
        *,
        dropout_key: Array | None = None,
    ) -> Logits:
        """Reads whole sequences at once.

        Args:
            tokens: values in ``[0, vocab_size)``.
            labels: one integer per global field; -1 is unknown.
            features: local conditions at frame rate; they belong to the tokens that are predicted.
            dropout_key: turns dropout on.

        Returns:
            Parameters of the distribution of each token, float32.
        """

    @abstractmethod
    def log_prob(self, logits: Logits, targets: Tokens, inputs: Tokens) -> Float[Array, "B N K"]:
        """Ln p(targets), in nats, under the distributions that ``self(inputs)`` returned as ``logits``."""

    def likeliest(self, logits: Logits) -> Tokens | None:
        """The most probable value of each token under ``logits``; None where it is not among them."""
        return jnp.argmax(logits, axis=-1)


class CausalModel(TokenModel):
    """A token model whose output at frame n depends on tokens up to n alone: it predicts token n + 1.

    Law, tested for every member: ``model(tokens)[:, n]`` equals ``step`` run on tokens 0 to n from ``init_state``,
    and position n depends on no later token.
    """

    @property
    @abstractmethod
    def receptive_field(self) -> int | None:
        """Frames, the newest included, that one output depends on; None where there is no limit."""

    @property
    def cuts_tails(self) -> bool:
        """Whether its distributions can be cut to the likeliest tokens, as those of a softmax can."""
        return True

    @property
    def following(self) -> int:
        """Number of frames after a frame that the distributions of its tokens may depend on.

        More than 0 with several codebooks, see ``wavegen.models.layers.delay``.
        """
        return 0

    @property
    def carries_state(self) -> bool:
        """Whether clips are evaluated whole, by a state that is carried from piece to piece.

        Otherwise they are evaluated in windows that overlap by the receptive field, which suits a short one. Windows of
        several codebooks would also need the frames that follow them.
        """
        return self.receptive_field is None or self.following > 0

    def context(self, longest: int) -> int:
        """See ``Network``: the whole clip where a state is carried, or the receptive field."""
        field = self.receptive_field
        return longest if self.carries_state or field is None else field

    def in_eight_bits(self) -> "CausalModel":
        """The model with its weights rounded to 8 bits and, where it can, its products too; it may change itself.

        Raises:
            WavegenError: it has no such form.
        """
        raise WavegenError(
            f"precision int8 is of a WaveNet, got a model of type {type(self).__name__}; take bfloat16"
        )

    def sampling_device(self, batch: int, choice: Choice, implementation: str | None) -> jax.Device | None:
        """Where ``draw`` is quickest for so many rows: a device, or None for where JAX computes by default."""
        del batch, choice, implementation
        return None

    @abstractmethod
    def init_state(self, batch: int, labels: Labels | None = None, features: Features | None = None) -> State:
        """The state before the first token, with the conditions of the whole sequence inside."""

    def window_state(self, labels: Labels | None, window: FrameWindow) -> State:
        """What a part of a clip puts into the state in place of its whole conditions, where ``local`` is not None.

        Law, tested for every member: with the window of the next samples (``LocalCondition.window``) they are drawn
        as with the features of the whole clip.

        Args:
            labels: of the clips.
            window: of what the model is conditioned on.
        """
        raise NotImplementedError(f"{type(self).__name__} is conditioned on nothing at frame rate")

    @abstractmethod
    def step(self, token: Int[Array, "B K"], state: State) -> tuple[Float[Array, "B K V"], State]:
        """Reads one frame; returns the distribution of the next one, and the state after it."""

    @abstractmethod
    def read(self, tokens: Tokens, state: State) -> State:
        """The state after a prompt; ``draw`` continues from its last frame."""

    @abstractmethod
    def score(
        self, tokens: Tokens, state: State, then: Int[Array, "B M K"] | None = None
    ) -> tuple[Float[Array, "B N K"], State]:
        """Ln p of each token given all before it, in nats, and the state that ``read`` returns.

        Args:
            tokens: the next frames. Negative numbers stand for frames after the clip's end; their scores mean nothing.
            state: from ``init_state``, ``read`` or ``score``.
            then: the frames of the clip that follow these, of which the first ``following`` are read; None where the
                clip ends with ``tokens``.
        """

    @abstractmethod
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
        """Generates the next frames.

        Args:
            state: from ``init_state``, ``read`` or ``draw``; the frames so far are part of it.
            frames: how many to generate.
            key: of the whole clip: the numbers drawn depend on it, on the position and on the row alone, so that
                generating in pieces equals generating at once.
            choice: how tokens are drawn.
            left: frames from here to the clip's end, which may come before the last of ``frames`` (those after it mean
                nothing) or later; None where the clip ends with them. It matters where ``following`` is not 0.
            implementation: of the kernel, by name; None is the best one here.

        Returns:
            The new frames, and the state after them.
        """


class MaskedModel(TokenModel):
    """A token model that sees both sides: from the tokens that are known it predicts the others.

    A token that is not known is written as ``vocab_size``, one past the last value: masked models read tokens in
    ``[0, vocab_size]``. The output at frame n belongs to the tokens of frame n, and is a softmax's logits.

    Laws, tested for every member: frames that are not valid reach no valid one, whatever stands in them, so that a
    clip in a padded batch gives what it gives alone (after whole periods of padding, where the model reads places in
    a period); every output depends on the tokens of both sides.

    Attributes:
        vocab_size: values that a token can take, V; and the mask.
        codebooks: tokens per frame, K.
    """

    vocab_size: int
    codebooks: int

    @abstractmethod
    def __call__(
        self,
        tokens: Tokens,
        labels: Labels | None = None,
        features: Features | None = None,
        *,
        dropout_key: Array | None = None,
        valid: Bool[Array, "B N"] | None = None,
    ) -> Logits:
        """See ``TokenModel``; here tokens may be masked, and label -1 is the null of classifier-free guidance.

        Args:
            tokens: values in ``[0, vocab_size]``.
            labels: one integer per global field; -1 is unknown.
            features: local conditions at frame rate.
            dropout_key: turns dropout on.
            valid: frames that belong to the clip; what comes out at the others means nothing. None is all.
        """

    @abstractmethod
    def level_logits(
        self,
        tokens: Tokens,
        level: Int[Array, "B"],
        labels: Labels | None = None,
        *,
        dropout_key: Array | None = None,
        valid: Bool[Array, "B N"] | None = None,
    ) -> Float[Array, "B N V"]:
        """The logits of one codebook of each row: ``self(...)[:, :, level]`` without the cost of the others."""

    def log_prob(self, logits: Logits, targets: Tokens, inputs: Tokens) -> Float[Array, "B N K"]:
        """See ``TokenModel``."""
        del inputs
        return jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], axis=-1)[..., 0]


class SourceModel(CausalModel):
    """A causal model that writes voices to others, its source, which it reads as a whole.

    The source is given as features: its tokens as numbers, ``[B, F, S]`` for S voices; negative numbers are padding.

    Attributes:
        source_voices: S, the highest ones of a grid.
    """

    source_voices: int

    def context(self, longest: int) -> int:
        """See ``Network``: the source reaches over the whole clip."""
        return longest


class LatentModel(CausalModel):
    """A causal model of windows that are written given a latent vector each, and that encodes windows to such vectors.

    The latents are given as features, ``[B, 1, latent]``.

    Attributes:
        window: tokens of a window.
        latent: dimensions of a window's vector.
    """

    window: int
    latent: int

    def context(self, longest: int) -> int:
        """See ``Network``: windows are read one by one."""
        del longest
        return 0

    @abstractmethod
    def prior(self, key: Array, count: int) -> Features:
        """Draws latents of windows that nobody has written, ``[count, 1, latent]``.

        Each depends on the key and its row alone.
        """

    @abstractmethod
    def latents(self, tokens: Tokens, valid: Bool[Array, "B N"]) -> Float[Array, "B D"]:
        """The mean of q(z | window) of each window; frames that are not valid are no part of the piece."""
