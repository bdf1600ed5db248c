"""The native sampler: odd sizes, every instruction set, precisions, threads, draws, and what it refuses."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from wavegen.kernels import WaveNetShape, native, wavenet_generate, wavenet_init_state
from wavegen.kernels.wavenet.shapes import Net

try:
    native.load()
except NotImplementedError as reason:
    pytest.skip(str(reason), allow_module_level=True)

KEY = jax.random.key(5)
SETS = native.INSTRUCTION_SETS[: native.best_instruction_set() + 1]
ODD = {
    "48 residual, 100 skip": Net(WaveNetShape((1, 2, 4, 8, 16)), 48, 40, 100, 52),
    "one layer": Net(WaveNetShape((1,), vocab_size=10), 7, 5, 3, 9),
    "dilation 4096": Net(WaveNetShape((4096, 3)), 8, 8, 8, 8, 3),
    "kernel 5, wide input, condition": Net(WaveNetShape((1, 9, 2)), 20, 17, 33, 40, 5, 3, condition=7),
    "16 bit": Net(
        WaveNetShape((1, 4), 65536, "mixture", 3, linear_prediction=6, mu=0),
        24,
        24,
        24,
        24,
        scalar_input=True,
    ),
}


@cache
def case(name):
    net = ODD[name]
    return net, net.random_weights()


def generate(net, weights, batch, steps, implementation="cpu", **options):
    rng = np.random.default_rng(2)
    if net.condition:
        options["condition"] = jnp.asarray(
            rng.normal(size=(batch, 1 + steps // 10, net.condition)), jnp.float32
        )
        options["condition_hop"] = 10
    options["inputs"] = jnp.asarray(rng.normal(size=(batch, steps, net.residual)), jnp.float32)
    state = wavenet_init_state(weights, net.shape, batch)
    return wavenet_generate(
        weights,
        net.shape,
        state,
        steps,
        key=KEY,
        return_logits=True,
        implementation=implementation,
        **options,
    )


def assert_close(outputs, expected, tolerance=1e-5):
    assert np.abs(outputs - expected).max() < tolerance * np.abs(expected).max()


@pytest.mark.parametrize("batch", [1, 3, 17])
@pytest.mark.parametrize("name", ODD)
def test_odd_sizes_follow_the_reference(name, batch):
    net, weights = case(name)
    tokens, state, outputs = generate(net, weights, batch, 60)
    _, expected_state, expected = generate(net, weights, batch, 60, "reference", forced=tokens)
    assert_close(outputs, expected)
    np.testing.assert_allclose(state["rings"], expected_state["rings"], atol=1e-4)
    np.testing.assert_array_equal(state["history"], expected_state["history"])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["48 residual, 100 skip", "16 bit"])
def test_instruction_sets_and_threads_agree(name, dtype, monkeypatch):
    net, weights = case(name)
    weights = jax.tree.map(lambda w: w.astype(dtype), weights)
    tokens, _, expected = generate(net, weights, 5, 50)
    for instruction_set in SETS:
        for threads in ("1", "2"):
            monkeypatch.setenv("WAVEGEN_INSTRUCTION_SET", instruction_set)
            monkeypatch.setenv("WAVEGEN_THREADS", threads)
            outputs = generate(net, weights, 5, 50, forced=tokens)[2]
            if instruction_set == "generic":  # no fused multiply-add
                assert_close(outputs, expected, 1e-5 if dtype == "float32" else 1e-3)
            else:
                np.testing.assert_array_equal(outputs, expected)


@pytest.mark.parametrize("name", ["48 residual, 100 skip", "one layer", "kernel 5, wide input, condition"])
def test_bfloat16_weights_are_read_exactly(name):
    """Only what the rings keep is rounded on the way: rounding that in the reference too leaves float32's own error."""
    net, weights = case(name)
    low = jax.tree.map(lambda w: w.astype(jnp.bfloat16), weights)
    tokens, state, outputs = generate(net, low, 3, 40)
    exact = jax.tree.map(lambda w: w.astype(jnp.float32), low)
    _, _, expected = generate(net, exact, 3, 40, "reference", forced=tokens)
    assert state["rings"].dtype == jnp.bfloat16
    assert_close(outputs[:, :1], expected[:, :1])  # the rings are empty
    assert_close(outputs, expected, 0.02)


@pytest.mark.parametrize("split", [1, 7, 8, 23])
def test_bfloat16_chunks_equal_the_whole(split):
    net, weights = case("48 residual, 100 skip")
    weights = jax.tree.map(lambda w: w.astype(jnp.bfloat16), weights)
    state = wavenet_init_state(weights, net.shape, 1)
    call = {"key": KEY, "implementation": "cpu", "return_logits": True}
    whole = wavenet_generate(weights, net.shape, state, 40, **call)
    first = wavenet_generate(weights, net.shape, state, split, **call)
    second = wavenet_generate(weights, net.shape, first[1], 40 - split, **call)
    np.testing.assert_array_equal(jnp.concatenate([first[0], second[0]], 1), whole[0])
    np.testing.assert_array_equal(jnp.concatenate([first[2], second[2]], 1), whole[2])
    np.testing.assert_array_equal(second[1]["rings"], whole[1]["rings"])


