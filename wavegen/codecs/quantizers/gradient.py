"""Residual vector quantization with factorised, normalised codebooks that are learned by gradient.

Each level projects to a few dimensions, looks up the entry of the nearest direction, and projects back. Few
dimensions and normalised distances keep nearly all entries in use without restarts or averages, so that training has
no state but the parameters. Sources: Yu et al. 2022, "Vector-quantized Image Modeling with Improved VQGAN", section
3.2; Kumar et al. 2023, "High-Fidelity Audio Compression with Improved RVQGAN" (DAC), section 3.2.
"""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from wavegen.codecs.quantizers.base import Quantized, Quantizer, require_sizes, straight_through
from wavegen.codecs.quantizers.residual import decode_levels, mean_of_used, quantize_levels
from wavegen.codecs.quantizers.usage import count_codes
from wavegen.kernels import nearest_code
from wavegen.networks.initial import normal, zeros
from wavegen.types import Tokens


class GradientVQ(Quantizer):
    """The quantizer of DAC.

    Level i with residual r, projections ``p(r) = r A + a`` and ``q(e) = e B + b``, and codebook E computes

        c = argmin_k |p(r)/|p(r)| - E_k/|E_k||,   quantized residual = q(E_c),   next residual = r - q(E_c)

    The entry itself is used, not its direction. Its gradient goes straight through to p(r), so that the gradient of
    the sum over codebooks to the latents is ``I - (I - A_1 B_1)(I - A_2 B_2)...``. Losses are means over the few
    dimensions, summed over codebooks; DAC weights "codebook" by 1 and "commitment" by 0.25.

    Args:
        width: width of the latents.
        codebooks: number of codebooks, one per residual.
        codebook_size: entries per codebook.
        codebook_width: dimensions in which entries are compared.
        random: generator of the initial weights.

    Raises:
        WavegenError: if a size is under 1.

    Example:
        >>> import jax.numpy as jnp
        >>> import numpy as np
        >>> from wavegen.codecs.quantizers import GradientVQ
        >>> quantizer = GradientVQ(16, codebooks=3, codebook_size=32, random=np.random.default_rng(0))
        >>> latents = jnp.ones((1, 5, 16))
        >>> quantizer.quantize(latents).codes.shape, quantizer.quantize(latents, codebooks=2).codes.shape
        ((1, 5, 3), (1, 5, 2))
    """

    def __init__(
        self,
        width: int,
        *,
        codebooks: int = 8,
        codebook_size: int = 1024,
        codebook_width: int = 8,
        random: np.random.Generator,
    ) -> None:
        require_sizes(
            width=width, codebooks=codebooks, codebook_size=codebook_size, codebook_width=codebook_width
        )
        self.width, self.codebooks, self.codebook_size = width, codebooks, codebook_size
        self.project_in = normal(random, codebooks, width, codebook_width, scale=width**-0.5)
        self.project_in_bias = zeros(codebooks, codebook_width)
        self.codebook = normal(random, codebooks, codebook_size, codebook_width, scale=1.0)
        self.project_out = normal(random, codebooks, codebook_width, width, scale=codebook_width**-0.5)
        self.project_out_bias = zeros(codebooks, width)

    def quantize(
        self, latents: Float[Array, "B N D"], *, codebooks: int | Int[Array, "B"] | None = None
    ) -> Quantized:
        """See ``Quantizer.quantize``."""
        used = self._used(latents, codebooks)
        codes, quantized, losses = quantize_levels(_level, latents.astype(jnp.float32), used, self._weights())
        return Quantized(
            codes,
            quantized.astype(latents.dtype),
            {name: jnp.sum(loss) for name, loss in losses.items()},
            {"counts": count_codes(codes, self.codebook_size, used)},
        )

    def decode(self, codes: Tokens) -> Float[Array, "B N D"]:
        """See ``Quantizer.decode``."""
        self._check_codes(codes)
        return decode_levels(
            lambda code, w: _project_out(w["codebook"][code], w), codes, self._weights(), self.width
        )

    def update(self, statistics: dict[str, Array]) -> None:
        """Does nothing: all weights are learned by gradient."""

    def _weights(self) -> dict[str, Float[Array, "K ..."]]:
        names = ("project_in", "project_in_bias", "codebook", "project_out", "project_out_bias")
        return {name: getattr(self, name)[...].astype(jnp.float32) for name in names}


def _level(
    residual: Float[Array, "B N D"], used: Bool[Array, "B"], w: dict[str, Array]
) -> tuple[Int[Array, "B N"], Float[Array, "B N D"], dict[str, Float[Array, ""]]]:
    latents = jnp.dot(residual, w["project_in"], precision=lax.Precision.HIGHEST)
    latents = latents + w["project_in_bias"][None, None]
    rows = _direction(latents.reshape(-1, latents.shape[-1]))
    codes = nearest_code(rows, _direction(w["codebook"])).reshape(latents.shape[:2])
    entries = w["codebook"][codes]
    losses = {
        "commitment": mean_of_used((latents - lax.stop_gradient(entries)) ** 2, used),
        "codebook": mean_of_used((entries - lax.stop_gradient(latents)) ** 2, used),
    }
    return codes, _project_out(straight_through(latents, entries), w), losses


def _project_out(entries: Float[Array, "B N d"], w: dict[str, Array]) -> Float[Array, "B N D"]:
    projected = jnp.dot(entries, w["project_out"], precision=lax.Precision.HIGHEST)
    return projected + w["project_out_bias"][None, None]


def _direction(x: Float[Array, "N D"]) -> Float[Array, "N D"]:
    """Scales vectors to length 1, without a gradient, which would not be finite at 0."""
    x = lax.stop_gradient(x)
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
