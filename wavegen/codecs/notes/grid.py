"""Notes on a fixed grid: one token per voice and step, as in four-part chorales.

    token 0            silence
    token p - low + 1  pitch p, from low to high
    the last token     hold: the note continues (only with ``ties``)

Without ties a note continues as long as its token is repeated, so that a note that is struck twice reads as one: the
JSB chorales in sixteenths are of that kind (Huang et al. 2017, "Counterpoint by Convolution").
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Integer

from wavegen.codecs.notes.base import NoteCodec
from wavegen.codecs.notes.choice import require_range
from wavegen.codecs.notes.remix import Redrawing, What, require_what
from wavegen.errors import WavegenError
from wavegen.notes.arrange import overlaid
from wavegen.notes.score import Score, Track
from wavegen.types import Tokens

VELOCITY = 80  # of decoded notes
LONGEST = 1 << 22  # steps: 145 hours of sixteenths; what lies above is a damaged file


@partial(jax.tree_util.register_static)
@dataclass(frozen=True)
class NoteGrid(NoteCodec):
    """A token for every voice and step.

    Laws, tested: ``decode(encode(notes)) == notes`` for notes that ``decode`` could have written, and
    ``encode(decode(tokens), len(tokens))`` is ``tokens``; with ties, if every hold follows a note or a hold. One
    that does not is silence.

    Args:
        voices: tokens of a step; voice k is track k.
        low: the lowest MIDI number.
        high: the highest.
        ties: whether there is a token to hold a note, so that repeated notes survive.
        steps_per_quarter: steps of a quarter note; 4 are sixteenths.
        bar: steps of a bar.

    Raises:
        WavegenError: no voices, no steps, or pitches outside 0 to 127.

    Example:
        >>> import numpy as np
        >>> from wavegen.codecs.notes.grid import NoteGrid
        >>> NoteGrid(voices=1, ties=True).decode(np.array([[25], [47], [25]])).duration.tolist()
        [2, 1]
    """

    voices: int = 4
    low: int = 36
    high: int = 81
    ties: bool = False
    steps_per_quarter: int = 4
    bar: int = 16

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high <= 127:
            raise WavegenError(f"expected 0 <= low <= high <= 127, got low {self.low}, high {self.high}")
        if min(self.voices, self.steps_per_quarter, self.bar) < 1:
            raise WavegenError(
                f"expected at least 1 voice and step, got {self.voices} voices, {self.steps_per_quarter} steps a "
                f"quarter note, {self.bar} a bar"
            )

    @property
    def vocab_size(self) -> int:
        """Silence, the pitches, and hold."""
        return self.high - self.low + 2 + self.ties

    @property
    def codebooks(self) -> int:
        """Tokens of a step: the voices."""
        return self.voices

    @property
    def start_token(self) -> int:
        """Silence."""
        return 0

    @property
    def period(self) -> int:
        """The steps of a bar."""
        return self.bar

    @property
    def sizes(self) -> tuple[int, ...]:
        """Values that the token of each voice can take."""
        return (self.vocab_size,) * self.voices

    def encode(self, notes: Score, frames: int | None = None) -> Int[np.ndarray, "N K"]:
        """Writes notes as tokens.

        Onsets and ends are rounded to steps, no note under a step. Velocities, tempos and instruments are lost.

        Args:
            notes: one track a voice, highest first; missing tracks are silent voices.
            frames: steps of the result, for silence at the end; by default up to the end of the last note.

        Returns:
            ``[N, voices]`` int32.

        Raises:
            WavegenError: more tracks than voices, drums, a pitch outside low to high, two notes at once in a voice,
                fewer frames than the notes take, or more than 2**22.
        """
        if len(notes.tracks) > self.voices:
            raise WavegenError(
                f"expected at most {self.voices} tracks, one a voice, got {len(notes.tracks)}: leave some out "
                "or train with more codec.voices"
            )
        grid = notes.at_resolution(self.steps_per_quarter)
        outside = (grid.pitch < self.low) | (grid.pitch > self.high) | grid.drum
        if outside.any():
            where = int(np.argmax(outside))
            raise WavegenError(
                f"expected pitches {self.low} to {self.high} and no drums, got {grid.pitch[where]} on track "
                f"{grid.track[where]} at step {grid.onset[where]}: transpose, or widen the grid"
            )
        frames = grid.end if frames is None else frames
        if frames < grid.end:
            raise WavegenError(
                f"expected at least {grid.end} frames for these notes, got {frames}: take more, or cut the notes"
            )
        if frames > LONGEST:
            raise WavegenError(
                f"expected at most {LONGEST} steps, got {frames}: cut the piece (in Python, by .between())"
            )
        tokens = np.zeros((frames, self.voices), np.int32)
        for pitch, onset, end, voice in zip(
            grid.pitch, grid.onset, grid.onset + grid.duration, grid.track, strict=True
        ):
            if tokens[onset:end, voice].any():
                raise WavegenError(
                    f"expected one note at a time, got two on track {voice} at step {onset}: split the voices"
                )
            tokens[onset:end, voice] = self.vocab_size - 1 if self.ties else pitch - self.low + 1
            tokens[onset, voice] = pitch - self.low + 1
        return tokens

    def decode(self, tokens: Integer[np.ndarray, "N K"]) -> Score:
        """Turns tokens into notes: a tick a step, a track a voice, all of one velocity, at the default tempo.

        Raises:
            WavegenError: another count of voices, or a token outside the vocabulary.
        """
        check_tokens(tokens, self.sizes)
        end = np.zeros((1, self.voices), np.int64)
        tokens = np.concatenate([tokens, end]).T  # voice by voice, each closed by silence
        if self.ties:
            struck = tokens < self.vocab_size - 1
            struck[:, 0] = True  # a hold in the first step holds nothing
            tokens = np.where(tokens < self.vocab_size - 1, tokens, 0)
        else:
            struck = np.diff(tokens, axis=1, prepend=0) != 0
        voice, step = np.nonzero(struck)
        token, following = tokens[voice, step], np.append(step[1:], 0)
        sung = token > 0
        return Score(
            token[sung].astype(np.int64) + self.low - 1,
            step[sung],
            (following - step)[sung],
            np.full(int(sung.sum()), VELOCITY),
            voice[sung],
            tuple(Track(f"voice {number + 1}") for number in range(self.voices)),
            self.steps_per_quarter,
        )

    def narrowed(
        self,
        allowed: Bool[np.ndarray, "places V"],
        instruments: Sequence[str],
        pitches: tuple[int, int] | None,
    ) -> Bool[np.ndarray, "places V"]:
        """See ``NoteCodec``; a grid writes no instruments."""
        if instruments:
            raise WavegenError(
                "a grid of voices writes no instruments; leave them out, or use codec.kind=note_events"
            )
        if pitches is not None:
            low, high = require_range(pitches, self.low, self.high)
            values = np.arange(allowed.shape[1])
            pitch = values + self.low - 1
            allowed &= ((values == 0) | (pitch > self.high) | ((pitch >= low) & (pitch <= high)))[None]
        return allowed

    def redraw(self, notes: Score, chosen: Bool[np.ndarray, " notes"], what: What) -> Redrawing:
        """See ``NoteCodec``; durations are not written on their own."""
        require_what(what)
        if what == "durations":
            raise WavegenError(
                "on a grid the end of a note is the beginning of the next; to remix durations use a model of "
                "codec.kind=note_events (configs/events-bert.yaml)"
            )
        return self._redraw_pitches(notes, chosen) if what == "pitches" else self._redraw(notes, chosen)

    def _redraw(self, notes: Score, chosen: Bool[np.ndarray, " notes"]) -> Redrawing:
        tokens, kept = self.encode(notes), notes.where(~chosen)
        hidden = self.encode(notes.where(chosen), len(tokens)) > 0

        def rebuilt(filled: Int[np.ndarray, "N K"]) -> Score:
            return overlaid(kept, self.decode(np.where(hidden, filled, 0)), 0)

        return Redrawing(tokens, hidden, None, rebuilt)

    def _redraw_pitches(self, notes: Score, chosen: Bool[np.ndarray, " notes"]) -> Redrawing:
        tokens, grid = self.encode(notes), notes.at_resolution(self.steps_per_quarter)
        order = notes.order_at(self.steps_per_quarter)
        drawn = np.flatnonzero(chosen[order])
        hidden = np.zeros(tokens.shape, bool)
        for onset, duration, voice in zip(
            grid.onset[drawn], grid.duration[drawn], grid.track[drawn], strict=True
        ):
            # Without ties a note is its pitch again and again: all of it is hidden, and what it begins with counts.
            hidden[onset : onset + (1 if self.ties else duration), voice] = True
        pitches = np.arange(self.vocab_size)
        allowed = (pitches > 0) & (pitches <= self.high - self.low + 1)

        def rebuilt(filled: Int[np.ndarray, "N K"]) -> Score:
            pitch = notes.pitch.copy()
            pitch[order[drawn]] = filled[grid.onset[drawn], grid.track[drawn]] + self.low - 1
            return replace(notes, pitch=pitch)

        return Redrawing(tokens, hidden, allowed, rebuilt)

    def transposed(self, tokens: Tokens, semitones: Int[Array, "B"]) -> Tokens:
        """See ``NoteCodec``."""
        pitched = (tokens > 0) & (tokens <= self.high - self.low + 1)
        lowest = jnp.min(jnp.where(pitched, tokens, self.vocab_size), axis=(1, 2))
        highest = jnp.max(jnp.where(pitched, tokens, 0), axis=(1, 2))
        fits = (lowest + semitones >= 1) & (highest + semitones <= self.high - self.low + 1)
        return jnp.where(pitched, tokens + jnp.where(fits, semitones, 0)[:, None, None], tokens)

    def from_pitches(self, pitches: Integer[np.ndarray, "N K"]) -> Int[np.ndarray, "N K"]:
        """Tokens of a grid of MIDI numbers, in which -1 is silence.

        Raises:
            WavegenError: a pitch outside low to high.
        """
        outside = (pitches != -1) & ((pitches < self.low) | (pitches > self.high))
        if outside.any():
            step, voice = np.argwhere(outside)[0]
            raise WavegenError(
                f"expected pitches {self.low} to {self.high}, or -1, got {pitches[step, voice]} in voice {voice} at "
                f"step {step}: transpose, or widen the grid"
            )
        tokens = np.where(pitches < 0, 0, pitches - self.low + 1).astype(np.int32)
        if self.ties:
            repeated = (tokens[1:] == tokens[:-1]) & (tokens[1:] > 0)
            tokens[1:][repeated] = self.vocab_size - 1
        return tokens

    def to_pitches(self, tokens: Integer[np.ndarray, "N K"]) -> Int[np.ndarray, "N K"]:
        """The grid of MIDI numbers that sound, -1 in silence; the inverse of ``from_pitches``.

        Raises:
            WavegenError: another count of voices, or a token outside the vocabulary.
        """
        notes = self.decode(tokens)
        pitches = np.full(tokens.shape, -1)
        for pitch, onset, duration, voice in zip(
            notes.pitch, notes.onset, notes.duration, notes.track, strict=True
        ):
            pitches[onset : onset + duration, voice] = pitch
        return pitches


def check_tokens(tokens: Integer[np.ndarray, "N K"], sizes: tuple[int, ...]) -> None:
    """Refuse tokens that a note codec of these sizes cannot have written.

    Raises:
        WavegenError: another count of columns, or a token outside [0, size of its column).
    """
    if tokens.shape[1] != len(sizes):
        raise WavegenError(f"expected tokens of shape [N, {len(sizes)}], got {list(tokens.shape)}")
    wrong = (tokens < 0) | (tokens >= np.array(sizes))
    if wrong.any():
        frame, column = np.argwhere(wrong)[0]
        raise WavegenError(
            f"expected tokens under {sizes[column]} in column {column}, got {tokens[frame, column]} at frame {frame}"
        )
