"""Audio or notes to integer tokens and back."""

from wavegen.codecs.base import AudioCodec, Codec, Codecs
from wavegen.codecs.mulaw import Linear, MuLaw, Sashimi
from wavegen.config.codecs import FixedCodecConfig, LinearConfig, MuLawConfig


def make_codec(config: FixedCodecConfig) -> AudioCodec:
    """The codec that a configuration describes, without weights (``wavegen.training.restore`` opens the others)."""
    if isinstance(config, MuLawConfig):
        return MuLaw(config.levels)
    if isinstance(config, LinearConfig):
        return Linear(config.levels)
    return Sashimi(config.quantization)


__all__ = ["AudioCodec", "Codec", "Codecs", "Linear", "MuLaw", "Sashimi", "make_codec"]
