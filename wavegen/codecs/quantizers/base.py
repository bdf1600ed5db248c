"""The contract of quantizers: latent vectors to integers and back, with gradients that pass by the rounding."""

from abc import abstractmethod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from wavegen.errors import WavegenError
from wavegen.types import Tokens


class Quantized(NamedTuple):
    """What a quantizer made of a batch of latents.

    Attributes:
        codes: of every level that was computed.
        latents: the nearest that the levels of each row can say, in the dtype of the input. Values are those of the
            codes; gradients go straight through to the input.
        losses: float32 scalars. "commitment" pulls latents to their entries, "codebook" entries to their latents;
            both are means over batch and frames, summed over levels, and 0 where the quantizer has no such loss.
        statistics: of the whole batch, on however many devices it lies; free of gradients. "counts" [K V], int32:
            how often each entry was used; add those of several batches up. And whatever else `update` reads.
    """

    codes: Tokens
    latents: Float[Array, "B N D"]
    losses: dict[str, Float[Array, ""]]
    statistics: dict[str, Array]


class Quantizer(nnx.Module):
    """Latent vectors in, `codebooks` integers a frame out, and back.

    Arithmetic is float32 whatever the dtype of the input. `quantize` and `decode` do not change the module.

    Laws, tested for every member:

    - codes lie in `[0, codebook_size)`, and `decode(codes)` equals the quantized latents;
    - a row of a batch is quantized as the same row alone;
    - codes of fewer levels are a prefix of the codes of more, and once trained every level lowers the mean error;
    - an update does not depend on how the batch is spread over devices.

    Attributes:
        width: of the latents.
        codebooks: levels, K: integers per frame.
        codebook_size: values that a code can take, V.
    """

    width: int
    codebooks: int
    codebook_size: int

    @abstractmethod
    def __init__(self, width: int, *, random: np.random.Generator, **settings: Any) -> None:
        """A quantizer of latents of this width; the settings are those of its section of the configuration."""

    @abstractmethod
    def quantize(
        self, latents: Float[Array, "B N D"], *, levels: int | Int[Array, "B"] | None = None
    ) -> Quantized:
        """Write latents as codes.

        Args:
            latents: D is `width`.
            levels: how many codebooks are used, from 1 to `codebooks`; None is all. A number computes no others and
                returns as many codes a frame. An array, one number a row, is for training (see `draw_levels`): all
                codes are returned, but those past a row's number add nothing to its latents, losses or statistics.

        Raises:
            WavegenError: the width or the number of levels does not fit.
        """

    @abstractmethod
    def decode(self, codes: Tokens) -> Float[Array, "B N D"]:
        """Turn codes back into float32 latents.

        Args:
            codes: of the first K levels, in `[0, codebook_size)`.

        Raises:
            WavegenError: more levels than there are codebooks.
        """

    @abstractmethod
    def update(self, statistics: dict[str, Array]) -> None:
        """Learn what no gradient reaches, after each training step.

        This changes the module, by arithmetic that can be traced: in a jitted step call it on the module that was
        merged there, and split the module again. Without such weights it does nothing.

        Args:
            statistics: of the step's batch, all levels.
        """

    def _used(
        self, latents: Float[Array, "B N D"], levels: int | Int[Array, "B"] | None
    ) -> Bool[Array, "K B"]:
        """Which rows use each level that is to be computed, after checking the arguments of `quantize`."""
        batch, _, width = latents.shape
        if width != self.width:
            raise WavegenError(
                f"expected latents of width {self.width}, got {list(latents.shape)}; "
                "make encoder and quantizer of one width"
            )
        if levels is None or isinstance(levels, int):
            count = self.codebooks if levels is None else levels
            if not 1 <= count <= self.codebooks:
                raise WavegenError(
                    f"expected 1 to {self.codebooks} levels, got {levels}; leave it out for all"
                )
            return jnp.ones((count, batch), bool)
        return jnp.arange(self.codebooks)[:, None] < levels[None]

    def _check_codes(self, codes: Tokens) -> None:
        if not 1 <= codes.shape[2] <= self.codebooks:
            raise WavegenError(
                f"expected codes of 1 to {self.codebooks} levels, got {list(codes.shape)}; "
                "use the quantizer that wrote them"
            )


def require_sizes(**sizes: int) -> None:
    """Check the arguments of a quantizer.

    Raises:
        WavegenError: a size is under 1.
    """
    for name, size in sizes.items():
        if size < 1:
            raise WavegenError(f"expected {name} of at least 1, got {size}; choose a positive size")


def straight_through(
    latents: Float[Array, "*axes"], quantized: Float[Array, "*axes"]
) -> Float[Array, "*axes"]:
    """The values of `quantized`, to the last bit, with the gradient of `latents` (Bengio et al. 2013)."""
    return lax.stop_gradient(quantized) + (latents - lax.stop_gradient(latents))


def draw_levels(key: Array, batch: int, codebooks: int, probability: float) -> Int[Array, "B"]:
    """Draws quantizer dropout: how many levels each row of a training batch uses.

    With it one quantizer serves every bit rate up to its full one (Zeghidour et al. 2021, SoundStream; drawn per row
    as in Kumar et al. 2023, DAC).

    Args:
        key: of this step.
        batch: rows.
        codebooks: levels of the quantizer.
        probability: that a row uses a number drawn evenly from 1 to `codebooks`; the others use all.
    """
    which, count = jax.random.split(key)
    dropped = jax.random.bernoulli(which, probability, (batch,))
    return jnp.where(dropped, jax.random.randint(count, (batch,), 1, codebooks + 1), codebooks)
