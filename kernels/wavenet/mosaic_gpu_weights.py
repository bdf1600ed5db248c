"""Cuts the network into a tape of 64 x 64 blocks, in the order in which the GPU kernel multiplies with them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .shapes import WaveNetShape, Weights

BLOCK = 64
"""The side of a block: the tensor cores' 64 rows, and the 128 bytes of bfloat16 that they read without conflict."""


@dataclass(frozen=True)
class Sizes:
    """Counts the network in blocks.

    Attributes:
        layers: number L of layers.
        past: number of taps before the current one.
        residual: blocks of R.
        gate: blocks of G.
        skip: blocks of S.
        hidden: blocks of H.
        output: blocks of the vocabulary.
    """

    layers: int
    past: int
    residual: int
    gate: int
    skip: int
    hidden: int
    output: int

    @property
    def tape(self) -> int:
        """The number of blocks of weights that one sample is multiplied with."""
        layer = 2 * self.gate * (self.past + 1) * self.residual + self.gate * (self.residual + self.skip)
        ends = self.output * (self.residual + self.hidden) + self.hidden * self.skip
        return self.layers * layer + ends

    @property
    def shared_bytes(self) -> int:
        """The bytes of shared memory that the kernel needs in addition to the tape's slots."""
        taken = 2 * self.past * self.residual + self.residual + self.gate + self.hidden + 1
        taken += max(2, self.output, self.skip)
        summed = self.residual + max(self.skip, self.output)
        return BLOCK * BLOCK * (2 * taken + 4 * summed)


def sizes_of(weights: Mapping[str, Any], shape: WaveNetShape) -> Sizes:
    """Counts a network in blocks."""
    layers, taps, residual, gates = weights["dilated"].shape
    skip, hidden = weights["hidden"].shape
    widths = (residual, gates // 2, skip, hidden, shape.outputs)
    return Sizes(layers, taps - 1, *(-(-width // BLOCK) for width in widths))


def pad(x: Float[Array, "..."], axis: int, value: float = 0) -> Float[Array, "..."]:
    """Pads an axis to whole blocks."""
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, -x.shape[axis] % BLOCK)
    return jnp.pad(x, widths, constant_values=value)


def blocks(x: Float[Array, "*s I O"]) -> Float[Array, "*s N 64 64"]:
    """Cuts matrices into blocks, and orders them by columns of blocks."""
    x = pad(pad(x, -1), -2)
    *outer, rows, columns = x.shape
    x = x.reshape(*outer, rows // BLOCK, BLOCK, columns // BLOCK, BLOCK)
    return jnp.moveaxis(x, -2, -4).reshape(*outer, -1, BLOCK, BLOCK)


def tape_of(weights: Weights) -> Float[Array, "N 64 64"]:
    """Returns the blocks that one sample is multiplied with, in that order."""
    layers, taps, _, gates = weights["dilated"].shape
    dilated = pad(weights["dilated"], 2)
    halves = dilated.reshape(layers, taps * dilated.shape[2], 2, gates // 2)
    by_half = blocks(jnp.moveaxis(halves, 2, 1))  # [L, 2, gate blocks x read blocks, 64, 64]
    read = halves.shape[1] // BLOCK
    by_half = by_half.reshape(layers, 2, -1, read, BLOCK, BLOCK)
    gate = jnp.moveaxis(by_half, 1, 2).reshape(layers, -1, BLOCK, BLOCK)
    layer = jnp.concatenate([gate, blocks(weights["residual"]), blocks(weights["skip"])], axis=1)
    return jnp.concatenate(
        [
            blocks(weights["embedding"][0]),
            layer.reshape(-1, BLOCK, BLOCK),
            blocks(weights["hidden"]),
            blocks(weights["output"]),
        ]
    )


def biases_of(weights: Weights) -> dict[str, jax.Array]:
    """Returns the biases in float32, cut into blocks; levels that only pad are never drawn."""
    wide = {name: w.astype(jnp.float32) for name, w in weights.items() if name.endswith("_bias")}
    halves = pad(wide["dilated_bias"].reshape(len(wide["dilated_bias"]), 2, -1), 2)
    cut = {
        name: pad(bias, -1, -jnp.inf if name == "output_bias" else 0).reshape(*bias.shape[:-1], -1, BLOCK)
        for name, bias in wide.items()
        if name != "dilated_bias"
    }
    return cut | {"dilated_bias": jnp.moveaxis(halves.reshape(*halves.shape[:2], -1, BLOCK), 1, 2)}
