"""A window autoencoder's decoder."""

from functools import cache

import jax
import numpy as np

from laws.causal import (
    BATCH,
    LAWS,
    OF_ONE_CODEBOOK,
    START,
    VOCAB,
    Case,
    objectives_are_scores_of_clips_that_end_within_a_padded_batch,
)
from laws.registered import Registered, without
from wavegen.models.window_vae import WindowVAE, prior_latents

WINDOW, BAR, PERIOD, LATENT = 16, 8, 2, 6


def build(**options):
    sizes = {"vocab_size": VOCAB, "window": WINDOW, "bar": BAR, "period": PERIOD, "start_token": START}
    sizes |= {"width": 8, "layers": 2, "encoder_layers": 1, "heads": 2, "latent": LATENT}
    return WindowVAE(**sizes | options, random=np.random.default_rng(0))


prior = jax.jit(prior_latents, static_argnums=(1, 2))


@cache
def make_case():
    return Case(build(), WINDOW, features=prior(jax.random.key(3), BATCH, LATENT))


OF_LIKELIHOOD = objectives_are_scores_of_clips_that_end_within_a_padded_batch
CASES = {"plain": Registered(make_case, without(LAWS + OF_ONE_CODEBOOK, OF_LIKELIHOOD))}
