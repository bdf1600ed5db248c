"""What the objectives of all learned codecs share: sums over clips, and codes counted without padding."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from wavegen.codecs.quantizers import count_codes
from wavegen.config.section import Section
from wavegen.networks.base import Outcome, frame_mask
from wavegen.types import Tokens


def weighted_outcome(
    parts: dict[str, Float[Array, "B"]],
    losses: dict[str, Float[Array, ""]],
    weights: Section,
    counted: Bool[Array, "B"],
    statistics: dict[str, Array],
) -> Outcome:
    """The parts of each clip and the quantizer's losses, weighted and summed over the clips that count.

    Args:
        parts: of the loss, by name.
        losses: of the quantizer, one for the whole batch, by name.
        weights: a section with a field for each of these names.
        counted: which clips count.
        statistics: see ``Outcome``.
    """
    parts = parts | {name: jnp.broadcast_to(loss, counted.shape) for name, loss in losses.items()}
    figures = {name: jnp.sum(jnp.where(counted, loss, 0.0)) for name, loss in parts.items()}
    total = sum(getattr(weights, name) * figure for name, figure in figures.items())
    return Outcome(jnp.asarray(total), jnp.sum(counted), figures, statistics)


def counted_codes(
    codes: Tokens, length: Int[Array, "B"], hop_length: int, codebook_size: int
) -> dict[str, Int[Array, "K V"]]:
    """How often each code was used in frames that begin before the clip ends, as a statistic.

    A quantizer learns from all frames that it was given; how well it is used shows in recordings alone.
    """
    valid = frame_mask(jnp.zeros_like(length), length, codes.shape[1], hop_length)
    return {"counts": count_codes(codes, codebook_size, valid=valid)}
