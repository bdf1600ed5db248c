"""Draws tokens from logits, with random numbers that depend on (key, position, row) only.

Models that generate tokens draw with these functions, and kernels in other languages repeat them.
The random numbers come from Threefry-2x32 with 20 rounds (Salmon et al. 2011, "Parallel random numbers: as easy as
1, 2, 3") in plain uint32 arithmetic, which can be repeated bit for bit. Their counter is (position, row), so that any
chunk of any row of a batch can be generated on its own and gets the numbers that it would get in the whole.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt32

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA
"""The constant of Threefry's key schedule."""


def key_words(key: Array) -> UInt32[Array, "2"]:
    """Returns the two words of a threefry key, typed (``jax.random.key``) or raw.

    Raises:
        ValueError: the key is not one threefry key.
    """
    key = jnp.asarray(key)
    words = jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key
    if words.shape != (2,) or words.dtype != jnp.uint32:
        raise ValueError(
            f"expected one threefry key of 2 uint32 words, got {words.dtype}{list(words.shape)}; "
            'make it with jax.random.key(seed, impl="threefry2x32")'
        )
    return words


def threefry2x32(
    key: UInt32[Array, "2"] | tuple[UInt32[Array, ""], UInt32[Array, ""]],
    first: UInt32[Array, "*s"],
    second: UInt32[Array, "*s"],
) -> tuple[UInt32[Array, "*s"], UInt32[Array, "*s"]]:
    """Encrypts the counter (first, second) under the key into two independent uniform words."""
    schedule = (key[0], key[1], key[0] ^ key[1] ^ jnp.uint32(_PARITY))
    x, y = first + schedule[0], second + schedule[1]
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            x = x + y
            y = x ^ ((y << jnp.uint32(rotation)) | (y >> jnp.uint32(32 - rotation)))
        x = x + schedule[(group + 1) % 3]
        y = y + schedule[(group + 2) % 3] + jnp.uint32(group + 1)
    return x, y


def uniforms(
    key: UInt32[Array, "2"], position: Int[Array, ""], rows: Int[Array, "B"]
) -> tuple[Float[Array, "B"], Float[Array, "B"]]:
    """Returns two uniform float32 in (0, 1) for each row at a position of its stream.

    A number is the top 23 bits of a word plus half a step, which float32 holds exactly, so that neither 0 nor 1
    occurs. (With 24 bits the largest number would round to 1.)
    """
    counter = jnp.broadcast_to(position.astype(jnp.uint32), rows.shape)
    first, second = threefry2x32(key, counter, rows.astype(jnp.uint32))
    return _to_unit(first), _to_unit(second)


def _to_unit(words: UInt32[Array, "B"]) -> Float[Array, "B"]:
    return ((words >> jnp.uint32(9)).astype(jnp.float32) + 0.5) * jnp.float32(2**-23)


def choose_index(weights: Float[Array, "B V"], uniform: Float[Array, "B"]) -> Int[Array, "B"]:
    """Returns the first index at which the cumulative sum of the weights exceeds ``uniform`` times their total.

    As ``uniforms`` are at most 1 - 2^-24 that product stays below the total, so that no index of weight 0 is chosen.
    """
    cumulative = jnp.cumsum(weights, axis=-1)
    return jnp.sum(cumulative <= uniform[:, None] * cumulative[:, -1:], axis=-1, dtype=jnp.int32)


def keep_likely(
    logits: Float[Array, "B V"], top_k: Int[Array, ""] | int, top_p: Float[Array, ""] | float
) -> Float[Array, "B V"]:
    """Sets all logits to -inf but the ``top_k`` largest and, of those, the fewest that hold a share ``top_p``.

    Tokens as likely as the last one kept are kept too. A ``top_k`` of 0 keeps all tokens; the share is that of the
    probability which the ``top_k`` hold.
    """
    ranked = jnp.sort(logits, axis=-1, descending=True)
    rank = jnp.arange(logits.shape[-1])[None]
    allowed = (rank < top_k) | (jnp.asarray(top_k) == 0)
    mass = jnp.where(allowed, jnp.exp(ranked - ranked[:, :1]), 0)
    before = jnp.cumsum(mass, axis=-1) - mass
    kept = allowed & ((before < top_p * mass.sum(-1, keepdims=True)) | (rank == 0))
    last = jnp.sum(kept, axis=-1, keepdims=True) - 1
    return jnp.where(logits >= jnp.take_along_axis(ranked, last, axis=-1), logits, -jnp.inf)


def choose_token(
    logits: Float[Array, "B V"],
    uniform: Float[Array, "B"],
    temperature: Float[Array, ""] | float = 1.0,
    top_k: Int[Array, ""] | int | None = None,
    top_p: Float[Array, ""] | float | None = None,
) -> Int[Array, "B"]:
    """Draws from softmax(logits / temperature), cut to its likeliest tokens, with one uniform number per row.

    Args:
        logits: unnormalised log-probabilities.
        uniform: numbers in (0, 1) from ``uniforms``.
        temperature: at least 0; 0 takes the likeliest token.
        top_k: number of tokens kept; 0 keeps all.
        top_p: share of the probability kept, in (0, 1]. Where both are None nothing is sorted, which is faster.

    Returns:
        Tokens in [0, V).
    """
    temperature = jnp.asarray(temperature, logits.dtype)
    scaled = logits / jnp.where(temperature > 0, temperature, 1)
    if top_k is not None or top_p is not None:
        scaled = keep_likely(scaled, 0 if top_k is None else top_k, 1.0 if top_p is None else top_p)
    drawn = choose_index(jnp.exp(scaled - scaled.max(-1, keepdims=True)), uniform)
    return jnp.where(temperature > 0, drawn, jnp.argmax(logits, -1).astype(jnp.int32))
