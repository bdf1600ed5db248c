"""Lays the network out in the TPU's tiles: every width is padded with zeros to whole vectors of 128 lanes.

Zeros stay zeros through every layer: tanh(0) sigmoid(0) = 0, and what a padded channel would feed has zero
weights. The two halves of a gate, and the parts of a mixture head, are padded one by one, so that the kernel
splits them between vectors: a cut inside a vector costs a rotation across lanes in every layer.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from .shapes import WaveNetShape, Weights

LANES = 128
SUBLANES = 8


def whole(width: int, unit: int = LANES) -> int:
    """Returns the smallest multiple of a unit that is at least width."""
    return -(-width // unit) * unit


def precision(dtype: jnp.dtype) -> lax.Precision:
    """Returns the precision of products: full for float32 weights, the matrix unit's own for bfloat16 ones."""
    return lax.Precision.HIGHEST if dtype == jnp.float32 else lax.Precision.DEFAULT


def pad_groups(x: Float[Array, "..."], groups: Sequence[int], axis: int = -1) -> Float[Array, "..."]:
    """Pads each group of an axis, given by its width, to whole vectors."""
    parts = jnp.split(x, np.cumsum(groups)[:-1], axis)
    return jnp.concatenate([pad_to(part, whole(part.shape[axis]), axis) for part in parts], axis)


def take_groups(x: Float[Array, "..."], groups: Sequence[int]) -> Float[Array, "..."]:
    """Undoes ``pad_groups`` on the last axis."""
    starts = np.cumsum([0, *(whole(width) for width in groups)])
    parts = [x[..., start : start + width] for start, width in zip(starts, groups, strict=False)]
    return jnp.concatenate(parts, axis=-1)


def pad_to(x: Array, size: int, axis: int, value: float = 0) -> Array:
    """Pads one axis at its end to a size."""
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, size - x.shape[axis])
    return jnp.pad(x, widths, constant_values=value)


def output_groups(shape: WaveNetShape) -> tuple[int, ...]:
    """Returns the widths of the parts of the network's outputs."""
    if shape.head == "softmax":
        return (shape.vocab_size,)
    return (shape.mixtures,) * 3 + ((shape.linear_prediction,) if shape.linear_prediction else ())


def pad_weights(weights: Weights, shape: WaveNetShape, look_ahead: bool) -> dict[str, jax.Array]:
    """Returns the padded weights, with biases in float32 that have a row axis; the condition's are left out.

    ``look_ahead`` adds "ahead" [L-1, G, 2G] = residual[l] dilated[l+1, current tap], for

        a_(l+1) = (h_l + z_l residual[l] + residual_bias[l]) dilated[l+1] + ...
                = h_l dilated[l+1] + z_l ahead[l] + ...

    where h_l dilated[l+1] does not wait for z_l: the way from sample to sample then has one product per layer
    instead of two. The bias's share is added to the next layer's bias.
    """
    dtype = weights["residual"].dtype
    gate, residual = weights["residual"].shape[1:]
    skip, hidden = weights["hidden"].shape
    gates, outputs = (gate, gate), output_groups(shape)
    axes: dict[str, tuple[tuple[int, ...] | None, ...]] = {
        "embedding": (None, (shape.vocab_size,), (residual,)),
        "scalar": (None, None, (residual,)),
        "input_bias": ((residual,),),
        "dilated": (None, None, (residual,), gates),
        "dilated_bias": (None, gates),
        "residual": (None, (gate,), (residual,)),
        "residual_bias": (None, (residual,)),
        "skip": (None, (gate,), (skip,)),
        "skip_bias": ((skip,),),
        "hidden": ((skip,), (hidden,)),
        "hidden_bias": ((hidden,),),
        "output": ((hidden,), outputs),
        "output_bias": (outputs,),
    }
    padded = {}
    for name, groups_of_axes in axes.items():
        if name not in weights:
            continue
        x = weights[name]
        for axis, groups in enumerate(groups_of_axes):
            x = x if groups is None else pad_groups(x, groups, axis)
        padded[name] = x.astype(jnp.float32)[..., None, :] if name.endswith("_bias") else x
    # Levels and components that only pad are never drawn.
    padded["output_bias"] = padded["output_bias"].at[:, outputs[0] : whole(outputs[0])].set(-jnp.inf)
    if look_ahead:
        following = padded["dilated"][1:, -1].astype(jnp.float32)
        through = partial(jnp.einsum, "lir,lrk->lik", precision=lax.Precision.HIGHEST)
        padded["ahead"] = through(padded["residual"][:-1].astype(jnp.float32), following).astype(dtype)
        moved = through(padded["residual_bias"][:-1], following)
        padded["dilated_bias"] = padded["dilated_bias"].at[1:].add(moved)
    return padded


def pad_frames(
    weights: Weights, condition: Float[Array, "B F C"], bias: Float[Array, "L 1 G2"], batch: int
) -> Float[Array, "F L padded G2"]:
    """Projects a condition for every layer, adds the gates' padded biases, and pads it to a batch."""
    dtype, gate = weights["condition"].dtype, weights["condition"].shape[-1] // 2
    rows = jnp.einsum(
        "bfc,lcg->flbg",
        condition.astype(dtype),
        weights["condition"],
        precision=precision(dtype),
        preferred_element_type=jnp.float32,
    )
    rows = pad_groups(rows, (gate, gate)) + bias[None]
    return pad_to(rows, batch, 2).astype(dtype)
