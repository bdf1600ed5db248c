"""Models of several codebooks are one distribution of clips: in training, in scores and in draws.

All sequences of tiny models are enumerated.
"""

import itertools
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wavegen.models.decoder import Decoder
from wavegen.models.layers.memory import Reach
from wavegen.models.lstm import LSTM
from wavegen.models.ssm import SSM
from wavegen.networks.base import parameters
from wavegen.samplers.autoregressive import Stepper, log_likelihood

START, DRAWS = 1, 6_000
BUILD = {
    "decoder": lambda **sizes: Decoder(layers=1, heads=1, hidden=4, reach=Reach(2, 2), **sizes),
    "lstm": lambda **sizes: LSTM(layers=1, **sizes),
    "ssm": lambda **sizes: SSM(layers=1, state=2, pooling=(2,), longest=8, **sizes),
}
# The kind, codebooks and frames; of two values each.
CASES = [("decoder", 2, 5), ("decoder", 3, 3), ("lstm", 2, 5), ("lstm", 4, 2), ("ssm", 3, 3)]


@cache
def case(kind, codebooks, frames):
    """A model with random weights, and every clip of so many frames."""
    random = np.random.default_rng(0)
    sizes = {"vocab_size": 2, "codebooks": codebooks, "width": 4, "start_token": START}
    graph, params = parameters(BUILD[kind](**sizes, random=random))
    params = jax.tree.map(
        lambda x: x + jnp.asarray(0.5 * random.standard_normal(x.shape, np.float32)), params
    )
    clips = np.array(list(itertools.product(range(2), repeat=frames * codebooks)), np.int32)
    return graph, params, clips.reshape(-1, frames, codebooks)


@pytest.mark.parametrize("name", CASES)
def test_the_probabilities_of_all_clips_sum_to_one_and_do_not_depend_on_the_window(name):
    graph, params, clips = case(*name)
    whole = log_likelihood(graph, params, clips, window=name[2])
    assert np.exp(whole.sum((1, 2))).sum() == pytest.approx(1, abs=1e-5)
    for window in (2, 64):
        np.testing.assert_allclose(log_likelihood(graph, params, clips, window=window), whole, atol=1e-5)


@pytest.mark.parametrize("name", CASES[2::2])
def test_draws_in_pieces_have_the_probabilities_of_the_clips(name):
    graph, params, clips = case(*name)
    expected = DRAWS * np.exp(log_likelihood(graph, params, clips).sum((1, 2)))
    drawn = Stepper(graph, params, block=2, batch=DRAWS).stream(name[2], jax.random.key(0))
    whole = np.concatenate([*drawn], axis=1)
    number = whole.reshape(DRAWS, -1) @ (1 << np.arange(whole[0].size)[::-1])
    counts = np.bincount(number, minlength=len(clips))
    often = expected >= 5
    chi2 = np.sum((counts - expected)[often] ** 2 / expected[often])
    assert often.sum() > 10
    assert chi2 / often.sum() < 1.5
