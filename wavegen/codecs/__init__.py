"""Audio or notes to integer tokens and back."""

from wavegen.codecs.base import AudioCodec, Codec, Codecs
from wavegen.codecs.mulaw import Linear, MuLaw, Sashimi
from wavegen.codecs.note_codec import Interleaved, NoteCodec
from wavegen.codecs.note_grid import NoteGrid
from wavegen.codecs.notes import NoteEvents
from wavegen.config.codecs import FixedCodecConfig, LinearConfig, MuLawConfig, NoteCodecConfig, NoteGridConfig


def make_codec(config: FixedCodecConfig) -> AudioCodec:
    """The codec that a configuration describes, without weights (``wavegen.training.restore`` opens the others)."""
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


__all__ = [
    "AudioCodec",
    "Codec",
    "Codecs",
    "Linear",
    "MuLaw",
    "NoteCodec",
    "NoteEvents",
    "NoteGrid",
    "Sashimi",
    "make_codec",
    "make_note_codec",
]
