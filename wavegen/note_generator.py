"""What a person asks of a model of notes: generate, continue, harmonise and remix scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PyTree

from wavegen.codecs import Codecs, NoteCodec
from wavegen.codecs.note_codec import Interleaved
from wavegen.codecs.note_grid import NoteGrid
from wavegen.config import Config
from wavegen.config.models import BertConfig, Seq2SeqConfig
from wavegen.errors import WavegenError
from wavegen.models.base import Choice, with_parameters
from wavegen.notes.events import Notes
from wavegen.requests import require_least, require_share, to_labels
from wavegen.samplers.autoregressive import log_likelihood, stream
from wavegen.samplers.masked import filling_of, generate_long
from wavegen.training.order_agnostic import order_agnostic_bound
from wavegen.training.restore import Trained, save_trained
from wavegen.types import Tokens

TICKS = 480
"""Of a quarter note, in what is returned: what most programs expect of a MIDI file."""


@dataclass(frozen=True)
class NoteDrawing:
    """How a model of notes draws tokens; None is the experiment's own.

    Attributes:
        temperature: below 1 calmer, above 1 wilder. Several numbers are for the codec's fields in turn, as pitch and
            duration of events are; a causal model alone takes them.
        top_k: draw among the k likeliest tokens; 0 is all. For causal models.
        top_p: draw among the likeliest tokens that together have this probability; 1 is all.
    """

    temperature: float | tuple[float, ...] | None = None
    top_k: int = 0
    top_p: float = 1.0


_USUAL = NoteDrawing()


@dataclass(frozen=True)
class NoteGenerator:
    """A trained model of notes: scores in, scores out.

    Attributes:
        config: of the experiment that trained it.
        labels: the values of each label field, in the order of their numbers.
        graph: structure of the model.
        params: its weights.
        codec: between scores and tokens.
    """

    config: Config
    labels: Mapping[str, tuple[str, ...]]
    graph: nnx.GraphDef
    params: PyTree
    codec: NoteCodec

    @property
    def masked(self) -> bool:
        """Whether the model fills gaps; else it goes on from what is there."""
        return isinstance(self.config.model, BertConfig)

    @property
    def width(self) -> int:
        """Frames of the model for each frame of the plain codec: more than 1 where tokens are interleaved."""
        return self.codec.codec.codebooks if isinstance(self.codec, Interleaved) else 1

    def generate(
        self,
        length: int,
        *,
        count: int = 1,
        seed: int = 0,
        prompt: Notes | None = None,
        labels: Mapping[str, str] | None = None,
        drawing: NoteDrawing = _USUAL,
    ) -> list[Notes]:
        """Generates pieces, or continues one.

        Args:
            length: steps of the grid, or notes of a codec of events, that are generated after the prompt.
            count: pieces, drawn side by side.
            seed: the same seed gives the same pieces.
            prompt: a piece that they continue, and which comes first in what is returned.
            labels: the value of each label field.
            drawing: how tokens are drawn.

        Raises:
            WavegenError: an argument is out of range, or not one that this model takes.
        """
        require_least(length=(length, 1), count=(count, 1))
        if isinstance(self.config.model, Seq2SeqConfig):
            raise WavegenError("an encoder-decoder writes voices to a melody; use harmonise")
        heard = np.zeros((0, self.codec.codebooks), np.int32) if prompt is None else self.codec.encode(prompt)
        start = self._rows(heard, count)
        frames = length * self.width
        if self.masked:
            gap = jnp.full((count, frames, self.codec.codebooks), self.codec.vocab_size, jnp.int32)
            return self._filled(jnp.concatenate([start, gap], axis=1), prompt, seed, labels, drawing)
        pieces = stream(
            self.graph,
            self.params,
            frames,
            jax.random.key(seed),
            batch=count,
            choice=self._choice(drawing),
            prompt=start,
            labels=self._labels(labels, count),
            chunk=min(frames, 1024),
        )
        return self._decode(jnp.concatenate([start, *pieces], axis=1), prompt)

    def harmonise(
        self,
        melody: Notes,
        *,
        voice: int = 0,
        count: int = 1,
        seed: int = 0,
        labels: Mapping[str, str] | None = None,
        drawing: NoteDrawing = _USUAL,
    ) -> list[Notes]:
        """Adds the other voices to a melody; the melody stays as it is.

        Args:
            melody: of one track; for an encoder-decoder of as many as it was trained to read.
            voice: which one it is, from the highest, 0, down; an encoder-decoder reads the highest.
            count: see ``generate``.
            seed: see ``generate``.
            labels: see ``generate``.
            drawing: see ``generate``.

        Raises:
            WavegenError: the model is none that can in a grid of voices, or the melody has other tracks.
        """
        require_least(count=(count, 1))
        if isinstance(self.config.model, Seq2SeqConfig):
            return self._written(melody, self.config.model.source_voices, voice, count, seed, labels, drawing)
        grid = self._grid("harmonise")
        if len(melody.tracks) != 1 or not 0 <= voice < grid.voices:
            raise WavegenError(
                f"expected a melody on one track as one of voices 0 to {grid.voices - 1}, got "
                f"{len(melody.tracks)} tracks and voice {voice}; use select()"
            )
        line = grid.encode(melody)[:, 0]
        tokens = np.full((len(line), grid.voices), self.codec.vocab_size, np.int32)
        tokens[:, voice] = line
        return self._filled(self._rows(tokens, count), melody, seed, labels, drawing)

    def remix(
        self,
        notes: Notes,
        share: float,
        *,
        count: int = 1,
        seed: int = 0,
        labels: Mapping[str, str] | None = None,
        drawing: NoteDrawing = _USUAL,
    ) -> list[Notes]:
        """Draws a share of a piece's notes anew; the others stay as they are.

        Args:
            notes: a piece.
            share: of its notes, 0 to 1, chosen at random.
            count: see ``generate``.
            seed: see ``generate``; it chooses the notes too.
            labels: see ``generate``.
            drawing: see ``generate``.

        Raises:
            WavegenError: the model is none that fills gaps in a grid of voices; see ``generate``.
        """
        require_least(count=(count, 1))
        if not 0 <= share <= 1:
            raise WavegenError(f"expected a share in [0, 1], got {share}; 0.3 changes three notes of ten")
        grid = self._grid("remix")
        tokens = grid.encode(notes)
        chosen = np.random.Generator(np.random.Philox(seed)).permutation(len(notes))
        placed = notes.at_resolution(grid.steps_per_quarter)
        for note in chosen[: round(share * len(notes))]:
            first, steps = placed.onset[note], placed.duration[note]
            tokens[first : first + steps, placed.track[note]] = self.codec.vocab_size
        return self._filled(self._rows(tokens, count), notes, seed, labels, drawing)

    def nats(
        self, notes: Notes, *, labels: Mapping[str, str] | None = None, orders: int = 64, seed: int = 0
    ) -> Float[np.ndarray, "N K"]:
        """Nats of each token of a piece: exact for a causal model, else their mean under an upper bound.

        Args:
            notes: a piece.
            labels: see ``generate``.
            orders: passes of the bound; more make it steadier.
            seed: of the orders.
        """
        tokens = jnp.asarray(self.codec.encode(notes))[None]
        rows = self._labels(labels, 1)
        if not self.masked:
            window = -(-tokens.shape[1] // 256) * 256
            return -log_likelihood(self.graph, self.params, np.asarray(tokens), labels=rows, window=window)[0]
        bound = _bound(self.graph, self.params, tokens, rows, jax.random.key(seed), orders)
        return np.broadcast_to(np.asarray(bound, np.float64), tokens.shape[1:])

    def save(self, path: str | Path) -> Path:
        """Writes the model, and all that is needed to use it, as one safetensors file.

        Args:
            path: ending in ``.safetensors``.

        Returns:
            The path.
        """
        labels = {field: list(values) for field, values in self.labels.items()}
        return save_trained(path, Trained(self.config, labels, self.params, Codecs(self.codec)))

    def _filled(
        self,
        tokens: Tokens,
        like: Notes | None,
        seed: int,
        labels: Mapping[str, str] | None,
        drawing: NoteDrawing,
    ) -> list[Notes]:
        if drawing.top_k:
            raise WavegenError("a masked model draws with top_p; leave top_k out")
        filling = filling_of(self.config.sampling, self.codec.codebooks)._replace(
            choice=self._choice(drawing)
        )
        keys = jax.random.split(jax.random.key(seed), len(tokens))
        filled = generate_long(
            self.graph,
            self.params,
            tokens,
            keys,
            filling,
            window=self.config.data.crop,
            labels=self._labels(labels, len(tokens)),
        )
        return self._decode(filled, like)

    def _written(
        self,
        melody: Notes,
        voices: int,
        voice: int,
        count: int,
        seed: int,
        labels: Mapping[str, str] | None,
        drawing: NoteDrawing,
    ) -> list[Notes]:
        """The melody, and the voices that an encoder-decoder writes to it."""
        assert isinstance(self.codec, Interleaved)
        assert isinstance(self.codec.codec, NoteGrid)
        grid = self.codec.codec
        if len(melody.tracks) != voices or voice:
            raise WavegenError(
                f"expected a melody of the {voices} highest tracks, got {len(melody.tracks)} tracks and voice {voice}"
            )
        source = grid.encode(melody)[:, :voices]
        frames, others = len(source), grid.voices - voices
        pieces = stream(
            self.graph,
            self.params,
            frames * others,
            jax.random.key(seed),
            batch=count,
            choice=self._choice(drawing),
            labels=self._labels(labels, count),
            features=jnp.repeat(jnp.asarray(source, jnp.float32)[None], count, axis=0),
            chunk=min(frames * others, 1024),
        )
        written = np.concatenate([np.asarray(piece) for piece in pieces], axis=1).reshape(
            count, frames, others
        )
        whole = np.concatenate([np.repeat(source[None], count, axis=0), written], axis=2)
        return self._decode(jnp.asarray(whole.reshape(count, -1, 1)), melody)

    def _grid(self, task: str) -> NoteGrid:
        codec = self.codec.codec if isinstance(self.codec, Interleaved) else self.codec
        if not self.masked or not isinstance(codec, NoteGrid):
            raise WavegenError(
                f"to {task} takes a model.kind=bert of codec.kind=note_grid, got {self.config.model.kind} of "
                f"{self.config.codec.kind}; train one with configs/chorales-bert.yaml"
            )
        return codec

    def _rows(self, tokens: Int[np.ndarray, "N K"], count: int) -> Int[Array, "B frames codebooks"]:
        return jnp.repeat(jnp.asarray(tokens.reshape(1, -1, self.codec.codebooks)), count, axis=0)

    def _choice(self, drawing: NoteDrawing) -> Choice:
        require_share("top_p", drawing.top_p)
        own = self.config.sampling.temperature
        given = own if drawing.temperature is None else drawing.temperature
        values: Sequence[float] = given if isinstance(given, tuple) else (given,)
        for value in values:
            require_least(temperature=(float(value), 0))
        if len(values) not in (1, self.width):
            raise WavegenError(f"expected 1 or {self.width} temperatures, one a field, got {len(values)}")
        temperature = jnp.asarray(values, jnp.float32) if len(values) > 1 else float(values[0])
        return Choice(temperature, drawing.top_k, drawing.top_p, self._allowed())

    def _allowed(self) -> Bool[Array, "places V"] | None:
        """Fields that share a vocabulary use a part of it each."""
        if not isinstance(self.codec, Interleaved) or len(set(self.codec.codec.sizes)) == 1:
            return None
        sizes = np.asarray(self.codec.codec.sizes)
        return jnp.asarray(np.arange(self.codec.vocab_size)[None] < sizes[:, None])

    def _decode(self, tokens: Tokens, like: Notes | None) -> list[Notes]:
        return [
            self.codec.decode(clip).at_resolution(TICKS if like is None else like.ticks_per_quarter)
            for clip in np.asarray(tokens)
        ]

    def _labels(self, labels: Mapping[str, str] | None, count: int) -> Array | None:
        return to_labels(self.config.model.global_fields, self.labels, labels, count)


@partial(jax.jit, static_argnames=("graph", "orders"))
def _bound(
    graph: nnx.GraphDef, params: PyTree, tokens: Tokens, labels: Array | None, key: Array, orders: int
) -> Float[Array, "K"]:
    valid = jnp.ones(tokens.shape[:2], bool)
    return order_agnostic_bound(with_parameters(graph, params), tokens, valid, labels, key, orders)[0]
