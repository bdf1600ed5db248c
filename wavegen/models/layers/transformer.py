"""The block of a transformer: attention, then a gated layer, each added to its input, which it reads normalised.

    x <- x + Attention(RMSNorm(x)),    x <- x + W_down (silu(W_gate h) * (W_up h)),  h = RMSNorm(x)

Queries and keys are normalised (Henry et al. 2020, arXiv:2010.04245), which keeps the logits of attention bounded,
and then rotated by their positions (Su et al. 2021, arXiv:2104.09864), so that attention depends on distances alone.
Other sources: Vaswani et al. 2017; Zhang and Sennrich 2019 (RMSNorm); Shazeer 2020, arXiv:2002.05202 (SwiGLU); Xiong
et al. 2020 (normalising first). There are no biases.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from wavegen.networks.initial import normal, zeros


class RMSNorm(nnx.Module):
    """Vectors scaled to a root mean square of 1, then by a gain per dimension.

    Arithmetic is float32; the result has the dtype of the input.

    Args:
        width: width of the vectors.
    """

    def __init__(self, width: int) -> None:
        self.gain = zeros(width)  # the gain minus 1

    def __call__(self, x: Float[Array, "*axes D"]) -> Float[Array, "*axes D"]:
        """Normalises the last axis."""
        wide = x.astype(jnp.float32)
        size = lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + 1e-6)
        gain = 1 + self.gain[...].astype(jnp.float32)
        return (wide * size * jnp.expand_dims(gain, range(x.ndim - 1))).astype(x.dtype)


def rotate(x: Float[Array, "B N heads D"], positions: Int[Array, "N"]) -> Float[Array, "B N heads D"]:
    """Rotates dimensions d and d + D/2 by the angle ``position 10000^(-2 d / D)``.

    Args:
        x: queries or keys; D is even.
        positions: positions of the frames.
    """
    half = x.shape[-1] // 2
    frequency = 10000.0 ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle = positions.astype(jnp.float32)[None, :, None, None] * frequency[None, None, None, :]
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    # A roll swaps the halves: concatenating them takes XLA on a CPU six times as long.
    wide = x.astype(jnp.float32)
    along, across = jnp.concatenate([cosine, cosine], -1), jnp.concatenate([-sine, sine], -1)
    return (wide * along + jnp.roll(wide, half, axis=-1) * across).astype(x.dtype)


def apply(x: Float[Array, "B N D"], weights: Float[Array, "D *outputs"]) -> Float[Array, "B N *outputs"]:
    """Multiplies every frame by a matrix.

    Batch and frames are merged into one axis of rows: with two axes to contract, the gradient of the weights takes
    XLA on a CPU 1.5 times as long.
    """
    rows = x.reshape(-1, x.shape[2]) @ weights.reshape(len(weights), -1)
    return rows.reshape(*x.shape[:2], *weights.shape[1:])


def attend(
    queries: Float[Array, "B M heads D"],
    keys: Float[Array, "B N heads D"],
    values: Float[Array, "B N heads D"],
    mask: Bool[Array, "#B 1 #M N"] | None = None,
) -> Float[Array, "B M heads D"]:
    """Returns the mean of the values, weighted by ``softmax(queries . keys / sqrt(D))``, for each head.

    This is ``jax.nn.dot_product_attention``, with flash attention where available, except on a CPU, where it takes
    twice the time of the code here.
    """

    def elsewhere(queries: Array, keys: Array, values: Array) -> Array:
        return jax.nn.dot_product_attention(queries, keys, values, mask=mask)

    return lax.platform_dependent(
        queries, keys, values, cpu=partial(_attend_on_cpu, mask=mask), default=elsewhere
    )


def _attend_on_cpu(
    queries: Float[Array, "B M heads D"],
    keys: Float[Array, "B N heads D"],
    values: Float[Array, "B N heads D"],
    mask: Bool[Array, "#B 1 #M N"] | None = None,
) -> Float[Array, "B M heads D"]:
    """Moves heads before rows for the products, and divides by the sum of the weights after them."""
    queries, keys, values = (jnp.moveaxis(x, 2, 1) for x in (queries, keys, values))
    scores = jnp.einsum(
        "bhmd,bhnd->bhmn", queries * queries.shape[3] ** -0.5, keys, preferred_element_type=jnp.float32
    )
    if mask is not None:
        scores = jnp.where(mask, scores, jnp.finfo(jnp.float32).min)
    weights = jnp.exp(scores - lax.stop_gradient(jnp.max(scores, axis=3, keepdims=True)))
    read = jnp.einsum(
        "bhmn,bhnd->bhmd", weights.astype(values.dtype), values, preferred_element_type=jnp.float32
    )
    read = read / jnp.sum(weights, axis=3, keepdims=True)
    return jnp.moveaxis(read, 1, 2).astype(values.dtype)


class Attention(nnx.Module):
    """Multi-head attention.

    Args:
        width: width of the frames; a multiple of ``heads``, each of which has an even number of dimensions.
        heads: number of heads.
        scale: scale of the initial output weights.
        random: generator of the initial weights.
    """

    def __init__(self, width: int, heads: int, *, scale: float, random: np.random.Generator) -> None:
        head = width // heads
        self.project = normal(random, width, 3, heads, head, scale=width**-0.5)
        self.query_norm, self.key_norm = RMSNorm(head), RMSNorm(head)
        self.output = normal(random, heads, head, width, scale=scale * width**-0.5)

    def queries_keys_values(
        self, x: Float[Array, "B N width"], positions: Int[Array, "N"] | None
    ) -> tuple[Float[Array, "B N heads D"], Float[Array, "B N heads D"], Float[Array, "B N heads D"]]:
        """Projects frames to queries, keys and values; a decoder stores the last two. None rotates nothing."""
        project = self.project[...]
        queries, keys, values = (apply(x, project[:, i]) for i in range(3))
        queries, keys = self.query_norm(queries), self.key_norm(keys)
        if positions is not None:
            queries, keys = rotate(queries, positions), rotate(keys, positions)
        return queries, keys, values

    def mix(self, read: Float[Array, "B N heads D"]) -> Float[Array, "B N width"]:
        """Projects the output of all heads to frames."""
        return _mix(read, self.output[...])

    def __call__(
        self,
        x: Float[Array, "B N width"],
        positions: Int[Array, "N"],
        mask: Bool[Array, "B 1 #N N"] | None,
    ) -> Float[Array, "B N width"]:
        """Lets every frame read all frames where the mask (rows, heads, queries, keys) is true; None is everywhere."""
        queries, keys, values = self.queries_keys_values(x, positions)
        return self.mix(attend(queries, keys, values, mask))


class CrossAttention(nnx.Module):
    """Multi-head attention of one sequence to another.

    Args:
        width: width of the frames of both; see ``Attention``.
        heads: see ``Attention``.
        scale: see ``Attention``.
        random: generator of the initial weights.
    """

    def __init__(self, width: int, heads: int, *, scale: float, random: np.random.Generator) -> None:
        head = width // heads
        self.query = normal(random, width, heads, head, scale=width**-0.5)
        self.project = normal(random, width, 2, heads, head, scale=width**-0.5)
        self.query_norm, self.key_norm = RMSNorm(head), RMSNorm(head)
        self.output = normal(random, heads, head, width, scale=scale * width**-0.5)

    def keys_values(
        self, source: Float[Array, "B F width"], positions: Int[Array, "F"]
    ) -> tuple[Float[Array, "B F heads D"], Float[Array, "B F heads D"]]:
        """Projects the frames of the source to keys and values."""
        project = self.project[...]
        keys, values = (apply(source, project[:, i]) for i in range(2))
        return rotate(self.key_norm(keys), positions), values

    def __call__(
        self,
        x: Float[Array, "B N width"],
        positions: Int[Array, "N"],
        keys: Float[Array, "B F heads D"],
        values: Float[Array, "B F heads D"],
        mask: Bool[Array, "B 1 1 F"],
    ) -> Float[Array, "B N width"]:
        """Lets every frame read the frames of the source where the mask is true."""
        queries = rotate(self.query_norm(apply(x, self.query[...])), positions)
        return _mix(attend(queries, keys, values, mask), self.output[...])


def _mix(
    read: Float[Array, "B N heads D"], output: Float[Array, "heads D width"]
) -> Float[Array, "B N width"]:
    heads, head, width = output.shape
    return apply(read.reshape(*read.shape[:2], heads * head), output.reshape(heads * head, width))


class SwiGLU(nnx.Module):
    """The gated layer.

    Args:
        width: width of the frames.
        hidden: number of hidden units.
        scale: scale of the initial output weights.
        random: generator of the initial weights.
    """

    def __init__(self, width: int, hidden: int, *, scale: float, random: np.random.Generator) -> None:
        self.gate_up = normal(random, width, 2, hidden, scale=width**-0.5)
        self.down = normal(random, hidden, width, scale=scale * hidden**-0.5)

    def __call__(self, x: Float[Array, "B N width"]) -> Float[Array, "B N width"]:
        """Maps each frame on its own."""
        gate_up = self.gate_up[...]
        gate, up = jnp.split(apply(x, gate_up.reshape(len(gate_up), -1)), 2, axis=2)
        return apply(nnx.silu(gate) * up, self.down[...])


class Block(nnx.Module):
    """Attention and a gated layer, with dropout on what each adds.

    Args:
        width: width of the frames; see ``Attention``.
        heads: number of heads.
        hidden: hidden units of the gated layer.
        scale: initial scale of what the block adds to its input; ``(2 layers) ** -0.5`` keeps the sum of all blocks
            near 1.
        random: generator of the initial weights.
    """

    def __init__(
        self, width: int, heads: int, hidden: int, *, scale: float, random: np.random.Generator
    ) -> None:
        self.attention_norm, self.gated_norm = RMSNorm(width), RMSNorm(width)
        self.attention = Attention(width, heads, scale=scale, random=random)
        self.gated = SwiGLU(width, hidden, scale=scale, random=random)

    def __call__(
        self,
        x: Float[Array, "B N width"],
        positions: Int[Array, "N"],
        mask: Bool[Array, "B 1 #N N"] | None = None,
        *,
        dropout: float = 0.0,
        dropout_key: Array | None = None,
    ) -> Float[Array, "B N width"]:
        """Maps frames to frames.

        See ``Attention`` for positions and mask; ``dropout`` is the share that is dropped if a key is given.
        """
        first, second = (None, None) if dropout_key is None else jax.random.split(dropout_key)
        x = x + drop(self.attention(self.attention_norm(x), positions, mask), dropout, first)
        return x + drop(self.gated(self.gated_norm(x)), dropout, second)


def drop(x: Float[Array, "*axes"], rate: float, key: Array | None) -> Float[Array, "*axes"]:
    """Zeroes a share of the values and scales the others up; without a key or a rate it does nothing."""
    if key is None or rate == 0:
        return x
    # 16 bits per value suffice, and drawing random bits takes longer than everything else here.
    width = x.shape[-1]
    bits = jax.random.bits(key, (*x.shape[:-1], -(-width // 2)))
    bits = lax.bitcast_convert_type(bits, jnp.uint16).reshape(*x.shape[:-1], -1)[..., :width]
    return jnp.where(bits >= round(rate * 2**16), x / (1 - rate), 0)
