"""The Hopper cluster's kernel in the interpreter, its stages as threads of one block, against the reference."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wavegen.kernels import WaveNetShape, wavenet_init_state, wavenet_prefill
from wavegen.kernels.wavenet import draw, mosaic_gpu_cluster, reference
from wavegen.kernels.wavenet.mosaic_gpu_cluster_weights import Division
from wavegen.kernels.wavenet.mosaic_gpu_weights import sizes_of
from wavegen.kernels.wavenet.shapes import Net

NET = Net(WaveNetShape((1, 2, 3), vocab_size=100), 48, 72, 100, 40, kernel_size=3)
"""Nothing in it is whole blocks of 64; in stages of two layers, the last but one has a layer that does nothing."""
STEPS, BATCH = 4, 5
KEY = draw.key_words(jax.random.key(3))


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def widened(tree):
    return jax.tree.map(lambda x: x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x, tree)


def arguments(**changes):
    given = dict.fromkeys(("inputs", "condition", "forced", "top_k", "top_p"))
    given |= {"key": KEY, "condition_hop": 1, "condition_offset": 0, "temperature": 0.7, "row_offset": 0}
    return given | {"return_logits": True} | changes


@cache
def prompted():
    """The network's bfloat16 weights, and its state after a prompt of other tokens in every stream."""
    weights = jax.tree.map(lambda w: w.astype(jnp.bfloat16), NET.random_weights())
    tokens = jnp.asarray(np.random.default_rng(2).integers(0, NET.shape.vocab_size, (BATCH, 7)))
    state = wavenet_init_state(weights, NET.shape, BATCH)
    return weights, wavenet_prefill(weights, NET.shape, state, tokens)[1]


def generate(state=None, steps=STEPS, forced=None, temperature=0.7):
    weights, start = prompted()
    division = Division(sizes_of(weights, NET.shape), 2)
    given = {"key": KEY, "forced": forced, "temperature": temperature, "row_offset": 0}
    given |= {"return_logits": True, "division": division, "interpret": True}
    return mosaic_gpu_cluster.run(weights, NET.shape, start if state is None else state, steps, **given)


whole = cache(generate)


def test_outputs_and_state_follow_the_reference():
    tokens, state, outputs = whole()
    weights, start = prompted()
    given = arguments(forced=tokens)
    _, after, exact = reference.generate(widened(weights), NET.shape, widened(start), STEPS, **given)
    assert outputs.dtype == jnp.float32
    np.testing.assert_allclose(outputs, exact, atol=0.01 * np.abs(exact).max())
    np.testing.assert_array_equal(state["history"], after["history"])
    np.testing.assert_array_equal(state["position"], after["position"])
    scale = np.abs(after["rings"]).max()
    np.testing.assert_allclose(widened(state)["rings"], after["rings"], atol=0.01 * scale)


def test_tokens_are_those_of_the_reference_for_these_outputs():
    tokens, _, outputs = whole()
    for i, position in enumerate(prompted()[1]["position"] + jnp.arange(STEPS)):
        uniform, _ = draw.uniforms(KEY, position, jnp.arange(BATCH))
        np.testing.assert_array_equal(tokens[:, i], draw.choose_token(outputs[:, i], uniform, 0.7))
    assert len(np.unique(tokens)) > 10
