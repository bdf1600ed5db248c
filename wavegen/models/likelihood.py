"""Objectives of causal models: the exact likelihood of tokens."""

from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from wavegen.models.base import TokenModel
from wavegen.networks.base import Outcome
from wavegen.types import Logits


def next_token(model: TokenModel, examples: Mapping[str, Array], key: Array | None) -> Outcome:
    """The exact negative log-likelihood of an autoregressive model, in nats, over the scored tokens.

    Args:
        model: predicts ``targets`` from ``inputs``, which are the targets shifted by one, or with the last one, too.
        examples: what ``wavegen.data.device`` made of a batch.
        key: turns dropout on. Without it there is a figure more, "accuracy": tokens whose likeliest value is right.
    """
    logits = model(examples["inputs"], examples.get("labels"), examples.get("features"), dropout_key=key)
    logits = logits[:, : examples["targets"].shape[1]]
    outcome = likelihood(model, logits, examples)
    if key is not None:
        return outcome
    guess = model.likeliest(logits)
    scored = jnp.broadcast_to(examples["mask"][..., None], examples["targets"].shape)
    return outcome._replace(figures=accuracy(guess, examples["targets"], scored))


def accuracy(
    guess: Int[Array, "*axes"] | None, targets: Int[Array, "*axes"], scored: Bool[Array, "*axes"]
) -> dict[str, Array]:
    """How many scored tokens were guessed right, as a figure; none without a guess."""
    return {} if guess is None else {"accuracy": jnp.sum((guess == targets) & scored, dtype=jnp.int32)}


def likelihood(model: TokenModel, logits: Logits, examples: Mapping[str, Array]) -> Outcome:
    """The negative log-likelihood of the scored tokens under ``logits``, without figures."""
    targets = examples["targets"]
    log_prob = model.log_prob(logits, targets, examples["inputs"][:, : targets.shape[1]])
    scored = jnp.broadcast_to(examples["mask"][..., None], log_prob.shape)
    return Outcome(-jnp.sum(jnp.where(scored, log_prob, 0.0)), jnp.sum(scored, dtype=jnp.int32), {}, {})
