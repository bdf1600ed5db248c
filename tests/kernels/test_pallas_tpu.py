"""The TPU kernel in Pallas' interpreter on CPU, against the reference."""

import itertools
import subprocess
import sys
from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wavegen.kernels import WaveNetShape, draw, wavenet_generate, wavenet_init_state, wavenet_prefill
from wavegen.kernels.wavenet import pallas_tpu, reference
from wavegen.kernels.wavenet.call import Call
from wavegen.kernels.wavenet.shapes import NETS, Net

MIXTURE = WaveNetShape((1, 2), head="mixture", mixtures=3)
SMALL = {
    "kernel 2": Net(WaveNetShape((1, 2, 4)), 16, 12, 20, 24),
    "kernel 3, odd widths, condition": Net(WaveNetShape((1, 3)), 48, 48, 100, 16, 3, 2, condition=5),
    "one layer": Net(WaveNetShape((5,), vocab_size=100), 16, 12, 20, 24),
    "scalar input, linear prediction": Net(
        replace(MIXTURE, linear_prediction=5), 12, 8, 16, 16, 2, 2, 3, scalar_input=True
    ),
    "16 bit": Net(replace(MIXTURE, vocab_size=65536, mu=0), 12, 8, 16, 16, 3, scalar_input=True),
}
STEPS, HOP = 140, 20  # more than one of the kernel's chunks of 128


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    """Nearly all the time here is compilation, of code that then runs for a moment."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@cache
def prompted(name):
    """A network, its weights, and its state after a prompt of other tokens in every stream."""
    net = SMALL[name]
    weights = net.random_weights()
    rng = np.random.default_rng(2)
    tokens = jnp.asarray(rng.integers(0, net.shape.vocab_size, (3, 11)))
    condition = jnp.ones((3, 1, net.condition)) if net.condition else None
    state = wavenet_init_state(weights, net.shape, 3)
    _, state = wavenet_prefill(weights, net.shape, state, tokens, condition=condition)
    return net, weights, state


def call_of(name, steps=STEPS, **changes):
    """A call that continues after the prompt, with inputs, and a condition if the network takes one."""
    net, weights, state = prompted(name)
    rng = np.random.default_rng(1)
    given = {"inputs": jnp.asarray(rng.normal(size=(3, STEPS, net.residual)), jnp.float32)}
    if net.condition:
        given["condition"] = jnp.asarray(rng.normal(size=(3, STEPS // HOP, net.condition)), jnp.float32)
    given |= {"key": draw.key_words(jax.random.key(3)), "condition_hop": HOP, "return_logits": True}
    return Call(**{"weights": weights, "state": state, "shape": net.shape, "steps": steps} | given | changes)


def part(call, state, start, stop):
    """The samples start..stop of a call alone."""
    condition = None if call.condition is None else call.condition[:, start // HOP : -(-stop // HOP)]
    given = {"inputs": call.inputs[:, start:stop], "condition": condition, "condition_offset": start % HOP}
    return replace(call, state=state, steps=stop - start, **given)


def both(call, look_ahead=True):
    with jax.default_matmul_precision("highest"):
        return pallas_tpu.generate(call, look_ahead=look_ahead, interpret=True), reference.generate(call)


def assert_agree(ours, expected):
    (tokens, state, outputs), (other_tokens, other, other_outputs) = ours, expected
    assert len(np.unique(tokens)) > 10
    np.testing.assert_array_equal(tokens, other_tokens)
    scale = np.abs(other_outputs).max()
    np.testing.assert_allclose(outputs / scale, other_outputs / scale, atol=1e-5)
    np.testing.assert_array_equal(state["history"], other["history"])
    np.testing.assert_array_equal(state["position"], other["position"])
    np.testing.assert_allclose(state["rings"], other["rings"], atol=1e-5)


@pytest.mark.parametrize("name", [name for name in SMALL if name != "16 bit"])
def test_tokens_equal_the_reference(name):
    assert_agree(*both(call_of(name)))


def test_tokens_without_look_ahead_equal_the_reference():
    assert_agree(*both(call_of("kernel 3, odd widths, condition"), look_ahead=False))


def test_sixteen_bit_outputs_equal_the_reference_where_tokens_are_forced(rng):
    """Free-running, a rounding error now and then ends in the next of 65536 levels, and is fed back."""
    forced = rng.integers(0, 65536, (3, STEPS))
    forced[:, -1] = -1
    assert_agree(*both(call_of("16 bit", forced=jnp.asarray(forced, jnp.int32))))


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"), [(0.0, None, None), (0.7, 12, 1.0), (1.0, 0, 0.6), (1.3, 9, 0.8)]
)
def test_draws_equal_the_reference(temperature, top_k, top_p):
    assert_agree(*both(call_of("kernel 2", temperature=temperature, top_k=top_k, top_p=top_p)))


def test_equal_levels_are_kept_together():
    from wavegen.kernels.wavenet.pallas_tpu_draw import likely

    logits = jnp.asarray(
        [[0.0, 2.0, 1.0, 2.0, 1.0, -1.0, 1.0, -0.0], [-3.0, -5.0, -3.0, -1.0, -4.0] + [-9.0] * 3]
    )
    padded = jnp.pad(logits, ((0, 0), (0, 120)), constant_values=-jnp.inf)
    kept, expected = jax.jit(likely), jax.jit(draw.keep_likely)
    for top_k, top_p in itertools.product((1, 3, 4, 8), (1e-6, 0.3, 0.65, 1.0)):
        numbers = jnp.int32(top_k), jnp.float32(top_p)
        np.testing.assert_array_equal(kept(padded, *numbers)[:, :8], jnp.isfinite(expected(logits, *numbers)))


@pytest.mark.parametrize("name", ["kernel 3, odd widths, condition", "scalar input, linear prediction"])
def test_chunks_equal_the_whole(name):
    call = call_of(name)
    whole, _ = both(call)
    state, tokens = call.state, []
    for start, stop in ((0, STEPS // 2), (STEPS // 2, STEPS)):  # the second starts within a frame
        chunk, state, _ = pallas_tpu.generate(part(call, state, start, stop), interpret=True)
        tokens.append(chunk)
    np.testing.assert_array_equal(jnp.concatenate(tokens, axis=1), whole[0])
    np.testing.assert_allclose(state["rings"], whole[1]["rings"], atol=1e-5)


def test_tiles_of_a_batch_equal_the_reference():
    net, weights, _ = prompted("kernel 2")
    state = wavenet_init_state(weights, net.shape, 11)
    call = call_of("kernel 2", 30, state=state, inputs=None, row_offset=5)
    ours = pallas_tpu.run(call, look_ahead=True, tile=8, vmem_limit=None, interpret=True)
    assert_agree(ours, reference.generate(call))


def test_condition_streams_in_without_a_race():
    """In the interpreter that models TPU memory: every sample its own frame, so that copies follow closely."""
    from jax.experimental.pallas import tpu as pltpu

    call = call_of("kernel 3, odd widths, condition", 6, inputs=None, condition_hop=1)
    call = replace(call, condition=call.condition[:, :6])
    expected, _, _ = reference.generate(call)
    tokens, _, _ = pallas_tpu.generate(call, interpret=pltpu.InterpretParams(detect_races=True))
    np.testing.assert_array_equal(tokens, expected)


def test_bfloat16_weights_follow_the_reference():
    name = "kernel 3, odd widths, condition"
    net, weights, _ = prompted(name)
    weights = jax.tree.map(lambda w: w.astype(jnp.bfloat16), weights)
    wide = jax.tree.map(lambda w: w.astype(jnp.float32), weights)
    states = [wavenet_init_state(w, net.shape, 3) for w in (weights, wide)]
    call = call_of(name, 40, weights=weights, state=states[0], inputs=None)
    tokens, _, outputs = pallas_tpu.generate(call, interpret=True)
    _, _, exact = reference.generate(replace(call, weights=wide, state=states[1], forced=tokens))
    assert outputs.dtype == jnp.float32
    np.testing.assert_allclose(outputs, exact, atol=0.01 * np.abs(exact).max())


def test_anywhere_but_on_tpu_it_steps_aside_at_once():
    net, weights, state = prompted("kernel 2")
    with pytest.raises(NotImplementedError, match="TPU only, the default backend is cpu"):
        wavenet_generate(weights, net.shape, state, 5, key=jax.random.key(0), implementation="pallas_tpu")
    assert (wavenet_generate(weights, net.shape, state, 5, key=jax.random.key(0))[0] >= 0).all()


def test_other_types_are_refused():
    halves = jax.tree.map(lambda x: x.astype(jnp.float16), prompted("kernel 2")[1])
    with pytest.raises(NotImplementedError, match="not float16"):
        pallas_tpu.generate(call_of("kernel 2", weights=halves), interpret=True)


def test_networks_that_do_not_fit_are_refused_with_the_figure():
    net = NETS["30x64x256"]
    weights = net.random_weights()
    state = wavenet_init_state(weights, net.shape, 1)
    call = Call(weights, net.shape, state, 1, draw.key_words(jax.random.key(3)))
    of_tile = partial(pallas_tpu.vmem_bytes, call, look_ahead=False)
    assert pallas_tpu.choose_tile(64, 1, 128 * 2**20, of_tile) == 64
    assert pallas_tpu.choose_tile(64, 2, 128 * 2**20, of_tile) == 32
    assert pallas_tpu.choose_tile(64, 1, 64 * 2**20, of_tile) == 16
    with pytest.raises(
        NotImplementedError, match=r"need 3\d\.\d MiB of on-chip memory, this TPU core has 16 MiB"
    ):
        pallas_tpu.choose_tile(1, 1, 16 * 2**20, of_tile)


def test_pallas_is_not_imported_before_it_is_needed():
    code = "import sys, wavegen.kernels; assert not [m for m in sys.modules if m.startswith('jax.experimental.pallas')]"
    subprocess.run([sys.executable, "-c", code], check=True)
