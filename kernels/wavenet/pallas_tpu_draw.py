"""Draws as ``draw`` and ``head`` do, in a TPU kernel's terms: without sorting or gathering, in columns of a matrix.

Columns are [B, 1], rows of levels [B, V] with V a multiple of 128. Levels that only pad have the logit -inf.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, UInt32

from ..draw import threefry2x32
from .companding import code_value, compress
from .head import LOG_SCALE_FLOOR
from .pallas_tpu_weights import whole
from .shapes import WaveNetShape


def lanes(like: Array) -> Int[Array, "B V"]:
    """Returns the number of each lane."""
    return lax.broadcasted_iota(jnp.int32, like.shape, 1)


def column(x: Array, lane: Int[Array, ""]) -> Float[Array, "B 1"]:
    """Returns the column of a lane known at run time, exactly, as all other terms of its sum are 0."""
    return jnp.sum(jnp.where(lanes(x) == lane, x, 0).astype(jnp.float32), axis=1, keepdims=True)


def uniforms(
    key: tuple[UInt32[Array, ""], UInt32[Array, ""]],
    position: Int[Array, ""],
    row: Int[Array, ""],
    shape: tuple[int, int],
) -> tuple[Float[Array, "B T"], Float[Array, "B T"]]:
    """Returns ``draw.uniforms`` of the rows from ``row`` on, at T positions from ``position`` on."""
    rows = row + lax.broadcasted_iota(jnp.int32, shape, 0)
    positions = position + lax.broadcasted_iota(jnp.int32, shape, 1)
    words = threefry2x32(key, positions.astype(jnp.uint32), rows.astype(jnp.uint32))
    # They pass through int32, as the kernel's compiler converts no unsigned number to a float.
    first, second = (
        ((word >> jnp.uint32(9)).astype(jnp.int32).astype(jnp.float32) + 0.5) * jnp.float32(2**-23)
        for word in words
    )
    return first, second


def smallest_key(
    keys: Int[Array, "B V"], weights: Float[Array, "B V"], budget: Float[Array, "..."]
) -> Int[Array, "B 1"]:
    """Returns, by bisection, the smallest number that keys of a total weight below the budget exceed."""
    lowest = jnp.full((keys.shape[0], 1), jnp.iinfo(jnp.int32).min, jnp.int32)
    highest = jnp.full((keys.shape[0], 1), jnp.iinfo(jnp.int32).max, jnp.int32)

    def halve(_, bounds):
        low, high = bounds
        middle = (low & high) + ((low ^ high) >> 1)  # their mean, without overflow
        above = jnp.sum(jnp.where(keys > middle, weights, 0), axis=1, keepdims=True)
        enough = above < budget
        return jnp.where(enough, low, middle + 1), jnp.where(enough, middle, high)

    return lax.fori_loop(0, 32, halve, (lowest, highest))[1]


def likely(logits: Float[Array, "B V"], top_k: Int[Array, ""], top_p: Float[Array, ""]) -> Bool[Array, "B V"]:
    """Returns which levels ``draw.keep_likely`` keeps, for a ``top_k`` of at least 1.

    Nothing is sorted: a level is kept if fewer than ``top_k`` are likelier, and if those that are hold less than a
    share ``top_p`` of what the ``top_k`` hold.
    """
    bits = lax.bitcast_convert_type(logits, jnp.int32)
    keys = bits ^ ((bits >> 31) & jnp.int32(0x7FFFFFFF))  # ordered as the logits are
    last = smallest_key(keys, jnp.ones_like(logits), top_k.astype(jnp.float32))
    mass = jnp.exp(logits - jnp.max(logits, axis=1, keepdims=True))
    above, at_last = keys > last, keys == last
    # Of the levels that are as likely as the last one only as many count as top_k has room for.
    room = top_k.astype(jnp.float32) - jnp.sum(above.astype(jnp.float32), axis=1, keepdims=True)
    last_mass = jnp.max(jnp.where(at_last, mass, 0), axis=1, keepdims=True)
    held = jnp.sum(jnp.where(above, mass, 0), axis=1, keepdims=True) + room * last_mass
    return keys >= jnp.maximum(last, smallest_key(keys, mass, top_p * held))


def choose_token(
    logits: Float[Array, "B V"],
    uniform: Float[Array, "B 1"],
    triangle: Float[Array, "V V"],
    temperature: Float[Array, ""],
    top_k: Int[Array, ""] | None = None,
    top_p: Float[Array, ""] | None = None,
) -> Int[Array, "B 1"]:
    """Draws as ``draw.choose_token`` does, with both cuts or none; the triangle is 1 on and above the diagonal."""
    scaled = logits / jnp.where(temperature > 0, temperature, 1)
    if top_k is not None and top_p is not None:
        scaled = jnp.where(likely(scaled, top_k, top_p), scaled, -jnp.inf)
    highest = jnp.max(scaled, axis=1, keepdims=True)
    cumulative = lax.dot_general(
        jnp.exp(scaled - highest),
        triangle,
        (((1,), (0,)), ((), ())),
        precision=lax.Precision.HIGHEST,
        preferred_element_type=jnp.float32,
    )
    before = (cumulative <= uniform * cumulative[:, -1:]).astype(jnp.float32)
    drawn = jnp.sum(before, axis=1, keepdims=True)
    level = lanes(logits).astype(jnp.float32)
    best = jnp.min(jnp.where(scaled == highest, level, logits.shape[1]), axis=1, keepdims=True)
    return jnp.where(temperature > 0, drawn, best).astype(jnp.int32)


def amplitude(tokens: Int[Array, "*s"], vocab_size: int, mu: int) -> Float[Array, "*s"]:
    """Returns ``companding.amplitude``, by e^x - 1 = tanh(x/2) (e^x + 1), as the kernel's compiler lacks expm1."""
    value = code_value(tokens, vocab_size)
    if mu:
        exponent = value * jnp.log1p(jnp.float32(mu))
        value = jnp.tanh(exponent / 2) * (jnp.exp(jnp.abs(exponent)) + 1) / mu
    return jnp.where(tokens < 0, 0, value)


