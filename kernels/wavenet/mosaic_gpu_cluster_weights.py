"""Divides the network among the stages of a cluster, each of which keeps its part in its shared memory.

Matrices are transposed and cut into pieces of 64 inputs, one piece of [outputs, 64] under the other, as the tensor
cores read them; a stage's matrices follow each other in one array of rows.
"""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float

from .mosaic_gpu_weights import BLOCK, Sizes, biases_of, pad
from .shapes import Weights

STREAMS = 16
"""Streams that a cluster generates at once, which fill the narrowest swizzled row, of 32 bytes, in bfloat16."""
MOST_STAGES = 16
"""The largest number of blocks of threads in a cluster, not portable (CUDA C++ programming guide, clusters)."""


@dataclass(frozen=True)
class Division:
    """Divides layers among stages; a last stage holds the embedding and the head.

    Attributes:
        sizes: the network in blocks of 64.
        layers: number of layers per stage; the last stage that has layers may have some that do nothing.
    """

    sizes: Sizes
    layers: int

    @property
    def stages(self) -> int:
        """The number of stages, the head's included."""
        return -(-self.sizes.layers // self.layers) + 1

    @property
    def layer_rows(self) -> int:
        """The number of rows of one layer's matrices."""
        s = self.sizes
        return BLOCK * (2 * s.gate * (s.past + 1) * s.residual + s.gate * (s.residual + s.skip))

    @property
    def head_rows(self) -> int:
        """The number of rows of the embedding, of the head's two matrices and of the one that sums."""
        s = self.sizes
        return BLOCK * (s.output * s.residual + s.skip * s.hidden + s.hidden * s.output + 2)

    @property
    def rows(self) -> int:
        """The number of rows of the stage with the most."""
        return max(self.layers * self.layer_rows, self.head_rows)

    @property
    def layer_biases(self) -> int:
        """The number of rows of one layer's biases."""
        return 2 * self.sizes.gate + self.sizes.residual

    @property
    def biases(self) -> int:
        """The number of rows of biases of the stage with the most."""
        s = self.sizes
        return max(self.layers * self.layer_biases, s.residual + s.skip + s.hidden + s.output)

    @property
    def wide(self) -> int:
        """The number of channels of the widest activation of the head."""
        s = self.sizes
        return BLOCK * max(s.output, s.skip, s.hidden)

    @property
    def shared_bytes(self) -> int:
        """The bytes of shared memory of a stage."""
        s = self.sizes
        bf16 = self.layers * BLOCK * ((s.past + 1) * s.residual + s.gate) + 2 * self.wide
        received = BLOCK * (s.residual + s.skip)
        return BLOCK * (2 * self.rows + 4 * self.biases) + STREAMS * (2 * bf16 + 4 * received)


def divide(sizes: Sizes, shared_memory: int) -> Division:
    """Divides a network among the fewest stages that have so many bytes of shared memory.

    Raises:
        NotImplementedError: its weights do not fit into a cluster.
    """
    least = Division(sizes, 1)
    if least.shared_bytes > shared_memory:
        largest = "the head" if least.head_rows > least.layer_rows else "one layer"
        raise NotImplementedError(
            f"{largest} needs {least.shared_bytes / 2**10:.0f} KiB of shared memory, a Hopper multiprocessor has "
            f"{shared_memory // 2**10} KiB for it"
        )
    layers = max(n for n in range(1, sizes.layers + 1) if Division(sizes, n).shared_bytes <= shared_memory)
    stages = Division(sizes, layers).stages
    if stages > MOST_STAGES:
        raise NotImplementedError(
            f"needs {stages} multiprocessors to keep the weights in shared memory, a cluster has {MOST_STAGES}"
        )
    return Division(sizes, -(-sizes.layers // (stages - 1)))


def rows_of(matrices: Float[Array, "*s I O"]) -> Float[Array, "*s N 64"]:
    """Transposes matrices and cuts them into pieces of 64 inputs."""
    matrices = jnp.swapaxes(pad(pad(matrices, -1), -2), -1, -2)
    *outer, outputs, inputs = matrices.shape
    pieces = matrices.reshape(*outer, outputs, inputs // BLOCK, BLOCK)
    return jnp.moveaxis(pieces, -2, -3).reshape(*outer, -1, BLOCK)


def weights_of(weights: Weights, division: Division) -> Float[Array, "C N 64"]:
    """Returns every stage's matrices: those of its layers (past taps, current, residual, skip), or of the head."""
    layers, taps, _, gates = weights["dilated"].shape
    halves = weights["dilated"].reshape(layers, taps, -1, 2, gates // 2)
    halves = pad(pad(halves, -1), 2)
    dilated = halves.reshape(layers, taps * halves.shape[2], -1)
    layer = [rows_of(w) for w in (dilated, weights["residual"], weights["skip"])]
    ones = jnp.ones((BLOCK, BLOCK), weights["residual"].dtype)
    head = [rows_of(w) for w in (weights["embedding"][0], weights["hidden"], weights["output"])]
    return by_stage(jnp.concatenate(layer, axis=1), jnp.concatenate([*head, jnp.tril(ones), ones]), division)


def biases_by_stage(weights: Weights, division: Division) -> Float[Array, "C N 64"]:
    """Returns every stage's biases: those of its layers (gate, residual), or input, skip, hidden and output."""
    cut = biases_of(weights)
    halves = jnp.swapaxes(cut["dilated_bias"], 1, 2).reshape(len(cut["dilated_bias"]), -1, BLOCK)
    layer = jnp.concatenate([halves, cut["residual_bias"]], axis=1)
    head = [cut[f"{name}_bias"] for name in ("input", "skip", "hidden", "output")]
    return by_stage(layer, jnp.concatenate(head), division)


def by_stage(
    layers: Float[Array, "L N 64"], head: Float[Array, "M 64"], division: Division
) -> Float[Array, "C most 64"]:
    """Returns each stage's rows, padded with zeros: its layers', or for the last stage the head's."""
    missing = division.layers * (division.stages - 1) - len(layers)
    layers = jnp.pad(layers, ((0, missing), (0, 0), (0, 0))).reshape(division.stages - 1, -1, BLOCK)
    most = max(layers.shape[1], len(head))
    layers = jnp.pad(layers, ((0, 0), (0, most - layers.shape[1]), (0, 0)))
    return jnp.concatenate([layers, jnp.pad(head, ((0, most - len(head)), (0, 0)))[None]])
