"""Brings weights into the order in which the threads of the tensor cores hold them; fragments.h describes it."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..call import Call
from ..state import input_table, ring_sizes, ring_starts
from .plan import STREAMS, Sizes


def pad(x: Float[Array, "..."], axis: int, width: int) -> Float[Array, "..."]:
    """Pads an axis with zeros to a width."""
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, width - x.shape[axis])
    return jnp.pad(x, widths)


def halves(x: Float[Array, "*s G2"], gate: int) -> Float[Array, "*s P2"]:
    """Pads both halves of a gate's channels, and orders them as rows of tiles: 8 of tanh, then their sigmoids."""
    outer = x.shape[:-1]
    wide = pad(x.reshape(*outer, 2, -1), -1, gate)
    return wide.reshape(*outer, 2, gate // 8, 8).swapaxes(-3, -2).reshape(*outer, 2 * gate)


def fragments(matrix: Float[Array, "*s K M"]) -> Float[Array, "*s M//16 K//16 32 8"]:
    """Cuts matrices [inputs, outputs] into tiles and steps, and deals each out to 32 lanes of 8 values.

    Lane 4 r + q has rows r and r + 8, columns 2 q, 2 q + 1 and the same plus 8 (PTX's layout of m16n8k16).
    """
    *outer, columns, rows = matrix.shape
    cut = matrix.reshape(*outer, columns // 16, 2, 4, 2, rows // 16, 2, 8)
    # steps, upper columns, q, pair, tiles, upper rows, r -> tiles, steps, r, q, upper columns, upper rows, pair
    order = (4, 0, 6, 2, 1, 5, 3)
    dealt = cut.transpose(*range(len(outer)), *(len(outer) + axis for axis in order))
    return dealt.reshape(*outer, rows // 16, columns // 16, 32, 8).astype(jnp.bfloat16)


def columns_of_rings(residual: int) -> np.ndarray:
    """Returns the channels in the order in which a step's fragments have them, int64 [residual].

    Lane q of a stream reads residual / 4 neighbouring channels of a ring's row: four for every step, of which the
    first two are its columns 2 q and 2 q + 1, the others the same plus 8.
    """
    step, upper, q, pair = np.ix_(range(residual // 16), range(2), range(4), range(2))
    return (q * (residual // 4) + 4 * step + 2 * upper + pair).reshape(-1)


def arrange(call: Call, sizes: Sizes) -> dict[str, jax.Array]:
    """Returns the network's arrays as ``Params`` in params.h names them."""
    wide = {name: w.astype(jnp.float32) for name, w in call.weights.items()}
    r, g, s = sizes.residual, sizes.gate, sizes.skip
    dilated = pad(halves(wide["dilated"], g), 2, r)  # [L, K, R, 2G]
    residual = pad(pad(wide["residual"], 1, g), 2, r)
    # Of the layer before.
    residual = jnp.concatenate([jnp.zeros_like(residual[:1]), residual[:-1]])
    bias = pad(wide["residual_bias"], 1, r)
    bias = jnp.concatenate([jnp.zeros_like(bias[:1]), bias[:-1]])
    current = dilated[:, -1]
    past = dilated[:, :-1, columns_of_rings(r)].reshape(sizes.layers, -1, 2 * g)
    exact = jax.lax.Precision.HIGHEST
    matrices = {
        "ahead": jnp.einsum("lgr,lrm->lgm", residual, current, precision=exact),
        "current": current,
        "past": past,
        "residual": residual,
        "skip": pad(pad(wide["skip"], 1, g), 2, s),
        "hidden": pad(pad(wide["hidden"], 0, s), 1, sizes.hidden),
        "output": pad(pad(wide["output"], 0, sizes.hidden), 1, sizes.outputs),
    }
    rings = (
        *(f(call.weights, call.shape) for f in (ring_starts, ring_sizes)),
        np.asarray(call.shape.dilations),
    )
    gate_bias = halves(wide["dilated_bias"], g) + jnp.einsum("lr,lrm->lm", bias, current, precision=exact)
    return {name: fragments(matrix) for name, matrix in matrices.items()} | {
        "residual_bias": bias,
        "skip_bias": pad(wide["skip_bias"], 0, s),
        "hidden_bias": pad(wide["hidden_bias"], 0, sizes.hidden),
        "output_bias": pad(wide["output_bias"], 0, sizes.outputs),
        "input_bias": pad(wide["input_bias"], 0, r),
        "table": pad(input_table(call.weights), 2, r),
        "base": base_of(call, gate_bias, g),
        "rings_of_layers": jnp.asarray(np.stack(rings, axis=1), jnp.int32),
    }


def base_of(call: Call, bias: Float[Array, "L G2"], gate: int) -> Float[Array, "F L N tiles 32 4"]:
    """Returns biases and conditions of the gates as the accumulators have them, for each frame and group of streams.

    Without a condition there are one frame and one group, which hold for all.
    """
    if call.condition is None:
        rows = jnp.broadcast_to(bias[None, :, None], (1, len(bias), STREAMS, bias.shape[-1]))
    else:
        kernel = halves(call.weights["condition"].astype(jnp.float32), gate)
        condition = call.condition.astype(call.dtype).astype(jnp.float32)
        rows = jnp.einsum("bfc,lcg->flbg", condition, kernel, precision=jax.lax.Precision.HIGHEST)
        rows = pad(rows + bias[None, :, None], 2, -(-call.batch // STREAMS) * STREAMS)
    frames, layers, streams, channels = rows.shape
    cut = rows.reshape(frames, layers, streams // STREAMS, 4, 2, channels // 16, 2, 8)
    # groups, q, parity, tiles, upper rows, r -> groups, tiles, r, q, upper rows, parity
    dealt = cut.transpose(0, 1, 2, 5, 7, 3, 6, 4)
    return dealt.reshape(frames, layers, streams // STREAMS, channels // 16, 32, 4)
