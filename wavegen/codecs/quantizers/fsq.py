"""Finite scalar quantization and its residual form: without a learned codebook none can collapse.

Latents are projected to a few dimensions, each is squeezed into a range of L steps and rounded. The code is the
number whose digits are the rounded values, the first dimension the least significant. Source: Mentzer et al. 2023,
"Finite Scalar Quantization: VQ-VAE Made Simple".
"""

from math import prod

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from wavegen.codecs.quantizers.base import Quantized, Quantizer, require_sizes, straight_through
from wavegen.codecs.quantizers.residual import decode_levels, quantize_levels
from wavegen.codecs.quantizers.usage import count_codes
from wavegen.errors import WavegenError
from wavegen.networks.initial import normal, zeros
from wavegen.types import Tokens

EXCESS = 1e-3
"""By which share the squeezed range is wider than the steps, so that the outer ones can be reached."""


class FSQ(Quantizer):
    """Rounding of squeezed latents, with one or several codebooks.

    With ``o = 1/2`` where the size L of a dimension is even, else 0, and ``h = (1 + EXCESS) (L - 1) / 2``:

        y = h tanh(z + atanh(o / h)) - o,   first level = round(y),   its digit = round(y) + floor(L / 2)

    so that z = 0 is y = 0. The output projection reads the rounded values over ``floor(L / 2)``, about [-1, 1]; the
    gradient goes straight through the rounding to y.

    Every further level divides the step of the level before into L equal parts and takes the middle of the part in
    which y lies, so that the error falls L times. The residual is not squeezed again, which would leave the ends of
    the range bare.

    All losses are 0.

    Args:
        width: width of the latents.
        sizes: L of each dimension; a code takes their product of values. The paper's sizes are (8, 6, 5) for about
            2^8, (8, 5, 5, 5) for 2^10, (7, 5, 5, 5, 5) for 2^12 and (8, 8, 8, 6, 5) for 2^14.
        codebooks: number of codebooks, one per residual.
        random: generator of the initial weights.

    Raises:
        WavegenError: if there are no sizes, a size is outside 2 to 256, their product is over 2^24, there are more
            levels than float32 can resolve, or another size is under 1.

    Example:
        >>> import jax.numpy as jnp
        >>> import numpy as np
        >>> from wavegen.codecs.quantizers import FSQ
        >>> quantizer = FSQ(4, sizes=(8, 5, 5, 5), codebooks=2, random=np.random.default_rng(0))
        >>> quantized = quantizer.quantize(jnp.ones((1, 3, 4)))
        >>> quantizer.codebook_size, quantized.codes.shape, quantized.latents.shape
        (1000, (1, 3, 2), (1, 3, 4))
        >>> bool((quantizer.decode(quantized.codes) == quantized.latents).all())
        True
    """

    def __init__(
        self,
        width: int,
        *,
        sizes: tuple[int, ...] = (8, 5, 5, 5),
        codebooks: int = 1,
        random: np.random.Generator,
    ) -> None:
        require_sizes(width=width, codebooks=codebooks)
        # With more than 256 steps EXCESS would be a large part of a step.
        if not sizes or min(sizes) < 2 or max(sizes) > 256 or prod(sizes) > 2**24:
            raise WavegenError(
                f"expected sizes from 2 to 256 with a product of at most 2^24, got {sizes}; "
                "(8, 5, 5, 5) is the usual choice for 1000 codes"
            )
        if max(sizes) ** codebooks > 2**20:
            raise WavegenError(
                f"expected steps no finer than float32 can resolve, {max(sizes)}^codebooks at most 2^20, "
                f"got {codebooks} codebooks; take fewer"
            )
        self.width, self.codebooks, self.codebook_size = width, codebooks, prod(sizes)
        self.sizes = tuple(sizes)
        self.project_in = normal(random, width, len(sizes), scale=width**-0.5)
        self.project_in_bias = zeros(len(sizes))
        self.project_out = normal(random, len(sizes), width, scale=len(sizes) ** -0.5)
        self.project_out_bias = zeros(width)

    def quantize(
        self, latents: Float[Array, "B N D"], *, codebooks: int | Int[Array, "B"] | None = None
    ) -> Quantized:
        """See ``Quantizer.quantize``."""
        used = self._used(latents, codebooks)
        z = jnp.dot(
            latents.astype(jnp.float32),
            self.project_in[...].astype(jnp.float32),
            precision=lax.Precision.HIGHEST,
        )
        squeezed = _squeeze(z + self.project_in_bias[...].astype(jnp.float32)[None, None], self.sizes)

        def level(
            residual: Float[Array, "B N d"], used: Bool[Array, "B"], steps: tuple[Array, Array]
        ) -> tuple[Int[Array, "B N"], Float[Array, "B N d"], None]:
            step, offset = (x[None, None] for x in steps)
            digits = jnp.clip(jnp.round(residual / step + offset), 0, self._sizes() - 1).astype(jnp.int32)
            codes = jnp.sum(digits * self._place_values(), axis=-1, dtype=jnp.int32)
            return codes, self._values(codes, steps), None

        codes, rounded, _ = quantize_levels(level, lax.stop_gradient(squeezed), used, self._steps())
        quantized = self._project_out(straight_through(squeezed, rounded))
        losses = {name: jnp.zeros((), jnp.float32) for name in ("commitment", "codebook")}
        counts = count_codes(codes, self.codebook_size, used)
        return Quantized(codes, quantized.astype(latents.dtype), losses, {"counts": counts})

    def decode(self, codes: Tokens) -> Float[Array, "B N D"]:
        """See ``Quantizer.decode``."""
        self._check_codes(codes)
        return self._project_out(decode_levels(self._values, codes, self._steps(), len(self.sizes)))

    def update(self, statistics: dict[str, Array]) -> None:
        """Does nothing: all weights are learned by gradient."""

    def _steps(self) -> tuple[Float[np.ndarray, "K d"], Float[np.ndarray, "K d"]]:
        """Returns the step and the digit of 0 of each level and dimension; a value is ``(digit - offset) * step``."""
        size, level = np.asarray(self.sizes)[None], np.arange(self.codebooks)[:, None]
        offset = np.where(level == 0, size // 2, (size - 1) / 2)
        return (1 / size**level).astype(np.float32), offset.astype(np.float32)

    def _values(self, codes: Int[Array, "B N"], steps: tuple[Array, Array]) -> Float[Array, "B N d"]:
        step, offset = (x[None, None] for x in steps)
        return (codes[..., None] // self._place_values() % self._sizes() - offset) * step

    def _sizes(self) -> Int[Array, "1 1 d"]:
        return jnp.asarray(self.sizes, jnp.int32)[None, None]

    def _place_values(self) -> Int[Array, "1 1 d"]:
        return jnp.asarray(np.cumprod((1, *self.sizes[:-1])), jnp.int32)[None, None]

    def _project_out(self, rounded: Float[Array, "B N d"]) -> Float[Array, "B N D"]:
        unit = rounded / (self._sizes() // 2)
        weights = self.project_out[...].astype(jnp.float32)
        projected = jnp.dot(unit, weights, precision=lax.Precision.HIGHEST)
        return projected + self.project_out_bias[...].astype(jnp.float32)[None, None]


def _squeeze(z: Float[Array, "B N d"], sizes: tuple[int, ...]) -> Float[Array, "B N d"]:
    """Maps any number into the range of its dimension, and 0 to 0.

    The paper's listing has ``1 - EXCESS``, for which two steps have no such shift, and ``tan`` for ``atanh``, which
    moves 0.
    """
    size = np.asarray(sizes)[None, None]
    half = (1 + EXCESS) * (size - 1) / 2
    offset = np.where(size % 2 == 0, 0.5, 0.0)
    shift = np.arctanh(offset / half)
    return jnp.float32(half) * jnp.tanh(z + jnp.float32(shift)) - jnp.float32(offset)
