"""What a masked model is given: tokens, with ``vocab_size`` where it is to fill in.

Each prompt is a function from tokens to tokens. As the mask is the largest value, two prompts of the same clips are
combined by ``jnp.maximum``, which masks what either masks, or ``jnp.minimum``, which keeps what either keeps.
Periodic and compression prompts: Garcia et al. 2023, VampNet, arXiv:2307.04686.
"""

from collections.abc import Sequence
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from wavegen.errors import WavegenError
from wavegen.models.masks import lowest
from wavegen.types import Tokens


def unconditional(tokens: Tokens, vocab_size: int) -> Tokens:
    """Masks everything; the tokens give the shape alone."""
    return jnp.full_like(tokens, vocab_size)


def continuation(tokens: Tokens, frames: int, vocab_size: int) -> Int[Array, "B longer K"]:
    """Adds masked frames after the clips.

    Args:
        tokens: what the clips begin with.
        frames: how many are to follow.
        vocab_size: the mask.

    Raises:
        WavegenError: no frame is to follow.
    """
    if frames < 1:
        raise WavegenError(f"expected at least 1 frame to follow, got {frames}; ask for a longer clip")
    return jnp.pad(tokens, ((0, 0), (0, frames), (0, 0)), constant_values=vocab_size)


def inpaint(tokens: Tokens, spans: Sequence[tuple[int, int]], vocab_size: int) -> Tokens:
    """Masks spans of frames.

    Args:
        tokens: of the clips.
        spans: the first frame of each, and the one after its last.
        vocab_size: the mask.

    Raises:
        WavegenError: a span is empty, ends outside the clip, or meets another.
    """
    frames = tokens.shape[1]
    ordered = sorted(spans)
    for first, last in ordered:
        if not 0 <= first < last <= frames:
            raise WavegenError(
                f"expected spans inside the clip's {frames} frames, got {first}:{last}; give first < last"
            )
    for (_, last), (first, _) in pairwise(ordered):
        if first < last:
            raise WavegenError(f"expected spans apart, got one to {last} and one from {first}; join them")
    masked = np.zeros((1, frames, 1), bool)
    for first, last in ordered:
        masked[:, first:last] = True
    return jnp.where(masked, vocab_size, tokens)


def periodic(tokens: Tokens, period: int, vocab_size: int) -> Tokens:
    """Keeps every ``period``-th frame, from the first on, and masks the others.

    Raises:
        WavegenError: the period is under 1.
    """
    if period < 1:
        raise WavegenError(f"expected a period of at least 1 frame, got {period}; 1 keeps every frame")
    kept = np.arange(tokens.shape[1])[None, :, None] % period == 0
    return jnp.where(kept, tokens, vocab_size)


def compression(tokens: Tokens, codebooks: int, vocab_size: int) -> Tokens:
    """Keeps the first codebooks, which hold what matters most, and masks the others.

    Raises:
        WavegenError: more are to be kept than there are, or fewer than none.
    """
    there = tokens.shape[2]
    if not 0 <= codebooks <= there:
        raise WavegenError(f"expected 0 to {there} codebooks to keep, got {codebooks}; the clip has {there}")
    return jnp.where(np.arange(there)[None, None] < codebooks, tokens, vocab_size)


def variation(tokens: Tokens, strength: float, keys: Key[Array, "B"], vocab_size: int) -> Tokens:
    """Masks a share of each clip's frames, drawn at random, in all codebooks.

    Args:
        tokens: of the clips.
        strength: the share: 0 keeps the clip, 1 keeps nothing of it.
        keys: one for each clip.
        vocab_size: the mask.

    Raises:
        WavegenError: the strength is outside [0, 1].
    """
    if not 0 <= strength <= 1:
        raise WavegenError(f"expected a strength in [0, 1], got {strength}; 0.3 is a slight variation")
    batch, frames, _ = tokens.shape
    noise = jax.vmap(lambda key: jax.random.uniform(key, (frames,), jnp.float32))(keys)
    count = jnp.full(batch, round(strength * frames))
    masked = lowest(noise, jnp.ones((batch, frames), bool), count)
    return jnp.where(masked[..., None], vocab_size, tokens)
