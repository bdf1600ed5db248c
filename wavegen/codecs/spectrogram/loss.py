"""What a spectrogram codec is trained to lower: how far its log-mel rows are from those of the recording."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

QUIET = 1e-3
"""Amplitude, -60 dB: errors in clips that are quieter on the whole count no more than in one of this level."""

EXCESS = 10.0
"""dB above the loudest value of a clip, where amplitudes are cut off."""


def mel_losses(
    estimate: Float[Array, "B F D"], target: Float[Array, "B F D"], counted: Bool[Array, "B F"]
) -> dict[str, Float[Array, "B"]]:
    """How far each clip's rows are from what they should be, by name.

    With amplitudes S of the target and E of the estimate, over the rows that count:

        "mel" = mean |20 lg S - 20 lg E|        "convergence" = |E - S|_F / |S|_F

    Logarithms alone let peaks sink into the mean of all that is plausible.

    Args:
        estimate: in dB.
        target: in dB.
        counted: which rows belong to the clips.
    """
    weight = counted[..., None].astype(jnp.float32)
    rows = jnp.maximum(jnp.sum(weight, axis=(1, 2)), 1) * target.shape[2]
    distance = jnp.sum(weight * jnp.abs(estimate - target), axis=(1, 2)) / rows
    # An early estimate far above all that is audible would be exponentially wrong; "mel" is enough to bring it down.
    loudest = jnp.max(target, axis=(1, 2), keepdims=True) + EXCESS
    ours, theirs = (weight * 10 ** (x / 20) for x in (jnp.minimum(estimate, loudest), target))
    # Kept from 0, where the root's gradient is not finite.
    error = jnp.sqrt(jnp.maximum(jnp.sum((ours - theirs) ** 2, axis=(1, 2)), 1e-12))
    level = jnp.sqrt(jnp.maximum(jnp.sum(theirs**2, axis=(1, 2)), QUIET**2 * rows))
    return {"mel": distance, "convergence": error / level}
