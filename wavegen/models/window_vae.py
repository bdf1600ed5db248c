"""A variational autoencoder over windows of tokens, in the manner of MusicVAE (Roberts et al. 2018, arXiv:1803.05428).

    q(z | window) = N(mean, diag(exp(log_variance))),   z ~ N(0, I),   p(window | z) = product over tokens

As there, the decoder has two levels: a conductor turns z into a vector for every bar, and an LSTM writes the tokens,
conditioned on its bar. Unlike there, z is one vector per bar, side by side; encoder and conductor are transformers,
the one over tokens, the other over bars; the LSTM's layers are residual, and it is not reset at bar lines; and a
place of a bar reads the bar's vector by a linear map of its own, as the encoder writes it. So there is a way through
the whole network that is linear, and as short as principal components are, which reconstruct most of a window: with an
LSTM as conductor, and one vector for all places, it learned many times more slowly to reconstruct.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from wavegen.errors import WavegenError
from wavegen.models.base import LatentModel, State
from wavegen.models.layers.transformer import Block, RMSNorm
from wavegen.models.layers.vocabulary import Vocabulary
from wavegen.models.likelihood import likelihood
from wavegen.models.lstm import LSTM
from wavegen.networks.base import Examples, Given, Outcome
from wavegen.networks.initial import normal, zeros
from wavegen.types import Features, Labels, Tokens


class Posterior(NamedTuple):
    """Normal distributions of latents, one per window, each dimension on its own; float32."""

    mean: Float[Array, "B D"]
    log_variance: Float[Array, "B D"]

    def draw(self, key: Array) -> Float[Array, "B D"]:
        """A latent of each, with gradients (Kingma and Welling 2014, arXiv:1312.6114, section 2.4)."""
        return self.mean + jnp.exp(0.5 * self.log_variance) * jax.random.normal(
            key, self.mean.shape, jnp.float32
        )

    def divergence(self) -> Float[Array, "B"]:
        """KL(q || N(0, I)) in nats (the same paper, appendix B)."""
        wide = jnp.exp(self.log_variance)
        return 0.5 * jnp.sum(self.mean**2 + wide - 1 - self.log_variance, axis=1)


def prior_latents(key: Array, count: int, latent: int) -> Features:
    """Latents of windows that nobody has written, ``[count, 1, latent]``; each depends on the key and its row."""
    keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(jnp.arange(count))
    return jax.vmap(lambda key: jax.random.normal(key, (1, latent), jnp.float32))(keys)


class WindowEncoder(nnx.Module):
    """Windows to posteriors: a transformer in both directions, a vector of each bar, and a linear map of it.

    A bar's vector is a linear map of all its tokens, each narrowed to an eighth of the width: their mean would have to
    learn first which place a token stood in. Bars that are not there have the prior for posterior.

    Args:
        vocab_size: of the codec.
        window: tokens of a window.
        bar: tokens of a bar.
        period: see ``Vocabulary``.
        width: of the blocks.
        layers: blocks.
        heads: of attention.
        dropout: share of what a block adds that is dropped in training.
        latent: dimensions of z, a multiple of the window's bars.
        random: draws the initial weights.
    """

    def __init__(
        self,
        vocab_size: int,
        window: int,
        bar: int,
        *,
        period: int,
        width: int,
        layers: int,
        heads: int,
        dropout: float,
        latent: int,
        random: np.random.Generator,
    ) -> None:
        self.window, self.bar, self.dropout = window, bar, dropout
        self.hidden = -(-8 * width // 3 // 64) * 64
        self.vocabulary = Vocabulary(
            vocab_size, 1, width, period=period, tied=True, label_sizes=(), random=random
        )
        scale, part, narrow = (2 * layers) ** -0.5, latent * bar // window, -(-width // 8)
        self.blocks = nnx.List(
            [Block(width, heads, self.hidden, scale=scale, random=random) for _ in range(layers)]
        )
        self.norm = RMSNorm(width)
        self.to_narrow = normal(random, width, narrow, scale=width**-0.5)
        self.to_bar = normal(random, bar, narrow, width, scale=(bar * narrow) ** -0.5)
        self.to_latent = normal(random, width, 2 * part, scale=width**-0.5)
        self.bias = zeros(2 * part)

    def __call__(
        self, tokens: Tokens, valid: Bool[Array, "B N"], dropout_key: Array | None = None
    ) -> Posterior:
        """Reads windows.

        Args:
            tokens: at most a window.
            valid: tokens that are part of the piece; the others are not read.
            dropout_key: turns dropout on.

        Raises:
            WavegenError: more tokens than a window has.
        """
        require_window(tokens.shape[1], self.window)
        missing = self.window - tokens.shape[1]
        x, positions = self.vocabulary.embed(tokens, 0, None), jnp.arange(tokens.shape[1])
        for i, block in enumerate(self.blocks):
            key = None if dropout_key is None else jax.random.fold_in(dropout_key, i)
            x = block(x, positions, valid[:, None, None], dropout=self.dropout, dropout_key=key)
        x = jnp.where(valid[:, :, None], self.norm(x), 0)
        narrow = jnp.pad(x @ self.to_narrow[...], ((0, 0), (0, missing), (0, 0)))
        bars = narrow.reshape(len(x), -1, self.bar, narrow.shape[2])
        summed = jnp.einsum("bntc,tcw->bnw", bars, self.to_bar[...])
        both = jnp.einsum("bnw,wl->bnl", summed, self.to_latent[...], preferred_element_type=jnp.float32)
        there = jnp.pad(valid, ((0, 0), (0, missing))).reshape(len(x), -1, self.bar).any(2)
        both = jnp.where(there[:, :, None], both + self.bias[...].astype(jnp.float32)[None, None], 0)
        mean, log_variance = (part.reshape(len(x), -1) for part in jnp.split(both, 2, axis=2))
        return Posterior(mean, log_variance)


class WindowVAE(LSTM, LatentModel):
    """The decoder p(window | z), an ``LSTM`` whose features are z, ``[B, 1, latent]``; and its encoder.

    Args:
        vocab_size: of the codec, which has one codebook.
        window: tokens of a window.
        bar: tokens that share a vector.
        period: see ``Vocabulary``.
        width: cells of a layer of the decoder, of the encoder's blocks, and of a bar's vector.
        layers: of the decoder.
        encoder_layers: blocks of the encoder, and of the conductor.
        heads: of their attention.
        latent: dimensions of z, a multiple of the window's bars.
        dropout: see ``LSTM``; of the encoder's and the conductor's blocks, too.
        start_token: of the codec.
        beta: see ``evidence_bound``.
        free_nats: see ``evidence_bound``.
        token_dropout: see ``evidence_bound``.
        random: draws the initial weights.

    Raises:
        WavegenError: a window that is not of whole bars, a bar not of whole periods, or a latent that bars do not
            share evenly.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        window: int,
        bar: int,
        period: int,
        width: int = 256,
        layers: int = 2,
        encoder_layers: int = 2,
        heads: int = 4,
        latent: int = 128,
        dropout: float = 0.0,
        start_token: int = 0,
        beta: float = 1.0,
        free_nats: float = 0.0,
        token_dropout: float = 0.0,
        random: np.random.Generator,
    ) -> None:
        if window < 1 or window % bar or bar % period:
            raise WavegenError(
                f"expected data.crop a multiple of the bar, {bar} tokens, and that of the codec's period, {period}, "
                f"got {window}; use data.crop={-(-window // bar) * bar} and model.bar=0"
            )
        bars = window // bar
        if latent % bars:
            raise WavegenError(
                f"expected model.latent a multiple of the window's {bars} bars, got {latent}; "
                f"use model.latent={-(-latent // bars) * bars}"
            )
        super().__init__(
            vocab_size=vocab_size,
            width=width,
            layers=layers,
            dropout=dropout,
            residual=True,
            period=period,
            start_token=start_token,
            random=random,
        )
        self.window, self.bar, self.latent = window, bar, latent
        self.beta, self.free_nats, self.token_dropout = beta, free_nats, token_dropout
        self.encoder = WindowEncoder(
            vocab_size,
            window,
            bar,
            period=period,
            width=width,
            layers=encoder_layers,
            heads=heads,
            dropout=dropout,
            latent=latent,
            random=random,
        )
        hidden, narrow = self.encoder.hidden, self.encoder.to_narrow.shape[1]
        self.to_bars = normal(random, latent // bars, width, scale=(latent // bars) ** -0.5)
        scale = (2 * encoder_layers) ** -0.5
        self.conductor = nnx.List(
            [Block(width, heads, hidden, scale=scale, random=random) for _ in range(encoder_layers)]
        )
        self.to_places = normal(random, bar, width, narrow, scale=2 * width**-0.5)
        self.to_rows = normal(random, narrow, width, scale=narrow**-0.5)

    @classmethod
    def make(cls, config: Any, given: Given, random: np.random.Generator) -> "WindowVAE":
        """See ``Network``; the section is a ``WindowVAEConfig``."""
        codec, c = given.tokens, config
        return cls(
            vocab_size=codec.vocab_size,
            window=given.data.crop,
            bar=c.bar or codec.period,
            period=codec.period,
            start_token=codec.start_token,
            random=random,
            **c.model_dump(include={"width", "layers", "encoder_layers", "heads", "latent", "dropout"}),
            **c.model_dump(include={"beta", "free_nats", "token_dropout"}),
        )

    def objective(self, examples: Examples, key: Array | None) -> Outcome:
        """See ``evidence_bound``."""
        return evidence_bound(
            self,
            examples,
            key,
            beta=self.beta,
            free_nats=self.free_nats,
            token_dropout=self.token_dropout,
        )

    def prior(self, key: Array, count: int) -> Features:
        """See ``LatentModel``: z ~ N(0, I)."""
        return prior_latents(key, count, self.latent)

    def latents(self, tokens: Tokens, valid: Bool[Array, "B N"]) -> Float[Array, "B D"]:
        """See ``LatentModel``."""
        return self.encode(tokens, valid).mean

    def encode(
        self, tokens: Tokens, valid: Bool[Array, "B N"], dropout_key: Array | None = None
    ) -> Posterior:
        """See ``WindowEncoder``."""
        return self.encoder(tokens, valid, dropout_key)

    def flops_per_frame(self, frames: int) -> int:
        """Of encoder and decoder; see ``TokenModel``."""
        width, bars = self.width, self.window // self.bar
        block = 4 * width**2 + 3 * width * self.encoder.hidden + 2 * frames * width
        conducted = block - 2 * (frames - bars) * width
        once = 3 * width * self.latent + len(self.conductor) * bars * conducted
        through = 4 * width * self.encoder.to_narrow.shape[1]
        return super().flops_per_frame(frames) + 2 * (
            len(self.encoder.blocks) * block + through + once // frames
        )

    def begin(
        self,
        batch: int,
        labels: Labels | None,
        features: Features | None,
        dropout_key: Array | None = None,
    ) -> State:
        """See ``SteppedModel``; turns latents into what each row is conditioned on.

        Raises:
            WavegenError: no latents, or others than one a window; labels.
        """
        if features is None or features.shape[1:] != (1, self.latent):
            got = "none" if features is None else list(features.shape)
            raise WavegenError(
                f"expected features [{batch}, 1, {self.latent}], a latent for each window, got {got}; "
                "draw them with prior_latents, or encode windows"
            )
        bars = features.reshape(batch, self.window // self.bar, -1).astype(jnp.float32) @ self.to_bars[...]
        places = jnp.arange(bars.shape[1])
        for i, block in enumerate(self.conductor):
            key = None if dropout_key is None else jax.random.fold_in(dropout_key, i)
            bars = block(bars, places, None, dropout=self.dropout, dropout_key=key)
        narrow = jnp.einsum("bnw,twc->bntc", bars, self.to_places[...])
        steered = narrow.reshape(batch, self.window, -1) @ self.to_rows[...]
        return {**super().begin(batch, labels, None), "steered": steered}

    def conditions(self, rows: int, state: State) -> Float[Array, "B rows width"]:
        """What the bars' vectors give to the next rows.

        Raises:
            WavegenError: more rows than a window has.
        """
        require_window(rows, self.window)
        return state["steered"][:, state["position"] + jnp.arange(rows)]


def require_window(tokens: int, window: int) -> None:
    """Checks that tokens fit into a window.

    Raises:
        WavegenError: they do not.
    """
    if tokens > window:
        raise WavegenError(
            f"expected at most {window} tokens, a window, got {tokens}; give longer pieces window by window"
        )


def evidence_bound(
    model: WindowVAE,
    examples: Mapping[str, Array],
    key: Array | None,
    *,
    beta: float | Float[Array, ""] = 1.0,
    free_nats: float | Float[Array, ""] = 0.0,
    token_dropout: float | Float[Array, ""] = 0.0,
) -> Outcome:
    """An upper bound on the nats of windows: of their tokens given z drawn from q(z | window), and KL(q || prior).

    Args:
        model: the autoencoder.
        examples: what ``wavegen.data.device`` made of a batch; each row is a window.
        key: draws z and turns dropout on, and what follows. None is for evaluation: z depends on the targets alone,
            and the outcome is the bound itself.
        beta: weight of the divergence (Higgins et al. 2017, "beta-VAE").
        free_nats: of a window's divergence, which cost nothing (Roberts et al. 2018, arXiv:1803.05428, section 2.1).
        token_dropout: share of its inputs that the decoder does not see, so that it asks z (Bowman et al. 2016,
            arXiv:1511.06349).

    Returns:
        Sums over tokens. Its figures: the nats of tokens given z, the divergence for as many tokens as a window has,
        and the share of tokens whose value is the likeliest one given z and all tokens before.
    """
    targets, inputs, valid = examples["targets"], examples["inputs"], examples["mask"]
    fixed = jax.random.fold_in(jax.random.key(0), jnp.sum(targets))  # as in masked_token
    z_key, token_key, encoder_key, decoder_key = jax.random.split(fixed if key is None else key, 4)
    dropout_keys = (None, None) if key is None else (encoder_key, decoder_key)
    posterior = model.encode(targets, valid, dropout_keys[0])
    if key is not None:
        hidden = jax.random.bernoulli(token_key, token_dropout, inputs.shape)
        inputs = jnp.where(hidden, model.vocabulary.size, inputs)
    logits = model(inputs, None, posterior.draw(z_key)[:, None], dropout_key=dropout_keys[1])
    plain = likelihood(model, logits, examples)
    nats, scored = plain.total, plain.scored
    divergence = jnp.where(valid.any(axis=1), posterior.divergence(), 0.0)
    cost = divergence if key is None else beta * jnp.maximum(divergence - free_nats, 0.0)
    right = (jnp.argmax(logits, axis=-1) == targets) & valid[..., None]
    figures = {
        "nats_per_token": nats,
        "kl_per_window": jnp.sum(divergence) * model.window,
        "accuracy": jnp.sum(right, dtype=jnp.float32),
    }
    return Outcome(
        nats + jnp.sum(cost), scored, figures, {}, None if key is None else nats + jnp.sum(divergence)
    )
