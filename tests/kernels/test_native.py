"""The native sampler: odd sizes, every instruction set, precisions, threads, draws, and what it refuses."""

from dataclasses import replace
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
ROWS = 33
SETS = native.instruction_sets()
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


def cast(weights, dtype):
    """In numpy: JAX would compile a conversion of every shape."""
    return {name: jnp.asarray(np.asarray(w).astype(jnp.dtype(dtype))) for name, w in weights.items()}


def generate(net, weights, batch, steps, implementation="cpu", **options):
    rng = np.random.default_rng(2)
    if net.condition:
        condition = rng.normal(size=(ROWS, 1 + steps // 10, net.condition))[:batch]
        options = {"condition": jnp.asarray(condition, jnp.float32), "condition_hop": 10} | options
    options["inputs"] = jnp.asarray(rng.normal(size=(ROWS, steps, net.residual))[:batch], jnp.float32)
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


@pytest.mark.parametrize("name", ODD)
def test_odd_sizes_follow_the_reference_with_any_number_of_rows(name):
    net, weights = case(name)
    tokens, state, outputs = generate(net, weights, ROWS, 60)
    _, expected_state, expected = generate(net, weights, ROWS, 60, "reference", forced=tokens)
    assert_close(outputs, expected)
    np.testing.assert_allclose(state["rings"], expected_state["rings"], atol=1e-4)
    np.testing.assert_array_equal(state["history"], expected_state["history"])
    for batch in (1, 3, 17):
        fewer_tokens, fewer_state, fewer_outputs = generate(net, weights, batch, 60)
        np.testing.assert_array_equal(fewer_tokens, tokens[:batch])
        np.testing.assert_array_equal(fewer_state["rings"], state["rings"][:, :batch])
        np.testing.assert_array_equal(fewer_outputs, outputs[:batch])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["48 residual, 100 skip", "16 bit"])
def test_instruction_sets_and_threads_agree(name, dtype, monkeypatch):
    net, weights = case(name)
    weights = cast(weights, dtype)
    monkeypatch.setenv("WAVEGEN_INSTRUCTION_SET", SETS[-1])
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


@pytest.mark.parametrize("name", ["one layer", "kernel 5, wide input, condition"])
def test_bfloat16_weights_are_read_exactly(name):
    """Only what the rings keep is rounded on the way: rounding that in the reference too leaves float32's own error."""
    net, weights = case(name)
    low = cast(weights, "bfloat16")
    exact = cast(low, "float32")
    tokens = generate(net, exact, ROWS, 60)[0]
    expected = generate(net, exact, ROWS, 60, "reference", forced=tokens)[2][:3]  # compiled above
    _, state, outputs = generate(net, low, 3, 60, forced=tokens[:3])
    assert state["rings"].dtype == jnp.bfloat16
    assert_close(outputs[:, :1], expected[:, :1])  # the rings are empty
    assert_close(outputs, expected, 0.02)


@pytest.mark.parametrize("name", ["48 residual, 100 skip", "kernel 5, wide input, condition"])
@pytest.mark.parametrize("instruction_set", SETS)
def test_bfloat16_batches_stay_close_to_float32(name, instruction_set, monkeypatch):
    """The tile unit rounds what it multiplies to bfloat16, others only the rings."""
    monkeypatch.setenv("WAVEGEN_INSTRUCTION_SET", instruction_set)
    monkeypatch.setenv("WAVEGEN_THREADS", "1")
    net, weights = case(name)
    low = cast(weights, "bfloat16")
    tokens, _, outputs = generate(net, low, ROWS, 30)
    assert_close(outputs, generate(net, cast(low, "float32"), ROWS, 30, forced=tokens)[2], 0.03)


@pytest.mark.parametrize(("split", "batch"), [(1, 1), (7, 1), (8, 1), (23, 1), (11, 17)])
def test_bfloat16_chunks_equal_the_whole(split, batch):
    net, weights = case("48 residual, 100 skip")
    weights = cast(weights, "bfloat16")
    state = wavenet_init_state(weights, net.shape, batch)
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


@pytest.mark.parametrize(
    ("levels", "temperature", "top_k", "top_p"),
    [
        (30, 1.0, 0, 1.0),
        (256, 0.5, 0, 1.0),
        (256, 1.0, 5, 1.0),
        (30, 1.0, 0, 0.7),
        (256, 0.7, 0, 0.999),
        (30, 1.3, 12, 0.9),
    ],
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
    for choice in [(0.7, 256, 1.0), (1.0, 9, 1.0), (1.0, 256, 0.8), (1.0, 40, 0.5)]:
        # Arrays, so that the reference is compiled once.
        options = dict(zip(("temperature", "top_k", "top_p"), map(jnp.asarray, choice), strict=True))
        tokens, _, _ = generate(net, weights, 2, 200, **options)
        expected, _, _ = generate(net, weights, 2, 200, "reference", **options)
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


@pytest.mark.parametrize(
    ("options", "frame"),
    [
        ({"condition_offset": jnp.asarray(-(2**31))}, 0),
        ({"condition_offset": jnp.asarray(2**31 - 1)}, -1),
        ({"condition_hop": 2**32}, 0),
    ],
)
def test_frames_outside_the_condition_are_read_as_the_nearest(options, frame):
    """Offsets that are traced are not checked before."""
    net, weights = case("kernel 5, wide input, condition")
    condition = jnp.asarray(np.random.default_rng(3).normal(size=(2, 4, net.condition)), jnp.float32)
    outputs = generate(net, weights, 2, 30, condition=condition, **options)[2]
    alone = condition[:, frame][:, None]
    np.testing.assert_array_equal(outputs, generate(net, weights, 2, 30, condition=alone)[2])


@pytest.mark.parametrize("width", ["residual", "gate", "skip", "hidden", "input_kernel_size"])
def test_networks_without_channels_are_an_error(width):
    net = replace(ODD["one layer"], **{width: 0})
    with np.errstate(divide="ignore"):  # of the scale of no weights
        weights = net.random_weights()
    state = {
        "rings": jnp.zeros((1, 1, net.residual)),
        "history": jnp.zeros((1, net.input_kernel_size), jnp.int32),
        "position": jnp.asarray(0),
    }
    with pytest.raises(ValueError, match=r'weights\["\w+"\] must not be empty, got \['):
        wavenet_generate(weights, net.shape, state, 3, key=KEY, implementation="cpu")


def test_other_dtypes_are_left_to_other_implementations():
    net, _ = case("one layer")
    weights = cast(net.random_weights(), "float16")
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


def test_the_library_can_be_named(monkeypatch, tmp_path):
    built = tmp_path / "other.so"
    monkeypatch.setenv("WAVEGEN_NATIVE_LIBRARY", str(built))
    with pytest.raises(ValueError, match=r"WAVEGEN_NATIVE_LIBRARY must name a file, got .*other\.so"):
        native.find()
    built.touch()
    assert native.find() == built


def test_native_library_answers_through_xla():
    assert native.settings().threads >= 1
    assert native.instruction_sets()[-1] in native.status()
    assert str(native.load()) in native.status()
