"""What a person asks of a model of notes: generate, continue, harmonise and remix scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PyTree

from wavegen.codecs import Codecs, NoteCodec
from wavegen.codecs.notes.base import Interleaved
from wavegen.codecs.notes.choice import allowed_values, by_field
from wavegen.codecs.notes.grid import NoteGrid
from wavegen.codecs.notes.remix import What, redrawing
from wavegen.config import Config
from wavegen.config.models import BertConfig, Seq2SeqConfig
from wavegen.errors import WavegenError
from wavegen.generation.requests import require_least, require_share, to_labels
from wavegen.models.base import Choice
from wavegen.networks.base import with_parameters
from wavegen.notes.arrange import overlaid
from wavegen.notes.score import Notes
from wavegen.runs.trained import Trained, save_trained
from wavegen.samplers.autoregressive import log_likelihood, stream
from wavegen.samplers.bound import order_agnostic_bound
from wavegen.samplers.masked import filling_of, generate_long
from wavegen.types import Tokens

TICKS = 480
"""Of a quarter note, in what is returned: what most programs expect of a MIDI file."""


@dataclass(frozen=True)
class NoteDrawing:
    """How a model of notes draws tokens; None is the experiment's own.

    Attributes:
        temperature: below 1 calmer, above 1 wilder. Several numbers are for the codec's fields in turn, or, of events,
            by name: ``{"pitch": 1.1, "duration": 0.8}``; fields that are not named have the experiment's own.
        top_k: draw among the k likeliest tokens; 0 is all. For causal models.
        top_p: draw among the likeliest tokens that together have this probability; 1 is all.
        instruments: the only ones that play, as ``("piano", "bass")``: families of General MIDI
            (``wavegen.codecs.notes.events.FAMILIES``) and "drums"; none is all. For events.
        pitches: the lowest and the highest MIDI number, of drums too; None is all.
    """

    temperature: float | tuple[float, ...] | Mapping[str, float] | None = None
    top_k: int = 0
    top_p: float = 1.0
    instruments: tuple[str, ...] = ()
    pitches: tuple[int, int] | None = None


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

    @property
    def plain_codec(self) -> NoteCodec:
        """The codec before its tokens are interleaved."""
        return self.codec.codec if isinstance(self.codec, Interleaved) else self.codec

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
            prompt: a piece that they continue; it comes first in what is returned, as the codec hears it, with its
                tempos and metres.
            labels: the value of each label field.
            drawing: how tokens are drawn.

        Raises:
            WavegenError: an argument is out of range, or not one that this model takes.
        """
        require_least(length=(length, 1), count=(count, 1))
        if isinstance(self.config.model, Seq2SeqConfig):
            raise WavegenError("an encoder-decoder writes voices to a melody; use harmonise")
        heard = np.zeros((0, self.codec.codebooks), np.int32) if prompt is None else self.codec.encode(prompt)
        start = jnp.repeat(jnp.asarray(heard)[None], count, axis=0)
        frames = length * self.width
        if self.masked:
            gap = jnp.full((count, frames, self.codec.codebooks), self.codec.vocab_size, jnp.int32)
            tokens = self._filled(jnp.concatenate([start, gap], axis=1), seed, labels, drawing)
            return self._decode(tokens, prompt)
        drawn = self._drawn(frames, count, seed, labels, drawing, prompt=start)
        return self._decode(np.concatenate([start, drawn], axis=1), prompt)

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
        """Adds the other voices to a melody; the melody stays as it is, note for note.

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
        grid, model = self._grid(), self.config.model
        voices, highest = 1, grid.voices - 1
        if isinstance(model, Seq2SeqConfig):
            voices, highest = model.source_voices, 0
        if len(melody.tracks) != voices or not 0 <= voice <= highest:
            raise WavegenError(
                f"expected a melody on {voices} track(s), the first as voice 0 to {highest}, got "
                f"{len(melody.tracks)} tracks and voice {voice}; use select()"
            )
        line = grid.encode(melody)[:, :voices]
        sung = slice(voice, voice + voices)
        tokens = np.full((count, len(line), grid.voices), self.codec.vocab_size, np.int32)
        tokens[:, :, sung] = line
        if isinstance(model, Seq2SeqConfig):
            others = tokens[:, :, voices:]
            drawn = self._drawn(
                others[0].size, count, seed, labels, drawing, features=tokens[:, :, sung].astype(np.float32)
            )
            tokens[:, :, voices:] = drawn.reshape(others.shape)
        else:
            filled = self._filled(
                jnp.asarray(tokens.reshape(count, -1, self.codec.codebooks)), seed, labels, drawing
            )
            tokens = filled.reshape(tokens.shape)
        tokens[:, :, sung] = 0
        return [overlaid(melody, grid.decode(clip), voice) for clip in tokens]

    def remix(
        self,
        notes: Notes,
        share: float,
        what: What = "notes",
        *,
        count: int = 1,
        seed: int = 0,
        labels: Mapping[str, str] | None = None,
        drawing: NoteDrawing = _USUAL,
    ) -> list[Notes]:
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

        Raises:
            WavegenError: the model is none that fills gaps, the piece is empty, or ``what`` cannot be; see
                ``generate``.
        """
        require_least(count=(count, 1))
        if not 0 <= share <= 1:
            raise WavegenError(f"expected a share in [0, 1], got {share}; 0.3 changes three notes of ten")
        if not self.masked:
            raise WavegenError(
                f"to remix takes a masked model, got model.kind={self.config.model.kind}; train one with "
                "configs/chorales-bert.yaml or configs/events-bert.yaml"
            )
        if not len(notes):
            raise WavegenError("expected notes to remix, got an empty piece")
        order = np.random.Generator(np.random.Philox(seed)).permutation(len(notes))
        gaps = redrawing(self.plain_codec, notes, order < round(share * len(notes)), what)
        rows = np.where(gaps.hidden, self.codec.vocab_size, gaps.tokens).reshape(1, -1, self.codec.codebooks)
        filled = self._filled(
            jnp.repeat(jnp.asarray(rows), count, axis=0), seed, labels, drawing, gaps.allowed
        )
        return [gaps.rebuilt(clip) for clip in filled.reshape(count, *gaps.tokens.shape)]

    def nats(
        self, notes: Notes, *, labels: Mapping[str, str] | None = None, orders: int = 64, seed: int = 0
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
        if isinstance(self.config.model, Seq2SeqConfig):
            raise WavegenError(
                "an encoder-decoder tells voices given others; measure it with wavegen evaluate"
            )
        tokens = jnp.asarray(self.codec.encode(notes))[None]
        rows = self._labels(labels, 1)
        if not self.masked:
            window = -(-tokens.shape[1] // 256) * 256
            return -log_likelihood(self.graph, self.params, np.asarray(tokens), labels=rows, window=window)[0]
        bound = _bound(
            self.graph, self.params, tokens, rows, jax.random.key(seed), self._choice(_USUAL).allowed, orders
        )
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
        seed: int,
        labels: Mapping[str, str] | None,
        drawing: NoteDrawing,
        narrower: Bool[np.ndarray, " V"] | None = None,
    ) -> Int[np.ndarray, "B N K"]:
        """The tokens with nothing masked; ``narrower`` are the only values that what is drawn may take."""
        if drawing.top_k:
            raise WavegenError("a masked model draws with top_p; leave top_k out")
        filling = filling_of(self.config.sampling, self.codec.codebooks)
        key, count = jax.random.key(seed), len(tokens)
        filled = generate_long(
            self.graph,
            self.params,
            tokens,
            jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(count)),
            filling._replace(choice=self._choice(drawing, narrower)),
            window=self.config.data.crop,
            period=self.codec.period,
            labels=self._labels(labels, count),
        )
        return np.array(filled)

    def _drawn(
        self,
        frames: int,
        count: int,
        seed: int,
        labels: Mapping[str, str] | None,
        drawing: NoteDrawing,
        *,
        prompt: Tokens | None = None,
        features: Float[np.ndarray, "B F D"] | None = None,
    ) -> Int[np.ndarray, "B frames K"]:
        """What a causal model draws after the prompt, given the features."""
        pieces = stream(
            self.graph,
            self.params,
            frames,
            jax.random.key(seed),
            batch=count,
            choice=self._choice(drawing),
            prompt=prompt,
            labels=self._labels(labels, count),
            features=None if features is None else jnp.asarray(features),
            chunk=min(frames, 1024),
        )
        return np.concatenate([np.asarray(piece) for piece in pieces], axis=1)

    def _grid(self) -> NoteGrid:
        """The grid of a model that writes voices to a melody."""
        if not isinstance(self.config.model, BertConfig | Seq2SeqConfig) or not isinstance(
            self.plain_codec, NoteGrid
        ):
            raise WavegenError(
                "to harmonise takes a model.kind=seq2seq or bert of codec.kind=note_grid, got "
                f"{self.config.model.kind} of {self.config.codec.kind}; train one with configs/chorales-seq2seq.yaml"
            )
        return self.plain_codec

    def _choice(self, drawing: NoteDrawing, narrower: Bool[np.ndarray, " V"] | None = None) -> Choice:
        require_share("top_p", drawing.top_p)
        allowed = allowed_values(self.codec, drawing.instruments, drawing.pitches)
        if narrower is not None:
            allowed = narrower[None] if allowed is None else allowed & narrower[None]
        return Choice(
            self._temperature(drawing),
            drawing.top_k,
            drawing.top_p,
            None if allowed is None else jnp.asarray(allowed),
        )

    def _temperature(self, drawing: NoteDrawing) -> float | Float[Array, " fields"]:
        own = self.config.sampling.temperature
        given = own if drawing.temperature is None else drawing.temperature
        if isinstance(given, Mapping):
            given = by_field(self.codec, given, own)
        values: Sequence[float] = given if isinstance(given, tuple) else (given,)
        for value in values:
            require_least(temperature=(float(value), 0))
        if len(values) not in (1, self.width):
            raise WavegenError(f"expected 1 or {self.width} temperatures, one a field, got {len(values)}")
        return jnp.asarray(values, jnp.float32) if len(values) > 1 else float(values[0])

    def _decode(self, tokens: Int[np.ndarray, "B N K"], prompt: Notes | None) -> list[Notes]:
        pieces = [self.codec.decode(clip) for clip in tokens]
        if prompt is None:
            return [piece.at_resolution(TICKS) for piece in pieces]
        return [
            replace(piece.at_resolution(prompt.ticks_per_quarter), tempos=prompt.tempos, metres=prompt.metres)
            for piece in pieces
        ]

    def _labels(self, labels: Mapping[str, str] | None, count: int) -> Array | None:
        return to_labels(self.config.model.global_fields, self.labels, labels, count)


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
