"""Layers of damped oscillators, one bank for each channel, and a gated linear unit over channels.

The equations are those of ``wavegen.models.ssm``.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from wavegen.models.layers.transformer import drop
from wavegen.networks.initial import normal


class Layer(nnx.Module):
    """Oscillators for each channel, and a gated linear unit over channels; see the module's equations.

    Args:
        width: channels.
        state: oscillators of a channel, N.
        longest: time constants are spread from 1 row to this many, and frequencies from pi radians a row down to pi
            over this, both evenly in their logarithms.
        chunk: rows that are read by one product, L.
        random: draws the initial weights.
    """

    def __init__(
        self, *, width: int, state: int, longest: int, chunk: int, random: np.random.Generator
    ) -> None:
        self.chunk, span = chunk, np.log(longest)
        self.decay = nnx.Param(jnp.asarray(-span * random.random((width, state)), jnp.float32))
        self.phase = nnx.Param(jnp.asarray(np.log(np.pi) - span * random.random((width, state)), jnp.float32))
        self.output = normal(random, 2, width, state, scale=state**-0.5)
        self.through = normal(random, width, scale=1.0)
        self.mix = normal(random, width, 2 * width, scale=width**-0.5)

    def products(self, rows: int) -> int:
        """Multiply-adds of a row in a clip of so many."""
        width, state = self.decay.shape
        return width * (2 * width + min(self.chunk, rows) + 4 * state)

    def begin(self, batch: int) -> Float[Array, "2 width B N"]:
        """The oscillators at rest: real parts, then imaginary ones."""
        width, state = self.decay.shape
        return jnp.zeros((2, width, batch, state), jnp.float32)

    def __call__(
        self, x: Float[Array, "width B N"], dropout: float, key: Array | None
    ) -> Float[Array, "width B N"]:
        """Whole sequences."""
        return self._mix(x, self.filter(normalise(x).astype(jnp.float32))[0], dropout, key)

    def resume(
        self, x: Float[Array, "width B N"], oscillators: Float[Array, "2 width B S"]
    ) -> tuple[Float[Array, "width B N"], Float[Array, "2 width B S"]]:
        """The next rows, and the oscillators after them."""
        y, after = self.filter(normalise(x).astype(jnp.float32), oscillators)
        return self._mix(x, y, 0.0, None), after

    def step(
        self,
        x: Float[Array, "width B 1"],
        oscillators: Float[Array, "2 width B N"],
        powers: Float[Array, "2 width N 2"],
        weights: Float[Array, "2 width N 2"],
    ) -> tuple[Float[Array, "width B 1"], Float[Array, "2 width B N"]]:
        """The next row, and the oscillators after it; the rest is from ``coefficients``."""
        (a, b), (c, d) = powers[:, :, None, :, 1], weights[:, :, None, :, 0]
        row = normalise(x).astype(jnp.float32)
        real, imaginary = oscillators
        real, imaginary = a * real - b * imaginary + row, a * imaginary + b * real
        y = jnp.sum(c * real - d * imaginary, axis=2, keepdims=True) + self._straight(row)
        return self._mix(x, y, 0.0, None), jnp.stack([real, imaginary])

    def coefficients(
        self, count: int
    ) -> tuple[Float[Array, "2 width N count"], Float[Array, "2 width N count"]]:
        """The powers of lambda from 0 on, and those times gamma c; real parts, then imaginary ones."""
        times = jnp.arange(count, dtype=jnp.float32)[None, None]
        # Float32 throughout: an oscillator remembers thousands of rows.
        rate, turn = (jnp.exp(x[...].astype(jnp.float32))[:, :, None] for x in (self.decay, self.phase))
        size, angle = jnp.exp(-rate * times), turn * times
        a, b = size * jnp.cos(angle), size * jnp.sin(angle)
        c, d = self.output[...].astype(jnp.float32)[..., None] * jnp.sqrt(-jnp.expm1(-2 * rate))[None]
        return jnp.stack([a, b]), jnp.stack([c * a - d * b, c * b + d * a])

    def _straight(self, x: Float[Array, "width B N"]) -> Float[Array, "width B N"]:
        return self.through[...].astype(jnp.float32)[:, None, None] * x

    def filter(
        self, x: Float[Array, "width B N"], oscillators: Float[Array, "2 width B S"] | None = None
    ) -> tuple[Float[Array, "width B N"], Float[Array, "2 width B S"]]:
        """The oscillators' answer, by chunks, and the oscillators after it.

        Args:
            x: a whole clip, or rows that follow others.
            oscillators: before these rows; None is at rest. What is returned of a whole clip is of its last chunk
                filled up with zeros.
        """
        width, batch, rows = x.shape
        size = min(self.chunk, rows) if oscillators is None else math.gcd(self.chunk, rows)
        start = self.begin(batch) if oscillators is None else oscillators
        powers, weights = self.coefficients(size + 1)
        response = jnp.sum(weights[0, :, :, :size], axis=1)
        # The response and as many zeros, again and again: rows one shorter than that period each begin one earlier.
        toeplitz = jnp.tile(jnp.pad(response, ((0, 0), (0, size))), size)[:, : size * (2 * size - 1)]
        toeplitz = toeplitz.reshape(width, size, 2 * size - 1)[:, :, :size]
        chunks = jnp.pad(x, ((0, 0), (0, 0), (0, -rows % size))).reshape(width, -1, size)
        y = jnp.einsum("wcs,wst->wct", chunks, toeplitz)
        if rows > size or oscillators is not None:
            each = jnp.einsum("wcs,pwns->wcpn", chunks, powers[..., size - 1 :: -1])
            each = jnp.moveaxis(each.reshape(width, batch, -1, 2, powers.shape[2]), (2, 3), (0, 1))
            a, b = powers[:, :, None, :, size]

            def one(before: Array, each: Array) -> tuple[Array, Array]:
                real, imaginary = before
                return jnp.stack([a * real - b * imaginary, a * imaginary + b * real]) + each, before

            start, before = lax.scan(one, start, each)
            before = jnp.moveaxis(before, (0, 1), (2, 3)).reshape(width, -1, 2, powers.shape[2])
            leaves = weights[..., 1:] * jnp.array([1.0, -1.0])[:, None, None, None]
            y = y + jnp.einsum("wcpn,pwnt->wct", before, leaves)
        return y.reshape(width, batch, -1)[:, :, :rows] + self._straight(x), start

    def _mix(
        self, x: Float[Array, "width B N"], y: Float[Array, "width B N"], dropout: float, key: Array | None
    ) -> Float[Array, "width B N"]:
        z = drop(jax.nn.gelu(y).astype(x.dtype), dropout, key)
        # Plain matrices: the gradient of a product with more axes takes XLA on a CPU four times as long.
        mixed = self.mix[...].T @ z.reshape(len(z), -1)
        value, gate = mixed.reshape(2, *x.shape)
        return x + value * jax.nn.sigmoid(gate)


def normalise(x: Float[Array, "width *axes"]) -> Float[Array, "width *axes"]:
    """Scales the channels of every row to a root mean square of 1; gains are the filters' part."""
    wide = x.astype(jnp.float32)
    return (wide * lax.rsqrt(jnp.mean(wide * wide, axis=0, keepdims=True) + 1e-6)).astype(x.dtype)
