"""The contract of local conditions, and the condition on labels, which holds for a whole clip.

A local condition returns frames ``[B, F, C]`` that are added to every layer's gate, and may add an excitation
``[B, T, X]`` at sample rate to the first layer's input. Frame f belongs to samples ``[f hop, (f + 1) hop)``.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from wavegen.codecs.base import AudioCodec, Codecs
from wavegen.errors import WavegenError
from wavegen.kernels.lookup import look_up
from wavegen.networks.base import Examples, Given
from wavegen.networks.initial import normal
from wavegen.notes.performance import Performance
from wavegen.types import Features, Labels, Waveform


class LocalCondition(nnx.Module):
    """What a model is conditioned on at frame rate.

    Laws, tested for every member: what it computes for a clip in a batch is what it computes for the clip alone, a
    frame reaches no samples but those within its reach, and an excitation in windows is that of the whole.

    Attributes:
        takes: what a person gives for it: nothing (a dataset's own features), one melody, chords, or a recording.
        input_hop: samples per frame of the features that it reads.
        hop_length: samples per frame of what it returns.
        waves: width X of the excitation; None where there is none.
    """

    takes: ClassVar[Literal["features", "melody", "chords", "recording"]] = "features"
    input_hop: int
    hop_length: int
    waves: int | None = None

    @classmethod
    @abstractmethod
    def make(cls, config: Any, given: Given, random: np.random.Generator) -> "LocalCondition":
        """The condition that its section of the configuration describes, with fresh weights.

        Raises:
            WavegenError: it needs something that is not given.
        """

    @abstractmethod
    def __call__(self, features: Features) -> Float[Array, "B finer C"]:
        """Frames of ``hop_length`` samples, from features of ``input_hop`` samples per frame."""

    def excitation(
        self, features: Features, offset: Int[Array, ""] | int, samples: int
    ) -> Float[Array, "B T X"]:
        """What is added at sample rate for the samples from ``offset`` on, where ``waves`` is not None."""
        raise NotImplementedError(f"{type(self).__name__} has no excitation")

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
