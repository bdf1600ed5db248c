"""Gives sizes to test and time implementations with."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


@dataclass(frozen=True)
class Lookup:
    """Describes a problem by its sizes: rows N, codebook entries K, width D."""

    rows: int
    codes: int
    width: int

    def random(
        self, seed: int = 0, dtype: jax.typing.DTypeLike = jnp.float32
    ) -> tuple[Float[Array, "N D"], Float[Array, "K D"]]:
        """Returns rows and a codebook, both standard normal."""
        rng = np.random.default_rng(seed)
        x, codebook = (rng.standard_normal((n, self.width), np.float32) for n in (self.rows, self.codes))
        return jnp.asarray(x, dtype), jnp.asarray(codebook, dtype)


TIMED = {
    "8192x512x128": Lookup(8192, 512, 128),
    "65536x1024x64": Lookup(65536, 1024, 64),
    "16384x8192x8": Lookup(16384, 8192, 8),
}
"""Sizes that are timed: rows of a training batch with usual codebooks, and a narrow one with many entries."""

ODD = {
    "7x3x5": Lookup(7, 3, 5),
    "1x512x128": Lookup(1, 512, 128),
    "33x1x4": Lookup(33, 1, 4),
    "100x17x1": Lookup(100, 17, 1),
    "2049x1023x3": Lookup(2049, 1023, 3),
    "3x1100000x2": Lookup(3, 1_100_000, 2),
    "0x5x3": Lookup(0, 5, 3),
}
"""Sizes that are tested: no chunk divides them, an axis has length 1 or 0, or a chunk has fewer distances than K."""
