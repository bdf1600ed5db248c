"""What a step minimises: functions of a model and one device batch."""

from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from wavegen.models.base import TokenModel


def next_token(
    model: TokenModel, examples: Mapping[str, Array], dropout_key: Array | None
) -> tuple[Float[Array, ""], Int[Array, ""]]:
    """The exact negative log-likelihood of an autoregressive model.

    Args:
        model: predicts ``targets`` from ``inputs``, which are the targets shifted by one.
        examples: what ``wavegen.data.device`` made of a batch.
        dropout_key: turns dropout on.

    Returns:
        Sum over the scored tokens, in nats, and how many were scored.
    """
    logits = model(
        examples["inputs"], examples.get("labels"), examples.get("features"), dropout_key=dropout_key
    )
    log_prob = model.log_prob(logits, examples["targets"], examples["inputs"])
    scored = examples["mask"][..., None]
    return -jnp.sum(jnp.where(scored, log_prob, 0.0)), jnp.sum(scored)
