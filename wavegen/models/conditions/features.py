"""Local conditioning on features at frame rate, which a dataset holds."""

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from wavegen.config.conditions import FeatureConditionConfig
from wavegen.models.conditions.base import LocalCondition, within
from wavegen.networks.base import Given
from wavegen.networks.initial import layer_options
from wavegen.types import Features


class FeatureCondition(LocalCondition):
    """Local conditioning on features at frame rate, upsampled by learned sub-pixel convolutions.

    Each stage mixes three neighbouring frames and splits every one into ``factor`` finer ones, so that frame f of
    the input becomes exactly the frames ``[f factor, (f + 1) factor)`` of the output. What the factors leave of the
    hop is held constant by the network that reads the condition.

    Args:
        width: values per input frame.
        channels: width C of the output.
        hop_length: samples per input frame.
        upsample: factors, the first one first; their product divides ``hop_length``.
        random: draws the initial weights.
    """

    def __init__(
        self,
        width: int,
        channels: int,
        hop_length: int,
        upsample: tuple[int, ...],
        *,
        random: np.random.Generator,
    ) -> None:
        options = layer_options(random)
        self.first = nnx.Conv(width, channels, 3, padding="SAME", **options)
        self.stages = nnx.List(
            [nnx.Conv(channels, channels * factor, 3, padding="SAME", **options) for factor in upsample]
        )
        self.input_hop = self.hop_length = hop_length
        reach = hop_length
        for factor in upsample:
            reach += self.hop_length
            self.hop_length //= factor
        self.reach, self.channels = -(-reach // hop_length), channels

    @classmethod
    def make(
        cls, config: FeatureConditionConfig, given: Given, random: np.random.Generator
    ) -> "FeatureCondition":
        """See ``LocalCondition``."""
        return cls(config.width, config.channels, config.hop_length, config.upsample, random=random)

    def __call__(
        self, features: Features, valid: Bool[Array, "F"] | None = None
    ) -> Float[Array, "B finer C"]:
        """Returns frames of ``self.hop_length`` samples."""
        frames = self.first(within(features, valid))
        for stage in self.stages:
            frames = stage(within(jax.nn.gelu(frames), valid))
            frames = frames.reshape(frames.shape[0], -1, self.channels)
        return frames
