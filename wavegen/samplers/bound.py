"""How likely clips are under a masked model: an upper bound on their nats, over random orders of the frames.

A masked model defines one distribution for each order in which tokens may be found. What it gives on the mean over
orders bounds what it gives under the mixture of all (Uria et al. 2014, "A Deep and Tractable Density Estimator"):

    -ln p(x) <= E_order sum_i -ln p(x_order(i) | x_order(< i))

With m frames of n still masked, every one of them is as likely to be the next, so one pass measures a step of the order
by all masked tokens (Hoogeboom et al. 2022, "Autoregressive Diffusion Models"). For each codebook, given
those before it and none after, as in training:

    nats per token <= E_m E_mask mean over the masked of -ln p(token),    m uniform in 1..n

Samples by confidence (``wavegen.samplers.masked``) come from another distribution; those of random order, one token a
pass, from this one.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from wavegen.models.base import MaskedModel
from wavegen.models.masks import hide_levels, keep_allowed, level_of, lowest
from wavegen.types import Labels, Tokens


def order_agnostic_bound(
    model: MaskedModel,
    tokens: Tokens,
    valid: Bool[Array, "B N"],
    labels: Labels | None,
    key: Array,
    orders: int,
    known: Bool[Array, "B N"] | None = None,
    allowed: Bool[Array, "places V"] | None = None,
) -> Float[Array, "B K"]:
    """Estimates the bound, without bias.

    Args:
        model: any masked model.
        tokens: whole clips, nothing masked.
        valid: frames that belong to the clips.
        labels: for a model with labels.
        key: the same key gives the same figures.
        orders: masks drawn for each clip and codebook, each a pass of the model; their sizes are spread evenly
            over 1 to n, so that n of them measure every step once.
        known: frames that are given beforehand, as a melody is to be harmonised; the bound is of the others. None is
            none.
        allowed: values that a token may take at each place in a period, see ``Choice``; None is all.

    Returns:
        Nats per token of each clip and codebook: their mean over K is that of the clip, and times the valid frames
        their sum is the bound on the whole clip. Frames that are known count neither way.
    """
    batch, frames, codebooks = tokens.shape
    unknown = valid if known is None else valid & ~known
    length = jnp.sum(unknown, axis=1)
    start = jax.random.uniform(jax.random.fold_in(key, 0), (batch, codebooks))

    def measure(index: Int[Array, ""]) -> Float[Array, "B"]:
        order, codebook = index // codebooks, index % codebooks
        step = jnp.floor((order + start[:, codebook]) / orders * length).astype(jnp.int32)
        # The quotient may round up to 1.
        count = jnp.minimum(step + 1, length)
        scores = jax.random.uniform(jax.random.fold_in(key, index + 1), (batch, frames))
        masked = lowest(scores, unknown, count)
        level = jnp.full(batch, codebook)
        inputs = hide_levels(tokens, level, masked, unknown, model.vocab_size)
        logits = model.level_logits(inputs, level, labels, valid=valid)
        log_p = jax.nn.log_softmax(keep_allowed(logits, allowed))
        nats = -jnp.take_along_axis(log_p, level_of(tokens, level)[..., None], axis=2)[..., 0]
        return jnp.sum(jnp.where(masked, nats, 0), axis=1) / jnp.maximum(count, 1)

    measured = lax.map(measure, jnp.arange(orders * codebooks))
    return jnp.mean(measured.reshape(orders, codebooks, batch), axis=0).T
