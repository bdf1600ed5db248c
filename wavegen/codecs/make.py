"""From a section of the configuration to a codec."""

import numpy as np

from wavegen.codecs.base import AudioCodec
from wavegen.codecs.notes.base import Interleaved, NoteCodec
from wavegen.codecs.notes.events import NoteEvents
from wavegen.codecs.notes.grid import NoteGrid
from wavegen.codecs.quantizers import FSQ, EMAResidualVQ, Quantizer, ResidualVQ
from wavegen.codecs.samples import Linear, MuLaw, Sashimi
from wavegen.codecs.spectrogram.frames import MelFrames
from wavegen.codecs.spectrogram.network import SpectrogramVAE
from wavegen.codecs.waveform.network import PRESETS, WaveVQ
from wavegen.config.codec_models import (
    CodecModelConfig,
    EMAConfig,
    FSQConfig,
    QuantizerConfig,
    SpectrogramVQConfig,
)
from wavegen.config.codecs import FixedCodecConfig, LinearConfig, MuLawConfig, NoteCodecConfig, NoteGridConfig
from wavegen.errors import WavegenError


def make_codec_model(
    config: CodecModelConfig, *, sample_rate: int, channels: int = 1, random: np.random.Generator
) -> WaveVQ | SpectrogramVAE:
    """The codec that a configuration describes, with fresh weights.

    Raises:
        WavegenError: no strides are given, and there is no preset for the sample rate.
    """
    if isinstance(config, SpectrogramVQConfig):
        return SpectrogramVAE(
            frames=MelFrames(sample_rate, config.n_fft, config.hop_length, config.bands),
            stride=config.stride,
            width=config.width,
            depth=config.depth,
            quantizer=make_quantizer(config.quantizer, config.latent, random),
            iterations=config.iterations,
            random=random,
        )
    strides = config.strides or PRESETS.get(sample_rate)
    if strides is None:
        raise WavegenError(
            f"there are no usual strides for {sample_rate} Hz; say model.strides, for example "
            f"{list(PRESETS[16000])}, or take one of {', '.join(map(str, PRESETS))} Hz"
        )
    return WaveVQ(
        strides=strides,
        width=config.width,
        decoder_width=config.decoder_width,
        audio_channels=channels,
        causal=config.causal,
        quantizer=make_quantizer(config.quantizer, config.width * 2 ** len(strides), random),
        random=random,
    )


def make_quantizer(q: QuantizerConfig, width: int, random: np.random.Generator) -> Quantizer:
    """The quantizer of latents of a width, with fresh codebooks."""
    if isinstance(q, FSQConfig):
        return FSQ(width, sizes=q.sizes, codebooks=q.codebooks, random=random)
    sizes = {"codebooks": q.codebooks, "codebook_size": q.codebook_size}
    if isinstance(q, EMAConfig):
        return EMAResidualVQ(width, **sizes, decay=q.decay, restart=q.restart, random=random)
    return ResidualVQ(width, **sizes, codebook_width=q.codebook_width, random=random)


def make_codec(config: FixedCodecConfig) -> AudioCodec:
    """The codec that a configuration describes, without weights (``wavegen.runs.trained`` opens the others)."""
    if isinstance(config, MuLawConfig):
        return MuLaw(config.levels)
    if isinstance(config, LinearConfig):
        return Linear(config.levels)
    return Sashimi(config.quantization)


def make_note_codec(config: NoteCodecConfig) -> NoteCodec:
    """The note codec that a configuration describes."""
    codec: NoteCodec
    if isinstance(config, NoteGridConfig):
        codec = NoteGrid(**config.model_dump(exclude={"kind", "interleave"}))
    else:
        codec = NoteEvents(**config.model_dump(exclude={"kind", "interleave"}))
    return Interleaved(codec) if config.interleave else codec
