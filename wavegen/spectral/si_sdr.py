"""Scale-invariant signal-to-distortion ratio: Le Roux et al. 2019, "SDR - half-baked or well done?"."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from wavegen.types import AnyWaveform


def si_sdr(estimate: AnyWaveform, target: AnyWaveform) -> Float[Array, "B"]:
    """How much of each estimate is its target, at any volume, in dB.

    With means removed and `s` the part of the estimate along its target: `10 log10(|s|^2 / |estimate - s|^2)`. Energies
    are kept from 0 by 1e-8, so that it and its gradient are finite everywhere: a silent target gives -80 dB, a perfect
    estimate about 80 dB more than its energy.

    The channels of a stereo clip are one signal: both have the same volume, and a silent one spoils nothing.

    Args:
        estimate: what was made.
        target: what it should be.
    """
    estimate, target = (x.astype(jnp.float32) for x in (estimate, target))
    estimate, target = (x - jnp.mean(x, axis=1, keepdims=True) for x in (estimate, target))
    along = _sum(estimate * target) / (_sum(target**2) + 1e-8)
    signal = along * target
    ratio = _sum(signal**2) / (_sum((estimate - signal) ** 2) + 1e-8)
    return 10 * jnp.log10(ratio.reshape(-1) + 1e-8)


def _sum(x: AnyWaveform) -> Float[Array, "..."]:
    """Over time and channels, with axes of 1 in their place."""
    return jnp.sum(x, axis=tuple(range(1, x.ndim)), keepdims=True)
