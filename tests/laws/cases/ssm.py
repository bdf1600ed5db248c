"""State-space models, at one rate and at several."""

from functools import cache

import jax.numpy as jnp
import numpy as np

from laws.causal import LAWS, OF_ONE_CODEBOOK, START, VOCAB, Case
from laws.registered import registered
from wavegen.models.ssm import SSM

FRAMES = 23
VARIANTS = {
    # Six chunks, the last one of three rows; at lower rates a chunk is longer than what is left of the clip.
    "labels, period, tied": {"label_sizes": (4, 3), "period": 4, "tied": True},
    "three codebooks": {"codebooks": 3, "period": 4},
    "three rates, labels": {"pooling": (2, 3), "label_sizes": (4, 3), "smooth": True},
    "two rates, two codebooks": {"pooling": (3,), "codebooks": 2, "tied": True},
}


def build(**options):
    sizes = {"vocab_size": VOCAB, "width": 8, "layers": 2, "state": 3, "longest": 20, "chunk": 4}
    return SSM(**sizes | {"start_token": START} | options, random=np.random.default_rng(0))


@cache
def make_case(name):
    labels = jnp.asarray([[3, 1], [0, -1]], jnp.int32) if "labels" in name else None
    return Case(build(**VARIANTS[name]), FRAMES, labels, later=(6, 8), piece=7)


CASES = {
    **registered(make_case, VARIANTS, LAWS),
    **registered(make_case, ["labels, period, tied", "three rates, labels"], LAWS + OF_ONE_CODEBOOK),
}
