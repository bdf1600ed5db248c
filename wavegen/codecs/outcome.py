"""What codecs' objectives share: how many codebooks a clip is coded with, and sums over clips."""

from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from wavegen.codecs.quantizers import count_codes, draw_levels
from wavegen.codecs.spectrogram.network import MelReconstruction, SpectrogramVAE
from wavegen.codecs.waveform.network import Reconstruction, WaveVQ
from wavegen.config.codec_models import (
    CodecLossConfig,
    MelLossConfig,
)
from wavegen.networks.base import Outcome, frame_mask


def dropped_levels(
    model: WaveVQ | SpectrogramVAE, examples: Mapping[str, Array], key: Array | None, share: float
) -> Int[Array, "B"] | None:
    """With how many codebooks each clip is coded; without a key with all."""
    return None if key is None else draw_levels(key, len(examples["waveform"]), model.codebooks, share)


def without_padding(
    result: Reconstruction | MelReconstruction, model: WaveVQ | SpectrogramVAE, length: Int[Array, "B"]
) -> dict[str, Array]:
    """The statistics of a codec, with codes counted only in frames that begin before the clip ends.

    A quantizer learns from all frames that it was given; how well it is used, recordings alone tell.
    """
    valid = frame_mask(jnp.zeros_like(length), length, result.codes.shape[1], model.hop_length)
    return result.statistics | {"counts": count_codes(result.codes, model.vocab_size, valid=valid)}


def weighted_outcome(
    parts: dict[str, Float[Array, "B"]],
    losses: dict[str, Float[Array, ""]],
    weights: CodecLossConfig | MelLossConfig,
    counted: Bool[Array, "B"],
    statistics: dict[str, Array],
) -> Outcome:
    """The parts of each clip and the quantizer's losses, summed over the clips that count."""
    parts = parts | {name: jnp.broadcast_to(loss, counted.shape) for name, loss in losses.items()}
    figures = {name: jnp.sum(jnp.where(counted, loss, 0.0)) for name, loss in parts.items()}
    total = sum(getattr(weights, name) * figure for name, figure in figures.items())
    return Outcome(jnp.asarray(total), jnp.sum(counted), figures, statistics)
