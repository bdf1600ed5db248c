"""An encoder and decoder whose second source ends early."""

from functools import cache

import jax.numpy as jnp
import numpy as np

from laws.causal import BATCH, LAWS, OF_ONE_CODEBOOK, START, VOCAB, Case
from laws.registered import Registered
from wavegen.models.layers.memory import Reach
from wavegen.models.seq2seq import Seq2Seq

FRAMES, HOP, SOURCE_VOCAB = 14, 2, 6


def build(**options):
    sizes = {"vocab_size": VOCAB, "width": 8, "layers": 1, "heads": 2, "hidden": 12, "start_token": START}
    sizes |= {"source_vocab_size": SOURCE_VOCAB, "source_codebooks": 2, "encoder_layers": 1}
    sizes |= {"source_hop": HOP, "period": HOP, "label_sizes": (4,), "reach": Reach(8, 8)}
    return Seq2Seq(**sizes | options, random=np.random.default_rng(0))


@cache
def make_case():
    features = np.random.default_rng(2).integers(SOURCE_VOCAB, size=(BATCH, FRAMES // HOP, 2))
    features[1, 5:] = -1
    return Case(build(), FRAMES, jnp.asarray([[3], [0]]), jnp.asarray(features, jnp.float32))


CASES = {"plain": Registered(make_case, LAWS + OF_ONE_CODEBOOK)}
