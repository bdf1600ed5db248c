"""What a person asks of a variational autoencoder over windows of notes: sample, reconstruct, interpolate."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PyTree

from wavegen.errors import WavegenError, require_least
from wavegen.generation.notes import NoteGenerator
from wavegen.models.base import LatentModel
from wavegen.networks.base import with_parameters
from wavegen.notes.score import Score
from wavegen.samplers.drawing import USUAL, Drawing
from wavegen.stopping import ProgressCallback, silent
from wavegen.types import Tokens

_LIKELIEST = Drawing(temperature=0.0)
_ROWS = 8  # windows that are read and written side by side: pieces of any length share one compilation


@dataclass(frozen=True)
class WindowGenerator(NoteGenerator):
    """A trained ``WindowVAE``: it writes windows, and knows a point in its space of latents for each.

    Longer pieces are taken window by window. The last window of a piece may be shorter: what is missing is not read,
    and what is written there is left out.

    Example:
        >>> import wavegen
        >>> windows = wavegen.load("runs/chorales-vae")  # doctest: +SKIP
        >>> one, other = wavegen.read_midi("one.mid"), wavegen.read_midi("other.mid")  # doctest: +SKIP
        >>> between = windows.interpolate(one, other, steps=7)  # doctest: +SKIP
    """

    @property
    def steps(self) -> int:
        """Of a window: steps of the grid, or notes of a codec of events."""
        return self.config.data.crop // self.codec.interleaving

    def generate(
        self,
        length: int | None = None,
        *,
        count: int = 1,
        seed: int = 0,
        prompt: Score | None = None,
        labels: Mapping[str, str] | None = None,
        drawing: Drawing = USUAL,
        progress: ProgressCallback = silent,
    ) -> list[Score]:
        """Generates windows from latents drawn from N(0, I).

        Args:
            length: the first so many steps of the window; None is all.
            count: windows.
            seed: the same seed gives the same windows.
            prompt: not for this model.
            labels: not for this model.
            drawing: how tokens are drawn.
            progress: see ``NoteGenerator.generate``.

        Raises:
            Stopped: see ``NoteGenerator.generate``.
            WavegenError: a prompt or labels, or an argument out of range.
        """
        if prompt is not None:
            raise WavegenError("windows begin anew; to change a piece, interpolate, or use a causal model")
        length = self.steps if length is None else length
        require_least(length=(length, 1), count=(count, 1))
        if length > self.steps:
            raise WavegenError(f"expected a length of at most {self.steps}, a window, got {length}")
        if labels:
            raise WavegenError(f"this model has no label field '{next(iter(labels))}'; it has none")
        tokens = self.sampler.draw(
            length * self.codec.interleaving,
            seed,
            count=count,
            drawing=drawing,
            progress=progress,
            partial=True,
        )
        return self._decode(np.asarray(tokens), None)

    def latents(self, notes: Score) -> Float[np.ndarray, "windows D"]:
        """The mean of q(z | window) for each window of a piece.

        Raises:
            WavegenError: the piece has no notes, or some that the codec has no tokens for.
        """
        return self._means(self._tokens(notes))

    def reconstruct(self, notes: Score) -> Score:
        """What the model makes of a piece, as long as it was: the likeliest tokens given its latents.

        Tempos and metres are those of the piece.

        Args:
            notes: of any length.

        Raises:
            WavegenError: see ``latents``.
        """
        return self._decode(self._through(self._tokens(notes)), notes)[0]

    def accuracy(self, notes: Score) -> float:
        """The share of a piece's tokens that its reconstruction has in their places.

        Raises:
            WavegenError: see ``latents``.
        """
        tokens = self._tokens(notes)
        return float(np.mean(self._through(tokens)[0] == tokens))

    def interpolate(self, first: Score, last: Score, steps: int = 7) -> list[Score]:
        """Pieces on the way from one to another: their latents lie on the arc between those of the two.

        The ends are the reconstructions of the two pieces. Windows go in pairs. Where one piece is longer, its windows
        go to the middle of the space, and lengths change evenly from one to the other.

        Args:
            first: where the way begins; all have its tempos and metres.
            last: where it ends.
            steps: pieces, the two ends included.

        Raises:
            WavegenError: under two steps; see ``latents``.
        """
        require_least(steps=(steps, 2))
        tokens = [self._tokens(piece) for piece in (first, last)]
        means = [self._means(of) for of in tokens]
        windows = max(map(len, means))
        begin, end = (np.pad(mean, ((0, windows - len(mean)), (0, 0))) for mean in means)
        shares = np.linspace(0, 1, steps)
        drawn = self._written(np.concatenate([slerp(begin, end, float(share)) for share in shares]))
        # A frame of the plain codec stays whole.
        frames = [len(of) / self.codec.interleaving for of in tokens]
        return [
            self._decode(piece[None, : self.codec.interleaving * round(length)], first)[0]
            for piece, length in zip(
                drawn.reshape(steps, -1, 1), np.interp(shares, [0, 1], frames), strict=True
            )
        ]

    def nats(
        self, notes: Score, *, labels: Mapping[str, str] | None = None, orders: int = 64, seed: int = 0
    ) -> Float[np.ndarray, "N K"]:
        """Not for this model.

        Raises:
            WavegenError: always.
        """
        raise WavegenError("an autoencoder bounds the nats of windows; measure it with wavegen evaluate")

    def _tokens(self, notes: Score) -> Int[np.ndarray, "N 1"]:
        tokens = self.codec.encode(notes)
        if not len(tokens):
            raise WavegenError("expected a piece with notes, got none; give one that has some")
        return tokens

    def _means(self, tokens: Int[np.ndarray, "N 1"]) -> Float[np.ndarray, "windows D"]:
        window = self.config.data.crop
        padded = np.pad(tokens, ((0, -len(tokens) % window), (0, 0)))
        valid = np.arange(len(padded)) < len(tokens)
        return _by_rows(
            lambda *rows: np.asarray(_means(self.graph, self.params, *map(jnp.asarray, rows))),
            padded.reshape(-1, window, 1),
            valid.reshape(-1, window),
        )

    def _written(self, latents: Float[np.ndarray, "windows D"]) -> Int[np.ndarray, "windows N 1"]:
        """The likeliest tokens of windows, one after the other."""
        window = self.config.data.crop
        return _by_rows(
            lambda rows: np.asarray(
                self.sampler.draw(
                    window, 0, count=len(rows), drawing=_LIKELIEST, features=jnp.asarray(rows[:, None])
                )
            ),
            latents,
        )

    def _through(self, tokens: Int[np.ndarray, "N 1"]) -> Int[np.ndarray, "1 N 1"]:
        return self._written(self._means(tokens)).reshape(1, -1, 1)[:, : len(tokens)]


def _by_rows(function: Callable[..., np.ndarray], *arrays: np.ndarray) -> np.ndarray:
    """What a function makes of rows, ``_ROWS`` at a time; the last ones are filled up with zeros."""
    count = len(arrays[0])
    filled = [np.concatenate([x, np.zeros((-count % _ROWS, *x.shape[1:]), x.dtype)]) for x in arrays]
    pieces = [function(*(x[first : first + _ROWS] for x in filled)) for first in range(0, count, _ROWS)]
    return np.concatenate(pieces)[:count]


@partial(jax.jit, static_argnames="graph")
def _means(
    graph: nnx.GraphDef, params: PyTree, tokens: Tokens, valid: Bool[Array, "B N"]
) -> Float[Array, "B D"]:
    network: LatentModel = with_parameters(graph, params)
    return network.latents(tokens, valid)


def slerp(
    first: Float[np.ndarray, "rows D"], last: Float[np.ndarray, "rows D"], share: float
) -> Float[np.ndarray, "rows D"]:
    """Spherical interpolation, row by row (Shoemake 1985): on the arc, where latents of N(0, I) lie, not on its chord.

    Args:
        first: at share 0.
        last: at share 1.
        share: of the way.

    Returns:
        Points of the arc, float32; of the chord where a row is zero, or both have one direction or opposite ones.
    """
    first, last = np.asarray(first, np.float64), np.asarray(last, np.float64)
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(last, axis=1)
    cosine = np.sum(first * last, axis=1) / np.where(lengths > 0, lengths, 1)
    angle = np.arccos(np.clip(cosine, -1, 1))[:, None]
    flat = (lengths[:, None] == 0) | (np.sin(angle) < 1e-6)
    angle = np.where(flat, 1, angle)
    before, after = (
        np.where(flat, part, np.sin(part * angle) / np.sin(angle)) for part in (1 - share, share)
    )
    return (before * first + after * last).astype(np.float32)
