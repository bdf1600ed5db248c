"""Pretrained DAC codecs in the layout of Hugging Face: ``config.json`` and a safetensors file.

The network is that of ``WaveVQ``; only names and the order of axes differ:

- torch's convolutions are [outputs, inputs, taps], ours [taps, inputs, outputs];
- its transposed ones are [inputs, outputs, 2 stride], where tap ``stride + j`` reads the frame before; ours are [2,
  inputs, stride * outputs], the frame before first;
- weight norm, in either of torch's spellings, is folded: ``g v / |v|``, with one norm per index of the first axis.

Where a stride is odd, the original decoder outputs one frame less at that layer and continues with zeros; ours
outputs all frames, so that the end of the audio differs.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float
from pydantic import Field

from wavegen.codecs.pretrained.hugging_face import (
    Few,
    Size,
    Sizes,
    Strides,
    expect_no_more,
    read_hugging_face,
    read_sizes,
    take_tensor,
)
from wavegen.codecs.quantizers import GradientVQ
from wavegen.codecs.waveform.convolution import (
    Convolution,
    Layer,
    Residual,
    Snake,
    Stack,
    TransposedConvolution,
)
from wavegen.codecs.waveform.network import WaveVQ
from wavegen.errors import WavegenError
from wavegen.networks.initial import Draws

KINDS = {
    Snake: "snake{}",
    Convolution: "conv{}",
    TransposedConvolution: "conv_t{}",
    Residual: "res_unit{}",
    Stack: "block.{}",
}
"""Name of a layer by its class, with its number among the layers of that class."""


class DACConfig(Sizes):
    """Sizes, by the names of Hugging Face's ``config.json``.

    Attributes:
        downsampling_ratios: strides of the encoder's stages.
        upsampling_ratios: those of the decoder's.
        hidden_size: width of the latents.
        encoder_hidden_size: channels before the first stage, which double with each.
        decoder_hidden_size: channels before the first stage of the decoder, which are halved by each.
        n_codebooks: number of codebooks.
        codebook_size: entries per codebook.
        codebook_dim: dimensions in which entries are compared.
        sampling_rate: sample rate in Hz.
    """

    downsampling_ratios: Strides
    upsampling_ratios: Strides
    hidden_size: Size
    encoder_hidden_size: Size
    decoder_hidden_size: Size
    n_codebooks: Few
    codebook_size: Annotated[int, Field(ge=2, le=2**20)]
    codebook_dim: Size
    sampling_rate: Size


class _Place(NamedTuple):
    """The destination of tensors of one shape: a parameter, where a stack of the converted ones has all levels."""

    param: nnx.Param
    names: list[str]
    shape: tuple[int, ...]
    convert: Callable[[np.ndarray], np.ndarray]


def load_dac(path: str | Path) -> tuple[WaveVQ, int]:
    """Reads a codec.

    Args:
        path: a folder with ``config.json`` and ``model.safetensors``, or the safetensors file with ``config.json`` in
            its folder.

    Returns:
        The codec, and its sample rate in Hz.

    Raises:
        WavegenError: if a file is missing, damaged or of another model, or a tensor is missing, unknown or of another
            shape than the configuration implies.
    """
    config, tensors = read_hugging_face(path)
    codec, sample_rate = _build(config, sum(tensor.size for tensor in tensors.values()))
    for place in _places(codec):
        values = [place.convert(take_tensor(tensors, name, place.shape)) for name in place.names]
        place.param[...] = jnp.asarray(np.stack(values).reshape(place.param.shape))
    expect_no_more(tensors)
    return codec, sample_rate


def _build(values: dict[str, Any], weights: int) -> tuple[WaveVQ, int]:
    """Returns a codec of the described sizes, and its sample rate; ``weights`` is the number of those in the file."""
    kind = values.get("model_type")
    if kind != "dac":
        raise WavegenError(f'expected "model_type": "dac" in config.json, got {kind!r}; give a DAC codec')
    config = read_sizes(DACConfig, values)
    strides = config.downsampling_ratios
    if config.upsampling_ratios != strides[::-1]:
        raise WavegenError(
            f"expected upsampling_ratios {list(strides[::-1])} in config.json, the mirror of "
            f"downsampling_ratios, got {list(config.upsampling_ratios)}; no other decoders can be loaded"
        )
    random = Draws(0, weights)  # Every weight drawn here is replaced, and more than there are cannot be.
    quantizer = GradientVQ(
        config.hidden_size,
        codebooks=config.n_codebooks,
        codebook_size=config.codebook_size,
        codebook_width=config.codebook_dim,
        random=random,
    )
    codec = WaveVQ(
        strides=strides,
        width=config.encoder_hidden_size,
        decoder_width=config.decoder_hidden_size,
        quantizer=quantizer,
        random=random,
    )
    return codec, config.sampling_rate


def _places(codec: WaveVQ) -> Iterator[_Place]:
    for part in ("encoder", "decoder"):
        for layer, name in _layers(getattr(codec, part), part):
            yield from _places_of_layer(layer, name)
    quantizer = codec.quantizer
    assert isinstance(quantizer, GradientVQ)
    levels = [f"quantizer.quantizers.{level}" for level in range(codec.codebooks)]
    width, narrow = quantizer.project_in.shape[1:]
    for ours, theirs, shape in (
        ("project_in", "in_proj", (narrow, width, 1)),
        ("project_out", "out_proj", (width, narrow, 1)),
    ):
        names = [f"{level}.{theirs}" for level in levels]
        yield _Place(getattr(quantizer, ours), [f"{n}.weight" for n in names], shape, lambda w: w[..., 0].T)
        yield _Place(getattr(quantizer, f"{ours}_bias"), [f"{n}.bias" for n in names], shape[:1], np.asarray)
    entries = [f"{level}.codebook.weight" for level in levels]
    yield _Place(quantizer.codebook, entries, quantizer.codebook.shape[1:], np.asarray)


def _layers(stack: Stack, prefix: str) -> Iterator[tuple[Layer, str]]:
    """Yields the layers inside, at any depth, with their names."""
    seen: Counter[type] = Counter()
    for layer in stack.layers:
        kind = type(layer)
        seen[kind] += 1
        # Blocks are counted from 0, all others from 1.
        name = f"{prefix}.{KINDS[kind].format(seen[kind] - (kind is Stack))}"
        if isinstance(layer, Stack):
            yield from _layers(layer, name)
        else:
            yield layer, name


def _places_of_layer(layer: Layer, name: str) -> Iterator[_Place]:
    if isinstance(layer, Snake):
        yield _Place(layer.alpha, [f"{name}.alpha"], (1, *layer.alpha.shape, 1), np.asarray)
        return
    assert isinstance(layer, Convolution | TransposedConvolution)
    outputs = layer.bias.shape[0]
    yield _Place(layer.bias, [f"{name}.bias"], (outputs,), np.asarray)
    taps, inputs, _ = layer.kernel.shape
    if isinstance(layer, Convolution):
        yield _Place(
            layer.kernel, [f"{name}.weight"], (outputs, inputs, taps), lambda w: w.transpose(2, 1, 0)
        )
    else:
        shape = (inputs, outputs, taps * layer.stride)
        yield _Place(layer.kernel, [f"{name}.weight"], shape, _transposed_kernel)


def _transposed_kernel(weight: Float[np.ndarray, "D E taps"]) -> Float[np.ndarray, "2 D stride E"]:
    inputs, outputs, taps = weight.shape
    return weight.reshape(inputs, outputs, 2, taps // 2).transpose(2, 0, 3, 1)[::-1]
