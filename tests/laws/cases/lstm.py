"""LSTMs."""

from functools import cache

import jax.numpy as jnp
import numpy as np

from laws.causal import LAWS, OF_ONE_CODEBOOK, START, VOCAB, Case
from laws.registered import registered
from wavegen.models.lstm import LSTM

FRAMES = 14
VARIANTS = {
    "labels, period, tied": {"label_sizes": (4, 3), "period": 4, "tied": True},
    "three codebooks": {"codebooks": 3, "period": 4},
}


def build(**options):
    sizes = {"vocab_size": VOCAB, "width": 8, "layers": 2, "start_token": START}
    return LSTM(**sizes | options, random=np.random.default_rng(0))


@cache
def make_case(name):
    labels = jnp.asarray([[3, 1], [0, -1]], jnp.int32) if "labels" in name else None
    return Case(build(**VARIANTS[name]), FRAMES, labels)


CASES = {
    **registered(make_case, VARIANTS, LAWS),
    **registered(make_case, ["labels, period, tied"], LAWS + OF_ONE_CODEBOOK),
}
