"""Bidirectional transformers, with labels and with places in a period."""

from functools import cache

import jax.numpy as jnp
import numpy as np

from laws.masked import CODEBOOKS, LAWS, VOCAB, WITHOUT_LABELS, Case
from laws.registered import registered
from wavegen.models.bert import Bert

SIZES = {"vocab_size": VOCAB, "codebooks": CODEBOOKS, "width": 16, "layers": 1, "heads": 2, "dropout": 0.5}
VARIANTS = {
    "labels": {"label_sizes": (4, 3)},
    # Clips begin at the start of a period, and so does a clip with padding before it.
    "period": {"period": 4},
}


@cache
def make_case(name):
    model = Bert(**SIZES, **VARIANTS[name], random=np.random.default_rng(0))
    if name == "labels":
        return Case(model, jnp.asarray([[3, 1], [-1, 2], [0, -1]], jnp.int32))
    return Case(model, firsts=(0, 4))


CASES = {**registered(make_case, ["labels"], LAWS), **registered(make_case, ["period"], WITHOUT_LABELS)}
