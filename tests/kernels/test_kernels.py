"""Every implementation of the WaveNet sampler against the reference."""

import doctest
import re
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib import import_module

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wavegen.kernels import (
    WaveNetShape,
    draw,
    native,
    wavenet_forward,
    wavenet_generate,
    wavenet_init_state,
    wavenet_prefill,
)
from wavegen.kernels.wavenet import cpu, reference, xla
from wavegen.kernels.wavenet.call import Call
from wavegen.kernels.wavenet.forward import condition_frames, dilated_convolution
from wavegen.kernels.wavenet.shapes import Net

MIXTURE = WaveNetShape((1, 2, 4), head="mixture", mixtures=3)
NETS = {
    "kernel 2": Net(WaveNetShape((1, 2, 4)), 16, 12, 20, 24),
    "kernel 3, condition": Net(WaveNetShape((1, 3, 1)), 16, 16, 24, 16, 3, 2, condition=5),
    "scalar input, linear prediction": Net(
        replace(MIXTURE, linear_prediction=5), 12, 8, 16, 16, 2, 2, 3, scalar_input=True
    ),
    "16 bit": Net(replace(MIXTURE, vocab_size=65536, mu=0), 12, 8, 16, 16, 3, scalar_input=True),
}
STEPS, HOP, KEY = 1000, 4, jax.random.key(3)


