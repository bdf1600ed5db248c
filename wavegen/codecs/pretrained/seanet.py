"""SEANet, the convolutional encoder and decoder of EnCodec, with pretrained weights.

Sources: Tagliasacchi et al. 2020, "SEANet: A Multi-modal Speech Enhancement Network" (residual blocks between strided
convolutions); Défossez et al. 2022, "High Fidelity Neural Audio Compression", section 3.1 (the LSTM, the padding).

Arithmetic is float32 at full precision on every device, because a latent that is off by a rounding of bfloat16 has
another code.
"""

from collections.abc import Callable, Sequence
from functools import partial
from math import prod

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from wavegen.codecs.pretrained.hugging_face import Few, Size, Sizes, Strides, Tensors, take_tensor

_EXACT = lax.Precision.HIGHEST

Layer = Callable[[Float[Array, "B T D"]], Float[Array, "B t d"]]
Build = Callable[[Tensors, str], Layer]
"""Makes a layer of the tensors whose names begin with this text, and removes them from the dictionary."""


class SEANetConfig(Sizes):
    """Sizes, by the names and with the defaults of Hugging Face's ``config.json``.

    Attributes:
        hidden_size: width of the latents, D.
        num_filters: channels at the sample rate; every stage doubles them.
        num_residual_layers: residual blocks per stage.
        upsampling_ratios: strides of the decoder's stages; the encoder has the reverse. Their product is the hop.
        kernel_size: taps of the first convolution.
        last_kernel_size: taps of the last convolution.
        residual_kernel_size: taps of the first convolution in a residual block.
        dilation_growth_rate: base of the dilations: residual block j of a stage is dilated by its j-th power.
        use_causal_conv: whether frames depend on no later samples (24 kHz: yes, 32 kHz: no).
        compress: factor by which a residual block has fewer channels inside.
        num_lstm_layers: LSTM layers between the convolutions and the latents.
        use_conv_shortcut: whether the shortcut of a residual block is a convolution (24 kHz) or the identity (32
            kHz).
    """

    hidden_size: Size = 128
    num_filters: Size = 32
    num_residual_layers: Few = 1
    upsampling_ratios: Strides = (8, 5, 4, 2)
    kernel_size: Size = 7
    last_kernel_size: Size = 7
    residual_kernel_size: Size = 3
    dilation_growth_rate: Size = 2
    use_causal_conv: bool = True
    compress: Size = 2
    num_lstm_layers: Few = 2
    use_conv_shortcut: bool = True

    @property
    def hop_length(self) -> int:
        """Samples per frame of latents."""
        return prod(self.upsampling_ratios)


class Convolution(nnx.Module):
    """A convolution over a signal that is continued by reflection, so that T steps become ``ceil(T / stride)``.

    A causal one is padded on the left; otherwise half of the padding is on either side, with the odd step on the
    left. What the length lacks to a multiple of the stride is always added on the right.
    """

    def __init__(
        self,
        tensors: Tensors,
        name: str,
        *,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        dilation: int = 1,
        causal: bool,
    ) -> None:
        weight = take_tensor(tensors, f"{name}.conv.weight", (outputs, inputs, kernel))
        self.weight = nnx.Param(jnp.asarray(weight.transpose(2, 1, 0)))
        self.bias = nnx.Param(jnp.asarray(take_tensor(tensors, f"{name}.conv.bias", (outputs,))))
        self.stride, self.dilation = stride, dilation
        added = (kernel - 1) * dilation + 1 - stride
        self.right = 0 if causal else added // 2
        self.left = added - self.right

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B t d"]:
        """Maps ``[B, T, inputs]`` to ``[B, ceil(T / stride), outputs]``."""
        x = _reflect(x, self.left, self.right + -x.shape[1] % self.stride)
        return _convolve(x, self.weight[...], self.bias[...], self.stride, self.dilation)


