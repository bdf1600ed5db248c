"""The Hopper cluster's kernel in the interpreter, its stages as threads of one block, against the reference."""

from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wavegen.kernels import WaveNetShape, draw, wavenet_generate, wavenet_init_state, wavenet_prefill
from wavegen.kernels.wavenet import mosaic_gpu_cluster, mosaic_gpu_versions, reference
from wavegen.kernels.wavenet.call import Call
from wavegen.kernels.wavenet.mosaic_gpu_cluster_weights import Division, divide
from wavegen.kernels.wavenet.mosaic_gpu_weights import sizes_of
from wavegen.kernels.wavenet.shapes import NETS, Net

NET = Net(WaveNetShape((1, 2, 3), vocab_size=100), 48, 40, 72, 40, kernel_size=3)
"""Nothing in it is whole blocks of 64; in stages of two layers, the second has a layer that does nothing."""
BATCH, STEPS = 5, 3
FORCED = jnp.full((BATCH, STEPS), -1).at[1::2, 1].set(7)
KEY = draw.key_words(jax.random.key(3))


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def widened(tree):
    return jax.tree.map(lambda x: x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x, tree)


@cache
def prompted():
    """The network's bfloat16 weights, and its state after a prompt of other tokens in every stream."""
    weights = jax.tree.map(lambda w: w.astype(jnp.bfloat16), NET.random_weights())
    tokens = jnp.asarray(np.random.default_rng(2).integers(0, NET.shape.vocab_size, (BATCH, 7)))
    state = wavenet_init_state(weights, NET.shape, BATCH)
    return weights, wavenet_prefill(weights, NET.shape, state, tokens)[1]


def call_of(**changes):
    """A call that continues after the prompt."""
    weights, state = prompted()
    given = {"weights": weights, "shape": NET.shape, "state": state, "steps": STEPS, "key": KEY}
    return Call(**given | {"temperature": 0.7, "return_logits": True} | changes)


def exact_call(call, **changes):
    """The same call for the reference, which computes with as many bits as the weights have."""
    return replace(call, weights=widened(call.weights), state=widened(call.state), **changes)


def run(state, forced, temperature):
    call = call_of(state=state, steps=forced.shape[1], forced=forced, temperature=temperature)
    division = Division(sizes_of(call.weights, NET.shape), 2)
    chunk = mosaic_gpu_cluster.run(call, division=division, interpret=True)
    assert not mosaic_gpu_versions.races_found()
    return chunk


@cache
def generated():
    """Tokens, state and outputs of two chunks: the likeliest token, then two drawn ones."""
    first, middle, early = run(prompted()[1], FORCED[:, :1], 0.0)
    second, state, late = run(middle, FORCED[:, 1:], 0.7)
    return jnp.concatenate([first, second], axis=1), state, jnp.concatenate([early, late], axis=1)


def test_outputs_and_state_of_two_chunks_follow_the_reference():
    tokens, state, outputs = generated()
    _, after, exact = reference.generate(exact_call(call_of(), forced=tokens))
    assert outputs.dtype == jnp.float32
    np.testing.assert_allclose(outputs, exact, atol=0.01 * np.abs(exact).max())
    np.testing.assert_array_equal(state["history"], after["history"])
    np.testing.assert_array_equal(state["position"], after["position"])
    scale = np.abs(after["rings"]).max()
    np.testing.assert_allclose(widened(state)["rings"], after["rings"], atol=0.01 * scale)


def test_tokens_are_those_of_the_reference_for_these_outputs_or_the_forced_ones():
    tokens, _, outputs = generated()
    for i, temperature in enumerate((0.0, 0.7, 0.7)):
        uniform, _ = draw.uniforms(KEY, prompted()[1]["position"] + i, jnp.arange(BATCH))
        drawn = draw.choose_token(outputs[:, i], uniform, temperature)
        np.testing.assert_array_equal(tokens[:, i], jnp.where(FORCED[:, i] < 0, drawn, FORCED[:, i]))
    assert len(np.unique(tokens)) > 8


def test_anywhere_but_on_a_gpu_it_steps_aside():
    weights, state = prompted()
    given = {"key": jax.random.key(0), "implementation": "mosaic_gpu_cluster"}
    with pytest.raises(NotImplementedError, match="Hopper GPUs only, the default backend is cpu"):
        wavenet_generate(weights, NET.shape, state, 2, **given)


def test_other_types_and_options_are_refused():
    with pytest.raises(NotImplementedError, match="bfloat16 weights, not float32"):
        mosaic_gpu_cluster.generate(exact_call(call_of()))
    with pytest.raises(NotImplementedError, match="takes no top_k"):
        mosaic_gpu_cluster.generate(call_of(top_k=5))


def test_networks_that_do_not_fit_into_a_cluster_are_refused_with_the_figure():
    room = mosaic_gpu_cluster.SHARED_MEMORY - mosaic_gpu_cluster.RESERVED

    def division(net):
        return divide(sizes_of(jax.eval_shape(net.random_weights), net.shape), room)

    small = division(NETS["20x64x128"])
    assert (small.layers, small.stages) == (3, 8)
    assert small.shared_bytes <= room
    assert division(replace(NETS["20x64x128"], shape=WaveNetShape((1,) * 8))).layers == 3  # 3 + 3 + 2
    with pytest.raises(NotImplementedError, match=r"the head needs \d+ KiB .* has 223 KiB for it"):
        division(NETS["30x64x256"])
    with pytest.raises(NotImplementedError, match=r"one layer needs \d+ KiB"):
        division(replace(NETS["20x64x128"], residual=128, gate=128, skip=256))
    with pytest.raises(NotImplementedError, match=r"needs 18 multiprocessors .* a cluster has 16"):
        division(replace(NETS["20x64x128"], shape=WaveNetShape((1,) * 50)))