def choose_from_mixture(
    outputs: Float[Array, "B O"],
    shape: WaveNetShape,
    recent: Int[Array, "B N"],
    uniform: tuple[Float[Array, "B 1"], Float[Array, "B 1"]],
    triangle: Float[Array, "M M"],
    temperature: Float[Array, ""],
) -> Int[Array, "B 1"]:
    """Draws as ``head.choose_from_mixture`` does, from padded outputs and the latest tokens, newest first."""
    width = whole(shape.mixtures)
    logits, means, log_scales = (outputs[:, j * width : (j + 1) * width] for j in range(3))
    chosen = lanes(logits) == choose_token(logits, uniform[0], triangle, temperature)
    mean = jnp.sum(jnp.where(chosen, means, 0), axis=1, keepdims=True)
    log_scale = jnp.sum(jnp.where(chosen, log_scales, 0), axis=1, keepdims=True)
    if shape.linear_prediction:
        coefficients = outputs[:, 3 * width :]
        past = amplitude(recent[:, : coefficients.shape[1]], shape.vocab_size, shape.mu)
        prediction = jnp.clip(jnp.sum(coefficients * past, axis=1, keepdims=True), -1, 1)
        mean = mean + compress(prediction, shape.mu)
    scale = jnp.exp(jnp.maximum(log_scale, LOG_SCALE_FLOOR))
    value = mean + temperature * scale * (jnp.log(uniform[1]) - jnp.log1p(-uniform[1]))
    level = jnp.floor((value + 1) / 2 * (shape.vocab_size - 1) + 0.5)
    return jnp.clip(level, 0, shape.vocab_size - 1).astype(jnp.int32)
