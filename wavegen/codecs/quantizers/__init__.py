"""Quantizers of latent vectors: residual codebooks, trained by gradient or by averages, and finite scalar ones."""

from wavegen.codecs.quantizers.base import Quantized, Quantizer, draw_codebooks
from wavegen.codecs.quantizers.ema import Average, EMAResidualVQ
from wavegen.codecs.quantizers.fsq import FSQ
from wavegen.codecs.quantizers.gradient import GradientVQ
from wavegen.codecs.quantizers.usage import CodeUsage, code_usage, count_codes

__all__ = [
    "FSQ",
    "Average",
    "CodeUsage",
    "EMAResidualVQ",
    "GradientVQ",
    "Quantized",
    "Quantizer",
    "code_usage",
    "count_codes",
    "draw_codebooks",
]
