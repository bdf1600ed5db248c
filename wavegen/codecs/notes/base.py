"""The note codec contract: a score to integer tokens and back, on the host."""

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from wavegen.codecs.base import Codec
from wavegen.codecs.notes.remix import Redrawing, What
from wavegen.errors import WavegenError
from wavegen.notes.score import Score
from wavegen.types import Tokens


class NoteCodec(Codec):
    """Notes in, integer tokens out, and back.

    Members are hashable and hold no arrays. Datasets store their tokens as they are, so a frame is a step of the
    dataset's time axis.

    Laws, tested for every member:

    - tokens of codebook k lie in ``[0, sizes[k])``;
    - ``encode(decode(tokens))`` is ``tokens``, for tokens that ``encode`` can write;
    - ``decode(encode(notes))`` is ``notes``, for notes that lie on the codec's grid;
    - what it writes is allowed at its place, and what is drawn from a narrowed range of pitches decodes into it;
    - transposed tokens are those of the transposed notes;
    - a redrawing keeps the notes that are not chosen to the tick, and of the chosen ones what is not asked for.
    """

    @property
    def fingerprint(self) -> str:
        """The same for codecs that write the same tokens."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:16]

    @property
    def vocab_size(self) -> int:
        """See ``Codec``: the largest of ``sizes``."""
        return max(self.sizes)

    @property
    def hop_length(self) -> int:
        """See ``Codec``."""
        return 1

    @property
    @abstractmethod
    def sizes(self) -> tuple[int, ...]:
        """Values that a token of each codebook can take."""

    @property
    def places(self) -> int:
        """See ``Codec``: all places of a period."""
        return self.period

    @property
    def plain(self) -> "NoteCodec":
        """See ``Codec``."""
        return self

    @abstractmethod
    def encode(self, notes: Score) -> Int[np.ndarray, "N K"]:
        """Writes a piece as tokens, int32.

        Raises:
            WavegenError: notes that the codec has no tokens for.
        """

    @abstractmethod
    def decode(self, tokens: Int[np.ndarray, "N K"]) -> Score:
        """Turns tokens back into a piece.

        Raises:
            WavegenError: tokens that mean nothing.
        """

    def continued(self, prompt: Score, tokens: Int[np.ndarray, "N K"]) -> Score:
        """Turns the tokens of a piece that begins with a prompt into notes; what no token can say stays the prompt's.

        Args:
            prompt: the piece whose tokens come first.
            tokens: see `decode`.
        """
        del prompt
        return self.decode(tokens)

    @abstractmethod
    def narrowed(
        self,
        allowed: Bool[np.ndarray, "places V"],
        instruments: Sequence[str],
        pitches: tuple[int, int] | None,
    ) -> Bool[np.ndarray, "places V"]:
        """The values that are allowed where only some instruments play, or only pitches of a range.

        Args:
            allowed: what the codec whose tokens are drawn allows; this one, or its tokens one after the other.
            instruments: names, see ``wavegen.codecs.notes.choice.family``; none is all.
            pitches: the lowest and the highest MIDI number; None is all.

        Raises:
            WavegenError: an instrument or pitch that is none, or that the codec does not write.
        """

    @abstractmethod
    def redraw(self, notes: Score, chosen: Bool[np.ndarray, " notes"], what: What) -> Redrawing:
        """Takes out of a piece what is to be drawn anew.

        Args:
            notes: the piece.
            chosen: its notes that are to change.
            what: "notes": on a grid the places that they sound in, of events pitch, duration and velocity; "pitches",
                and for events "durations": nothing else.

        Raises:
            WavegenError: another ``what``, one that the codec does not write alone, or a piece that it cannot write.
        """

    @abstractmethod
    def transposed(self, tokens: Tokens, semitones: Int[Array, "B"]) -> Tokens:
        """The tokens of pieces moved by whole semitones, on the device; a clip that would leave the range stays."""


@partial(jax.tree_util.register_static)
@dataclass(frozen=True)
class Interleaved(NoteCodec):
    """The tokens of another codec one after the other, for models that read one token at a time.

    Frame ``n K + k`` is token k of frame n. All codebooks share one vocabulary.

    Attributes:
        codec: of K codebooks.
    """

    codec: NoteCodec

    @property
    def sizes(self) -> tuple[int, ...]:
        """See ``NoteCodec``."""
        return (self.codec.vocab_size,)

    @property
    def codebooks(self) -> int:
        """See ``Codec``."""
        return 1

    @property
    def start_token(self) -> int:
        """See ``Codec``."""
        return self.codec.start_token

    @property
    def period(self) -> int:
        """See ``NoteCodec``."""
        return self.codec.period * self.codec.codebooks

    @property
    def plain(self) -> NoteCodec:
        """See ``Codec``."""
        return self.codec

    @property
    def interleaving(self) -> int:
        """See ``Codec``."""
        return self.codec.codebooks

    @property
    def allowed(self) -> Bool[np.ndarray, "places V"] | None:
        """See ``NoteCodec``: fields that share a vocabulary use a part of it each."""
        sizes = np.asarray(self.codec.sizes)
        if (sizes == self.vocab_size).all():
            return None
        return np.arange(self.vocab_size)[None] < sizes[:, None]

    def encode(self, notes: Score) -> Int[np.ndarray, "N K"]:
        """See ``NoteCodec``."""
        return self.codec.encode(notes).reshape(-1, 1)

    def decode(self, tokens: Int[np.ndarray, "N K"]) -> Score:
        """See ``NoteCodec``; a last frame that is not whole is left out."""
        return self.codec.decode(self._plainly(tokens))

    def continued(self, prompt: Score, tokens: Int[np.ndarray, "N K"]) -> Score:
        """See ``NoteCodec``."""
        return self.codec.continued(prompt, self._plainly(tokens))

    def _plainly(self, tokens: Int[np.ndarray, "N K"]) -> Int[np.ndarray, "frames fields"]:
        width = self.codec.codebooks
        if tokens.ndim != 2 or tokens.shape[1] != 1:
            raise WavegenError(
                f"expected tokens [frames, 1], got {list(tokens.shape)}; give those of one clip"
            )
        return tokens[: len(tokens) // width * width].reshape(-1, width)

    def narrowed(
        self,
        allowed: Bool[np.ndarray, "places V"],
        instruments: Sequence[str],
        pitches: tuple[int, int] | None,
    ) -> Bool[np.ndarray, "places V"]:
        """See ``NoteCodec``."""
        return self.codec.narrowed(allowed, instruments, pitches)

    def redraw(self, notes: Score, chosen: Bool[np.ndarray, " notes"], what: What) -> Redrawing:
        """See ``NoteCodec``; the tokens are those of the plain codec."""
        return self.codec.redraw(notes, chosen, what)

    def transposed(self, tokens: Tokens, semitones: Int[Array, "B"]) -> Tokens:
        """See ``NoteCodec``."""
        batch, frames, _ = tokens.shape
        width = self.codec.codebooks
        whole = tokens[:, : frames // width * width]
        moved = self.codec.transposed(whole.reshape(batch, -1, width), semitones)
        return jnp.concatenate([moved.reshape(whole.shape), tokens[:, whole.shape[1] :]], axis=1)
