"""From a section of the configuration to a local condition."""

import numpy as np

from wavegen.codecs.base import AudioCodec
from wavegen.config.models import (
    CodeConditionConfig,
    LocalConditionConfig,
    MelConditionConfig,
    NoteConditionConfig,
    PianoRollConditionConfig,
)
from wavegen.errors import WavegenError
from wavegen.models.conditions.features import CodeCondition, FeatureCondition, NoteCondition
from wavegen.models.conditions.piano_roll import PianoRollCondition


def make_local_condition(
    config: LocalConditionConfig | None,
    sample_rate: int,
    codec: AudioCodec | None,
    random: np.random.Generator,
) -> FeatureCondition | CodeCondition | NoteCondition | PianoRollCondition | None:
    """The condition that a configuration describes, with fresh weights; None for None.

    Raises:
        WavegenError: it is of a codec's tokens, and there is no codec.
    """
    if config is None:
        return None
    if isinstance(config, NoteConditionConfig):
        return NoteCondition(config.channels, config.hop_length, config.harmonics, sample_rate, random=random)
    if isinstance(config, PianoRollConditionConfig):
        sizes = config.model_dump(exclude={"kind"})
        return PianoRollCondition(**sizes, sample_rate=sample_rate, random=random)
    upsampling = (config.channels, config.hop_length, config.upsample)
    if isinstance(config, CodeConditionConfig):
        if codec is None:
            raise WavegenError("expected a codec for the condition, got none; open it with open_codecs")
        return CodeCondition(codec.codebooks, codec.vocab_size, *upsampling, random=random)
    width = config.bands if isinstance(config, MelConditionConfig) else config.width
    return FeatureCondition(width, *upsampling, random=random)
