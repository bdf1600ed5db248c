"""What is hidden from a masked model in training: random masks, pure functions of a key.

They are shaped as the masks that sampling meets: one codebook after the other, with a share of its frames masked that
falls from all to none (Chang et al. 2022, MaskGIT: ``cos(pi r / 2)``, r uniform), with and without a prompt. Masking
short spans keeps a model from copying its neighbours (Ziv et al. 2024, MAGNeT: spans of 60 ms).
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from wavegen.config.models import MaskingConfig
from wavegen.models.base import MaskedModel
from wavegen.models.likelihood import accuracy
from wavegen.models.masks import hide_levels, level_of, lowest
from wavegen.networks.base import Outcome
from wavegen.types import Labels, Tokens

SPAN = 3
"""Frames that are masked together where spans are."""
LONGEST_PERIOD = 16
"""Frames between those that a periodic prompt keeps, at most."""


class Masked(NamedTuple):
    """A training example.

    Attributes:
        inputs: the tokens, some of them masked.
        scored: which of them the model is to predict.
        level: the only codebook of each row that is scored; None where any may be.
    """

    inputs: Tokens
    scored: Bool[Array, "B N K"]
    level: Int[Array, "B"] | None


def mask_levels(
    key: Array,
    tokens: Tokens,
    valid: Bool[Array, "B N"],
    vocab_size: int,
    *,
    spans: float = 0.5,
    prompts: float = 0.25,
) -> Masked:
    """Masks some tokens of one random codebook, and all of those after it, but for a prompt.

    Args:
        key: of this step.
        tokens: of clips.
        valid: frames that belong to the clips; no others are masked.
        vocab_size: the mask.
        spans: share of rows in which frames are masked ``SPAN`` at a time.
        prompts: share of rows in which all codebooks of some frames are known, see ``draw_prompts``.
    """
    batch, frames, codebooks = tokens.shape
    row_key, frame_key, prompt_key = jax.random.split(key, 3)
    # One draw for all that is drawn once a row: each draw takes XLA half a second to compile.
    which_level, progress, spanned, phase, prompted = jax.random.uniform(row_key, (5, batch), jnp.float32)
    level = _whole(which_level, codebooks)
    unknown = valid & ~((prompted < prompts)[:, None] & draw_prompts(prompt_key, valid))
    ratio = jnp.cos(jnp.pi / 2 * progress)
    count = jnp.ceil(ratio * jnp.sum(unknown, axis=1)).astype(jnp.int32)
    width = jnp.where(spanned < spans, SPAN, 1)
    # One number for each span; the first span of a row may be shorter.
    span = (jnp.arange(frames)[None] + _whole(phase, width)[:, None]) // width[:, None]
    noise = jnp.take_along_axis(jax.random.uniform(frame_key, (batch, frames), jnp.float32), span, axis=1)
    hidden = lowest(noise, unknown, count)
    ladder = jnp.arange(codebooks)[None, None]
    return Masked(
        hide_levels(tokens, level, hidden, unknown, vocab_size),
        hidden[..., None] & (ladder == level[:, None, None]),
        level,
    )


def mask_classic(
    key: Array, tokens: Tokens, valid: Bool[Array, "B N"], vocab_size: int, *, share: float = 0.15
) -> Masked:
    """Picks tokens of all codebooks alike, and masks most of them (Devlin et al. 2019, BERT, section 3.1).

    Of those picked 80 % are masked, 10 % replaced by a random token, and 10 % left as they are.

    Args:
        key: of this step.
        tokens: of clips.
        valid: frames that belong to the clips; no others are picked.
        vocab_size: the mask.
        share: of the tokens that are picked.
    """
    pick_key, action_key, token_key = jax.random.split(key, 3)
    picked = jax.random.bernoulli(pick_key, share, tokens.shape) & valid[..., None]
    action = jax.random.uniform(action_key, tokens.shape, jnp.float32)
    others = jax.random.randint(token_key, tokens.shape, 0, vocab_size, tokens.dtype)
    replaced = jnp.where(action < 0.8, vocab_size, jnp.where(action < 0.9, others, tokens))
    return Masked(jnp.where(picked, replaced, tokens), picked, None)


def draw_prompts(key: Array, valid: Bool[Array, "B N"]) -> Bool[Array, "B N"]:
    """Draws frames that are known from the start; in each clip at least one is not.

    A third each: a beginning of any length; every p-th frame; all but holes, whose lengths reach from one frame to
    half of the clip.

    Args:
        key: of this step.
        valid: frames that belong to the clips.
    """
    batch, frames = valid.shape
    row_key, block_key = jax.random.split(key)
    kind, ending, spacing, phase, size, share = jax.random.uniform(row_key, (6, batch, 1), jnp.float32)
    position = jnp.cumsum(valid, axis=1) - 1
    length = jnp.sum(valid, axis=1)[:, None]
    prefix = position < _whole(ending, length)
    period = 2 + _whole(spacing, LONGEST_PERIOD - 1)
    periodic = (position + _whole(phase, period)) % period == 0
    block = 1 + _whole(size, jnp.maximum(length // 2, 1))
    noise = jax.random.uniform(block_key, (batch, frames), jnp.float32)
    holes = jnp.take_along_axis(noise, jnp.maximum(position, 0) // block, axis=1) < share
    kind = _whole(kind, 3)
    known = valid & jnp.where(kind == 0, prefix, jnp.where(kind == 1, periodic, ~holes))
    complete = jnp.all(known | ~valid, axis=1, keepdims=True)
    return known & ~complete


def drop_labels(key: Array, labels: Labels, share: float) -> Labels:
    """Makes all labels of a share of the rows unknown, for classifier-free guidance (Ho and Salimans 2022)."""
    dropped = jax.random.bernoulli(key, share, (labels.shape[0], 1))
    return jnp.where(dropped, -1, labels)


def _whole(uniform: Float[Array, "*axes"], count: Int[Array, "*axes"] | int) -> Int[Array, "*axes"]:
    """A number in [0, 1) as an integer in [0, count)."""
    return jnp.floor(uniform * count).astype(jnp.int32)


def masked_token(
    model: MaskedModel,
    examples: Mapping[str, Array],
    key: Array | None,
    *,
    masking: Callable[..., Masked] = mask_levels,
    label_smoothing: float = 0.1,
    label_dropout: float = 0.1,
) -> Outcome:
    """The negative log-likelihood of masked tokens given the others, in nats, over the masked tokens.

    Args:
        model: predicts the masked tokens.
        examples: "targets", "mask" (frames that belong to the clips) and, for a model with labels, "labels".
        key: draws the masks and turns on dropout, label smoothing and label dropout. None is for evaluation: masks
            depend on the targets alone, nothing is added, and "accuracy" is a figure as for ``next_token``.
        masking: draws the masks; ``mask_levels`` or ``mask_classic``.
        label_smoothing: share of each target that is spread evenly over the vocabulary (Szegedy et al. 2016).
        label_dropout: share of rows whose labels are unknown.
    """
    targets, valid, labels = examples["targets"], examples["mask"], examples.get("labels")
    # From a constant key XLA would draw the masks while it compiles, which takes it longer.
    fixed = jax.random.fold_in(jax.random.key(0), jnp.sum(targets))
    mask_key, label_key, dropout_key = jax.random.split(fixed if key is None else key, 3)
    if key is not None and labels is not None:
        labels = drop_labels(label_key, labels, label_dropout)
    conditions = {"dropout_key": None if key is None else dropout_key, "valid": valid}
    inputs, scored, level = masking(mask_key, targets, valid, model.vocab_size)
    if level is None:
        logits = model(inputs, labels, **conditions)
    else:
        logits = model.level_logits(inputs, level, labels, **conditions)
        targets, scored = level_of(targets, level), level_of(scored, level)
    log_p = jax.nn.log_softmax(logits)
    nats = -jnp.take_along_axis(log_p, targets[..., None], axis=-1)[..., 0]
    unsmoothed = None if key is None else jnp.sum(jnp.where(scored, nats, 0.0))
    if key is not None:
        nats = (1 - label_smoothing) * nats - label_smoothing * jnp.mean(log_p, axis=-1)
    figures = accuracy(jnp.argmax(logits, axis=-1), targets, scored) if key is None else {}
    return Outcome(
        jnp.sum(jnp.where(scored, nats, 0.0)), jnp.sum(scored, dtype=jnp.int32), figures, {}, unsmoothed
    )


MASKINGS: Mapping[str, Callable[[MaskingConfig], Callable[..., Masked]]] = {
    "levels": lambda config: partial(mask_levels, spans=config.spans, prompts=config.prompts),
    "classic": lambda config: mask_classic,
}
"""What draws the masks of each ``masking.scheme``."""
