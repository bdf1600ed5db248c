"""How audio becomes tokens."""

from typing import Annotated, Literal

from pydantic import Field

from wavegen.config.section import Section


class MuLawConfig(Section):
    """mu-law companding to ``levels`` tokens."""

    kind: Literal["mulaw"] = "mulaw"
    levels: int = Field(256, ge=4, le=65536)


class LinearConfig(Section):
    """Even quantisation to ``levels`` tokens; 65536 is 16 bit, without loss."""

    kind: Literal["linear"] = "linear"
    levels: int = Field(65536, ge=4, le=65536)


class SashimiConfig(Section):
    """Per-window scaling and 8-bit binning of the SaShiMi paper, for comparing published bits per sample."""

    kind: Literal["sashimi"] = "sashimi"
    quantization: Literal["linear", "mulaw"] = "mulaw"


class TrainedCodecConfig(Section):
    """A codec that a run of wavegen learned; the run that uses it keeps a copy of it."""

    kind: Literal["trained"] = "trained"
    run: str = Field(..., description="a run folder, or a .safetensors file")
    levels: int = Field(0, ge=0, description="codebooks that are used; 0 is all")


class PretrainedCodecConfig(Section):
    """A published codec: EnCodec or DAC as Hugging Face lays them out."""

    kind: Literal["pretrained"] = "pretrained"
    pretrained: str = Field(..., description="a folder with config.json and model.safetensors")
    levels: int = Field(0, ge=0, description="codebooks that are used; 0 is all")


class SpectrogramCodecConfig(Section):
    """Log-mel frames as rows of a codebook (`wavegen fit-codebook`), back to audio by Griffin-Lim."""

    kind: Literal["spectrogram"] = "spectrogram"
    codebook: str = Field(..., description="a .safetensors file")


FixedCodecConfig = MuLawConfig | LinearConfig | SashimiConfig
"""Codecs that are arithmetic alone."""

LearnedCodecConfig = Annotated[
    TrainedCodecConfig | PretrainedCodecConfig | SpectrogramCodecConfig, Field(discriminator="kind")
]

CodecConfig = Annotated[
    FixedCodecConfig | TrainedCodecConfig | PretrainedCodecConfig | SpectrogramCodecConfig,
    Field(discriminator="kind"),
]
