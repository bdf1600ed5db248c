"""Which tokens are masked for a masked model: by codebook, one after the other, and frame by frame within one.

Level by level (Borsos et al. 2023, SoundStorm; Ziv et al. 2024, MAGNeT): while the tokens of one codebook are
generated, those of the codebooks before it are known, and those of the codebooks after it are masked, except where a
prompt gives them.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from wavegen.types import Tokens


def lowest(
    scores: Float[Array, "B N"], among: Bool[Array, "B N"], count: Int[Array, "B"]
) -> Bool[Array, "B N"]:
    """Selects exactly ``count`` frames of each row: those with the lowest scores, the first among equal ones.

    Args:
        scores: finite scores of the frames.
        among: frames that may be selected.
        count: at most as many as there are in ``among``.

    Example:
        >>> import jax.numpy as jnp
        >>> from wavegen.models.masks import lowest
        >>> lowest(jnp.array([[3.0, 1.0, 2.0]]), jnp.ones((1, 3), bool), jnp.array([2])).tolist()
        [[False, True, True]]
    """
    order = jnp.argsort(jnp.where(among, scores, jnp.inf), axis=1)
    return jnp.argsort(order, axis=1) < count[:, None]


def hide_levels(
    tokens: Tokens,
    level: Int[Array, "B"],
    hidden: Bool[Array, "B N"],
    unknown: Bool[Array, "B N"],
    vocab_size: int,
) -> Tokens:
    """Masks tokens of one level, and all tokens of later levels that no prompt gives.

    Args:
        tokens: tokens of clips.
        level: for each row the codebook that is being generated.
        hidden: frames whose token of this level is masked.
        unknown: frames whose tokens of the later levels are masked.
        vocab_size: the mask.
    """
    ladder = jnp.arange(tokens.shape[2])[None, None]
    now = level[:, None, None]
    masked = ((ladder == now) & hidden[..., None]) | ((ladder > now) & unknown[..., None])
    return jnp.where(masked, vocab_size, tokens)


def level_of(values: Shaped[Array, "B N K"], level: Int[Array, "B"]) -> Shaped[Array, "B N"]:
    """Selects the column of each row's level."""
    return jnp.take_along_axis(values, level[:, None, None], axis=2)[..., 0]


def keep_allowed(
    logits: Float[Array, "B N V"], allowed: Bool[Array, "places V"] | None
) -> Float[Array, "B N V"]:
    """Sets the logits of values that the place of a frame in a period does not allow to -inf; see ``Choice``."""
    if allowed is None:
        return logits
    places = jnp.arange(logits.shape[1]) % len(allowed)
    return jnp.where(allowed[places][None], logits, -jnp.inf)
