"""The Hopper kernel in Pallas' interpreter on CPU, against the reference: a second a sample, so few samples."""

from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wavegen.kernels import WaveNetShape, draw, wavenet_generate, wavenet_init_state, wavenet_prefill
from wavegen.kernels.wavenet import mosaic_gpu, reference
from wavegen.kernels.wavenet.call import Call
from wavegen.kernels.wavenet.mosaic_gpu_weights import sizes_of
from wavegen.kernels.wavenet.shapes import NETS, Net

SMALL = {
    "whole blocks": Net(WaveNetShape((1, 2), vocab_size=64), 64, 64, 64, 64),
    "padded, kernel 3": Net(WaveNetShape((1, 2), vocab_size=100), 48, 72, 100, 40, kernel_size=3),
}
STEPS = 4
KEY = draw.key_words(jax.random.key(3))


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def widened(tree):
    return jax.tree.map(lambda x: x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x, tree)


@cache
def prompted(name, batch=64):
    """A network, its bfloat16 weights, and its state after a prompt of other tokens in every stream."""
    net = SMALL[name]
    weights = jax.tree.map(lambda w: w.astype(jnp.bfloat16), net.random_weights())
    tokens = jnp.asarray(np.random.default_rng(2).integers(0, net.shape.vocab_size, (batch, 7)))
    state = wavenet_init_state(weights, net.shape, batch)
    return net, weights, wavenet_prefill(weights, net.shape, state, tokens)[1]


def call_of(name, batch=64, **changes):
    """A call that continues after the prompt."""
    net, weights, state = prompted(name, batch)
    given = {"weights": weights, "shape": net.shape, "state": state, "steps": STEPS, "key": KEY}
    return Call(**given | {"temperature": 0.7, "return_logits": True} | changes)


def exact_call(call, **changes):
    """The same call for the reference, which computes with as many bits as the weights have."""
    return replace(call, weights=widened(call.weights), state=widened(call.state), **changes)


def generate(name, **changes):
    return mosaic_gpu.generate(call_of(name, **changes), interpret=True)


whole = cache(generate)


@pytest.mark.parametrize("name", SMALL)
def test_outputs_and_state_follow_the_reference(name):
    tokens, state, outputs = whole(name)
    _, after, exact = reference.generate(exact_call(call_of(name), forced=tokens))
    assert outputs.dtype == jnp.float32
    np.testing.assert_allclose(outputs, exact, atol=0.01 * np.abs(exact).max())
    np.testing.assert_array_equal(state["history"], after["history"])
    np.testing.assert_array_equal(state["position"], after["position"])
    scale = np.abs(after["rings"]).max()
    np.testing.assert_allclose(widened(state)["rings"], after["rings"], atol=0.01 * scale)


@pytest.mark.parametrize("name", SMALL)
def test_tokens_are_those_of_the_reference_for_these_outputs(name):
    tokens, _, outputs = whole(name)
    positions = prompted(name)[2]["position"] + jnp.arange(STEPS)
    for i, position in enumerate(positions):
        uniform, _ = draw.uniforms(KEY, position, jnp.arange(64))
        np.testing.assert_array_equal(tokens[:, i], draw.choose_token(outputs[:, i], uniform, 0.7))
    assert len(np.unique(tokens)) > 30


def test_temperature_zero_is_the_likeliest_and_forced_tokens_come_back():
    forced = jnp.full((64, 2), -1).at[1::2, 1].set(7)
    tokens, state, outputs = generate("padded, kernel 3", steps=2, temperature=0.0, forced=forced)
    np.testing.assert_array_equal(tokens, jnp.where(forced < 0, outputs.argmax(-1), forced))
    np.testing.assert_array_equal(state["history"][:, -1], tokens[:, -1])


def test_chunks_equal_the_whole():
    tokens, state, outputs = whole("padded, kernel 3")
    first, middle, _ = generate("padded, kernel 3", steps=STEPS // 2)
    second, end, late = generate("padded, kernel 3", state=middle, steps=STEPS // 2)
    np.testing.assert_array_equal(jnp.concatenate([first, second], axis=1), tokens)
    np.testing.assert_array_equal(late, outputs[:, STEPS // 2 :])
    jax.tree.map(np.testing.assert_array_equal, end, state)


def test_each_tile_of_a_batch_is_what_it_is_alone():
    call = call_of("whole blocks", 128, steps=2, row_offset=5, return_logits=False)
    tokens, after, _ = mosaic_gpu.generate(call, interpret=True)
    state = call.state
    second = state | {"rings": state["rings"][:, 64:], "history": state["history"][64:]}
    alone, end, _ = mosaic_gpu.generate(replace(call, state=second, row_offset=69), interpret=True)
    np.testing.assert_array_equal(tokens[64:], alone)
    np.testing.assert_array_equal(after["rings"][:, 64:], end["rings"])


def test_anywhere_but_on_a_gpu_it_steps_aside():
    net, weights, state = prompted("whole blocks")
    run = {"key": jax.random.key(0), "steps": 2}
    with pytest.raises(NotImplementedError, match="Hopper GPUs only, the default backend is cpu"):
        wavenet_generate(weights, net.shape, state, **run, implementation="mosaic_gpu")
    assert (wavenet_generate(weights, net.shape, state, **run)[0] >= 0).all()


@pytest.mark.parametrize(
    ("change", "given", "reason"),
    [
        ({"shape": WaveNetShape((1,), head="mixture")}, {}, "softmax only, not from a mixture"),
        ({"scalar_input": True}, {}, "embedding of the newest token"),
        ({"input_kernel_size": 2}, {}, "embedding of the newest token"),
        ({}, {"condition": jnp.ones((64, 1, 3))}, "takes no condition"),
        ({}, {"inputs": jnp.ones((64, 2, 64))}, "takes no inputs"),
        ({}, {"top_k": 5}, "takes no top_k"),
        ({}, {"top_p": 0.9}, "takes no top_p"),
    ],
)
def test_what_the_kernel_cannot_do_is_refused(change, given, reason):
    net = replace(SMALL["whole blocks"], **change)
    weights = jax.tree.map(lambda w: w.astype(jnp.bfloat16), net.random_weights())
    state = wavenet_init_state(weights, net.shape, 64)
    with pytest.raises(NotImplementedError, match=reason):
        mosaic_gpu.generate(Call(weights, net.shape, state, 2, KEY, **given), interpret=True)


def test_other_types_and_batches_are_refused():
    call = call_of("whole blocks")
    with pytest.raises(NotImplementedError, match="bfloat16 weights, not float32"):
        mosaic_gpu.generate(exact_call(call), interpret=True)
    state = wavenet_init_state(call.weights, call.shape, 63)
    with pytest.raises(NotImplementedError, match="tiles of 64 streams, not 63"):
        mosaic_gpu.generate(replace(call, state=state), interpret=True)


def test_networks_that_do_not_fit_are_refused_with_the_figure():
    def slots(net):
        return mosaic_gpu.choose_slots(sizes_of(jax.eval_shape(net.random_weights), net.shape))

    assert [slots(NETS[name]) for name in ("20x64x128", "30x64x256")] == [7, 5]
    with pytest.raises(NotImplementedError, match=r"need \d+ KiB of shared memory, .* has 227 KiB"):
        slots(replace(NETS["30x64x256"], residual=128))
