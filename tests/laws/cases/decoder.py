"""Decoders of plain and of compressed memory."""

from functools import cache

import jax.numpy as jnp
import numpy as np

from laws.causal import LAWS, OF_ONE_CODEBOOK, START, VOCAB, Case
from laws.registered import registered
from wavegen.models.decoder import Decoder
from wavegen.models.layers.memory import Reach

FRAMES = 23
MEMORY, COMPRESSED = Reach(4, 4), Reach(4, 2, 3, 2)
VARIANTS = {
    # Almost six segments each; in the second one the compressed entries reach back over two of them.
    "memory, labels, period": {"reach": MEMORY, "label_sizes": (4, 3), "period": 4},
    "compressed, three codebooks": {"reach": COMPRESSED, "codebooks": 3, "tied": True},
}


def build(**options):
    sizes = {"vocab_size": VOCAB, "width": 8, "layers": 2, "heads": 2, "hidden": 12, "start_token": START}
    return Decoder(**sizes | options, random=np.random.default_rng(0))


@cache
def make_case(name):
    labels = jnp.asarray([[3, 1], [0, -1]], jnp.int32) if "labels" in name else None
    return Case(build(**VARIANTS[name]), FRAMES, labels, prompts=((6, 12),), later=(9,), piece=8)


CASES = {
    **registered(make_case, VARIANTS, LAWS),
    **registered(make_case, ["memory, labels, period"], LAWS + OF_ONE_CODEBOOK),
}
