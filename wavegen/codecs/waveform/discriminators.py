"""Networks that distinguish recordings from decoded audio, for the second phase of a codec's training.

There are two kinds, each at several resolutions: one reads every p-th sample, for periodicity; the other reads bands
of the complex spectrum, for phase and for high frequencies. Sources: Kong et al. 2020, "HiFi-GAN", section 2.3; Kumar
et al. 2023, "High-Fidelity Audio Compression with Improved RVQGAN" (DAC), section 3.3.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from wavegen.errors import WavegenError
from wavegen.networks.initial import normal, zeros
from wavegen.spectral import stft
from wavegen.types import Waveform

PERIODS = (2, 3, 5, 7, 11)
WINDOWS = (2048, 1024, 512)
BANDS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
"""Edges of the bands, as shares of half the sample rate."""

Judgement = list[Float[Array, "..."]]
"""The outputs of every layer of one discriminator; the last are scores, high for recordings."""


class Discriminators(nnx.Module):
    """All discriminators of DAC.

    They read audio without its mean and scaled to a peak of 0.8. The channels of a stereo clip are judged as clips of
    their own.

    Args:
        periods: periods of the first kind, in samples.
        windows: windows of the second kind, in samples; low sample rates need shorter ones.
        bands: edges of the bands into which the second kind cuts spectra, rising within 0 to 1.
        period_channels: channels of the hidden layers of the first kind.
        band_channels: channels of the hidden layers of the second kind.
        random: generator of the initial weights.

    Raises:
        WavegenError: if the edges of the bands do not rise within 0 to 1.
    """

    def __init__(
        self,
        *,
        periods: Sequence[int] = PERIODS,
        windows: Sequence[int] = WINDOWS,
        bands: Sequence[float] = BANDS,
        period_channels: Sequence[int] = (32, 128, 512, 1024, 1024),
        band_channels: int = 32,
        random: np.random.Generator,
    ) -> None:
        if list(bands) != sorted(set(bands)) or len(bands) < 2 or bands[0] < 0 or bands[-1] > 1:
            raise WavegenError(
                f"expected edges of bands that rise within 0 to 1, got {list(bands)}; see BANDS"
            )
        self.periods = nnx.List([PeriodDiscriminator(p, period_channels, random=random) for p in periods])
        self.spectra = nnx.List([BandDiscriminator(w, bands, band_channels, random=random) for w in windows])

    def __call__(self, audio: Float[Array, "B T *C"]) -> list[Judgement]:
        """Judges clips.

        Args:
            audio: waveforms in [-1, 1].

        Returns:
            The judgement of each discriminator.
        """
        rows = jnp.moveaxis(audio, 1, -1).reshape(-1, audio.shape[1])
        rows = rows - jnp.mean(rows, axis=1, keepdims=True)
        rows = 0.8 * rows / (jnp.max(jnp.abs(rows), axis=1, keepdims=True) + 1e-9)
        return [judge(rows) for judge in (*self.periods, *self.spectra)]


class PeriodDiscriminator(nnx.Module):
    """Convolutions over every p-th sample; the p phases share weights and do not interact.

    Args:
        period: p, in samples.
        channels: channels of the hidden layers; all but the last have a stride of three.
        random: generator of the initial weights.
    """

    def __init__(self, period: int, channels: Sequence[int], *, random: np.random.Generator) -> None:
        self.period = period
        strides = [3] * (len(channels) - 1) + [1]
        inputs = (1, *channels)
        self.hidden = nnx.List(
            [
                WeightNormConvolution((5,), inputs[i], inputs[i + 1], (stride,), random=random)
                for i, stride in enumerate(strides)
            ]
        )
        self.score = WeightNormConvolution((3,), channels[-1], 1, (1,), random=random)

    def __call__(self, audio: Waveform) -> Judgement:
        """See ``Discriminators``."""
        audio = jnp.pad(audio, ((0, 0), (0, -audio.shape[1] % self.period)), mode="reflect")
        phases = audio.reshape(len(audio), -1, self.period)
        return _judge(jnp.moveaxis(phases, 2, 1).reshape(-1, phases.shape[1], 1), self.hidden, self.score)


class BandDiscriminator(nnx.Module):
    """Convolutions over the real and imaginary parts of spectra, with separate weights for each band.

    Args:
        window: samples per frame; the hop is a quarter of it.
        bands: edges of the bands, as shares of half the sample rate.
        channels: channels of the hidden layers.
        random: generator of the initial weights.
    """

    def __init__(
        self, window: int, bands: Sequence[float], channels: int, *, random: np.random.Generator
    ) -> None:
        self.window = window
        self.edges = tuple(int(edge * (window // 2 + 1)) for edge in bands)
        self.hidden = nnx.List([nnx.List(_band_layers(channels, random)) for _ in bands[1:]])
        self.score = WeightNormConvolution((3, 3), channels, 1, (1, 1), random=random)

    def __call__(self, audio: Waveform) -> Judgement:
        """See ``Discriminators``."""
        spectrum = stft(audio, n_fft=self.window, hop_length=self.window // 4)
        parts = jnp.stack([jnp.real(spectrum), jnp.imag(spectrum)], axis=-1)
        judgement, last = [], []
        for low, high, layers in zip(self.edges[:-1], self.edges[1:], self.hidden, strict=True):
            x = parts[:, :, low:high]
            for layer in layers:
                x = jax.nn.leaky_relu(layer(x), 0.1)
                judgement.append(x)
            last.append(x)
        return [*judgement, self.score(jnp.concatenate(last, axis=2))]


class WeightNormConvolution(nnx.Module):
    """A centred convolution with zeros beyond the ends, whose kernel is a direction and a length per output.

    The size of a step then does not depend on that of the weights, so that neither side of the adversarial game runs
    away. Source: Salimans and Kingma 2016, "Weight Normalization".

    Args:
        kernel: number of taps per axis, odd.
        inputs: input channels.
        outputs: output channels.
        strides: stride per axis.
        random: generator of the initial weights.
    """

    def __init__(
        self,
        kernel: tuple[int, ...],
        inputs: int,
        outputs: int,
        strides: tuple[int, ...],
        *,
        random: np.random.Generator,
    ) -> None:
        self.strides = strides
        self.direction = normal(random, *kernel, inputs, outputs, scale=1.0)
        self.length = nnx.Param(jnp.asarray(np.full(outputs, 2**0.5, np.float32)))
        self.bias = zeros(outputs)

    def __call__(self, x: Float[Array, "B *axes D"]) -> Float[Array, "B *outputs E"]:
        """Convolves all axes between the first and the last."""
        direction = self.direction[...]
        *taps, _, _ = direction.shape
        norm = jnp.sqrt(jnp.sum(direction**2, axis=tuple(range(direction.ndim - 1)), keepdims=True))
        kernel = direction / norm * self.length[...].reshape((1,) * (direction.ndim - 1) + (-1,))
        layout = ("NWC", "WIO", "NWC") if len(taps) == 1 else ("NHWC", "HWIO", "NHWC")
        x = jnp.pad(x.astype(kernel.dtype), ((0, 0), *((tap // 2, tap // 2) for tap in taps), (0, 0)))
        y = lax.conv_general_dilated(x, kernel, self.strides, "VALID", dimension_numbers=layout)
        return y + self.bias[...].reshape((1,) * (y.ndim - 1) + (-1,))


def _band_layers(channels: int, random: np.random.Generator) -> list[WeightNormConvolution]:
    """Returns five layers over time and frequency, of which the middle three halve the frequencies."""
    shapes = [((3, 9), 2, 1), *[((3, 9), channels, 2)] * 3, ((3, 3), channels, 1)]
    return [
        WeightNormConvolution(taps, inputs, channels, (1, stride), random=random)
        for taps, inputs, stride in shapes
    ]


def _judge(
    x: Float[Array, "B T D"], hidden: Sequence[WeightNormConvolution], score: WeightNormConvolution
) -> Judgement:
    judgement = []
    for layer in hidden:
        x = jax.nn.leaky_relu(layer(x), 0.1)
        judgement.append(x)
    return [*judgement, score(x)]
