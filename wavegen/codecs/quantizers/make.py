"""From a section of the configuration to a quantizer."""

from collections.abc import Mapping

import numpy as np

from wavegen.codecs.quantizers.base import Quantizer
from wavegen.codecs.quantizers.ema import EMAResidualVQ
from wavegen.codecs.quantizers.fsq import FSQ
from wavegen.codecs.quantizers.gradient import GradientVQ
from wavegen.config.codec_models import EMAConfig, FSQConfig, GradientVQConfig, QuantizerConfig
from wavegen.config.section import Section

QUANTIZERS: Mapping[type[Section], type[Quantizer]] = {
    GradientVQConfig: GradientVQ,
    FSQConfig: FSQ,
    EMAConfig: EMAResidualVQ,
}
"""The class of each section; its arguments are the section's fields."""


def make_quantizer(config: QuantizerConfig, width: int, random: np.random.Generator) -> Quantizer:
    """The quantizer that a section describes, of latents of a width, with fresh codebooks."""
    return QUANTIZERS[type(config)](width, **config.model_dump(exclude={"kind"}), random=random)