def surroundings(net):
    """What the network reads in addition to its own past: inputs, and a condition if it takes one."""
    rng = np.random.default_rng(1)
    around = {"inputs": jnp.asarray(rng.normal(size=(2, STEPS, net.residual)), jnp.float32)}
    if net.condition:
        frames = jnp.asarray(rng.normal(size=(2, STEPS // HOP, net.condition)), jnp.float32)
        around |= {"condition": frames, "condition_hop": HOP}
    return around


def part(around, start, stop):
    """The surroundings of samples start..stop alone."""
    cut = around | {"inputs": around["inputs"][:, start:stop]}
    if "condition" in around:
        cut["condition"] = around["condition"][:, start // HOP : -(-stop // HOP)]
        cut["condition_offset"] = start % HOP
    return cut


@dataclass(frozen=True)
class Run:
    """A network, what surrounds it, and what it generated; compiled once for all tests."""

    weights: dict
    shape: WaveNetShape
    around: dict
    start: dict
    tokens: jax.Array
    end: dict
    outputs: jax.Array


FAST = ["xla", "cpu"]
"""What this machine can run in addition to the reference."""


@cache
def native_library():
    """The reason why there is none, or an empty text."""
    try:
        native.load()
    except NotImplementedError as reason:
        return str(reason)
    return ""


def need(implementation):
    if implementation == "cpu" and native_library():
        pytest.skip(native_library())


@cache
def run(name, implementation="xla"):
    need(implementation)
    net = NETS[name]
    weights, around = net.random_weights(), surroundings(net)
    start = wavenet_init_state(weights, net.shape, 2)
    tokens, end, outputs = wavenet_generate(
        weights, net.shape, start, STEPS, key=KEY, return_logits=True, implementation=implementation, **around
    )
    return Run(weights, net.shape, around, start, tokens, end, outputs)


def assert_states_agree(state, other):
    np.testing.assert_array_equal(state["history"], other["history"])
    np.testing.assert_array_equal(state["position"], other["position"])
    np.testing.assert_allclose(state["rings"], other["rings"], atol=1e-4)


# the law of the causal model


@pytest.mark.parametrize("name", NETS)
def test_parallel_form_equals_steps(name):
    r = run(name)
    start = jnp.full((2, 1), r.shape.start_token, jnp.int32)
    read = jnp.concatenate([start, r.tokens[:, :-1]], axis=1)
    parallel = jax.jit(lambda read: wavenet_forward(r.weights, r.shape, read, **r.around))(read)
    np.testing.assert_allclose(parallel, r.outputs, atol=1e-4)


@pytest.mark.parametrize("split", [1, 401, 599, 999])
def test_prompt_can_be_split_anywhere(split):
    r = run("scalar input, linear prediction")
    first, state = wavenet_prefill(
        r.weights, r.shape, r.start, r.tokens[:, :split], **part(r.around, 0, split)
    )
    second, state = wavenet_prefill(
        r.weights, r.shape, state, r.tokens[:, split:], **part(r.around, split, STEPS)
    )
    np.testing.assert_allclose(jnp.concatenate([first, second], axis=1), r.outputs, atol=1e-4)
    assert_states_agree(state, r.end)


@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize("name", ["kernel 3, condition", "scalar input, linear prediction"])
def test_sampling_continues_after_a_prompt(name, implementation):
    r = run(name, implementation)
    _, state = wavenet_prefill(r.weights, r.shape, r.start, r.tokens[:, :401], **part(r.around, 0, 401))
    rest, state = wavenet_generate(
        r.weights,
        r.shape,
        state,
        STEPS - 401,
        key=KEY,
        implementation=implementation,
        **part(r.around, 401, STEPS),
    )
    np.testing.assert_array_equal(rest, r.tokens[:, 401:])
    assert_states_agree(state, r.end)


@pytest.mark.parametrize("name", ["kernel 2", "kernel 3, condition"])
def test_outputs_depend_on_the_receptive_field_and_never_on_the_future(name, rng):
    net, length = NETS[name], 30
    weights, shape = net.random_weights(), net.shape
    tokens = jnp.asarray(rng.integers(0, shape.vocab_size, (1, length)))
    condition = jnp.ones((1, 1, net.condition)) if net.condition else None

    def output(inputs):
        return wavenet_forward(weights, shape, tokens, inputs, condition).sum((0, 2))

    gradient = jax.jit(jax.jacobian(output))(jnp.zeros((1, length, net.residual)))
    reached = jnp.abs(gradient).sum((1, 3)) > 0
    delay = np.subtract.outer(np.arange(length), np.arange(length))
    np.testing.assert_array_equal(reached, (delay >= 0) & (delay < shape.receptive_field(net.kernel_size)))


@pytest.mark.parametrize("kernel_size", [2, 3, 4])
def test_convolution_forms_agree(kernel_size, rng):
    h = jnp.asarray(rng.normal(size=(2, 40, 6)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(kernel_size, 6, 8)), jnp.float32)
    past = jnp.zeros((2, (kernel_size - 1) * 3, 6), jnp.float32)
    forms = [dilated_convolution(h, kernel, 3, form, p) for form in ("conv", "matmul") for p in (None, past)]
    for other in forms[1:]:
        np.testing.assert_allclose(other, forms[0], atol=1e-5)


def test_condition_frames_are_repeated_for_their_samples(rng):
    weights = {"condition": jnp.asarray(rng.normal(size=(2, 3, 4)), jnp.float32)}
    condition = jnp.asarray(rng.normal(size=(1, 5, 3)), jnp.float32)
    every = jnp.einsum("btc,lcg->lbtg", condition[:, (2 + np.arange(17)) // 4], weights["condition"])
    for offset in (2, jnp.int32(2)):
        rows = condition_frames(weights, condition, 4, offset, 17)
        np.testing.assert_allclose(jnp.stack(rows), every, atol=1e-6)
    assert jnp.stack(condition_frames(weights, condition[:, :1], 4, 0, 17)).shape == (2, 1, 1, 4)


def test_dropout_needs_its_key_and_keeps_the_mean(rng, key):
    net = NETS["kernel 2"]
    weights, tokens = net.random_weights(), jnp.asarray(rng.integers(0, 256, (2, 40)))
    forward = jax.jit(
        lambda rate, key: wavenet_forward(weights, net.shape, tokens, dropout_key=key, dropout_rate=rate),
        static_argnums=0,
    )
    kept = forward(0.0, key)
    np.testing.assert_array_equal(forward(0.5, None), kept)
    dropped = jnp.stack([forward(0.05, k) for k in jax.random.split(key, 4)])
    assert (dropped[0] != dropped[1]).any()
    assert jnp.corrcoef(dropped.mean(0).ravel(), kept.ravel())[0, 1] > 0.9


# the law of the sampler


@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize("name", NETS)
def test_first_thousand_tokens_equal_the_reference(name, implementation):
    r, reference = run(name, implementation), run(name, "reference")
    assert len(np.unique(r.tokens)) > 10
    if name == "16 bit":  # now and then a rounding error ends in the next of 65536 levels, and is fed back
        difference = np.abs(r.tokens - reference.tokens)
        assert difference.max() <= 8
        assert (difference > 0).mean() < 0.05
        return
    np.testing.assert_array_equal(r.tokens, reference.tokens)
    np.testing.assert_allclose(r.outputs, reference.outputs, atol=1e-4)
    assert_states_agree(r.end, reference.end)


@pytest.mark.parametrize("form", [xla.GPU, xla.TPU], ids=["gpu", "tpu"])
def test_step_forms_of_other_platforms_give_the_same_tokens(form):
    r = run("kernel 3, condition")
    call = Call(r.weights, r.shape, r.start, STEPS, draw.key_words(KEY), **r.around)
    tokens, _, _ = xla.generate(call, form=form)
    np.testing.assert_array_equal(tokens, r.tokens)


@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize("name", NETS)
def test_float32_steps_follow_the_float64_reference(name, implementation):
    r = run(name, implementation)
    with jax.enable_x64(True):
        weights = {key: jnp.asarray(np.asarray(w, np.float64)) for key, w in r.weights.items()}
        _, _, exact = wavenet_generate(
            weights,
            r.shape,
            wavenet_init_state(weights, r.shape, 2),
            STEPS,
            key=KEY,
            forced=r.tokens,
            return_logits=True,
            implementation="reference",
            **r.around,
        )
        assert exact.dtype == jnp.float64
        exact = np.asarray(exact)
    assert np.abs(r.outputs - exact).max() < 1e-5 * np.abs(exact).max()


@pytest.mark.parametrize(
    ("name", "implementation"),
    [
        ("kernel 2", "xla"),
        ("scalar input, linear prediction", "xla"),
        ("kernel 3, condition", "reference"),
        *((name, "cpu") for name in NETS),
    ],
)
def test_chunks_equal_the_whole_exactly(name, implementation):
    r, state = run(name, implementation), run(name, implementation).start
    chunks = []
    for start, stop in [(0, 1), (1, 334), (334, 667), (667, 1000)]:
        *chunk, outputs = wavenet_generate(
            r.weights,
            r.shape,
            state,
            stop - start,
            key=KEY,
            return_logits=True,
            implementation=implementation,
            **part(r.around, start, stop),
        )
        tokens, state = chunk
        np.testing.assert_allclose(outputs, r.outputs[:, start:stop], atol=1e-5)
        chunks.append(tokens)
    np.testing.assert_array_equal(jnp.concatenate(chunks, axis=1), r.tokens)
    assert_states_agree(state, r.end)


@pytest.mark.parametrize("implementation", FAST)
def test_rows_can_be_generated_apart(implementation):
    need(implementation)
    net = NETS["kernel 2"]
    weights = net.random_weights()
    generate = partial(wavenet_generate, weights, net.shape, steps=40, key=KEY, implementation=implementation)
    together, _ = generate(wavenet_init_state(weights, net.shape, 3))
    alone, _ = generate(wavenet_init_state(weights, net.shape, 1), row_offset=2)
    np.testing.assert_array_equal(alone[0], together[2])
    assert (together[0] != together[1]).any()


@pytest.mark.parametrize("implementation", FAST)
def test_forced_tokens_come_back_unchanged(rng, implementation):
    r = run("kernel 3, condition", implementation)
    generate = partial(
        wavenet_generate,
        r.weights,
        r.shape,
        r.start,
        STEPS,
        key=KEY,
        implementation=implementation,
        **r.around,
    )
    kept = jnp.where(jnp.arange(STEPS)[None] < 400, r.tokens, -1)
    np.testing.assert_array_equal(generate(forced=kept)[0], r.tokens)
    prompt = jnp.asarray(rng.integers(0, 256, (2, STEPS)), jnp.int32)
    inside = jnp.where((jnp.arange(STEPS)[None] > 300) & (jnp.arange(STEPS)[None] < 600), -1, prompt)
    tokens, _ = generate(forced=inside)
    np.testing.assert_array_equal(jnp.where(inside < 0, -1, tokens), inside)
    assert (tokens >= 0).all()


def test_greedy_takes_the_likeliest():
    r = run("kernel 2")
    for temperature, top_k, top_p in [(0.0, 5, 0.9), (1.0, 1, 0.9), (0.7, 9, 1e-6)]:
        options = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "return_logits": True}
        options["implementation"] = "xla"
        tokens, _, outputs = wavenet_generate(r.weights, r.shape, r.start, 50, key=KEY, **options)
        np.testing.assert_array_equal(tokens, outputs.argmax(-1))


JITTED = {"xla": xla.generate, "cpu": cpu.run, "reference": reference.generate}


@pytest.mark.parametrize("implementation", JITTED)
def test_one_compilation_serves_all_numbers_and_each_set_of_options(implementation):
    need(implementation)
    net, jitted = NETS["kernel 2"], JITTED[implementation]
    weights = net.random_weights()
    generate = partial(wavenet_generate, weights, net.shape, implementation=implementation)

    def compilations(calls):
        before = jitted._cache_size()
        state = wavenet_init_state(weights, net.shape, 1)
        for options in calls:
            _, state = generate(state, **({"steps": 2, "key": KEY} | options))
        return jitted._cache_size() - before

    numbers = [{"temperature": 0.5, "row_offset": 3}, {"key": jax.random.key(8)}, {"top_k": 0, "top_p": 1.0}]
    unread = [{"condition_hop": 7}, {"condition_hop": 9, "condition_offset": 5}]
    assert compilations([{}, *numbers, *unread]) == 1
    assert compilations([{"top_k": 3}, {"top_k": 5}]) == 1
    assert compilations([{"top_p": 0.5}, {"top_p": 0.7}, {"top_k": 3}, {}]) == 1
    assert compilations([{"forced": jnp.full((1, 2), -1, jnp.int32)}, {"steps": 3}]) == 2


@pytest.mark.parametrize("form", [xla.CPU, None], ids=["cpu", "chosen"])
def test_compiled_loop_does_not_copy_the_rings(form):
    net = Net(WaveNetShape(tuple(2**i for i in range(8)) * 2))
    weights = net.random_weights()
    state = wavenet_init_state(weights, net.shape, 2)
    # The call is made inside: `lower` also makes one of descriptions of arrays, which the tests' type checks refuse.
    call = partial(Call, shape=net.shape, steps=50, key=draw.key_words(KEY))
    generate = jax.jit(lambda weights, state: xla.generate(call(weights, state=state), form=form))
    compiled = generate.lower(weights, state).compile()
    rings = re.escape(",".join(map(str, state["rings"].shape)))
    computations = re.split(r"^(?=\S.*\{$)", compiled.as_text(), flags=re.MULTILINE)
    assert any(re.search(rf"f32\[{rings}\].* while\(", c) for c in computations), (
        "the rings are not in a loop"
    )
    copying = {c.split()[0] for c in computations if re.search(rf"= f32\[{rings}\]\S* copy\(", c)}
    assert copying <= {"ENTRY"}


def test_state_can_be_donated(key):
    net = NETS["kernel 2"]
    weights = net.random_weights()
    chunk = jax.jit(lambda state: wavenet_generate(weights, net.shape, state, 10, key=key), donate_argnums=0)
    state = wavenet_init_state(weights, net.shape, 2)
    expected, _ = wavenet_generate(weights, net.shape, wavenet_init_state(weights, net.shape, 2), 10, key=key)
    tokens, after = chunk(state)
    np.testing.assert_array_equal(tokens, expected)
    assert state["rings"].is_deleted()
    assert not after["rings"].is_deleted()


def test_bfloat16_weights_run(key):
    net = NETS["kernel 3, condition"]
    weights = jax.tree.map(lambda w: w.astype(jnp.bfloat16), net.random_weights())
    state = wavenet_init_state(weights, net.shape, 2)
    condition = jnp.ones((2, 1, net.condition))
    options = {"key": key, "condition": condition, "return_logits": True}
    tokens, _, outputs = wavenet_generate(weights, net.shape, state, 30, implementation="xla", **options)
    _, _, again = wavenet_generate(
        weights, net.shape, state, 30, forced=tokens, implementation="reference", **options
    )
    assert outputs.dtype == again.dtype == jnp.float32
    np.testing.assert_allclose(outputs, again, atol=0.15)


@pytest.mark.parametrize("module", ["wavenet.api", "wavenet.prefill", "wavenet.state", "nearest_code.api"])
def test_examples_of_docstrings_hold(module):
    failed, attempted = doctest.testmod(import_module(f"wavegen.kernels.{module}"))
    assert attempted
    assert not failed
