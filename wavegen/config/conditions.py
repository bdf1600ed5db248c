"""What a WaveNet is conditioned on at frame rate: the sections of local conditions."""

import math
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from wavegen.config.codecs import LearnedCodecConfig
from wavegen.config.section import CodecSection, ConditionSection


def _factors_divide_the_hop(section: Any) -> Any:
    if min(section.upsample, default=1) < 1 or section.hop_length % math.prod(section.upsample):
        raise ValueError(f"upsample factors {section.upsample} must divide hop_length {section.hop_length}")
    return section


class FeatureConditionConfig(ConditionSection):
    """Local conditioning on the dataset's features at frame rate, with learned upsampling."""

    kind: Literal["features"] = "features"
    width: int = Field(..., ge=1, le=65536, description="values per frame")
    channels: int = Field(64, ge=1, le=8192, description="condition channels after the encoder")
    hop_length: int = Field(..., ge=1, le=65536, description="samples per frame")
    upsample: tuple[int, ...] = Field(
        (), description="learned upsampling factors; what remains of the hop is held constant"
    )

    @property
    def stored(self) -> int:
        """See ``ConditionSection``."""
        return self.width

    _factors = model_validator(mode="after")(_factors_divide_the_hop)


class NoteConditionConfig(ConditionSection):
    """Conditioning on one melody: note features at frame rate and a sine excitation at the note's pitch."""

    kind: Literal["notes"] = "notes"
    channels: int = Field(32, ge=1, le=8192)
    hop_length: int = Field(80, ge=1, le=65536, description="samples per frame")
    harmonics: int = Field(2, ge=0, le=16, description="sine and cosine pairs in the excitation")

    @property
    def stored(self) -> int:
        """Pitch, age, time left and velocity (``wavegen.notes.performance.FEATURES``)."""
        return 4


class PianoRollConditionConfig(ConditionSection):
    """Conditioning on all notes that sound, with a bank of sines (``wavegen.models.conditions.piano_roll``)."""

    kind: Literal["piano_roll"] = "piano_roll"
    channels: int = Field(32, ge=1, le=8192)
    hop_length: int = Field(80, ge=1, le=65536, description="samples per frame")
    low: int = Field(21, ge=0, le=127, description="lowest pitch; 21 is the lowest key of a piano")
    high: int = Field(108, ge=0, le=127, description="highest pitch; 108 is the highest key of a piano")
    harmonics: int = Field(6, ge=0, le=32, description="sine and cosine pairs of a note in the excitation")
    voices: int = Field(8, ge=1, le=128, description="notes at once in the excitation, the loudest")

    @model_validator(mode="after")
    def _range_is_not_empty(self) -> "PianoRollConditionConfig":
        if self.low > self.high:
            raise ValueError(f"low {self.low} must be at most high {self.high}")
        return self


class MelConditionConfig(ConditionSection):
    """Conditioning on the log-mel spectrogram of the clip itself: a vocoder of spectrograms."""

    kind: Literal["mel"] = "mel"
    bands: int = Field(80, ge=1, le=512)
    n_fft: int = Field(1024, ge=16, le=65536, description="samples of a frame")
    hop_length: int = Field(256, ge=1, le=65536, description="samples between frames")
    channels: int = Field(64, ge=1, le=8192, description="condition channels after the encoder")
    upsample: tuple[int, ...] = Field((), description="as for features")

    _factors = model_validator(mode="after")(_factors_divide_the_hop)


class CodeConditionConfig(ConditionSection):
    """Conditioning on the tokens of a learned codec: a vocoder of tokens."""

    kind: Literal["codes"] = "codes"
    codec: LearnedCodecConfig
    hop_length: int = Field(..., ge=1, le=65536, description="the codec's, in samples")
    channels: int = Field(64, ge=1, le=8192, description="condition channels after the encoder")
    upsample: tuple[int, ...] = Field((), description="as for features")

    @property
    def through(self) -> CodecSection:
        """See ``ConditionSection``."""
        return self.codec

    _factors = model_validator(mode="after")(_factors_divide_the_hop)


LocalConditionConfig = Annotated[
    FeatureConditionConfig
    | NoteConditionConfig
    | PianoRollConditionConfig
    | MelConditionConfig
    | CodeConditionConfig,
    Field(discriminator="kind"),
]
