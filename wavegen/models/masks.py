"""Which tokens a masked model is not told: by codebook, one after the other, and frame by frame within one.

Level by level (Borsos et al. 2023, SoundStorm; Ziv et al. 2024, MAGNeT): while the tokens of one codebook are found,
those of the codebooks before it are known, and none of those after it, but for what a prompt tells.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from wavegen.types import Tokens


def lowest(
    scores: Float[Array, "B N"], among: Bool[Array, "B N"], count: Int[Array, "B"]
) -> Bool[Array, "B N"]:
    """Picks exactly ``count`` frames of each row: those of the lowest scores, of equal ones the first.

    Args:
        scores: of the frames, finite.
        among: frames that may be picked.
        count: at most as many as there are.
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
    """Masks tokens of one level, and of the levels after it all that no prompt tells.

    Args:
        tokens: of clips.
        level: the codebook of each row that is being found.
        hidden: frames whose token of this level is masked.
        unknown: frames whose tokens of the later levels are masked.
        vocab_size: the mask.
    """
    ladder = jnp.arange(tokens.shape[2])[None, None]
    now = level[:, None, None]
    masked = ((ladder == now) & hidden[..., None]) | ((ladder > now) & unknown[..., None])
    return jnp.where(masked, vocab_size, tokens)


def level_of(values: Shaped[Array, "B N K"], level: Int[Array, "B"]) -> Shaped[Array, "B N"]:
    """The column of each row's level."""
    return jnp.take_along_axis(values, level[:, None, None], axis=2)[..., 0]


def keep_allowed(
    logits: Float[Array, "B N V"], allowed: Bool[Array, "places V"] | None
) -> Float[Array, "B N V"]:
    """Sets to -inf the values that the place of a frame in a period does not allow, see ``Choice``."""
    if allowed is None:
        return logits
    places = jnp.arange(logits.shape[1]) % len(allowed)
    return jnp.where(allowed[places][None], logits, -jnp.inf)
