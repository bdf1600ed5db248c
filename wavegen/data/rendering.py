"""MIDI files as recordings with their piano rolls, for a model that learns to play."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int16

from wavegen.errors import WavegenError
from wavegen.notes.roll import roll_features
from wavegen.notes.score import Score


@dataclass(frozen=True)
class Rendering:
    """How notes become audio and features that agree to the sample.

    The shipped piano plays all but drums at the level of its keys: equal velocities are equally loud in every piece,
    unless its chords would clip.

    Attributes:
        hop: samples per feature frame; onsets are moved to frames.
        low: the lowest pitch of the features.
        high: the highest pitch of the features.
    """

    hop: int
    low: int
    high: int

    @property
    def columns(self) -> str:
        """A description of the columns of the features, for the manifest."""
        return f"piano roll of pitches {self.low} to {self.high}"

    def play(
        self, notes: Score, sample_rate: int
    ) -> tuple[Int16[np.ndarray, "T"], Float32[np.ndarray, "F D"]]:
        """Returns audio up to the end of the last release, and its features; see ``wavegen.notes.roll.roll_features``.

        Raises:
            WavegenError: if there is nothing but drums, a pitch is out of range, or the notes last more than two
                hours.
        """
        # Imported here, because scipy.signal takes a second and is not needed to prepare recordings.

        from wavegen.notes.piano import RELEASE
        from wavegen.notes.render import LONGEST, shipped_piano

        played = notes.pitched().quantize(sample_rate, self.hop)
        if played.seconds > LONGEST:
            raise WavegenError(f"expected at most {LONGEST:.0f} seconds of notes, got {played.seconds:.0f}")
        length = math.ceil((played.seconds + RELEASE) * sample_rate / self.hop) * self.hop
        features = roll_features(played, sample_rate, self.hop, length, self.low, self.high)
        return shipped_piano().render(played, sample_rate, length=length).to_pcm16()[:, 0], features
