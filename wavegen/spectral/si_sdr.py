"""Scale-invariant signal-to-distortion ratio: Le Roux et al. 2019, "SDR - half-baked or well done?"."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from wavegen.types import AnyWaveform


def si_sdr(estimate: AnyWaveform, target: AnyWaveform) -> Float[Array, "B"]:
    """Returns the ratio of target to distortion in each estimate, at any volume, in dB.

    With means removed and ``s`` the part of the estimate along its target, it is ``10 log10(|s|^2 / |estimate -
    s|^2)``. 1e-8 is added to energies, so that it and its gradient are finite everywhere: a silent target gives -80
    dB, and a perfect estimate about 80 dB more than its energy.

    The channels of a stereo clip are one signal: both have the same volume, so that a silent channel does no harm.

    Args:
        estimate: the audio to be judged.
        target: the audio that it should equal.

    Example:
        >>> import jax.numpy as jnp
        >>> from wavegen.spectral import si_sdr
        >>> target = jnp.array([[1.0, -1.0, 1.0, -1.0]])
        >>> noise = jnp.array([[0.1, 0.1, -0.1, -0.1]])
        >>> si_sdr(3 * target + 3 * noise, target).round(1).tolist()
        [20.0]
    """
    estimate, target = (x.astype(jnp.float32) for x in (estimate, target))
    estimate, target = (x - jnp.mean(x, axis=1, keepdims=True) for x in (estimate, target))
    along = _sum(estimate * target) / (_sum(target**2) + 1e-8)
    signal = along * target
    ratio = _sum(signal**2) / (_sum((estimate - signal) ** 2) + 1e-8)
    return 10 * jnp.log10(ratio.reshape(-1) + 1e-8)


def _sum(x: AnyWaveform) -> Float[Array, "..."]:
    """Sums over time and channels, which become axes of length 1."""
    return jnp.sum(x, axis=tuple(range(1, x.ndim)), keepdims=True)
