"""Notes as events: one note a frame, in five fields.

    0 shift       grid steps since the onset of the note before (of the first note: since the start)
    1 pitch       MIDI number
    2 duration    grid steps, less one
    3 velocity    bin
    4 instrument  group of General MIDI programs; the last is drums

All fields of a note in one frame, as the compound words of Hsiao et al. 2021 (arXiv:2101.02402) and the octuples of
Zeng et al. 2021 (MusicBERT, arXiv:2106.05630), but time goes by steps and not by bars, so that any metre fits. There is
no token for the end: a piece is as long as it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Integer

from wavegen.codecs.notes.base import NoteCodec
from wavegen.codecs.notes.choice import DRUMS, FAMILIES, family, require_range
from wavegen.codecs.notes.grid import check_tokens
from wavegen.codecs.notes.remix import Redrawing, What, require_what
from wavegen.errors import WavegenError
from wavegen.notes.score import Score, Track
from wavegen.types import Tokens

FIELDS = ("shift", "pitch", "duration", "velocity", "instrument")
DRAWN: Mapping[What, list[int]] = {"notes": [1, 2, 3], "pitches": [1], "durations": [2]}
"""Columns that a remix draws; onsets stay, from which the onsets of all later notes are counted."""


@partial(jax.tree_util.register_static)
@dataclass(frozen=True)
class NoteEvents(NoteCodec):
    """A frame of five tokens for every note.

    Frames are in canonical order: by onset, then instrument, pitch, duration and velocity. Laws, tested:
    ``encode(decode(tokens)) == tokens`` for tokens in that order, the same frames in that order for any others, and
    ``decode(encode(notes)) == notes`` for notes that ``decode`` could have written.

    Args:
        steps_per_quarter: the grid; 12 has sixteenths and triplets.
        max_shift: longest wait in steps; a longer silence between two onsets is shortened to it.
        max_duration: longest note in steps; longer ones are cut.
        velocities: bins of equal width, up to 127; a bin decodes to its middle.
        programs_per_group: a divisor of 128: 1 keeps every program, 8 the families of General MIDI, 128 only separates
            pitched instruments from drums. A group decodes to its first program.

    Raises:
        WavegenError: a value out of range.

    Example:
        >>> import numpy as np
        >>> from wavegen.codecs.notes.events import NoteEvents
        >>> NoteEvents().decode(np.array([[12, 69, 11, 10, 0]])).onset.tolist()
        [12]
    """

    steps_per_quarter: int = 12
    max_shift: int = 96
    max_duration: int = 96
    velocities: int = 16
    programs_per_group: int = 8

    def __post_init__(self) -> None:
        for name, highest in (
            ("steps_per_quarter", 32767),
            ("max_shift", 1 << 20),
            ("max_duration", 1 << 20),
            ("velocities", 127),
        ):
            if not 1 <= getattr(self, name) <= highest:
                raise WavegenError(f"expected {name} from 1 to {highest}, got {getattr(self, name)}")
        if self.programs_per_group < 1 or 128 % self.programs_per_group:
            raise WavegenError(
                f"expected programs_per_group to divide 128, got {self.programs_per_group}: use 8"
            )

    @property
    def sizes(self) -> tuple[int, ...]:
        """Values that the token of each field can take."""
        return (
            self.max_shift + 1,
            128,
            self.max_duration,
            self.velocities,
            128 // self.programs_per_group + 1,
        )

    @property
    def codebooks(self) -> int:
        """The fields."""
        return len(FIELDS)

    @property
    def fields(self) -> tuple[str, ...]:
        """See ``NoteCodec``."""
        return FIELDS

    @property
    def start_token(self) -> int:
        """See ``Codec``; of every field."""
        return 0

    def encode(self, notes: Score) -> Int[np.ndarray, "N 5"]:
        """Writes notes as tokens; onsets and ends are rounded to steps, no note under a step.

        Names, tempos and metres are lost; so is which of two tracks of one group plays a note.

        Returns:
            ``[N, 5]`` int32, a frame a note.
        """
        grid, fields, order = self._sorted(notes)
        shift = np.minimum(np.diff(grid.onset[order], prepend=0), self.max_shift)
        return np.column_stack([shift, *(field[order] for field in fields)]).astype(np.int32)

    def order(self, notes: Score) -> Int[np.ndarray, " notes"]:
        """Which note of a piece each frame of ``encode`` is."""
        return notes.order_at(self.steps_per_quarter)[self._sorted(notes)[2]]

    def revised(
        self, notes: Score, tokens: Integer[np.ndarray, "N 5"], changed: Bool[np.ndarray, "N 5"]
    ) -> Score:
        """A piece whose fields that are marked as changed are those of tokens; all else stays as it is, to the tick.

        Args:
            notes: the piece.
            tokens: as many as ``encode`` makes of it, in its order.
            changed: which of them count: pitches, durations and velocities.
        """
        check_tokens(tokens, self.sizes)
        order = self.order(notes)
        ticks = notes.ticks_per_quarter
        # Halves up, as in `Score.at_resolution`.
        steps = 2 * (tokens[:, 2].astype(np.int64) + 1) * ticks + self.steps_per_quarter
        fields = {
            "pitch": (tokens[:, 1], changed[:, 1]),
            "duration": (np.maximum(steps // (2 * self.steps_per_quarter), 1), changed[:, 2]),
            "velocity": (self._middle(tokens[:, 3].astype(np.int64)), changed[:, 3]),
        }
        columns: dict[str, Any] = {name: getattr(notes, name).copy() for name in fields}
        for name, (values, new) in fields.items():
            columns[name][order[new]] = values[new]
        return replace(notes, **columns)

    def decode(self, tokens: Integer[np.ndarray, "N K"]) -> Score:
        """Turns tokens into notes: a tick a step, a track for each instrument there is, at the default tempo.

        Raises:
            WavegenError: another count of fields, or a token outside its field.
        """
        check_tokens(tokens, self.sizes)
        shift, pitch, duration, velocity, instrument = tokens.astype(np.int64).T
        used, track = np.unique(instrument, return_inverse=True)
        return Score(
            pitch,
            np.cumsum(shift),
            duration + 1,
            self._middle(velocity),
            track,
            tuple(self._track(int(number)) for number in used),
            self.steps_per_quarter,
        )

    def continued(self, prompt: Score, tokens: Integer[np.ndarray, "N K"]) -> Score:
        """Turn the tokens of a piece that begins with a prompt into notes.

        A rest of the prompt that is longer than the longest shift keeps its length, which tokens cannot say, and what
        follows keeps its distance from the prompt.

        Args:
            prompt: the piece whose notes are the first ones.
            tokens: see `decode`.
        """
        piece = self.decode(tokens)
        grid, _, order = self._sorted(prompt)
        if not len(order):
            return piece
        late = grid.onset[order] - piece.onset[: len(order)]
        return replace(piece, onset=piece.onset + np.pad(late, (0, len(piece) - len(late)), mode="edge"))

    def narrowed(
        self,
        allowed: Bool[np.ndarray, "places V"],
        instruments: Sequence[str],
        pitches: tuple[int, int] | None,
    ) -> Bool[np.ndarray, "places V"]:
        """See ``NoteCodec``; fields have to be written one after the other."""
        if len(allowed) != len(FIELDS):
            raise WavegenError(
                "instruments and pitches of one field per frame can be chosen; train with codec.interleave=true"
            )
        values = np.arange(allowed.shape[1])
        if instruments:
            allowed[FIELDS.index("instrument")] &= np.isin(values, self._groups(instruments))
        if pitches is not None:
            low, high = require_range(pitches, 0, 127)
            allowed[FIELDS.index("pitch")] &= (values >= low) & (values <= high)
        return allowed

    def redraw(self, notes: Score, chosen: Bool[np.ndarray, " notes"], what: What) -> Redrawing:
        """See ``NoteCodec``."""
        require_what(what)
        tokens = self.encode(notes)
        hidden = np.zeros(tokens.shape, bool)
        hidden[:, DRAWN[what]] = chosen[self.order(notes)][:, None]
        return Redrawing(tokens, hidden, None, lambda filled: self.revised(notes, filled, hidden))

    def transposed(self, tokens: Tokens, semitones: Int[Array, "B"]) -> Tokens:
        """See ``NoteCodec``; drums stay."""
        pitch = tokens[:, :, 1]
        # Frames of zeros fill up short clips.
        stays = (tokens[:, :, 4] == self.sizes[4] - 1) | jnp.all(tokens == 0, axis=2)
        moved = jnp.where(stays, pitch, pitch + semitones[:, None])
        fits = jnp.all((moved >= 0) & (moved <= 127), axis=1, keepdims=True)
        return tokens.at[:, :, 1].set(jnp.where(fits, moved, pitch))

    def _sorted(
        self, notes: Score
    ) -> tuple[Score, tuple[Int[np.ndarray, " notes"], ...], Int[np.ndarray, " notes"]]:
        """The piece on the grid, its pitches, durations, velocities and instruments, and their canonical order."""
        grid = notes.at_resolution(self.steps_per_quarter)
        duration = np.minimum(grid.duration, self.max_duration) - 1
        velocity = (grid.velocity - 1) * self.velocities // 127
        instrument = np.where(grid.drum, self.sizes[4] - 1, grid.program // self.programs_per_group)
        order = np.lexsort((velocity, duration, grid.pitch, instrument, grid.onset))
        return grid, (grid.pitch, duration, velocity, instrument), order

    def _middle(self, velocity: Int[np.ndarray, " notes"]) -> Int[np.ndarray, " notes"]:
        first, last = (-(-bound * 127 // self.velocities) for bound in (velocity, velocity + 1))
        return (first + 1 + last) // 2

    def _track(self, instrument: int) -> Track:
        if instrument == self.sizes[4] - 1:
            return Track("drums", 0, drum=True)
        program = instrument * self.programs_per_group
        return Track(FAMILIES[program // 8], program)

    def _groups(self, instruments: Sequence[str]) -> list[int]:
        """The tokens that decode to an instrument of these families."""
        drums = self.sizes[FIELDS.index("instrument")] - 1
        names = [FAMILIES[group * self.programs_per_group // 8] for group in range(drums)] + [DRUMS]
        groups = []
        for name in map(family, instruments):
            own = [group for group, its in enumerate(names) if its == name]
            if not own:
                raise WavegenError(
                    f"groups of {self.programs_per_group} programs do not distinguish {name}; there are "
                    f"{', '.join(dict.fromkeys(names))}"
                )
            groups += own
        return groups
