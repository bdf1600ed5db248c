"""Causal attention in segments, with a memory of earlier segments, whose older part is compressed.

Dai et al. 2019 (Transformer-XL, arXiv:1901.02860); Rae et al. 2020 (Compressive Transformer, arXiv:1911.05507).

With segments of S frames, a memory of M and C compressed entries of c frames each, frame n of segment s = n // S
reads

    the frames [s S - M, n], and the entries of the C groups of c frames before s S - M.

Groups are [g c, (g + 1) c): as c divides S and M, no frame is read both ways, and a whole segment reads one memory.
The model itself cuts sequences into segments, so that one frame after the other gives what a whole sequence gives.
What is read of earlier segments passes no gradient, except to the weights that read it.
"""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from wavegen.errors import WavegenError
from wavegen.models.base import State
from wavegen.models.layers.transformer import Attention, attend


class Reach(NamedTuple):
    """How far one layer reads; see the module.

    Attributes:
        segment: frames per segment, S.
        memory: frames before the segment, M.
        compressed: entries before those frames, C.
        rate: frames per entry, c.
    """

    segment: int
    memory: int = 0
    compressed: int = 0
    rate: int = 4

    def check(self) -> None:
        """Checks that the sizes fit each other.

        Raises:
            WavegenError: if compressed entries do not end where segments and memory do.
        """
        if self.compressed and (self.segment % self.rate or self.memory % self.rate):
            raise WavegenError(
                f"expected segment and memory to be multiples of rate {self.rate}, got {self.segment} and {self.memory}"
            )

    @property
    def frames(self) -> int:
        """Number of frames before the segment that are read."""
        return self.memory + self.compressed * self.rate

    @property
    def entries(self) -> int:
        """Number of keys before the segment that are read."""
        return self.memory + self.compressed

    def through(self, layers: int) -> int:
        """Returns how many frames, the newest included, the last frame of a segment depends on through these layers."""
        segments = (layers - 1) * -(-self.frames // self.segment) + 1
        return segments * self.segment + self.frames


class MemoryAttention(nnx.Module):
    """Causal attention with a memory; see the module.

    Args:
        width: width of the frames.
        heads: see ``Attention``.
        reach: how far it reads.
        scale: see ``Attention``.
        random: generator of the initial weights.
    """

    def __init__(
        self, width: int, heads: int, reach: Reach, *, scale: float, random: np.random.Generator
    ) -> None:
        self.reach = reach
        self.attention = Attention(width, heads, scale=scale, random=random)
        if reach.compressed:
            # Initially an entry is the mean of its frames, which the projections to keys and values can read.
            mean = np.tile(np.eye(width, dtype=np.float32) / reach.rate, (reach.rate, 1, 1))
            self.compress = nnx.Param(jnp.asarray(mean))

    def __call__(self, x: Float[Array, "B N width"]) -> Float[Array, "B N width"]:
        """Reads sequences from their beginning; N is a multiple of the segment, or less than one."""
        count = -(-x.shape[1] // self.reach.segment)
        length = x.shape[1] // count
        positions = jnp.arange(x.shape[1])
        queries, keys, values = (
            part.reshape(len(x), count, length, *part.shape[2:])
            for part in self.attention.queries_keys_values(x, positions)
        )
        before_now = jnp.tril(jnp.ones((length, length), bool))[None]
        seen = [jnp.broadcast_to(before_now, (count, length, length))]
        for past, places, window in self._past(lax.stop_gradient(x)):
            _, more_keys, more_values = self.attention.queries_keys_values(past, places)
            keys = jnp.concatenate([_windows(more_keys, count, *window), keys], axis=2)
            values = jnp.concatenate([_windows(more_values, count, *window), values], axis=2)
            there = _there(count, *window)[:, None]
            seen.insert(0, jnp.broadcast_to(there, (count, length, there.shape[2])))
        mask = jnp.concatenate(seen, axis=2)[:, None, None]
        read = jax.vmap(attend, in_axes=(1, 1, 1, 0), out_axes=1)(queries, keys, values, mask)
        return self.attention.mix(read.reshape(*x.shape[:2], *read.shape[3:]))

    def _past(
        self, x: Float[Array, "B N width"]
    ) -> Iterator[tuple[Array, Int[Array, "places"], tuple[int, int, int]]]:
        """Yields what is read before a segment, the nearest first.

        Each item has frames, their positions, and the windows over them.
        """
        s, m, c, rate = self.reach
        if x.shape[1] <= s:
            return
        if m:
            yield x, jnp.arange(x.shape[1]), (s, m, m)
        if c:
            entries = self._compress(x)
            yield lax.stop_gradient(entries), self._places(0, entries.shape[1]), (s // rate, c, c + m // rate)

    def _compress(self, x: Float[Array, "B N width"]) -> Float[Array, "B G width"]:
        groups = x.reshape(x.shape[0], -1, self.reach.rate, x.shape[2])
        return jnp.einsum("bgcw,cwv->bgv", groups, self.compress[...])

    def _places(self, first: Int[Array, ""] | int, count: int) -> Int[Array, "G"]:
        """Returns the positions of groups, each that of its last frame."""
        return (first + jnp.arange(count) + 1) * self.reach.rate - 1

    def reconstruction(self, x: Float[Array, "B N width"]) -> Float[Array, ""]:
        """Returns how much reading the compressed entries differs from reading their frames.

        This is the mean squared difference over segments whose memory has just been compressed (Rae et al. 2020,
        algorithm 2), by content alone, without positions. Only the compression is trained by it.
        """
        s, m, _, rate = self.reach
        first = 1 + -(-m // s)
        count = x.shape[1] // s
        if count <= first:
            return jnp.zeros(())
        graph, weights = nnx.split(self.attention)
        frozen = nnx.merge(graph, lax.stop_gradient(weights))
        x = lax.stop_gradient(x)
        queries, keys, values = frozen.queries_keys_values(x, None)
        _, entry_keys, entry_values = frozen.queries_keys_values(self._compress(x), None)
        queries = _windows(queries, count, s, s, 0)[:, first:]

        def read(keys: Array, values: Array, hop: int, back: int) -> Array:
            parts = (_windows(part, count, hop, hop, back)[:, first:] for part in (keys, values))
            return jax.vmap(attend, in_axes=(1, 1, 1), out_axes=1)(queries, *parts).astype(jnp.float32)

        exact = read(keys, values, s, m + s)
        return jnp.mean((read(entry_keys, entry_values, s // rate, (m + s) // rate) - exact) ** 2)

    def begin(self, batch: int) -> State:
        """Returns the memory before the first frame.

        "keys" and "values" are two rings, of frames and of entries: number n is stored at n modulo the ring's size.
        "newest" are the frames that are not in an entry yet, and some before them.
        """
        width, _, heads, head = self.attention.project.shape
        dtype = self.attention.project.dtype
        rings = jnp.zeros((batch, sum(self._sizes), heads, head), dtype)
        memory = {"keys": rings, "values": rings}
        if self.reach.compressed:
            memory["newest"] = jnp.zeros((batch, self.reach.rate, width), dtype)
        return memory

    @property
    def _sizes(self) -> tuple[int, int]:
        """Sizes of the two rings. New frames are stored before the first of them has read the oldest."""
        s, m, c, rate = self.reach
        frames = m + 2 * s
        return frames, c + frames // rate if c else 0

    def go_on(
        self, x: Float[Array, "B N width"], memory: State, position: Int[Array, ""]
    ) -> tuple[Float[Array, "B N width"], State]:
        """Reads the next frames.

        Args:
            x: at most as many frames as a segment has; they may cross a border between segments.
            memory: memory from ``begin`` or ``go_on``.
            position: position of the first frame.

        Returns:
            The output for these frames, and the memory after them.
        """
        s, m, c, rate = self.reach
        size, size_of_entries = self._sizes
        now = position + jnp.arange(x.shape[1])
        nearest = now // s * s - m
        queries, keys, values = self.attention.queries_keys_values(x, now)
        memory = _store(memory, now % size, keys, values)
        seen = _between(_numbers(position + x.shape[1], size), nearest, now + 1)
        if c:
            group, recent = nearest // rate, jnp.concatenate([memory["newest"], x], axis=1)
            numbers, keys, values = self._entries(recent, position)
            memory = _store(memory, size + numbers % size_of_entries, keys, values)
            memory = {**memory, "newest": recent[:, -rate:]}
            there = _numbers((position + x.shape[1]) // rate, size_of_entries)
            seen = jnp.concatenate([seen, _between(there, group - c, group)], axis=1)
        read = attend(queries, memory["keys"], memory["values"], seen[None, None])
        return self.attention.mix(read), memory

    def _entries(
        self, recent: Float[Array, "B recent width"], position: Int[Array, ""]
    ) -> tuple[Int[Array, "G"], Float[Array, "B G heads D"], Float[Array, "B G heads D"]]:
        """Returns numbers, keys and values of the groups to which the frames from ``position`` on belong.

        ``recent`` begins c frames earlier. The last group may be incomplete: it is not read before it is stored
        again, complete.
        """
        rate, batch = self.reach.rate, len(recent)
        frames = recent.shape[1] - rate
        count, first = (frames + rate - 1) // rate, position // rate

        def project() -> tuple[Array, Array]:
            padded = jnp.pad(recent, ((0, 0), (0, count * rate - frames), (0, 0)))
            groups = lax.dynamic_slice_in_dim(padded, rate - position % rate, count * rate, axis=1)
            entries = self._compress(groups)
            return self.attention.queries_keys_values(entries, self._places(first, count))[1:]

        def wait() -> tuple[Array, Array]:
            _, _, heads, head = self.attention.project.shape
            nothing = jnp.zeros((batch, count, heads, head), recent.dtype)
            return nothing, nothing

        # One frame at a time rarely completes a group, and then need not compute one.
        keys, values = lax.cond((position + frames) // rate > first, project, wait)
        return first + jnp.arange(count), keys, values


def _store(
    memory: State,
    places: Int[Array, "N"],
    keys: Float[Array, "B N heads D"],
    values: Float[Array, "B N heads D"],
) -> State:
    stored = {"keys": keys, "values": values}
    return {**memory, **{name: memory[name].at[:, places].set(new) for name, new in stored.items()}}


def _numbers(count: Int[Array, ""], size: int) -> Int[Array, "size"]:
    """Returns the number in each place of a ring after this many; it is negative where there is none yet."""
    newest = count - 1
    return newest - (newest - jnp.arange(size)) % size


def _between(numbers: Int[Array, "S"], first: Int[Array, "N"], last: Int[Array, "N"]) -> Bool[Array, "N S"]:
    """Returns which numbers exist and lie in [first, last)."""
    numbers = numbers[None]
    return (numbers >= 0) & (numbers >= first[:, None]) & (numbers < last[:, None])


def _windows(
    x: Float[Array, "B N heads D"], count: int, hop: int, size: int, back: int
) -> Float[Array, "B count size heads D"]:
    """Returns windows, of which s has the ``size`` frames from ``s hop - back`` on; zeros where there is none."""
    padded = jnp.pad(x, ((0, 0), (back, 0), (0, 0), (0, 0)))
    # Slices rather than one gather, whose derivative would be a scatter.
    return jnp.stack([padded[:, s * hop : s * hop + size] for s in range(count)], axis=1)


def _there(count: int, hop: int, size: int, back: int) -> Bool[Array, "count size"]:
    """Returns which frames of ``_windows`` exist."""
    return jnp.arange(count)[:, None] * hop + jnp.arange(size)[None] >= back
