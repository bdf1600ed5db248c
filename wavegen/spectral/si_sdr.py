"""Scale-invariant signal-to-distortion ratio: Le Roux et al. 2019, "SDR - half-baked or well done?"."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from wavegen.types import Waveform


def si_sdr(estimate: Waveform, target: Waveform) -> Float[Array, "B"]:
    """How much of each estimate is its target, at any volume, in dB.

    With means removed and `s` the part of the estimate along its target: `10 log10(|s|^2 / |estimate - s|^2)`. Energies
    are kept from 0 by 1e-8, so that it and its gradient are finite everywhere: a silent target gives -80 dB, a perfect
    estimate about 80 dB more than its energy.

    Args:
        estimate: what was made.
        target: what it should be.
    """
    estimate, target = (x.astype(jnp.float32) for x in (estimate, target))
    estimate, target = (x - jnp.mean(x, axis=1, keepdims=True) for x in (estimate, target))
    along = jnp.sum(estimate * target, axis=1, keepdims=True) / (_energy(target)[:, None] + 1e-8)
    signal = along * target
    return 10 * jnp.log10(_energy(signal) / (_energy(estimate - signal) + 1e-8) + 1e-8)


def _energy(x: Waveform) -> Float[Array, "B"]:
    return jnp.sum(x**2, axis=1)
