"""Residual vector quantization with codebooks that follow their latents as moving averages.

Sources: van den Oord et al. 2017, "Neural Discrete Representation Learning", appendix A.1 (averages); Dhariwal et al.
2020, "Jukebox", section 3.1 (restart of dead entries); Zeghidour et al. 2021, "SoundStream", section III-C (residual
levels, k-means initialisation).

A jitted step carries the averages in addition to the parameters:

    graph, params, averages = nnx.split(model, nnx.Param, Average)      # once

    model = nnx.merge(graph, params, averages)                          # in the step
    (loss, statistics), gradient = ...                                  # with respect to params
    model.quantizer.update(statistics)
    averages = nnx.state(model, Average)
"""

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from wavegen.codecs.quantizers.base import Quantized, Quantizer, require_sizes, straight_through
from wavegen.codecs.quantizers.kmeans import kmeans, sum_by_code
from wavegen.codecs.quantizers.residual import decode_levels, mean_of_used, quantize_levels
from wavegen.codecs.quantizers.usage import count_codes
from wavegen.errors import WavegenError
from wavegen.kernels import nearest_code
from wavegen.types import Tokens


class Average(nnx.Variable[Array]):
    """A weight that ``Quantizer.update`` sets: no gradient reaches it, and no optimizer may decay it."""


