"""Measures of harmony and voice leading, for pieces in voices and for melodies with an accompaniment.

A grid is ``[steps, voices]`` of MIDI numbers, the highest voice first, -1 for silence.
"""

from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from wavegen.errors import WavegenError

# C4-G5, G3-C5, C3-G4, E2-C4: the ranges of soprano, alto, tenor and bass in textbooks.
RANGES = ((60, 79), (55, 72), (48, 67), (40, 60))


class Parallels(NamedTuple):
    """How often pairs of voices move in parallel perfect intervals.

    Attributes:
        fifths: number of moves from one perfect fifth to another.
        octaves: number of moves from one octave or unison to another.
        moves: number of steps at which both voices of a pair move, summed over the pairs.
    """

    fifths: int
    octaves: int
    moves: int

    @property
    def rate(self) -> float:
        """Share of the moves that are parallel fifths or octaves; 0 without moves."""
        return (self.fifths + self.octaves) / max(self.moves, 1)


def parallels(grid: Int[np.ndarray, "N K"]) -> Parallels:
    """Counts parallel fifths and octaves.

    Two voices move from one step to the next if both sound in both steps and both change their pitch. The move is
    parallel if both go in the same direction, and the interval between them, reduced by octaves, is seven semitones
    before and after (a fifth), or zero before and after (an octave or unison). The following do not count: a
    diminished fifth before or after a perfect one, fifths by contrary motion, a voice that stays or repeats its note,
    a fifth whose voices crossed into a fourth, and fifths on successive beats with other notes between.

    A fifth that two voices enter from any other interval ("hidden") does not count either. The count depends on the
    grid: movement within a step is not seen.

    Example:
        >>> import numpy as np
        >>> from wavegen.notes.harmony import parallels
        >>> parallels(np.array([[67, 60], [69, 62], [71, 62]]))
        Parallels(fifths=1, octaves=0, moves=1)
    """
    fifths = octaves = moves = 0
    motion = np.diff(grid, axis=0)
    sounds = (grid[1:] >= 0) & (grid[:-1] >= 0)
    for one, other in combinations(range(grid.shape[1]), 2):
        both = sounds[:, one] & sounds[:, other] & (motion[:, one] != 0) & (motion[:, other] != 0)
        interval = np.abs(grid[:, one] - grid[:, other]) % 12
        kept = both & (np.sign(motion[:, one]) == np.sign(motion[:, other])) & (interval[1:] == interval[:-1])
        fifths += int((kept & (interval[1:] == 7)).sum())
        octaves += int((kept & (interval[1:] == 0)).sum())
        moves += int(both.sum())
    return Parallels(fifths, octaves, moves)


def in_range(
    grid: Int[np.ndarray, "N K"], ranges: tuple[tuple[int, int], ...] = RANGES
) -> Float[np.ndarray, "K"]:
    """Returns the share of each voice's sounding steps within its range, both ends included; 1 if it never sounds.

    Raises:
        WavegenError: if the number of ranges is not that of voices.
    """
    if grid.shape[1] != len(ranges):
        raise WavegenError(f"expected a range for each of {grid.shape[1]} voices, got {len(ranges)}")
    low, high = np.array(ranges).T
    sounds = grid >= 0
    inside = ((grid >= low) & (grid <= high) & sounds).sum(axis=0)
    count = sounds.sum(axis=0)
    return np.where(count > 0, inside / np.maximum(count, 1), 1.0)


def pitch_classes(grid: Int[np.ndarray, "N K"]) -> Bool[np.ndarray, "N 12"]:
    """Returns which of the twelve pitch classes sound in each step; 0 is C."""
    step, voice = np.nonzero(grid >= 0)
    classes = np.zeros((len(grid), 12), bool)
    classes[step, grid[step, voice] % 12] = True
    return classes


def roll_pitch_classes(roll: Float[np.ndarray, "N 128"]) -> Bool[np.ndarray, "N 12"]:
    """Returns which of the twelve pitch classes sound in each frame of a piano roll; 0 is C."""
    return np.stack([roll[:, first::12].any(axis=1) for first in range(12)], axis=1)


def chord_tone_match(melody: Bool[np.ndarray, "N 12"], chords: Bool[np.ndarray, "N 12"]) -> float:
    """Returns in which share of the steps where both sound every pitch class of the melody is also in the chord.

    The result is NaN if they never sound together. An accompaniment that doubles the melody always matches, so that
    the figure needs ``chord_agreement`` next to it.
    """
    together = melody.any(axis=1) & chords.any(axis=1)
    return float((~melody | chords).all(axis=1)[together].mean()) if together.any() else float("nan")


def chord_agreement(chords: Bool[np.ndarray, "N 12"], reference: Bool[np.ndarray, "N 12"]) -> float:
    """Returns how alike two harmonies are: shared pitch classes over all pitch classes (Jaccard), averaged over steps.

    Steps where neither sounds are left out; the result is NaN if there are no others.
    """
    either = (chords | reference).sum(axis=1)
    both = (chords & reference).sum(axis=1)
    return float((both[either > 0] / either[either > 0]).mean()) if either.any() else float("nan")


def pitch_class_entropy(pitch: Int[np.ndarray, " notes"]) -> float:
    """Returns the entropy of the pitch classes of notes in bits, from 0 to log2(12) = 3.585.

    It is 0 for a single class and without notes.
    """
    share = np.bincount(pitch % 12, minlength=12) / max(len(pitch), 1)
    share = share[share > 0]
    return float(-(share * np.log2(share)).sum())


def repetition(frames: Shaped[np.ndarray, "N *K"], length: int = 4) -> float:
    """Returns the share of runs of ``length`` frames that occurred before in the piece.

    It is 0 for a piece that never repeats and near 1 for a loop. Frames are tokens, grid steps or notes. The result
    is NaN for pieces shorter than a run.

    Raises:
        WavegenError: if the length is under 1.

    Example:
        >>> import numpy as np
        >>> from wavegen.notes.harmony import repetition
        >>> round(repetition(np.array([60, 62, 64, 60, 62, 64, 60]), length=3), 2)
        0.4
    """
    if length < 1:
        raise WavegenError(f"expected runs of at least 1 frame, got {length}")
    if len(frames) < length:
        return float("nan")
    frames = frames.reshape(len(frames), -1)
    runs = np.lib.stride_tricks.sliding_window_view(frames, length, axis=0).reshape(
        len(frames) - length + 1, -1
    )
    return 1 - len(np.unique(runs, axis=0)) / len(runs)
