"""Convolutions over time that can resume where they stopped, and stacks of them.

A causal layer takes the end of its previous input together with its input, and returns the new end. A clip begins
with zeros there, which are the padding of its left side; a whole clip and a clip in pieces therefore run through the
same code. Other layers pad both sides, read the whole clip at once, and keep no state.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from wavegen.networks.initial import normal, zeros

State = Any
"""What a layer keeps of its input: a pytree of arrays [B ...]."""


class Layer(nnx.Module):
    """A map from frames to frames, with a state between calls."""

    @abstractmethod
    def start(self, batch: int) -> State:
        """Returns the state before the first frame: silence."""

    @abstractmethod
    def __call__(self, x: Float[Array, "B T D"], state: State) -> tuple[Float[Array, "B S E"], State]:
        """Reads the next frames; returns its output for them, and the state after them."""

    @abstractmethod
    def flops(self, frames: int) -> tuple[int, int]:
        """Counts operations.

        Returns:
            The floating-point operations of the products for this many frames (a multiply-add is two), and the number
            of output frames.
        """


class Snake(Layer):
    """A periodic activation: ``x + sin^2(a x) / (a + 1e-9)``, with a learned frequency ``a`` per channel.

    Source: Ziyin et al. 2020, "Neural Networks Fail to Learn Periodic Functions and How to Fix It"; as in DAC.
    """

    def __init__(self, channels: int) -> None:
        self.alpha = nnx.Param(jnp.asarray(np.ones(channels, np.float32)))

    def start(self, batch: int) -> State:
        """Returns an empty state."""
        return ()

    def __call__(self, x: Float[Array, "B T D"], state: State) -> tuple[Float[Array, "B T D"], State]:
        """See ``Layer``."""
        # Computed in float32, because bfloat16 cannot resolve 1e-9.
        alpha, wide = self.alpha[...].astype(jnp.float32)[None, None], x.astype(jnp.float32)
        return (wide + _sine(alpha * wide) ** 2 / (alpha + 1e-9)).astype(x.dtype), state

    def flops(self, frames: int) -> tuple[int, int]:
        """See ``Layer``."""
        return 0, frames


def _sine(x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    """Returns the sine, to 2e-7, except for its sign, which is lost in the square.

    XLA's own sine took half of a codec's time on a CPU. This is the Taylor series to the 11th power, in the half
    period around 0.
    """
    half = jnp.round(x * (1 / np.pi))
    # Pi is split in two parts, the first of few bits, so that products with it are exact.
    x = x - half * 3.140625 - half * 9.67653589793e-4
    square = x * x
    series = 1 / 362880 - square / 39916800
    for factor in (-1 / 5040, 1 / 120, -1 / 6, 1.0):
        series = factor + square * series
    return x * series


class Convolution(Layer):
    """A convolution with a bias that maps ``frames`` to ``frames / stride``.

    Without ``causal`` the zeros around the clip are those of DAC: half of what the kernel needs beyond its stride on
    either side, the larger half on the left.

    Args:
        inputs: input channels.
        outputs: output channels.
        kernel_size: number of taps.
        stride: input frames per output frame; the number of input frames must be a multiple.
        dilation: frames between taps.
        causal: whether an output depends on no later frames than those of its own stride.
        gain: scale of the initial weights, relative to the one that preserves the variance.
        random: generator of the initial weights.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel_size: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        causal: bool,
        gain: float = 1.0,
        random: np.random.Generator,
    ) -> None:
        self.stride, self.dilation = stride, dilation
        self.kernel = normal(
            random, kernel_size, inputs, outputs, scale=gain * (kernel_size * inputs) ** -0.5
        )
        self.bias = zeros(outputs)
        self.remembered, self.padding = _reach((kernel_size - 1) * dilation + 1 - stride, causal)

    def start(self, batch: int) -> State:
        """See ``Layer``."""
        return _silence(batch, self.remembered, self.kernel)

    def __call__(self, x: Float[Array, "B T D"], state: State) -> tuple[Float[Array, "B S E"], State]:
        """See ``Layer``."""
        x, state = _surround(x.astype(self.kernel[...].dtype), state, self.padding)
        y = _convolve(x, self.kernel[...], self.stride, self.dilation)
        return y + self.bias[...][None, None], state

    def flops(self, frames: int) -> tuple[int, int]:
        """See ``Layer``."""
        frames //= self.stride
        return 2 * self.kernel[...].size * frames, frames


