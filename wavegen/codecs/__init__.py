"""Audio or notes to integer tokens and back."""

from wavegen.codecs.base import Codec
from wavegen.codecs.mulaw import Linear, MuLaw, Sashimi
from wavegen.config.codecs import CodecConfig, LinearConfig, MuLawConfig, SashimiConfig


def make_codec(config: CodecConfig) -> Codec:
    """The codec that a configuration describes."""
    if isinstance(config, MuLawConfig):
        return MuLaw(config.levels)
    if isinstance(config, LinearConfig):
        return Linear(config.levels)
    return Sashimi(config.quantization)
