"""Codecs whose frame is one sample."""

from functools import cache

import numpy as np

from laws.audio_codec import (
    BATCH,
    LAWS,
    Case,
    pieces_have_the_tokens_of_the_whole_out_of_reach_of_the_cut,
    the_last_frame_is_filled_up_with_zeros,
)
from laws.registered import registered, without
from wavegen.codecs.make import make_codec
from wavegen.config.codecs import LinearConfig, MuLawConfig, SashimiConfig

SECTIONS = {
    "256": MuLawConfig(),
    "255, no point at silence": MuLawConfig(levels=255),
    "1024": MuLawConfig(levels=1024),
    "16 bits": LinearConfig(),
    "8 bits": LinearConfig(levels=256),
    "linear": SashimiConfig(quantization="linear"),
    "companded": SashimiConfig(quantization="mulaw"),
}
OF_SAMPLES = without(LAWS, the_last_frame_is_filled_up_with_zeros)
OF_WINDOWS = without(OF_SAMPLES, pieces_have_the_tokens_of_the_whole_out_of_reach_of_the_cut)


@cache
def make_case(name: str) -> Case:
    pcm = np.random.default_rng(0).integers(-32768, 32768, (BATCH, 67))
    audio = (pcm / 32768).astype(np.float32)
    # Vector loops of several widths, and what they leave over.
    return Case(lambda: make_codec(SECTIONS[name]), audio, cut=13, lengths=(1, 3, 8, 31, 67))


CASES = {
    MuLawConfig: registered(make_case, ["256", "255, no point at silence", "1024"], OF_SAMPLES),
    LinearConfig: registered(make_case, ["16 bits", "8 bits"], OF_SAMPLES),
    SashimiConfig: registered(make_case, ["linear", "companded"], OF_WINDOWS),
}