class TransposedConvolution(nnx.Module):
    """The transposed convolution of kernel ``2 stride``, cut so that T steps become ``T stride``.

    Written out, step ``t stride + j`` of the uncut output is ``W[j] x[t] + W[stride + j] x[t - 1]``: a convolution of
    two taps whose outputs are the ``stride`` steps.
    """

    def __init__(
        self, tensors: Tensors, name: str, *, inputs: int, outputs: int, stride: int, causal: bool
    ) -> None:
        weight = take_tensor(tensors, f"{name}.conv.weight", (inputs, outputs, 2 * stride))
        taps = weight.reshape(inputs, outputs, 2, stride)[:, :, ::-1].transpose(2, 0, 3, 1)
        self.weight = nnx.Param(jnp.asarray(taps.reshape(2, inputs, stride * outputs)))
        self.bias = nnx.Param(jnp.asarray(take_tensor(tensors, f"{name}.conv.bias", (outputs,))))
        self.stride, self.outputs = stride, outputs
        self.first = 0 if causal else stride - stride // 2

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B t d"]:
        """Maps ``[B, T, inputs]`` to ``[B, T stride, outputs]``."""
        batch, steps, _ = x.shape
        x = jnp.pad(x, ((0, 0), (1, 1), (0, 0)))
        uncut = _convolve(x, self.weight[...], jnp.tile(self.bias[...], self.stride))
        uncut = uncut.reshape(batch, (steps + 1) * self.stride, self.outputs)
        return uncut[:, self.first : self.first + steps * self.stride]


class LSTM(nnx.Module):
    """Layers of LSTM (Hochreiter and Schmidhuber 1997), with one residual connection around all of them."""

    def __init__(self, tensors: Tensors, name: str, *, width: int, layers: int) -> None:
        def stack(kind: str, *shape: int) -> Float[Array, "L ..."]:
            return jnp.stack(
                [take_tensor(tensors, f"{name}.lstm.{kind}_l{layer}", shape) for layer in range(layers)]
            )

        self.input = nnx.Param(stack("weight_ih", 4 * width, width).mT)
        self.hidden = nnx.Param(stack("weight_hh", 4 * width, width).mT)
        self.bias = nnx.Param(stack("bias_ih", 4 * width) + stack("bias_hh", 4 * width))

    def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        """Reads all frames; the state before the first one is zero."""
        weights = (self.input[...], self.hidden[...], self.bias[...])
        return x + lax.scan(lambda y, layer: (_lstm(y, *layer), None), x, weights)[0]


