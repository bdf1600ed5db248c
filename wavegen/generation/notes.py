"""What a person asks of a model of notes: generate, continue, harmonise and remix scores."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PyTree

from wavegen.codecs.notes.base import NoteCodec
from wavegen.codecs.notes.grid import NoteGrid
from wavegen.codecs.notes.remix import What
from wavegen.errors import WavegenError, require_least
from wavegen.generation.base import TokenGenerator
from wavegen.models.base import MaskedModel, SourceModel
from wavegen.networks.base import with_parameters
from wavegen.notes.arrange import overlaid
from wavegen.notes.score import Score
from wavegen.samplers.autoregressive import log_likelihood
from wavegen.samplers.bound import order_agnostic_bound
from wavegen.samplers.drawing import USUAL, Drawing
from wavegen.stopping import ProgressCallback, silent
from wavegen.types import Tokens

TICKS = 480
"""Of a quarter note, in what is returned: what most programs expect of a MIDI file."""


@dataclass(frozen=True)
class NoteGenerator(TokenGenerator):
    """A trained model of notes: scores in, scores out. Its attributes are ``TokenGenerator``'s.

    Example:
        >>> import wavegen
        >>> chorales = wavegen.load("runs/chorales-decoder")  # doctest: +SKIP
        >>> wavegen.write_midi("piece.mid", chorales.generate(128, seed=1)[0])  # doctest: +SKIP
    """

    codec: NoteCodec

    @property
    def masked(self) -> bool:
        """Whether the model fills gaps; else it continues what is there."""
        return isinstance(self.network, MaskedModel)

    def generate(
        self,
        length: int,
        *,
        count: int = 1,
        seed: int = 0,
        prompt: Score | None = None,
        labels: Mapping[str, str] | None = None,
        drawing: Drawing = USUAL,
        progress: ProgressCallback = silent,
    ) -> list[Score]:
        """Generates pieces, or continues one.

        Args:
            length: steps of the grid, or notes of a codec of events, that are generated after the prompt.
            count: pieces, drawn side by side.
            seed: the same seed gives the same pieces.
            prompt: a piece that they continue; it comes first in what is returned, as the codec keeps it, with its
                tempos and metres.
            labels: the value of each label field.
            drawing: how tokens are drawn.
            progress: called for each block of notes, or each pass of a masked model. Where it raises ``Stopped``, a
                causal model returns the pieces so far.

        Raises:
            Stopped: ``progress`` raised it, and there are no pieces yet.
            WavegenError: an argument is out of range, or not one that this model takes.
        """
        require_least(length=(length, 1), count=(count, 1))
        if isinstance(self.network, SourceModel):
            raise WavegenError("an encoder-decoder writes voices to a melody; use harmonise")
        prompted = (
            np.zeros((0, self.codec.codebooks), np.int32) if prompt is None else self.codec.encode(prompt)
        )
        start = jnp.repeat(jnp.asarray(prompted)[None], count, axis=0)
        drawn = self.sampler.draw(
            length * self.codec.interleaving,
            seed,
            count=count,
            drawing=drawing,
            prompt=start,
            labels=self._labels(labels, count),
            progress=progress,
            partial=True,
        )
        tokens = np.concatenate([start, drawn], axis=1)
        if prompt is None:
            return self._decode(tokens, None)
        return [_as_prompted(self.codec.continued(prompt, clip), prompt) for clip in tokens]

    def harmonise(
        self,
        melody: Score,
        *,
        voice: int = 0,
        count: int = 1,
        seed: int = 0,
        labels: Mapping[str, str] | None = None,
        drawing: Drawing = USUAL,
        progress: ProgressCallback = silent,
    ) -> list[Score]:
        """Adds the other voices to a melody; the melody stays as it is, note for note.

        Args:
            melody: of one track; for an encoder-decoder of as many as it was trained to read.
            voice: which one it is, from the highest, 0, down; an encoder-decoder reads the highest.
            count: see ``generate``.
            seed: see ``generate``.
            labels: see ``generate``.
            drawing: see ``generate``.
            progress: called for each block of notes, or each pass of a masked model.

        Raises:
            Stopped: ``progress`` raised it.
            WavegenError: the model is none that can in a grid of voices, or the melody has other tracks.
        """
        require_least(count=(count, 1))
        grid, network = self._grid(), self.network
        given = isinstance(network, SourceModel)
        voices, highest = (network.source_voices, 0) if given else (1, grid.voices - 1)
        if len(melody.tracks) != voices or not 0 <= voice <= highest:
            raise WavegenError(
                f"expected a melody on {voices} track(s), the first as voice 0 to {highest}, got "
                f"{len(melody.tracks)} tracks and voice {voice}; give a file with the melody alone, "
                "or another --voice"
            )
        line = grid.encode(melody)[:, :voices]
        sung = slice(voice, voice + voices)
        tokens = np.full((count, len(line), grid.voices), self.codec.vocab_size, np.int32)
        tokens[:, :, sung] = line
        rows_of_labels = self._labels(labels, count)
        options: dict[str, Any] = {"drawing": drawing, "labels": rows_of_labels, "progress": progress}
        if given:
            others, source = tokens[:, :, voices:], jnp.asarray(tokens[:, :, sung], jnp.float32)
            drawn = self.sampler.draw(others[0].size, seed, count=count, features=source, **options)
            tokens[:, :, voices:] = np.asarray(drawn).reshape(others.shape)
        else:
            rows = jnp.asarray(tokens.reshape(count, -1, self.codec.codebooks))
            tokens = np.array(self.sampler.fill(rows, seed, **options)).reshape(tokens.shape)
        tokens[:, :, sung] = 0
        return [overlaid(melody, grid.decode(clip), voice) for clip in tokens]

    def remix(
        self,
        notes: Score,
        share: float,
        what: What = "notes",
        *,
        count: int = 1,
        seed: int = 0,
        labels: Mapping[str, str] | None = None,
        drawing: Drawing = USUAL,
        progress: ProgressCallback = silent,
    ) -> list[Score]:
        """Draws a share of a piece's notes anew; all else stays as it is, to the tick.

        A note that is drawn anew may come out as it was.

        Args:
            notes: a piece; for a grid one track a voice.
            share: of its notes, 0 to 1, chosen at random.
            what: changes of them: "pitches", "durations" (of events) or, "notes", all: on a grid whatever sounds in
                their place, of events pitch, duration and velocity, at the same onset and on the same track.
            count: see ``generate``.
            seed: see ``generate``; it chooses the notes too.
            labels: see ``generate``.
            drawing: see ``generate``.
            progress: called for each pass.

        Raises:
            Stopped: ``progress`` raised it.
            WavegenError: the model is none that fills gaps, the piece is empty, or ``what`` cannot be; see
                ``generate``.
        """
        require_least(count=(count, 1))
        if not 0 <= share <= 1:
            raise WavegenError(f"expected a share in [0, 1], got {share}; 0.3 changes three notes of ten")
        if not self.masked:
            raise WavegenError(
                f"remix needs a masked model, got model.kind={self.config.model.kind}; train one with "
                "configs/chorales-bert.yaml or configs/events-bert.yaml"
            )
        if not len(notes):
            raise WavegenError("expected notes to remix, got an empty piece")
        order = np.random.Generator(np.random.Philox(seed)).permutation(len(notes))
        gaps = self.codec.redraw(notes, order < round(share * len(notes)), what)
        rows = np.where(gaps.hidden, self.codec.vocab_size, gaps.tokens).reshape(1, -1, self.codec.codebooks)
        filled = self.sampler.fill(
            jnp.repeat(jnp.asarray(rows), count, axis=0),
            seed,
            drawing=drawing,
            labels=self._labels(labels, count),
            narrower=gaps.allowed,
            progress=progress,
        )
        return [gaps.rebuilt(clip) for clip in np.array(filled).reshape(count, *gaps.tokens.shape)]

    def nats(
        self, notes: Score, *, labels: Mapping[str, str] | None = None, orders: int = 64, seed: int = 0
    ) -> Float[np.ndarray, "N K"]:
        """Nats of each token of a piece: exact for a causal model, else their mean under an upper bound.

        Args:
            notes: a piece.
            labels: see ``generate``.
            orders: passes of the bound; more make it steadier.
            seed: of the orders.

        Raises:
            WavegenError: the model is an encoder-decoder.
        """
        if isinstance(self.network, SourceModel):
            raise WavegenError(
                "an encoder-decoder writes voices given others; measure it with wavegen evaluate"
            )
        tokens = jnp.asarray(self.codec.encode(notes))[None]
        rows = self._labels(labels, 1)
        if not self.masked:
            window = -(-tokens.shape[1] // 256) * 256
            return -log_likelihood(self.graph, self.params, np.asarray(tokens), labels=rows, window=window)[0]
        allowed = self.sampler.choice().allowed
        bound = _bound(self.graph, self.params, tokens, rows, jax.random.key(seed), allowed, orders)
        return np.broadcast_to(np.asarray(bound, np.float64), tokens.shape[1:])

    def _grid(self) -> NoteGrid:
        """The grid of a model that writes voices to a melody."""
        grid = self.codec.plain
        if not isinstance(self.network, MaskedModel | SourceModel) or not isinstance(grid, NoteGrid):
            raise WavegenError(
                "harmonise needs a model.kind=seq2seq or bert of codec.kind=note_grid, got "
                f"{self.config.model.kind} of {self.config.codec.kind}; train one with configs/chorales-seq2seq.yaml"
            )
        return grid

    def _decode(self, tokens: Int[np.ndarray, "B N K"], prompt: Score | None) -> list[Score]:
        pieces = [self.codec.decode(clip) for clip in tokens]
        if prompt is None:
            return [piece.at_resolution(TICKS) for piece in pieces]
        return [_as_prompted(piece, prompt) for piece in pieces]


def _as_prompted(piece: Score, prompt: Score) -> Score:
    """A piece at the resolution of the prompt, with its tempos and metres."""
    return replace(piece.at_resolution(prompt.ticks_per_quarter), tempos=prompt.tempos, metres=prompt.metres)


@partial(jax.jit, static_argnames=("graph", "orders"))
def _bound(
    graph: nnx.GraphDef,
    params: PyTree,
    tokens: Tokens,
    labels: Array | None,
    key: Array,
    allowed: Bool[Array, "places V"] | None,
    orders: int,
) -> Float[Array, "K"]:
    model, valid = with_parameters(graph, params), jnp.ones(tokens.shape[:2], bool)
    return order_agnostic_bound(model, tokens, valid, labels, key, orders, allowed=allowed)[0]
