"""How audio becomes tokens."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from wavegen.config.section import CodecSection


class MuLawConfig(CodecSection):
    """mu-law companding to ``levels`` tokens."""

    of: ClassVar[Literal["samples", "frames", "notes"]] = "samples"
    kind: Literal["mulaw"] = "mulaw"
    levels: int = Field(256, ge=4, le=65536)


class LinearConfig(CodecSection):
    """Even quantisation to ``levels`` tokens; 65536 is 16 bit, without loss."""

    of: ClassVar[Literal["samples", "frames", "notes"]] = "samples"
    kind: Literal["linear"] = "linear"
    levels: int = Field(65536, ge=4, le=65536)


class SashimiConfig(CodecSection):
    """The 8-bit coding of the SaShiMi paper, for comparing published bits per sample.

    Windows of ``data.crop`` samples, cut from the start of each recording, are scaled and modelled each on its own.
    """

    of: ClassVar[Literal["samples", "frames", "notes"]] = "samples"
    kind: Literal["sashimi"] = "sashimi"
    quantization: Literal["linear", "mulaw"] = "mulaw"


class TrainedCodecConfig(CodecSection):
    """A codec that a run of wavegen learned; the run that uses it keeps a copy of it."""

    kind: Literal["trained"] = "trained"
    run: str = Field(..., description="a run folder, or a .safetensors file")
    codebooks: int = Field(0, ge=0, description="of which the first so many are used; 0 is all")


class PretrainedCodecConfig(CodecSection):
    """A published codec: EnCodec or DAC as Hugging Face lays them out."""

    kind: Literal["pretrained"] = "pretrained"
    pretrained: str = Field(..., description="a folder with config.json and model.safetensors")
    codebooks: int = Field(0, ge=0, description="of which the first so many are used; 0 is all")


class SpectrogramCodecConfig(CodecSection):
    """Log-mel frames as rows of a codebook (``wavegen fit-codebook``), back to audio by Griffin-Lim."""

    kind: Literal["spectrogram"] = "spectrogram"
    codebook: str = Field(..., description="a .safetensors file")


class NoteGridConfig(CodecSection):
    """Notes on a grid in time, one pitch a voice, as chorales are."""

    of: ClassVar[Literal["samples", "frames", "notes"]] = "notes"
    kind: Literal["note_grid"] = "note_grid"
    voices: int = Field(4, ge=1, le=64)
    low: int = Field(36, ge=0, le=127, description="lowest pitch, a MIDI number")
    high: int = Field(81, ge=0, le=127, description="highest pitch")
    steps_per_quarter: int = Field(4, ge=1, le=96, description="frames of a quarter note")
    ties: bool = Field(
        False, description="a token that holds the note before, so that repeated notes survive"
    )
    bar: int = Field(16, ge=1, le=4096, description="frames of a bar")
    interleave: bool = Field(
        True, description="voices one after the other, for models of one token per frame"
    )

    @property
    def one_token_per_frame(self) -> bool:
        """See ``CodecSection``."""
        return self.interleave

    @model_validator(mode="after")
    def _low_is_below_high(self) -> "NoteGridConfig":
        if self.low > self.high:
            raise ValueError(f"low {self.low} must not be above high {self.high}")
        return self


class NoteEventsConfig(CodecSection):
    """Notes as events: when, which pitch, how long, how loud, and on which instrument."""

    of: ClassVar[Literal["samples", "frames", "notes"]] = "notes"
    kind: Literal["note_events"] = "note_events"
    steps_per_quarter: int = Field(
        12, ge=1, le=96, description="of the grid that onsets and durations lie on"
    )
    max_shift: int = Field(96, ge=1, le=4096, description="longest wait between onsets, in steps")
    max_duration: int = Field(96, ge=1, le=4096, description="longest note, in steps")
    velocities: int = Field(16, ge=1, le=127, description="bins of loudness")
    programs_per_group: int = Field(
        8, ge=1, le=128, description="8: families of General MIDI; 1: every program"
    )
    interleave: bool = Field(
        True, description="fields one after the other, for models of one token per frame"
    )

    @property
    def one_token_per_frame(self) -> bool:
        """See ``CodecSection``."""
        return self.interleave


NoteCodecConfig = NoteGridConfig | NoteEventsConfig
"""Codecs of scores."""

FixedCodecConfig = MuLawConfig | LinearConfig | SashimiConfig
"""Codecs that are arithmetic alone."""

LearnedCodecConfig = Annotated[
    TrainedCodecConfig | PretrainedCodecConfig | SpectrogramCodecConfig, Field(discriminator="kind")
]

CodecConfig = Annotated[
    FixedCodecConfig
    | TrainedCodecConfig
    | PretrainedCodecConfig
    | SpectrogramCodecConfig
    | NoteGridConfig
    | NoteEventsConfig,
    Field(discriminator="kind"),
]