class EMAResidualVQ(Quantizer):
    """The quantizer of SoundStream and EnCodec.

    Codes are those of the nearest entries in the latents' own space. With ``n_k`` the share of a batch's vectors that
    chose entry k and ``m_k`` their mean, an update is

        p_k <- decay p_k + (1 - decay) n_k,   e_k <- e_k + (1 - decay) n_k (m_k - e_k) / p_k

    which is the paper's ratio of averaged sums and averaged counts, with counts as shares so that they do not depend
    on the size of a batch. An entry whose share falls below ``restart / codebook_size`` is dead: it moves to a vector
    of the batch and gets an even share, which lasts for 230 unused updates by default.

    The loss "codebook" is 0. EnCodec weights "commitment" by 0.25 to 1.

    Args:
        width: width of the latents.
        codebooks: number of codebooks, one per residual.
        codebook_size: entries per codebook.
        decay: decay of the averages, from 0 to below 1.
        restart: share of an even share below which an entry is dead, from 0 to below 1; 0 restarts none.
        random: generator of the initial entries; ``start`` places them better.

    Raises:
        WavegenError: if a size is under 1, or ``decay`` or ``restart`` is out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> import numpy as np
        >>> from wavegen.codecs.quantizers import EMAResidualVQ
        >>> quantizer = EMAResidualVQ(2, codebooks=3, codebook_size=16, random=np.random.default_rng(0))
        >>> codes = quantizer.quantize(jnp.ones((1, 5, 2))).codes
        >>> codes.shape, quantizer.decode(codes).shape
        ((1, 5, 3), (1, 5, 2))
    """

    starts_from_latents = True

    def __init__(
        self,
        width: int,
        *,
        codebooks: int = 8,
        codebook_size: int = 1024,
        decay: float = 0.99,
        restart: float = 0.1,
        random: np.random.Generator,
    ) -> None:
        require_sizes(width=width, codebooks=codebooks, codebook_size=codebook_size)
        for name, number in {"decay": decay, "restart": restart}.items():
            if not 0 <= number < 1:
                raise WavegenError(
                    f"expected {name} from 0 to below 1, got {number}; leave it out for the default"
                )
        self.width, self.codebooks, self.codebook_size = width, codebooks, codebook_size
        self.decay, self.restart = decay, restart
        entries = random.standard_normal((codebooks, codebook_size, width), np.float32)
        self.codebook = Average(jnp.asarray(entries))
        self.share = Average(jnp.full((codebooks, codebook_size), 1 / codebook_size, jnp.float32))

    def quantize(
        self, latents: Float[Array, "B N D"], *, codebooks: int | Int[Array, "B"] | None = None
    ) -> Quantized:
        """See ``Quantizer.quantize``.

        The statistics have two more entries. "sums" [K V D] are the sums of the vectors that chose each entry; those
        of several batches add up. "candidates" [K V D] are vectors of the batch to which dead entries may move; those
        of any batch serve.
        """
        used = self._used(latents, codebooks)
        codebook = self.codebook[...].astype(jnp.float32)
        codes, total, more = quantize_levels(_level, latents.astype(jnp.float32), used, codebook)
        quantized = straight_through(latents, total.astype(latents.dtype))
        losses = {"commitment": jnp.sum(more["commitment"]), "codebook": jnp.zeros((), jnp.float32)}
        counts = count_codes(codes, self.codebook_size, used)
        statistics = {"counts": counts, "sums": more["sums"], "candidates": more["candidates"]}
        return Quantized(codes, quantized, losses, statistics)

    def decode(self, codes: Tokens) -> Float[Array, "B N D"]:
        """See ``Quantizer.decode``."""
        self._check_codes(codes)
        codebook = self.codebook[...].astype(jnp.float32)
        return decode_levels(lambda code, entries: entries[code], codes, codebook, self.width)

    def update(self, statistics: dict[str, Array]) -> None:
        """See ``Quantizer.update``; a level that no row used stays unchanged."""
        counts = statistics["counts"][..., None].astype(jnp.float32)
        if len(counts) != self.codebooks:
            raise WavegenError(
                f"expected statistics of {self.codebooks} codebooks, got {len(counts)}; quantize with all of them"
            )
        vectors = counts.sum(axis=1, keepdims=True)
        rate = jnp.where(vectors > 0, 1 - self.decay, 0)
        batch_share, batch_sum = (x / jnp.maximum(vectors, 1) for x in (counts, statistics["sums"]))
        share = self.share[...][..., None]
        share = share + rate * (batch_share - share)
        # No average of the sums is kept, so that entries without vectors keep their place to the last bit.
        step = rate * (batch_sum - batch_share * self.codebook[...])
        codebook = self.codebook[...] + step / jnp.maximum(share, jnp.finfo(jnp.float32).tiny)
        dead = (share < self.restart / self.codebook_size) & (vectors > 0)
        self.codebook[...] = jnp.where(dead, statistics["candidates"], codebook)
        self.share[...] = jnp.where(dead, 1 / self.codebook_size, share)[..., 0]

    def start(
        self, latents: Float[Array, "B N D"], *, random: np.random.Generator, iterations: int = 50
    ) -> None:
        """Places the entries by k-means, level by level; see ``Quantizer.start``.

        Args:
            latents: see ``Quantizer.start``.
            random: generator of the first entries of k-means.
            iterations: iterations of k-means.
        """
        self._used(latents, None)
        residual = latents.astype(jnp.float32).reshape(-1, self.width)
        for level in range(self.codebooks):
            entries, codes = kmeans(residual, self.codebook_size, iterations=iterations, random=random)
            self.codebook[...] = self.codebook[...].at[level].set(entries)
            counts = jnp.bincount(codes, length=self.codebook_size)
            self.share[...] = self.share[...].at[level].set(counts / len(codes))
            residual = residual - entries[codes]


def _level(
    residual: Float[Array, "B N D"], used: Bool[Array, "B"], codebook: Float[Array, "V D"]
) -> tuple[Int[Array, "B N"], Float[Array, "B N D"], dict[str, Array]]:
    # The residual keeps the gradient of the latents, so that every level's commitment reaches them.
    codebook = lax.stop_gradient(codebook)
    size, width = codebook.shape
    rows = lax.stop_gradient(residual).reshape(-1, width)
    codes = nearest_code(rows, codebook)
    entries = codebook[codes].reshape(residual.shape)
    counted = jnp.where(used[:, None, None], lax.stop_gradient(residual), 0).reshape(-1, width)
    more = {
        "commitment": mean_of_used((residual - entries) ** 2, used),
        "sums": sum_by_code(counted, codes, size),
        # Evenly spaced rows suffice, because crops are drawn at random already.
        "candidates": rows[np.arange(size) * len(rows) // size],
    }
    return codes.reshape(residual.shape[:2]), entries, more
