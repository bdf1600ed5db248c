"""A vocoder that writes one spectrum for each mel frame, which an inverse Fourier transform turns into audio.

Sources: Siuzdak 2023, "Vocos: Closing the gap between time-domain and Fourier-based neural vocoders for high-quality
audio synthesis", arXiv:2306.00814; its blocks are those of Liu et al. 2022, "A ConvNet for the 2020s".
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from wavegen.codecs.spectrogram.frames import MelFrames
from wavegen.errors import WavegenError
from wavegen.networks.initial import layer_options, normal
from wavegen.spectral.griffin_lim import istft
from wavegen.types import Waveform

_TAPS = 7
_LOUDEST = 100.0
"""Of one bin: early estimates far above all that is audible would be exponentially wrong."""


class Vocoder(nnx.Module):
    """ConvNeXt blocks over standardised mel rows, and an inverse Fourier transform of the spectra that they write.

    A frame depends on ``reach`` rows to either side. Unlike Griffin-Lim it needs no iterations, and it learns the
    phases that the rows leave open.

    Args:
        frames: definition of the rows; the spectra have its ``n_fft`` and ``hop_length``.
        width: channels.
        depth: number of blocks.
        random: draws the initial weights.

    Raises:
        WavegenError: if a size is under 1.
    """

    def __init__(self, frames: MelFrames, *, width: int, depth: int, random: np.random.Generator) -> None:
        if min(width, depth) < 1:
            raise WavegenError(f"expected width and depth of at least 1, got {width} and {depth}")
        self.n_fft, self.hop_length = frames.n_fft, frames.hop_length
        options = layer_options(random)
        self.first = nnx.Conv(frames.bands, width, _TAPS, **options)
        self.blocks = nnx.List([_Block(width, random) for _ in range(depth)])
        self.last = nnx.Linear(width, frames.n_fft + 2, **options)

    @property
    def reach(self) -> int:
        """Rows to either side of its own that a frame depends on."""
        return _TAPS // 2 * (1 + len(self.blocks))

    @property
    def flops_per_row(self) -> int:
        """Floating-point operations for one row; a multiply-add is two, the Fourier transform is left out."""
        bands, width = self.first.kernel.shape[1:]
        return 2 * (
            _TAPS * bands * width + len(self.blocks) * width * (_TAPS + 6 * width) + self.last.kernel.size
        )

    def __call__(self, rows: Float[Array, "B N D"]) -> Waveform:
        """Returns the audio of rows, ``[B, N * hop_length]`` float32, which may leave [-1, 1]."""
        x = self.first(rows.astype(self.first.kernel.dtype))
        for block in self.blocks:
            x = block(x)
        # The last row is repeated for the frame that is centred on the end.
        x = _normalised(jnp.concatenate([x, x[:, -1:]], axis=1))
        level, phase = jnp.split(self.last(x).astype(jnp.float32), 2, axis=2)
        magnitude = jnp.exp(jnp.minimum(level, math.log(_LOUDEST)))
        spectrum = jax.lax.complex(magnitude * jnp.cos(phase), magnitude * jnp.sin(phase))
        return istft(spectrum, n_fft=self.n_fft, hop_length=self.hop_length)


class _Block(nnx.Module):
    """``x + V gelu(W norm(d * x))``, where d convolves each channel with taps of its own."""

    def __init__(self, width: int, random: np.random.Generator) -> None:
        options = layer_options(random)
        self.taps = normal(random, _TAPS, width, scale=_TAPS**-0.5)
        self.widen = nnx.Linear(width, 3 * width, **options)
        # At 0 the block begins as the identity, and depth changes no scale.
        self.narrow = nnx.Linear(3 * width, width, **options | {"kernel_init": nnx.initializers.zeros})

    def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        length, side = x.shape[1], _TAPS // 2
        padded = jnp.pad(x, ((0, 0), (side, side), (0, 0)))
        # XLA's grouped convolution is many times slower on a CPU than these products.
        mixed = sum(padded[:, tap : tap + length] * self.taps[tap][None, None] for tap in range(_TAPS))
        return x + self.narrow(jax.nn.gelu(self.widen(_normalised(jnp.asarray(mixed)))))


def _normalised(x: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
    """Each row with mean 0 and deviation 1; the layer that follows has gains and biases enough."""
    wide = x.astype(jnp.float32)
    centred = wide - wide.mean(axis=2, keepdims=True)
    scale = jax.lax.rsqrt(jnp.mean(centred**2, axis=2, keepdims=True) + 1e-6)
    return (centred * scale).astype(x.dtype)
