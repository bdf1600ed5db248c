"""The parallel form of the WaveNet computes all samples at once, for training, likelihoods and reading a prompt.

The network is that of van den Oord et al. 2016 (arXiv 1609.03499), section 2:

    h_0 = input convolution(tokens) + input_bias (+ inputs)
    a_l = sum_j h_l[t - (K-1-j) d_l] dilated[l, j] + dilated_bias[l] + condition[frame of t] condition[l]
    z_l = tanh(a_l[:G]) sigmoid(a_l[G:])
    h_(l+1) = h_l + z_l residual[l] + residual_bias[l]
    output = relu(relu(sum_l z_l skip[l] + skip_bias) hidden + hidden_bias) output + output_bias

Whatever lies before the first token is zero, in every layer.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from ..lookup import look_up
from .checks import check_condition, check_inputs, check_weights
from .companding import code_value, expand
from .shapes import WaveNetShape, Weights
from .state import input_table

FORMS = ("conv", "matmul")


def default_form(kernel_size: int, backend: str | None = None) -> str:
    """Returns the faster form of the dilated convolution, as measured on CPUs and as guessed for accelerators.

    On 2 cores of a Sapphire Rapids the forward and backward pass of a network of 64 channels over 8192 samples takes
    294 ms by "conv" and 337 ms by "matmul" with kernel size 4 and 10 layers, and 791 and 537 ms with kernel size 2 and
    20 layers. On GPU and TPU one product over concatenated taps should suit the matrix units whatever the dilation.
    """
    if (backend or jax.default_backend()) == "cpu" and kernel_size > 2:
        return "conv"
    return "matmul"


def dilated_convolution(
    h: Float[Array, "B T R"],
    kernel: Float[Array, "K R G2"],
    dilation: int,
    form: str | None = None,
    past: Float[Array, "B _ R"] | None = None,
) -> Float[Array, "B T G2"]:
    """Convolves causally: y[t] = sum_j h[t - (K-1-j) dilation] kernel[j].

    Args:
        h: input.
        kernel: taps, the oldest first.
        dilation: samples between taps.
        form: "conv" (XLA's), "matmul" (one product over concatenated taps) or None (``default_form``).
        past: the (K-1) dilation samples before h; None for zeros.

    Returns:
        As many samples as h has.

    Raises:
        ValueError: the form is unknown.
    """
    taps, length = kernel.shape[0], h.shape[1]
    reach = (taps - 1) * dilation
    form = form or default_form(taps)
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}; got {form!r}")
    if form == "conv":
        padding = [(reach, 0)] if past is None else [(0, 0)]
        h = h if past is None else jnp.concatenate([past, h], axis=1)
        return lax.conv_general_dilated(
            h, kernel, (1,), padding, rhs_dilation=(dilation,), dimension_numbers=("NWC", "WIO", "NWC")
        )
    h = jnp.pad(h, ((0, 0), (reach, 0), (0, 0))) if past is None else jnp.concatenate([past, h], axis=1)
    shifted = [h[:, j * dilation : j * dilation + length] for j in range(taps)]
    return jnp.concatenate(shifted, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])


def input_convolution(
    weights: Weights, shape: WaveNetShape, tokens: Int[Array, "B N"], samples: int
) -> Float[Array, "B T R"]:
    """Returns the first layer's input at the last ``samples`` tokens; missing (negative) tokens add nothing."""
    tables = input_table(weights)
    start = tokens.shape[1] - samples
    padded = jnp.pad(tokens, ((0, 0), (tables.shape[0] - 1, 0)), constant_values=-1)
    h = weights["input_bias"][None, None]
    for j, table in enumerate(tables):
        tap = padded[:, start + j : start + j + samples]
        if "embedding" in weights:
            values = look_up(table, tap)
        else:
            value = code_value(tap, shape.vocab_size)
            values = jnp.stack([value, expand(value, shape.mu)], axis=-1).astype(table.dtype) @ table
        h = h + jnp.where(tap[..., None] < 0, 0, values)
    return h


def condition_frames(
    weights: Weights,
    condition: Float[Array, "B F C"] | None,
    hop: int,
    offset: Int[Array, ""] | int,
    samples: int,
) -> list[Float[Array, "B T G2"]] | list[Float[Array, "B 1 G2"]] | None:
    """Projects a condition for every layer at frame rate, then repeats it to samples; one frame stays one."""
    if condition is None:
        return None
    frames = condition.shape[1]

    def rows_of_layer(kernel: Float[Array, "C G2"]) -> Float[Array, "B T G2"] | Float[Array, "B 1 G2"]:
        rows = condition.astype(kernel.dtype) @ kernel
        if frames == 1:
            return rows
        if isinstance(offset, int):  # a broadcast, which differentiates to a plain sum
            return jnp.repeat(rows, hop, axis=1)[:, offset : offset + samples]
        return jnp.take(rows, (offset + jnp.arange(samples)) // hop, axis=1, mode="clip")

    return [rows_of_layer(kernel) for kernel in layers_of(weights["condition"])]


def layers_of(stacked: Float[Array, "L ..."]) -> list[Float[Array, "..."]]:
    """Takes the layers of a stack apart.

    This is one split, whose derivative is one concatenation. One index per layer would have one stack full of zeros per
    layer as its derivative.
    """
    return [layer[0] for layer in jnp.split(stacked, len(stacked))]


def network(
    weights: Weights,
    shape: WaveNetShape,
    h: Float[Array, "B T R"],
    condition: list[Float[Array, "B T G2"]] | list[Float[Array, "B 1 G2"]] | None,
    *,
    past: Sequence[Float[Array, "B _ R"]] | None = None,
    dropout_key: Array | None = None,
    dropout_rate: float = 0.0,
    form: str | None = None,
) -> tuple[Float[Array, "B T O"], list[Float[Array, "B T R"]]]:
    """Runs the layers and the head on h_0; returns the outputs and every layer's input.

    Args:
        weights: the network; their dtype is the layers' dtype, the head is computed in float32 at least.
        shape: its static half.
        h: the first layer's input.
        condition: added to each layer's gates, from ``condition_frames``.
        past: the (K-1) dilation inputs before h of every layer; None for zeros.
        dropout_key: key of the dropout of the dilated convolutions' inputs (not of the residual path).
        dropout_rate: share that is dropped, in [0, 1).
        form: of the dilated convolution.
    """
    layer_inputs, gated = [], []
    names = ("dilated", "dilated_bias", "residual", "residual_bias")
    stacks = zip(*(layers_of(weights[name]) for name in names), strict=True)
    for layer, (dilation, (kernel, bias, residual, residual_bias)) in enumerate(
        zip(shape.dilations, stacks, strict=True)
    ):
        layer_inputs.append(h)
        x = h
        if dropout_key is not None and dropout_rate > 0:
            kept = jax.random.bernoulli(jax.random.fold_in(dropout_key, layer), 1 - dropout_rate, h.shape)
            x = jnp.where(kept, h / (1 - dropout_rate), 0)
        before = None if past is None else past[layer]
        a = dilated_convolution(x, kernel, dilation, form, before)
        a = a + bias[None, None]
        if condition is not None:
            a = a + condition[layer]
        tanh, sigmoid = jnp.split(a, 2, axis=-1)
        z = jnp.tanh(tanh) * jax.nn.sigmoid(sigmoid)
        gated.append(z)
        h = h + z @ residual + residual_bias[None, None]
    skip = jnp.concatenate(gated, axis=-1) @ weights["skip"].reshape(-1, weights["skip"].shape[-1])
    return head(weights, skip + weights["skip_bias"][None, None]), layer_inputs


def head(weights: Weights, skip: Float[Array, "B T S"]) -> Float[Array, "B T O"]:
    """Returns the outputs for the summed skip connections, in float32 at least."""
    dtype = jnp.promote_types(skip.dtype, jnp.float32)
    w = {name: weights[name].astype(dtype) for name in ("hidden", "hidden_bias", "output", "output_bias")}
    y = jax.nn.relu(jax.nn.relu(skip.astype(dtype)) @ w["hidden"] + w["hidden_bias"][None, None])
    return y @ w["output"] + w["output_bias"][None, None]


def wavenet_forward(
    weights: Weights,
    shape: WaveNetShape,
    tokens: Int[Array, "B T"],
    inputs: Float[Array, "B T R"] | None = None,
    condition: Float[Array, "B F C"] | None = None,
    condition_hop: int = 1,
    *,
    condition_offset: Int[Array, ""] | int = 0,
    dropout_key: Array | None = None,
    dropout_rate: float = 0.0,
    form: str | None = None,
) -> Float[Array, "B T O"]:
    """Returns what parametrises the distribution of token t + 1 given tokens <= t, for every t.

    Args:
        weights: see ``Weights``; float32 or bfloat16.
        shape: the network's static half.
        tokens: in [0, V); negative ones are missing and add nothing.
        inputs: added to the first layer's input.
        condition: features at frame rate; a single frame holds for every sample.
        condition_hop: samples per frame. Sample t has frame (condition_offset + t) // condition_hop.
        condition_offset: samples of the first frame that lie before the first token, in [0, condition_hop).
        dropout_key: key of this step's dropout; None for no dropout.
        dropout_rate: share of the dilated convolutions' inputs that is dropped, in [0, 1).
        form: of the dilated convolution, see ``dilated_convolution``.

    Returns:
        Outputs, float32 (or float64 for float64 weights).

    Raises:
        ValueError: an argument does not fit the network.
    """
    check_weights(weights, shape)
    batch, length = tokens.shape
    check_inputs(weights, inputs, batch, length)
    check_condition(weights, condition, batch, length, condition_hop, condition_offset)
    h = input_convolution(weights, shape, tokens, length)
    if inputs is not None:
        h = h + inputs.astype(h.dtype)
    rows = condition_frames(weights, condition, condition_hop, condition_offset, length)
    return network(weights, shape, h, rows, dropout_key=dropout_key, dropout_rate=dropout_rate, form=form)[0]
