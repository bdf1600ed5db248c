"""How well codebooks are used: figures from histograms of codes.

Figures of one batch understate it, because a batch of n frames can use no more than n entries. The counts of a whole
epoch should be added up first.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from wavegen.types import Tokens


class CodeUsage(NamedTuple):
    """Figures of a histogram; a level without any codes has entropy 0 and perplexity 1.

    Attributes:
        entropy: entropy of each level's codes in bits; at most log2 V.
        perplexity: 2^entropy, the number of equally frequent entries with the same entropy; at most V.
        used: share of each level's entries that occur at all, 0 to 1.
        efficiency: entropy of all codebooks over the bits that their codes take, 0 to 1.
    """

    entropy: Float[Array, "K"]
    perplexity: Float[Array, "K"]
    used: Float[Array, "K"]
    efficiency: Float[Array, ""]


def count_codes(
    codes: Tokens,
    codebook_size: int,
    used: Bool[Array, "K B"] | None = None,
    valid: Bool[Array, "B N"] | None = None,
) -> Int[Array, "K V"]:
    """Counts how often each level used each of its entries, int32.

    Args:
        codes: codes in ``[0, codebook_size)``.
        codebook_size: entries per codebook, V.
        used: the rows of each level that count; None is all.
        valid: the frames that count, without padding; None is all.

    Example:
        >>> import jax.numpy as jnp
        >>> from wavegen.codecs.quantizers import count_codes
        >>> count_codes(jnp.array([[[0], [2], [2]]]), codebook_size=4).tolist()
        [[1, 0, 2, 0]]
    """
    batch, _, levels = codes.shape
    weight = jnp.ones((levels, batch), jnp.int32) if used is None else used.astype(jnp.int32)
    weights = jnp.broadcast_to(weight.T[:, None], codes.shape)
    if valid is not None:
        weights = jnp.where(valid[..., None], weights, 0)
    level = jnp.broadcast_to(jnp.arange(levels)[None, None], codes.shape)
    counts = jnp.zeros((levels, codebook_size), jnp.int32)
    return counts.at[level, codes].add(weights)


def code_usage(counts: Int[Array, "K V"]) -> CodeUsage:
    """Returns the figures of a histogram.

    Args:
        counts: from ``count_codes`` or the "counts" of ``Quantized.statistics``, or a sum of several.

    Example:
        >>> import jax.numpy as jnp
        >>> from wavegen.codecs.quantizers import code_usage
        >>> usage = code_usage(jnp.array([[5, 5, 0, 0]]))
        >>> usage.entropy.tolist(), usage.perplexity.tolist(), usage.used.tolist(), float(usage.efficiency)
        ([1.0], [2.0], [0.5], 0.5)
    """
    levels, size = counts.shape
    share = counts / jnp.maximum(counts.sum(axis=1, keepdims=True), 1)
    # 0 log 0 is 0.
    entropy = -jnp.sum(share * jnp.log2(jnp.where(counts > 0, share, 1)), axis=1)
    bits = levels * jnp.log2(jnp.float32(max(size, 2)))
    return CodeUsage(entropy, 2**entropy, jnp.mean(counts > 0, axis=1), entropy.sum() / bits)
