import re
from dataclasses import dataclass, replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.random import threefry_2x32
from scipy import stats

from wavegen.kernels import (
    WaveNetShape,
    native,
    wavenet_forward,
    wavenet_generate,
    wavenet_init_state,
    wavenet_prefill,
)
from wavegen.kernels.dispatch import dispatch
from wavegen.kernels.wavenet import draw, xla
from wavegen.kernels.wavenet.companding import compress, expand
from wavegen.kernels.wavenet.forward import condition_frames, dilated_convolution
from wavegen.kernels.wavenet.head import log_prob, mixture_parameters
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
    """What the network hears besides its own past: inputs, and a condition if it takes one."""
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
"""What this machine can run besides the reference."""


@cache
def native_library():
    """Why there is none, or nothing."""
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
def test_sampling_goes_on_after_a_prompt(name, implementation):
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
    past = jnp.zeros((2, (kernel_size - 1) * 3, 6))
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


def jitted_arguments(**changes):
    """What `wavenet_generate` hands to an implementation besides weights, shape, state and steps."""
    names = ("inputs", "condition", "forced", "top_k", "top_p")
    arguments = dict.fromkeys(names) | {"key": draw.key_words(KEY), "condition_hop": 1, "condition_offset": 0}
    return arguments | {"temperature": 1.0, "row_offset": 0, "return_logits": False} | changes


@pytest.mark.parametrize("form", [xla.GPU, xla.TPU], ids=["gpu", "tpu"])
def test_step_forms_of_other_platforms_give_the_same_tokens(form):
    r = run("kernel 3, condition")
    tokens, _, _ = xla.generate(r.weights, r.shape, r.start, STEPS, form=form, **jitted_arguments(**r.around))
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


def test_greedy_takes_the_likeliest_and_options_do_not_compile_again():
    r = run("kernel 2")
    compiled = None
    for temperature, top_k, top_p in [(0.0, 5, 0.9), (1.0, 1, 0.9), (0.7, 9, 1e-6)]:
        options = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "return_logits": True}
        options["implementation"] = "xla"
        tokens, _, outputs = wavenet_generate(r.weights, r.shape, r.start, 50, key=KEY, **options)
        np.testing.assert_array_equal(tokens, outputs.argmax(-1))
        compiled = compiled or xla.generate._cache_size()
        assert xla.generate._cache_size() == compiled


@pytest.mark.parametrize("form", [xla.CPU, None], ids=["cpu", "chosen"])
def test_compiled_loop_does_not_copy_the_rings(form):
    net = Net(WaveNetShape(tuple(2**i for i in range(8)) * 2))
    weights = net.random_weights()
    state = wavenet_init_state(weights, net.shape, 2)
    lowered = xla.generate.lower(weights, net.shape, state, 50, form=form, **jitted_arguments())
    rings = re.escape(",".join(map(str, state["rings"].shape)))
    computations = re.split(r"^(?=\S.*\{$)", lowered.compile().as_text(), flags=re.MULTILINE)
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


# random numbers and draws


def test_threefry_equals_jax(rng):
    key = jax.random.key(7)
    first, second = (jnp.asarray(rng.integers(0, 2**32, 50, dtype=np.uint32)) for _ in range(2))
    ours = jnp.concatenate(draw.threefry2x32(draw.key_words(key), first, second))
    np.testing.assert_array_equal(
        ours, threefry_2x32(jax.random.key_data(key), jnp.concatenate([first, second]))
    )


