"""Muon: the momentum of a matrix, made orthogonal, is its update.

Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"; the arithmetic is optax's. It is
for the matrices inside a network. Embeddings, heads, biases and gains are left to AdamW, as the source advises.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import optax
from jaxtyping import PyTree
from optax.contrib import MuonDimensionNumbers, muon


class _Axes(NamedTuple):
    """The axes of a matrix that is stored as an array; the axes that are not named here are its input."""

    output: tuple[int, ...]
    stacked: tuple[int, ...] = ()
    """Axes along which independent matrices lie, such as layers or gates."""


_MATRICES = {
    # WaveNet: all layers in one array; the taps of a convolution, and the layers that add to the skip channels, are
    # parts of one input.
    "dilated": _Axes((3,), stacked=(0,)),
    "residual": _Axes((2,), stacked=(0,)),
    "condition": _Axes((2,), stacked=(0,)),
    "skip": _Axes((2,)),
    "hidden": _Axes((1,)),
    # LSTM.
    "input": _Axes((2,), stacked=(0,)),
    "recurrent": _Axes((2,), stacked=(0,)),
    # State-space layers.
    "mix": _Axes((1,)),
    "rate/down": _Axes((2,)),
    "lower/down": _Axes((2,)),
    "rate/up": _Axes((1, 2)),
    "lower/up": _Axes((1, 2)),
    # Transformers: queries, keys and values are stacked; heads are parts of one output or input.
    "project": _Axes((2, 3), stacked=(1,)),
    "query": _Axes((1, 2)),
    "attention/output": _Axes((2,)),
    "cross/output": _Axes((2,)),
    "compress": _Axes((2,)),
    "gate_up": _Axes((2,), stacked=(1,)),
    "gated/down": _Axes((1,)),
    # Convolutions and dense layers of codecs and conditions: the channels that come out are the last axis.
    "kernel": _Axes((-1,)),
}
"""The matrices that Muon updates, by the ends of their paths."""


def matrix_axes(path: Sequence[Any], ndim: int) -> MuonDimensionNumbers | None:
    """Returns the axes of a parameter that Muon updates, and None for one that it leaves to AdamW.

    Args:
        path: keys of the parameter in its tree, from ``jax.tree_util``.
        ndim: number of its axes.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from wavegen.training.muon import matrix_axes
        >>> tree = {"dilated": jnp.zeros((10, 2, 32, 64)), "embedding": jnp.zeros((256, 32))}
        >>> jax.tree.map_with_path(lambda path, x: str(matrix_axes(path, x.ndim)), tree)
        {'dilated': 'MuonDimensionNumbers(reduction_axis=(1, 2), output_axis=(3,))', 'embedding': 'None'}
    """
    names = [key.key for key in path if isinstance(getattr(key, "key", None), str)]
    axes = _MATRICES.get("/".join(names[-2:])) or _MATRICES.get(names[-1] if names else "")
    if axes is None or ndim < 2:
        return None
    output = tuple(axis % ndim for axis in axes.output)
    inputs = tuple(axis for axis in range(ndim) if axis not in (*output, *axes.stacked))
    return MuonDimensionNumbers(inputs, output)


def make_muon(
    schedule: optax.ScalarOrSchedule, others: optax.GradientTransformation, *, weight_decay: float = 0.0
) -> optax.GradientTransformation:
    """Returns Muon for matrices, and another optimizer for the other parameters.

    An update of a matrix with more outputs than inputs is scaled by the root of their ratio.

    Args:
        schedule: learning rate of matrices, a number or a function of the number of updates done.
        others: optimizer of the other parameters.
        weight_decay: share of a matrix that is taken away per update, times the learning rate.
    """

    def axes(params: PyTree) -> PyTree:
        return jax.tree.map_with_path(lambda path, x: matrix_axes(path, x.ndim), params)

    def kinds(params: PyTree) -> PyTree:
        return jax.tree.map_with_path(
            lambda path, x: "others" if matrix_axes(path, x.ndim) is None else "matrices", params
        )

    matrices = muon(schedule, weight_decay=weight_decay, muon_weight_dimension_numbers=axes)
    return optax.partition({"matrices": matrices, "others": others}, kinds)