class TransposedConvolution(Layer):
    """A transposed convolution of ``2 stride`` taps that maps ``frames`` to ``frames * stride``.

    As every output depends on two inputs, it is a convolution of two taps with ``stride`` times the channels, which
    are then laid out in time. XLA has no fast gradient of the transposed form on a CPU: it takes 15 to 35 times as
    long. The kernel is stored as it is used: [2, inputs, stride * outputs], the earlier input first.

    Without ``causal`` outputs are those of torch with ``padding = ceil(stride / 2)``, and for odd strides
    ``output_padding = 1``, without which one would be missing.

    Args:
        inputs: input channels.
        outputs: output channels.
        stride: output frames per input frame.
        causal: whether frame ``n stride + j`` depends on no later input than n.
        random: generator of the initial weights.
    """

    def __init__(
        self, inputs: int, outputs: int, stride: int, *, causal: bool, random: np.random.Generator
    ) -> None:
        self.stride = stride
        self.kernel = normal(random, 2, inputs, stride * outputs, scale=(2 * inputs) ** -0.5)
        self.bias = zeros(outputs)
        self.remembered, self.padding = (1, (0, 0)) if causal else (0, (1, 1))
        self.cut = 0 if causal else (stride + 1) // 2

    def start(self, batch: int) -> State:
        """See ``Layer``."""
        return _silence(batch, self.remembered, self.kernel)

    def __call__(self, x: Float[Array, "B T D"], state: State) -> tuple[Float[Array, "B S E"], State]:
        """See ``Layer``."""
        batch, frames, _ = x.shape
        x, state = _surround(x.astype(self.kernel[...].dtype), state, self.padding)
        y = _convolve(x, self.kernel[...], 1, 1).reshape(batch, -1, self.bias.shape[0])
        y = y[:, self.cut : self.cut + frames * self.stride]
        return y + self.bias[...][None, None], state

    def flops(self, frames: int) -> tuple[int, int]:
        """See ``Layer``."""
        return 2 * self.kernel[...].size * frames, frames * self.stride


class Stack(Layer):
    """Layers one after another."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = nnx.List(layers)

    def start(self, batch: int) -> State:
        """See ``Layer``."""
        return [layer.start(batch) for layer in self.layers]

    def __call__(self, x: Float[Array, "B T D"], state: State) -> tuple[Float[Array, "B S E"], State]:
        """See ``Layer``."""
        after = []
        for layer, own in zip(self.layers, state, strict=True):
            x, own = layer(x, own)
            after.append(own)
        return x, after

    def flops(self, frames: int) -> tuple[int, int]:
        """See ``Layer``."""
        total = 0
        for layer in self.layers:
            own, frames = layer.flops(frames)
            total += own
        return total, frames


class Residual(Stack):
    """Layers whose output is added to their input."""

    def __call__(self, x: Float[Array, "B T D"], state: State) -> tuple[Float[Array, "B T D"], State]:
        """See ``Layer``."""
        y, state = super().__call__(x, state)
        return x + y, state


def _reach(beyond: int, causal: bool) -> tuple[int, tuple[int, int]]:
    """Returns the frames to keep and the zeros on either side, for a kernel that reaches this far beyond its stride."""
    return (beyond, (0, 0)) if causal else (0, ((beyond + 1) // 2, beyond // 2))


def _silence(batch: int, frames: int, kernel: nnx.Param[Array]) -> State:
    """Returns zeros, or an empty state for no frames, as XLA for CPUs has crashed on outputs without elements."""
    return jnp.zeros((batch, frames, kernel.shape[1]), kernel[...].dtype) if frames else ()


def _surround(
    x: Float[Array, "B T D"], state: State, padding: tuple[int, int]
) -> tuple[Float[Array, "B S D"], State]:
    """Returns the input extended by the state or by zeros, and its new end."""
    if isinstance(state, tuple):
        return jnp.pad(x, ((0, 0), padding, (0, 0))), state
    x = jnp.concatenate([state, x], axis=1)
    return x, x[:, x.shape[1] - state.shape[1] :]


def _convolve(
    x: Float[Array, "B T D"], kernel: Float[Array, "taps D E"], stride: int, dilation: int
) -> Float[Array, "B S E"]:
    # The caller pads the input: padding in the convolution makes the gradient of short kernels many times slower.
    return lax.conv_general_dilated(
        x, kernel, (stride,), "VALID", rhs_dilation=(dilation,), dimension_numbers=("NWC", "WIO", "NWC")
    )