class Residual(nnx.Module):
    """Two activated convolutions with fewer channels, and a shortcut around them."""

    def __init__(
        self, tensors: Tensors, name: str, *, width: int, dilation: int, config: SEANetConfig
    ) -> None:
        inner = width // config.compress
        convolution = partial(Convolution, tensors, causal=config.use_causal_conv)
        self.inward = convolution(
            f"{name}.block.1",
            inputs=width,
            outputs=inner,
            kernel=config.residual_kernel_size,
            dilation=dilation,
        )
        self.outward = convolution(f"{name}.block.3", inputs=inner, outputs=width, kernel=1)
        self.shortcut = nnx.data(
            convolution(f"{name}.shortcut", inputs=width, outputs=width, kernel=1)
            if config.use_conv_shortcut
            else None
        )

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Maps a signal to one of the same shape."""
        inside = self.outward(jax.nn.elu(self.inward(jax.nn.elu(x))))
        return inside + (x if self.shortcut is None else self.shortcut(x))


class SEANet(nnx.Module):
    """Layers one after another, numbered as in the file, where activations are counted too."""

    def __init__(self, tensors: Tensors, name: str, layers: Sequence[Build]) -> None:
        self.layers = nnx.List([build(tensors, f"{name}.layers.{i}") for i, build in enumerate(layers)])

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B t d"]:
        """Applies all layers."""
        for layer in self.layers:
            x = layer(x)
        return x


def encoder(config: SEANetConfig, tensors: Tensors) -> SEANet:
    """Builds the network from samples ``[B, T, 1]`` to latents ``[B, ceil(T / hop), D]``, and removes its tensors."""
    width = config.num_filters
    convolution = partial(partial, Convolution, causal=config.use_causal_conv)
    layers: list[Build] = [convolution(inputs=1, outputs=width, kernel=config.kernel_size)]
    for ratio in reversed(config.upsampling_ratios):
        layers += [
            *_residuals(config, width),
            _elu,
            convolution(inputs=width, outputs=2 * width, kernel=2 * ratio, stride=ratio),
        ]
        width *= 2
    layers += [
        partial(LSTM, width=width, layers=config.num_lstm_layers),
        _elu,
        convolution(inputs=width, outputs=config.hidden_size, kernel=config.last_kernel_size),
    ]
    return SEANet(tensors, "encoder", layers)


def decoder(config: SEANetConfig, tensors: Tensors) -> SEANet:
    """Builds the network from latents ``[B, N, D]`` to samples ``[B, N hop, 1]``, and removes its tensors."""
    width = config.num_filters * 2 ** len(config.upsampling_ratios)
    convolution = partial(partial, Convolution, causal=config.use_causal_conv)
    layers: list[Build] = [
        convolution(inputs=config.hidden_size, outputs=width, kernel=config.kernel_size),
        partial(LSTM, width=width, layers=config.num_lstm_layers),
    ]
    for ratio in config.upsampling_ratios:
        transposed = partial(TransposedConvolution, inputs=width, outputs=width // 2, stride=ratio)
        layers += [_elu, partial(transposed, causal=config.use_causal_conv), *_residuals(config, width // 2)]
        width //= 2
    layers += [_elu, convolution(inputs=width, outputs=1, kernel=config.last_kernel_size)]
    return SEANet(tensors, "decoder", layers)


def _residuals(config: SEANetConfig, width: int) -> list[Build]:
    return [
        partial(Residual, width=width, dilation=config.dilation_growth_rate**j, config=config)
        for j in range(config.num_residual_layers)
    ]


def _elu(tensors: Tensors, name: str) -> Layer:
    del tensors, name
    return jax.nn.elu


def _reflect(x: Float[Array, "B T D"], left: int, right: int) -> Float[Array, "B t D"]:
    """Continues a signal by reflection; one that is too short is first extended by zeros, which are cut off again."""
    short = max(max(left, right) - x.shape[1] + 1, 0)
    x = jnp.pad(x, ((0, 0), (0, short), (0, 0)))
    x = jnp.pad(x, ((0, 0), (left, right), (0, 0)), mode="reflect")
    return x[:, : x.shape[1] - short]


def _convolve(
    x: Float[Array, "B T D"],
    weight: Float[Array, "taps D d"],
    bias: Float[Array, "d"],
    stride: int = 1,
    dilation: int = 1,
) -> Float[Array, "B t d"]:
    y = lax.conv_general_dilated(
        x,
        weight,
        (stride,),
        "VALID",
        rhs_dilation=(dilation,),
        dimension_numbers=("NWC", "WIO", "NWC"),
        precision=_EXACT,
    )
    return y + bias[None, None]


def _lstm(
    x: Float[Array, "B N D"],
    weight: Float[Array, "D gates"],
    hidden: Float[Array, "D gates"],
    bias: Float[Array, "gates"],
) -> Float[Array, "B N D"]:
    """Applies one layer; gates are input, forget, candidate and output, in the order of PyTorch."""

    def step(
        state: tuple[Float[Array, "B D"], Float[Array, "B D"]], given: Float[Array, "B gates"]
    ) -> tuple[tuple[Array, Array], Array]:
        h, cell = state
        i, f, g, o = jnp.split(given + jnp.dot(h, hidden, precision=_EXACT), 4, axis=-1)
        cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(cell)
        return (h, cell), h

    given = jnp.dot(x, weight, precision=_EXACT) + bias[None, None]
    start = jnp.zeros_like(x[:, 0])
    return jnp.moveaxis(lax.scan(step, (start, start), jnp.moveaxis(given, 1, 0))[1], 0, 1)