def test_uniforms_lie_inside_the_unit_interval(key):
    words = draw.key_words(key)
    first, second = draw.uniforms(words, jnp.int32(3), jnp.arange(200_000))
    for u in (first, second):
        assert 0 < u.min() < 1e-4
        assert 1 - 1e-4 < u.max() < 1
        assert stats.kstest(np.asarray(u), "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.01
    extremes = draw._to_unit(jnp.asarray([0, 2**32 - 1], jnp.uint32))
    assert extremes[0] > 0
    assert extremes[1] < 1


def test_index_of_no_weight_is_never_chosen():
    weights = jnp.asarray([[0.0, 3.0, 0.0, 5.0, 0.0]])
    for u in (2.0**-24, 0.375, 0.4, 1 - 2.0**-24):
        assert int(draw.choose_index(weights, jnp.asarray([u], jnp.float32))[0]) in (1, 3)


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(1.0, None, None), (0.5, None, None), (1.0, 5, None), (1.0, None, 0.7), (1.3, 12, 0.9)],
)
def test_draws_follow_the_softmax(rng, key, temperature, top_k, top_p):
    logits = rng.normal(size=32) * 1.5
    p = np.exp(logits / temperature)
    order = np.argsort(-p)
    p[order[top_k or 32 :]] = 0
    p /= p.sum()
    before = np.cumsum(p[order]) - p[order]
    p[order[before >= (top_p or 1.0)]] = 0
    p /= p.sum()
    count = 200_000
    u, _ = draw.uniforms(draw.key_words(key), jnp.int32(0), jnp.arange(count))
    row = draw.choose_token(jnp.asarray(logits[None], jnp.float32), u[:1], temperature, top_k, top_p)
    assert row.shape == (1,)
    tokens = draw.choose_token(
        jnp.tile(jnp.asarray(logits, jnp.float32)[None], (count, 1)), u, temperature, top_k, top_p
    )
    seen = np.bincount(tokens, minlength=32)
    assert (seen[p == 0] == 0).all()
    assert stats.chisquare(seen[p > 0], p[p > 0] * count).pvalue > 1e-3


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_mixture_draws_follow_the_mixture(key, temperature):
    logits, means, log_scales = (
        jnp.asarray([x]) for x in ([0.5, -0.2, 0.1], [-0.6, 0.1, 0.95], [-2.0, -4.0, -3.0])
    )
    count, vocab = 200_000, 64
    u = draw.uniforms(draw.key_words(key), jnp.int32(9), jnp.arange(count))
    many = [jnp.tile(x, (count, 1)) for x in (logits, means, log_scales)]
    seen = np.bincount(draw.choose_from_mixture(*many, u, vocab, temperature), minlength=vocab)
    shape = WaveNetShape((1,), vocab_size=vocab, head="mixture", mixtures=3)
    tempered = [logits / temperature, means, log_scales + np.log(temperature)]
    outputs = jnp.tile(jnp.concatenate(tempered, -1)[None], (1, vocab, 1))
    p = np.exp(np.asarray(log_prob(outputs, shape, jnp.arange(vocab)[None])[0], np.float64))
    rare = p <= np.sort(p)[vocab // 4]  # in one bin, so that every expected count is large enough
    seen, expected = (np.append(x[~rare], x[rare].sum()) for x in (seen, p / p.sum() * count))
    assert expected.min() > 5
    assert stats.chisquare(seen, expected).pvalue > 1e-3


# heads


@pytest.mark.parametrize("order", [0, 4])
@pytest.mark.parametrize("vocab", [256, 65536])
def test_mixture_probabilities_sum_to_one(rng, order, vocab):
    mu = 255 if vocab == 256 else 0
    shape = WaveNetShape((1,), vocab, "mixture", 4, order, mu)
    outputs = jnp.asarray(rng.normal(size=(1, 1, shape.outputs)), jnp.float32)
    outputs = outputs.at[..., 8:12].add(jnp.asarray([-20.0, -9.0, -3.0, 1.0])[None, None])
    previous = jnp.asarray(rng.integers(0, vocab, (vocab, 6)))[:1].repeat(vocab, 0)
    outputs = jnp.broadcast_to(outputs, (vocab, 1, shape.outputs))
    p = jnp.exp(log_prob(outputs, shape, jnp.arange(vocab)[:, None], previous))
    assert p.min() >= 0
    assert abs(np.asarray(p, np.float64).sum() - 1) < 1e-3


def test_softmax_log_prob_is_the_log_softmax(rng):
    shape = WaveNetShape((1,), 16)
    outputs = jnp.asarray(rng.normal(size=(2, 5, 16)) * 3, jnp.float32)
    targets = jnp.asarray(rng.integers(0, 16, (2, 5)))
    expected = np.take_along_axis(jax.nn.log_softmax(outputs, -1), targets[..., None], -1)[..., 0]
    np.testing.assert_allclose(log_prob(outputs, shape, targets), expected, atol=1e-5)


def test_linear_prediction_shifts_means_to_the_predicted_amplitude(rng):
    shape = WaveNetShape((1,), head="mixture", mixtures=2, linear_prediction=3)
    outputs = jnp.zeros((4, shape.outputs)).at[:, 6:].set(jnp.asarray([0.5, -0.25, 0.125])[None])
    history = jnp.asarray(rng.uniform(-1, 1, (4, 3)), jnp.float32)
    _, means, _ = mixture_parameters(outputs, shape, history)
    expected = history @ jnp.asarray([0.5, -0.25, 0.125])
    np.testing.assert_allclose(expand(means[:, 0], 255), expected, atol=1e-5)


def test_fresh_predictor_and_extreme_targets_have_gradients():
    shape = WaveNetShape((1,), 65536, "mixture", 2, 3, mu=255)
    previous = jnp.asarray([[32768, 60000, 60000, 32768]])
    targets = jnp.asarray([[0, 65535, 32768, 1]])
    outputs = jnp.zeros((1, 4, shape.outputs))
    gradient = jax.grad(lambda o: log_prob(o, shape, targets, previous).sum())(outputs)
    assert jnp.isfinite(gradient).all()
    assert jnp.abs(gradient[..., 6:]).max() > 0, "coefficients that start at zero must learn"


def test_companding_round_trip():
    x = jnp.linspace(-1, 1, 1001)
    np.testing.assert_allclose(expand(compress(x, 255), 255), x, atol=1e-6)
    np.testing.assert_array_equal(compress(x, 0), x)


# dispatch and bad input


def test_dispatch_takes_the_first_that_can_and_reports_why_none_could():
    def cannot():
        raise NotImplementedError("no such chip")

    members = {"chip": cannot, "plain": lambda: "plain"}
    assert dispatch("op", members, None) == "plain"
    with pytest.raises(NotImplementedError, match="no such chip"):
        dispatch("op", members, "chip")
    with pytest.raises(ValueError, match="no implementation 'x'; choose from chip, plain"):
        dispatch("op", members, "x")
    with pytest.raises(NotImplementedError, match="chip: no such chip"):
        dispatch("op", {"chip": cannot}, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps must be at least 1"),
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_k": -1}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
        ({"inputs": jnp.zeros((2, 5, 17))}, r"inputs must be \[2, 5, 16\]"),
        ({"condition": None}, r"needs a condition \[2, F, 5\]"),
        ({"condition": jnp.zeros((2, 1, 6))}, r"condition must be \[2, F, 5\]"),
        (
            {"condition": jnp.zeros((2, 2, 5)), "condition_hop": 2},
            "2 frames of 2 samples ends before sample 5",
        ),
        ({"condition_offset": 7}, "condition_offset"),
        ({"forced": jnp.zeros((2, 4), jnp.int32)}, r"forced must be integers \[2, 5\]"),
        ({"key": jnp.zeros(3, jnp.uint32)}, r"threefry key of 2 uint32 words, got uint32\[3\]"),
        ({"key": jax.random.key(0, impl="rbg")}, "threefry key"),
        ({"implementation": "fpga"}, "choose from"),
    ],
)
def test_bad_arguments_are_named(change, message, key):
    net = NETS["kernel 3, condition"]
    weights = net.random_weights()
    arguments = {"state": wavenet_init_state(weights, net.shape, 2), "steps": 5, "key": key}
    arguments |= {"condition": jnp.zeros((2, 1, 5))}
    with pytest.raises(ValueError, match=message):
        wavenet_generate(weights, net.shape, **(arguments | change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"skip": jnp.zeros((3, 12, 21))}, r'weights\["skip"\] must be float32\[3, 12, 20\]'),
        ({"hidden_bias": jnp.zeros(24, jnp.int32)}, r"got int32\[24\]"),
        ({"dilated": jnp.zeros((4, 2, 16))}, r'weights\["dilated"\] must have 4 axes'),
        ({"extra": jnp.zeros(1)}, "unknown extra"),
        ({"scalar": jnp.zeros((1, 2, 16))}, 'either "embedding" or "scalar"'),
        ({"output_bias": None}, "lack output_bias"),
        ({"hidden": None}, 'lack "hidden"'),
    ],
)
def test_weights_of_another_network_are_named(change, message, key):
    net = NETS["kernel 2"]
    weights = net.random_weights()
    state = wavenet_init_state(weights, net.shape, 1)
    changed = {name: w for name, w in (weights | change).items() if w is not None}
    with pytest.raises(ValueError, match=message):
        wavenet_generate(changed, net.shape, state, 5, key=key)


