"""The contract of quantizers: latent vectors to integers and back, with gradients that bypass the rounding."""

from abc import abstractmethod
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from wavegen.errors import WavegenError
from wavegen.types import Tokens


class Quantized(NamedTuple):
    """The result of quantizing a batch of latents.

    Attributes:
        codes: the codes of every codebook that was used.
        latents: the latents that the codes of each row stand for, in the dtype of the input. Gradients go straight
            through to the input.
        losses: float32 scalars. "commitment" pulls latents to their entries, "codebook" pulls entries to their
            latents; both are means over batch, frames and dimensions, summed over codebooks, and 0 where the quantizer
            has no such loss.
        statistics: statistics of the whole batch, on however many devices it lies, without gradients. "counts" [K V],
            int32, is how often each entry was used; counts of several batches add up. The other entries are for
            ``update``.
    """

    codes: Tokens
    latents: Float[Array, "B N D"]
    losses: dict[str, Float[Array, ""]]
    statistics: dict[str, Array]


class Quantizer(nnx.Module):
    """Latent vectors in, ``codebooks`` integers per frame out, and back.

    Arithmetic is float32 whatever the dtype of the input. ``quantize`` and ``decode`` do not change the module.

    Laws, tested for every member:

    - codes lie in ``[0, codebook_size)``, and ``decode(codes)`` equals the quantized latents;
    - a row of a batch is quantized as the same row alone;
    - codes of fewer codebooks are a prefix of the codes of more, and once trained every codebook lowers the mean error;
    - an update does not depend on how the batch is spread over devices.

    Attributes:
        width: width of the latents, D.
        codebooks: codes per frame, K: each one quantizes what those before it left over.
        codebook_size: number of values that a code can take, V.
        starts_from_latents: whether ``start`` places the entries, so that training has to compute latents for it.
    """

    width: int
    codebooks: int
    codebook_size: int
    starts_from_latents: ClassVar[bool] = False

    @abstractmethod
    def __init__(self, width: int, *, random: np.random.Generator, **settings: Any) -> None:
        """Makes a quantizer of latents of this width; the settings are those of its section of the configuration."""

    @abstractmethod
    def quantize(
        self, latents: Float[Array, "B N D"], *, codebooks: int | Int[Array, "B"] | None = None
    ) -> Quantized:
        """Writes latents as codes.

        Args:
            latents: vectors of ``width`` dimensions.
            codebooks: how many codebooks are used, from 1 to ``codebooks``; None is all. An integer computes only that
                many codes per frame. An array with one number per row is for training (see ``draw_codebooks``): all
                codes are returned, but those past a row's number add nothing to its latents, losses or statistics.

        Raises:
            WavegenError: if the width or the number of codebooks does not fit.
        """

    @abstractmethod
    def decode(self, codes: Tokens) -> Float[Array, "B N D"]:
        """Converts codes to float32 latents.

        Args:
            codes: codes of the first K codebooks, in ``[0, codebook_size)``.

        Raises:
            WavegenError: if there are more than the quantizer has.
        """

    @abstractmethod
    def update(self, statistics: dict[str, Array]) -> None:
        """Updates the weights that no gradient reaches, after each training step.

        This changes the module by arithmetic that can be traced: a jitted step calls it on the module that was merged
        there, and splits the module again. It does nothing where there are no such weights.

        Args:
            statistics: statistics of the step's batch, with all codebooks.
        """

    def start(self, latents: Float[Array, "B N D"], *, random: np.random.Generator) -> None:
        """Places the entries on real latents, before the first step; by default they stay where they are.

        Args:
            latents: output of the untrained encoder for real audio, at least ``codebook_size`` vectors.
            random: generator of whatever is drawn.

        Raises:
            WavegenError: if there are too few vectors, or the width does not fit.
        """
        del latents, random

    def _used(
        self, latents: Float[Array, "B N D"], codebooks: int | Int[Array, "B"] | None
    ) -> Bool[Array, "K B"]:
        """Returns which rows use each codebook, after checking the arguments of ``quantize``."""
        batch, _, width = latents.shape
        if width != self.width:
            raise WavegenError(
                f"expected latents of width {self.width}, got {list(latents.shape)}; "
                "make encoder and quantizer of one width"
            )
        if codebooks is None or isinstance(codebooks, int):
            count = self.codebooks if codebooks is None else codebooks
            if not 1 <= count <= self.codebooks:
                raise WavegenError(
                    f"expected 1 to {self.codebooks} codebooks, got {codebooks}; leave codebooks out to use all"
                )
            return jnp.ones((count, batch), bool)
        return jnp.arange(self.codebooks)[:, None] < codebooks[None]

    def _check_codes(self, codes: Tokens) -> None:
        if not 1 <= codes.shape[2] <= self.codebooks:
            raise WavegenError(
                f"expected codes of 1 to {self.codebooks} codebooks, got {list(codes.shape)}; "
                "use the quantizer that wrote them"
            )


def require_sizes(**sizes: int) -> None:
    """Checks the sizes of a quantizer.

    Raises:
        WavegenError: if a size is under 1.
    """
    for name, size in sizes.items():
        if size < 1:
            raise WavegenError(f"expected {name} of at least 1, got {size}; choose a positive size")


def straight_through(
    latents: Float[Array, "*axes"], quantized: Float[Array, "*axes"]
) -> Float[Array, "*axes"]:
    """Returns the values of ``quantized``, to the last bit, with the gradient of ``latents`` (Bengio et al. 2013)."""
    return lax.stop_gradient(quantized) + (latents - lax.stop_gradient(latents))


def draw_codebooks(key: Array, batch: int, codebooks: int, probability: float) -> Int[Array, "B"]:
    """Draws quantizer dropout: how many codebooks each row of a training batch uses.

    With it one quantizer serves every bit rate up to its full one (Zeghidour et al. 2021, SoundStream; drawn per row
    as in Kumar et al. 2023, DAC).

    Args:
        key: PRNG key of this step.
        batch: number of rows.
        codebooks: of the quantizer.
        probability: probability that a row uses a number drawn uniformly from 1 to ``codebooks``; the others use all.

    Example:
        >>> import jax
        >>> from wavegen.codecs.quantizers import draw_codebooks
        >>> draw_codebooks(jax.random.key(0), batch=4, codebooks=8, probability=0.0).tolist()
        [8, 8, 8, 8]
    """
    which, count = jax.random.split(key)
    dropped = jax.random.bernoulli(which, probability, (batch,))
    return jnp.where(dropped, jax.random.randint(count, (batch,), 1, codebooks + 1), codebooks)
