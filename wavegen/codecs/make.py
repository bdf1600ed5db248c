"""From a section of the configuration to a codec: the tables of members."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from wavegen.codecs.base import Codec
from wavegen.codecs.notes.base import Interleaved, NoteCodec
from wavegen.codecs.notes.events import NoteEvents
from wavegen.codecs.notes.grid import NoteGrid
from wavegen.codecs.pretrained.load import load_pretrained
from wavegen.codecs.samples import Linear, MuLaw, Sashimi
from wavegen.codecs.spectrogram.codebook import load_codebook
from wavegen.codecs.spectrogram.network import SpectrogramVQ
from wavegen.codecs.waveform.network import WaveVQ
from wavegen.config.codec_models import SpectrogramVQConfig, WaveVQConfig
from wavegen.config.codecs import (
    LinearConfig,
    MuLawConfig,
    NoteEventsConfig,
    NoteGridConfig,
    PretrainedCodecConfig,
    SashimiConfig,
    SpectrogramCodecConfig,
)
from wavegen.config.section import CodecSection, NetworkSection
from wavegen.networks.base import Network


def _of_samples(codec: Callable[..., Codec], config: CodecSection) -> Codec:
    return codec(**config.model_dump(exclude={"kind"}))


def _of_notes(codec: Callable[..., NoteCodec], config: Any) -> NoteCodec:
    plain = codec(**config.model_dump(exclude={"kind", "interleave"}))
    return Interleaved(plain) if config.interleave else plain


CODECS: Mapping[type[CodecSection], Callable[[Any], Codec]] = {
    MuLawConfig: partial(_of_samples, MuLaw),
    LinearConfig: partial(_of_samples, Linear),
    SashimiConfig: partial(_of_samples, Sashimi),
    NoteGridConfig: partial(_of_notes, NoteGrid),
    NoteEventsConfig: partial(_of_notes, NoteEvents),
    PretrainedCodecConfig: load_pretrained,
    SpectrogramCodecConfig: load_codebook,
}
"""What opens the codec of each section. The codec of another run is opened by ``wavegen.runs.trained``."""

LEARNED: Mapping[type[NetworkSection], type[Network]] = {
    WaveVQConfig: WaveVQ,
    SpectrogramVQConfig: SpectrogramVQ,
}
"""The networks that are codecs, which ``wavegen.codecs.learned`` freezes."""


def make_codec(config: CodecSection) -> Codec:
    """The codec that a section describes.

    Raises:
        WavegenError: a file that it names is missing, damaged or something else.
    """
    return CODECS[type(config)](config)
