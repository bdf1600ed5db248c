"""Local conditioning on the tokens of a learned codec: a vocoder of tokens."""

from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from wavegen.codecs.base import AudioCodec, Codecs
from wavegen.config.conditions import CodeConditionConfig
from wavegen.errors import WavegenError
from wavegen.models.conditions.base import LocalCondition
from wavegen.models.conditions.features import FeatureCondition
from wavegen.networks.base import Examples, Given
from wavegen.networks.initial import normal
from wavegen.types import Features, Waveform


class CodeCondition(LocalCondition):
    """Local conditioning on the tokens of a codec: the sum of one learned vector per codebook, then as features.

    Args:
        codebooks: tokens per frame.
        vocab_size: values that a token can take.
        channels: width C of the output.
        hop_length: samples per frame of tokens.
        upsample: see ``FeatureCondition``.
        random: draws the initial weights.
    """

    takes: ClassVar[Any] = "recording"

    def __init__(
        self,
        codebooks: int,
        vocab_size: int,
        channels: int,
        hop_length: int,
        upsample: tuple[int, ...],
        *,
        random: np.random.Generator,
    ) -> None:
        self.tables = normal(random, codebooks, vocab_size, channels, scale=codebooks**-0.5)
        self.frames = FeatureCondition(channels, channels, hop_length, upsample, random=random)
        self.input_hop, self.hop_length, self.reach = hop_length, self.frames.hop_length, self.frames.reach

    @classmethod
    def make(cls, config: CodeConditionConfig, given: Given, random: np.random.Generator) -> "CodeCondition":
        """See ``LocalCondition``.

        Raises:
            WavegenError: there is no codec.
        """
        codec = given.codecs.condition
        if codec is None:
            raise WavegenError("expected a codec for the condition, got none; open it with open_codecs")
        upsampling = (config.channels, config.hop_length, config.upsample)
        return cls(codec.codebooks, codec.vocab_size, *upsampling, random=random)

    def features(self, examples: Examples, codecs: Codecs) -> Features:
        """The codes of each clip of a batch."""
        return self.of_recording(examples["waveform"], codecs.condition)

    def of_recording(self, waveform: Waveform, codec: AudioCodec | None) -> Features:
        """See ``LocalCondition``: tokens, as numbers."""
        assert codec is not None, "the codec was there when the condition was made"
        return codec.encode(waveform).astype(jnp.float32)

    def __call__(
        self, features: Features, valid: Bool[Array, "F"] | None = None
    ) -> Float[Array, "B finer C"]:
        """Returns frames of ``self.hop_length`` samples; the features are tokens, as numbers."""
        codebooks = jnp.arange(self.tables.shape[0])[None, None]
        return self.frames(jnp.sum(self.tables[...][codebooks, features.astype(jnp.int32)], axis=2), valid)
