"""The delay pattern: an order of several codebooks in which each token can be predicted from those before it.

Copet et al. 2023 (MusicGen, arXiv:2306.05284, section 2.2). Codebook k is delayed by k steps: row m contains the
tokens (m, 0), (m - 1, 1), ... (frame, codebook), so that a token is predicted from all tokens of rows above its own.
The chain rule over rows treats the tokens of a row as independent given those above; it is exact for one codebook.
"""

import jax.numpy as jnp
from jaxtyping import Array, Int, Shaped

from wavegen.types import Tokens


def delay(tokens: Tokens, fill: int) -> Int[Array, "B M K"]:
    """Arranges frames in delayed rows: ``rows[:, m, k] = tokens[:, m - k, k]``.

    Args:
        tokens: N frames.
        fill: value of the places where there is no frame ``m - k``.

    Returns:
        ``M = N + K - 1`` rows; for one codebook the tokens themselves.

    Example:
        >>> import jax.numpy as jnp
        >>> from wavegen.models.layers.delay import delay, undelay
        >>> tokens = jnp.array([[[1, 4], [2, 5], [3, 6]]])
        >>> rows = delay(tokens, fill=0)
        >>> rows.tolist()
        [[[1, 0], [2, 4], [3, 5], [0, 6]]]
        >>> undelay(rows).tolist() == tokens.tolist()
        True
    """
    last = tokens.shape[2] - 1
    columns = [
        jnp.pad(tokens[:, :, k], ((0, 0), (k, last - k)), constant_values=fill) for k in range(last + 1)
    ]
    return jnp.stack(columns, axis=2)


def undelay(rows: Shaped[Array, "B M K *axes"]) -> Shaped[Array, "B N K *axes"]:
    """Inverts ``delay``, for anything that belongs to the tokens; ``N = M - K + 1``."""
    codebooks = rows.shape[2]
    frames = rows.shape[1] - codebooks + 1
    return jnp.stack([rows[:, k : k + frames, k] for k in range(codebooks)], axis=2)
