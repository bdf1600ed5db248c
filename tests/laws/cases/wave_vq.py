"""Waveform codecs: mono and stereo, causal and not, with every quantizer."""

from functools import cache, partial

import numpy as np

from laws.audio_codec import (
    BATCH,
    LAWS,
    OF_CODEBOOKS,
    OF_STEREO,
    Case,
    a_row_is_coded_exactly_as_the_clip_alone,
    tokens_are_in_range,
)
from laws.registered import registered
from wavegen.codecs.learned import freeze
from wavegen.codecs.quantizers import FSQ, EMAResidualVQ, GradientVQ
from wavegen.codecs.waveform.network import WaveVQ

HOP, WIDTH = 6, 8
QUANTIZERS = {
    "gradient": partial(GradientVQ, WIDTH, codebooks=3, codebook_size=16, codebook_width=4),
    "FSQ": partial(FSQ, WIDTH, sizes=(4, 3, 5), codebooks=3),
    "EMA": partial(EMAResidualVQ, WIDTH, codebooks=3, codebook_size=16),
}


def build(quantizer: str = "gradient", *, causal: bool = False, channels: int = 1, **options) -> WaveVQ:
    random = np.random.default_rng(0)
    sizes = {"strides": (2, 3), "width": 4, "decoder_width": 16, "dilations": (2,)} | options
    return WaveVQ(
        **sizes,
        audio_channels=channels,
        causal=causal,
        quantizer=QUANTIZERS[quantizer](random=random),
        random=random,
    )


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


@cache
def make_case(name: str) -> Case:
    quantizer, *form = name.split(", ")
    stereo, causal = "stereo" in form, "causal" in form
    field = build(quantizer, causal=causal).receptive_field - HOP
    # As many samples on one side, or half of them on either.
    reach = (0, -(-field // HOP)) if causal else (-(-field // 2 // HOP),) * 2
    frames = 2 * (max(reach) + 2)
    audio = noise(0, BATCH, frames * HOP, *((2,) if stereo else ()))

    def make():
        return freeze(build(quantizer, causal=causal, channels=1 + stereo), sample_rate=8000)

    return Case(make, audio, reach=reach, tolerance=1e-6)


CASES = {
    **registered(make_case, ["gradient"], LAWS + OF_CODEBOOKS),
    **registered(make_case, ["EMA, causal, stereo"], LAWS + OF_STEREO),
    **registered(make_case, ["FSQ", "EMA"], (tokens_are_in_range, a_row_is_coded_exactly_as_the_clip_alone)),
}
