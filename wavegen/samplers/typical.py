"""Locally typical sampling (Meister et al. 2023, arXiv:2202.00666)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def keep_typical(logits: Float[Array, "M V"], mass: float) -> Float[Array, "M V"]:
    """Sets to -inf all values but those whose surprisal is near the mean of a draw.

    Values are ranked by ``|-ln p - H|``, H the entropy in nats; kept are the fewest that hold the mass.

    Args:
        logits: of a softmax.
        mass: probability to keep, in (0, 1).
    """
    log_p = jax.nn.log_softmax(logits)
    p = jnp.exp(log_p)
    # 0 ln 0 is 0.
    entropy = -jnp.sum(jnp.where(p > 0, p * log_p, 0), axis=-1, keepdims=True)
    surprise = jnp.abs(-log_p - entropy)
    order = jnp.argsort(surprise, axis=-1)
    sorted_p = jnp.take_along_axis(p, order, axis=-1)
    before = jnp.cumsum(sorted_p, axis=-1) - sorted_p
    last = jnp.sum(before < mass, axis=-1, keepdims=True) - 1
    limit = jnp.take_along_axis(surprise, jnp.take_along_axis(order, last, axis=-1), axis=-1)
    return jnp.where(surprise <= limit, logits, -jnp.inf)
