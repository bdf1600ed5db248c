"""Finds the nearest entry of a codebook: the public operation, which checks its arguments."""

from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int32

from ..dispatch import dispatch
from . import reference, xla

IMPLEMENTATIONS = {"xla": xla.nearest_code, "reference": reference.nearest_code}
"""The best comes first."""


def nearest_code(
    x: Float[Array, "N D"], codebook: Float[Array, "K D"], *, implementation: str | None = None
) -> Int32[Array, "N"]:
    """Returns ``argmin_k |x_n - codebook_k|^2`` for every row; of equally near entries it is the first.

    Distances are computed in float32 at least; where those of different entries differ by less than their rounding,
    either may be the answer. A row that holds NaN or an infinity gets index 0; if the codebook holds one, every row
    does. No gradient flows through indices.

    Args:
        x: the rows to look up; N may be 0.
        codebook: at least one entry, of the dtype of ``x``.
        implementation: the name of one; None takes the best that can run here.

    Returns:
        Indices in [0, K).

    Raises:
        ValueError: a shape or dtype does not fit.
        NotImplementedError: the implementation cannot run here.

    Example:
        >>> import jax.numpy as jnp
        >>> from wavegen.kernels import nearest_code
        >>> codebook = jnp.asarray([[0.0, 0.0], [1.0, 1.0]])
        >>> nearest_code(jnp.asarray([[0.9, 1.2], [-3.0, 0.1]]), codebook).tolist()
        [1, 0]
    """
    check(x, codebook)
    x, codebook = lax.stop_gradient((x, codebook))
    return dispatch("nearest_code", IMPLEMENTATIONS, implementation, x, codebook)


def check(x: Any, codebook: Any) -> None:
    """Checks shapes and dtypes, so that it also runs under a trace.

    Raises:
        ValueError: the first that does not fit.
    """
    if x.ndim != 2 or x.shape[1] < 1 or not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"x must be floats [N, D], D at least 1, got {x.dtype}{list(x.shape)}")
    width = x.shape[1]
    if codebook.ndim != 2 or codebook.shape[0] < 1 or codebook.shape[1] != width or codebook.dtype != x.dtype:
        raise ValueError(
            f"codebook must be {x.dtype}[K, {width}] like x, K at least 1, "
            f"got {codebook.dtype}{list(codebook.shape)}"
        )
