"""Checks what a caller passes in, by shape and dtype only, so that the checks also run under a trace."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .shapes import WaveNetShape, Weights
from .state import State, input_table, reach, ring_sizes


def check_weights(weights: Weights, shape: WaveNetShape) -> None:
    """Checks that weights have the names, shapes and dtype that the network needs.

    Raises:
        ValueError: the first thing that does not fit.
    """
    has = ", ".join(sorted(weights))
    if ("embedding" in weights) == ("scalar" in weights):
        raise ValueError(f'weights need either "embedding" or "scalar"; they have {has}')
    rank = {"embedding": 3, "scalar": 3, "dilated": 4, "residual": 3, "hidden": 2, "condition": 3}
    for name, ndim in rank.items():
        if name not in weights and name not in ("embedding", "scalar", "condition"):
            raise ValueError(f'weights lack "{name}"; they have {has}')
        if name in weights and weights[name].ndim != ndim:
            raise ValueError(f'weights["{name}"] must have {ndim} axes, got {list(weights[name].shape)}')
    layers, taps = len(shape.dilations), weights["dilated"].shape[1]
    gate, residual = weights["residual"].shape[1:]
    skip, hidden = weights["hidden"].shape
    table, values = ("embedding", shape.vocab_size) if "embedding" in weights else ("scalar", 2)
    expected: dict[str, tuple[int, ...]] = {
        table: (input_table(weights).shape[0], values, residual),
        "input_bias": (residual,),
        "dilated": (layers, taps, residual, 2 * gate),
        "dilated_bias": (layers, 2 * gate),
        "residual": (layers, gate, residual),
        "residual_bias": (layers, residual),
        "skip": (layers, gate, skip),
        "skip_bias": (skip,),
        "hidden": (skip, hidden),
        "hidden_bias": (hidden,),
        "output": (hidden, shape.outputs),
        "output_bias": (shape.outputs,),
    }
    if "condition" in weights:
        expected["condition"] = (layers, weights["condition"].shape[1], 2 * gate)
    check_names("weights", weights, set(expected))
    check_arrays("weights", weights, expected, weights["residual"].dtype)
    for name, array in weights.items():
        if 0 in array.shape:
            raise ValueError(f'weights["{name}"] must not be empty, got {list(array.shape)}')
    if taps < 2:
        raise ValueError(f"the dilated convolution needs a kernel size of at least 2, got {taps}")


def check_floating(shape: WaveNetShape) -> None:
    """Checks that products are of floating point, for implementations that have no other.

    Raises:
        NotImplementedError: they are not.
    """
    if shape.int8:
        raise NotImplementedError("multiplies in floating point only, the network in 8 bits")


def check_state(weights: Weights, shape: WaveNetShape, state: State) -> int:
    """Checks that a state is of this network and returns its batch size.

    Raises:
        ValueError: it is not.
    """
    check_names("state", state, {"rings", "history", "position"})
    if state["rings"].ndim != 3 or state["rings"].shape[1] < 1:
        raise ValueError(
            f'state["rings"] must be [rows, B, R], B at least 1, got {list(state["rings"].shape)}'
        )
    batch = state["rings"].shape[1]
    rings = (int(ring_sizes(weights, shape).sum()), batch, weights["residual"].shape[-1])
    check_arrays("state", state, {"rings": rings}, weights["residual"].dtype)
    check_arrays("state", state, {"history": (batch, reach(weights, shape)), "position": ()}, jnp.int32)
    return batch


def check_names(what: str, arrays: Mapping[str, Any], expected: set[str]) -> None:
    """Checks the names of a dict.

    Raises:
        ValueError: a name is missing or unknown.
    """
    missing, unknown = sorted(expected - set(arrays)), sorted(set(arrays) - expected)
    if missing:
        raise ValueError(f"{what} lack {', '.join(missing)}; expected {', '.join(sorted(expected))}")
    if unknown:
        raise ValueError(f"{what} have unknown {', '.join(unknown)}; expected {', '.join(sorted(expected))}")


def check_arrays(
    what: str, arrays: Mapping[str, Any], expected: Mapping[str, tuple[int, ...]], dtype: Any
) -> None:
    """Checks shapes and dtype of arrays in a dict.

    Raises:
        ValueError: the first that differs.
    """
    for name, size in expected.items():
        array = arrays[name]
        if array.shape != size or array.dtype != dtype:
            wanted, got = f"{jnp.dtype(dtype)}{list(size)}", f"{array.dtype}{list(array.shape)}"
            raise ValueError(f'{what}["{name}"] must be {wanted}, got {got}')


def check_inputs(weights: Weights, inputs: Float[Array, "B T R"] | None, batch: int, steps: int) -> None:
    """Checks what is added to the first layer's input.

    Raises:
        ValueError: its shape does not fit.
    """
    size = (batch, steps, weights["residual"].shape[-1])
    if inputs is not None and inputs.shape != size:
        raise ValueError(f"inputs must be {list(size)}, got {list(inputs.shape)}")


def check_condition(
    weights: Weights,
    condition: Float[Array, "B F C"] | None,
    batch: int,
    steps: int,
    hop: int,
    offset: Int[Array, ""] | int,
) -> None:
    """Checks that a condition fits the network and covers the steps.

    Raises:
        ValueError: it does not.
    """
    if hop < 1 or hop % 1 or (is_number(offset) and (offset % 1 or not 0 <= offset < hop)):
        raise ValueError(
            "need whole numbers condition_hop >= 1 and 0 <= condition_offset < condition_hop, "
            f"got {hop}, {offset}"
        )
    if condition is None:
        if "condition" in weights:
            width = weights["condition"].shape[1]
            raise ValueError(f"the network needs a condition [{batch}, F, {width}], got none")
        return
    if "condition" not in weights:
        raise ValueError(f"the network takes no condition, got one of shape {list(condition.shape)}")
    width = weights["condition"].shape[1]
    if condition.ndim != 3 or condition.shape[::2] != (batch, width) or condition.shape[1] < 1:
        raise ValueError(f"condition must be [{batch}, F, {width}], got {list(condition.shape)}")
    frames = condition.shape[1]
    last = (offset if is_number(offset) else 0) + steps
    if frames > 1 and last > frames * hop:
        need = f"it needs {-(-last // hop)} frames"
        raise ValueError(f"condition of {frames} frames of {hop} samples ends before sample {last}; {need}")


def check_sampling(shape: WaveNetShape, temperature: Any, top_k: Any, top_p: Any) -> None:
    """Checks the numbers that shape a draw, except traced ones, whose values are not known.

    Raises:
        ValueError: a number is out of its range, or means nothing to this head.
    """
    if is_number(temperature) and not 0 <= temperature < np.inf:
        raise ValueError(f"temperature must be finite and at least 0, got {temperature}")
    if is_number(top_k) and (top_k < 0 or top_k != int(top_k)):
        raise ValueError(f"top_k must be a whole number, 0 for all, got {top_k}")
    if is_number(top_p) and not 0 < top_p <= 1:
        raise ValueError(f"top_p must lie in (0, 1], got {top_p}")
    cut = not (is_number(top_k) and top_k == 0 and is_number(top_p) and top_p == 1)
    if shape.head == "mixture" and cut:
        raise ValueError("top_k and top_p need a softmax head, got a mixture; lower the temperature instead")


def is_number(value: Any) -> bool:
    """Returns whether a value is known now, so that it can be checked and compiled in."""
    return isinstance(value, int | float | np.number)