def draws(logits, count, **options):
    """Draw from given logits: a network whose output is its bias, `count` streams of one step."""
    net = Net(WaveNetShape((1,), vocab_size=len(logits)), 2, 2, 2, 2)
    weights = jax.tree.map(jnp.zeros_like, net.random_weights()) | {
        "output_bias": jnp.asarray(logits, jnp.float32)
    }
    tokens, _ = wavenet_generate(
        weights,
        net.shape,
        wavenet_init_state(weights, net.shape, 1),
        count,
        key=KEY,
        implementation="cpu",
        **options,
    )
    return np.asarray(tokens[0])


@pytest.mark.parametrize("levels", [30, 256])
@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(1.0, 0, 1.0), (0.5, 0, 1.0), (1.0, 5, 1.0), (1.0, 0, 0.7), (1.3, 12, 0.9), (0.7, 0, 0.999)],
)
def test_a_million_draws_follow_the_softmax(levels, temperature, top_k, top_p):
    logits = np.random.default_rng(levels).normal(size=levels) * 1.5
    count = 1_000_000
    p = np.exp(logits / temperature)
    order = np.argsort(-p)
    p[order[top_k or levels :]] = 0
    p /= p.sum()
    before = np.cumsum(p[order]) - p[order]
    p[order[before >= top_p]] = 0
    p /= p.sum()
    seen = np.bincount(
        draws(logits, count, temperature=temperature, top_k=top_k, top_p=top_p), minlength=levels
    )
    assert (seen[p == 0] == 0).all()
    expected = p * count
    rare = expected < 20  # in one bin
    seen, expected = (np.append(x[~rare], x[rare].sum()) for x in (seen, expected))
    assert stats.chisquare(seen[expected > 0], expected[expected > 0]).pvalue > 1e-3


def test_equal_levels_are_kept_together():
    logits = np.zeros(20)
    logits[:3] = 5.0
    seen = np.bincount(draws(logits, 3000, top_k=1), minlength=20)
    assert (seen[:3] > 800).all()
    assert seen[3:].sum() == 0
    assert (draws(logits, 50, temperature=0.0) == 0).all()


def test_tokens_equal_those_of_the_reference_for_every_choice():
    net, weights = case("48 residual, 100 skip")
    for choice in ({"temperature": 0.7}, {"top_k": 9}, {"top_p": 0.8}, {"top_k": 40, "top_p": 0.5}):
        tokens, _, _ = generate(net, weights, 2, 200, **choice)
        expected, _, _ = generate(net, weights, 2, 200, "reference", **choice)
        np.testing.assert_array_equal(tokens, expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["embedding", "dilated", "skip", "output_bias"])
def test_weights_that_are_not_finite_are_an_error(name, bad):
    net, weights = case("48 residual, 100 skip")
    broken = weights | {name: weights[name].at[(0,) * weights[name].ndim].set(bad)}
    with pytest.raises(Exception, match="weights hold NaN or infinity; expected finite numbers"):
        jax.block_until_ready(generate(net, broken, 1, 3))


def test_tokens_out_of_range_are_read_as_the_last_level():
    net, weights = case("48 residual, 100 skip")
    wild = jnp.asarray([[10**6, -1]], jnp.int32)
    tame = jnp.asarray([[255, -1]], jnp.int32)
    tokens, _, outputs = generate(net, weights, 1, 2, forced=wild)
    _, _, expected = generate(net, weights, 1, 2, forced=tame)
    assert int(tokens[0, 0]) == 10**6
    np.testing.assert_array_equal(outputs, expected)


def test_other_dtypes_are_left_to_other_implementations():
    net, _ = case("one layer")
    weights = jax.tree.map(lambda w: w.astype(jnp.float16), net.random_weights())
    with pytest.raises(NotImplementedError, match="takes float32 or bfloat16 weights, got float16"):
        generate(net, weights, 1, 3)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("WAVEGEN_INSTRUCTION_SET", "sse9", "WAVEGEN_INSTRUCTION_SET must be one of generic.* got 'sse9'"),
        ("WAVEGEN_THREADS", "many", "WAVEGEN_THREADS must be a whole number of at least 1, got 'many'"),
        ("WAVEGEN_THREADS", "0", "WAVEGEN_THREADS must be"),
    ],
)
def test_environment_variables_are_checked(monkeypatch, name, value, message):
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message):
        generate(*case("one layer"), 1, 3)
