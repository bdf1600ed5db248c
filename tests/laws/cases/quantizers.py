"""Quantizers of every kind, of three levels, and of one."""

from functools import cache

import numpy as np

from laws.quantizer import LAWS, LEVELS, OF_ANY_LEVELS, WIDTH, Case
from laws.registered import registered
from wavegen.codecs.quantizers.base import Quantizer
from wavegen.codecs.quantizers.make import make_quantizer
from wavegen.config.codec_models import EMAConfig, FSQConfig, GradientVQConfig

SMALL = {"codebooks": LEVELS, "codebook_size": 16}
SECTIONS = {
    "gradient": GradientVQConfig(**SMALL, codebook_width=4),
    "one FSQ": FSQConfig(sizes=(4, 3, 5)),
    "residual FSQ": FSQConfig(sizes=(4, 3, 5), codebooks=LEVELS),
    "EMA": EMAConfig(**SMALL),
}


def fresh(name: str, **options) -> Quantizer:
    section = SECTIONS[name].model_copy(update=options)
    return make_quantizer(section, WIDTH, np.random.default_rng(0))


@cache
def make_case(name: str) -> Case:
    return Case(lambda: fresh(name), averages=name == "EMA")


CASES = {
    GradientVQConfig: registered(make_case, ["gradient"], LAWS),
    FSQConfig: {
        **registered(make_case, ["one FSQ"], OF_ANY_LEVELS),
        **registered(make_case, ["residual FSQ"], LAWS),
    },
    EMAConfig: registered(make_case, ["EMA"], LAWS),
}