def test_state_of_another_network_is_named(key):
    net, other = NETS["kernel 2"], NETS["scalar input, linear prediction"]
    weights = net.random_weights()
    state = wavenet_init_state(other.random_weights(), other.shape, 1)
    with pytest.raises(ValueError, match=r'state\["rings"\] must be float32'):
        wavenet_generate(weights, net.shape, state, 5, key=key)
    with pytest.raises(ValueError, match="state lack position"):
        wavenet_generate(weights, net.shape, {"rings": 0, "history": 0}, 5, key=key)
    with pytest.raises(ValueError, match="B at least 1"):
        wavenet_generate(weights, net.shape, wavenet_init_state(weights, net.shape, 0), 5, key=key)


def test_mixture_head_has_no_top_k(key):
    net = NETS["16 bit"]
    weights = net.random_weights()
    state = wavenet_init_state(weights, net.shape, 1)
    for cut in ({"top_k": 3}, {"top_p": 0.5}):
        with pytest.raises(ValueError, match="need a softmax head"):
            wavenet_generate(weights, net.shape, state, 5, key=key, **cut)


@pytest.mark.parametrize(
    "fields",
    [
        {"dilations": ()},
        {"dilations": (0,)},
        {"vocab_size": 1},
        {"head": "gaussian"},
        {"linear_prediction": 3},
        {"head": "mixture", "mixtures": 0},
    ],
)
def test_impossible_shapes_are_refused(fields):
    with pytest.raises(ValueError, match=r"got|needs"):
        WaveNetShape(**({"dilations": (1, 2)} | fields))


# the native library


def nothing_built(monkeypatch, folder):
    """Hides the native library of this installation, wherever it is looked for."""
    monkeypatch.delenv("WAVEGEN_NATIVE_LIBRARY", raising=False)
    monkeypatch.setattr(native, "__path__", [str(folder)])
    monkeypatch.setattr(native.sysconfig, "get_path", lambda name: str(folder / "site-packages"))
    native.load.cache_clear()


def test_missing_native_library_says_how_to_get_it(monkeypatch, tmp_path):
    nothing_built(monkeypatch, tmp_path)
    with pytest.raises(NotImplementedError, match="C\\+\\+17 compiler"):
        native.load()
    assert "pip install" in native.status()
    assert "\n" not in native.status()


def test_broken_native_library_says_how_to_mend_it(monkeypatch, tmp_path):
    (tmp_path / "libwavegen_native.so").write_bytes(b"not a library")
    nothing_built(monkeypatch, tmp_path)
    assert "cannot be loaded, reinstall wavegen" in native.status()


def test_native_library_answers_through_xla():
    native.load.cache_clear()
    need("cpu")
    assert native.settings().threads >= 1
    assert native.INSTRUCTION_SETS[native.best_instruction_set()] in native.status()
    assert str(native.load()) in native.status()
