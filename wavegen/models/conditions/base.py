"""The contract of local conditions, and the condition on labels, which holds for a whole clip.

A local condition returns frames ``[B, F, C]`` that are added to every layer's gate, and may add an excitation
``[B, T, X]`` at sample rate to the first layer's input. Frame f belongs to samples ``[f hop, (f + 1) hop)``.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from wavegen.codecs.base import AudioCodec, Codecs
from wavegen.errors import WavegenError
from wavegen.kernels.lookup import look_up
from wavegen.networks.base import Examples, Given
from wavegen.networks.initial import normal
from wavegen.notes.performance import Performance
from wavegen.types import Features, Labels, Waveform


class FrameWindow(NamedTuple):
    """Consecutive frames of the features of clips, of which some may lie before the first or after the last.

    Attributes:
        features: of the frames; those outside of the clips are zeros.
        first: number of the first of these frames; negative if it lies before the clips.
        frames: number of frames of the clips.
    """

    features: Features
    first: Int[Array, ""] | np.integer
    frames: Int[Array, ""] | np.integer

    @property
    def valid(self) -> Bool[Array, "F"]:
        """Frames that belong to the clips."""
        number = self.first + jnp.arange(self.features.shape[1])
        return (number >= 0) & (number < self.frames)


class LocalCondition(nnx.Module):
    """What a model is conditioned on at frame rate.

    Laws, tested for every member: what it computes for a clip in a batch is what it computes for the clip alone, a
    frame reaches no samples but those within its reach, frames that are not valid are as if they were not there, and
    an excitation in windows is that of the whole.

    Attributes:
        takes: what a person gives for it: nothing (a dataset's own features), one melody, chords, or a recording.
        input_hop: samples per frame of the features that it reads.
        hop_length: samples per frame of what it returns.
        reach: frames of the features, to either side of its own, that a frame of what it returns depends on.
        waves: width X of the excitation; None where there is none.
    """

    takes: ClassVar[Literal["features", "melody", "chords", "recording"]] = "features"
    input_hop: int
    hop_length: int
    reach: int = 1
    waves: int | None = None

    @classmethod
    @abstractmethod
    def make(cls, config: Any, given: Given, random: np.random.Generator) -> "LocalCondition":
        """The condition that its section of the configuration describes, with fresh weights.

        Raises:
            WavegenError: it needs something that is not given.
        """

    @abstractmethod
    def __call__(
        self, features: Features, valid: Bool[Array, "F"] | None = None
    ) -> Float[Array, "B finer C"]:
        """Frames of ``hop_length`` samples, from features of ``input_hop`` samples per frame.

        Args:
            features: of whole clips, or of a part of them with ``reach`` more frames on both sides.
            valid: frames that belong to the clips, see ``FrameWindow``; None is all.
        """

    def excitation(
        self, features: Features, offset: Int[Array, ""] | int, samples: int
    ) -> Float[Array, "B T X"]:
        """What is added at sample rate for the samples from ``offset`` on, where ``waves`` is not None."""
        raise NotImplementedError(f"{type(self).__name__} has no excitation")

    def window(self, features: Float[np.ndarray, "B F D"], position: int, samples: int) -> FrameWindow:
        """What of the features of whole clips matters to ``samples`` samples from ``position`` on.

        Windows of as many samples have one shape, wherever they lie.
        """
        first, hop = position // self.input_hop - self.reach, self.input_hop
        width = ((samples - 2) // hop + 2 if samples > 1 else 1) + 2 * self.reach
        rows = np.zeros((len(features), width, features.shape[2]), np.float32)
        there, start = features[:, max(first, 0) : max(first + width, 0)], max(-first, 0)
        rows[:, start : start + there.shape[1]] = there
        return FrameWindow(jax.device_put(rows), np.int32(first), np.int32(features.shape[1]))

    def features(self, examples: Examples, codecs: Codecs) -> Features:
        """The features of a batch; unless a member says otherwise those that the dataset holds.

        Args:
            examples: see ``wavegen.networks.base.Examples``.
            codecs: that the model reads through.
        """
        del codecs
        return examples["features"]

    def of_notes(self, played: Sequence[Performance], samples: int) -> Features:
        """The features of pieces, one per clip of so many samples.

        Raises:
            WavegenError: this condition is not on notes.
        """
        raise WavegenError("this model is not conditioned on notes; leave them out")

    def of_recording(self, waveform: Waveform, codec: AudioCodec | None) -> Features:
        """The features of recordings: ``ceil(T / input_hop)`` frames.

        Args:
            waveform: of the recordings.
            codec: whose tokens the condition reads, if it reads any.

        Raises:
            WavegenError: this condition is not on recordings.
        """
        raise WavegenError("this model is not conditioned on a recording; leave it out")


def within(frames: Float[Array, "B finer C"], valid: Bool[Array, "F"] | None) -> Float[Array, "B finer C"]:
    """Frames, or finer ones, with zeros where there are none: what a convolution finds beyond the ends of a clip."""
    if valid is None:
        return frames
    finer = jnp.repeat(valid, frames.shape[1] // len(valid))
    return jnp.where(finer[None, :, None], frames, 0)


class LabelCondition(nnx.Module):
    """Global conditioning: the sum of one learned vector per label field (van den Oord et al. 2016, section 2.5).

    Args:
        sizes: values that each field can take.
        channels: width C of the vectors.
        random: draws the initial vectors.
    """

    def __init__(self, sizes: tuple[int, ...], channels: int, *, random: np.random.Generator) -> None:
        self.tables = nnx.List([normal(random, size, channels, scale=0.5) for size in sizes])

    def __call__(self, labels: Labels) -> Float[Array, "B 1 C"]:
        """Sums the fields' vectors; a label of -1 (unknown) adds nothing."""
        columns = [
            jnp.where((labels[:, i] >= 0)[:, None], look_up(table[...], labels[:, i]), 0.0)
            for i, table in enumerate(self.tables)
        ]
        return sum(columns[1:], columns[0])[:, None, :]
