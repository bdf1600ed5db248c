"""The native sampler in 8 bits: exact sums, the reference's rounding, instruction sets, rows, chunks and refusals."""

from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import wavegen
from wavegen.config import resolve
from wavegen.errors import WavegenError
from wavegen.kernels import WaveNetShape, native, wavenet_generate, wavenet_init_state
from wavegen.kernels.wavenet.int8 import round_matrices
from wavegen.kernels.wavenet.shapes import Net
from wavegen.models.kinds import make_model
from wavegen.networks.base import parameters
from wavegen.runs.trained import Trained, open_codecs

try:
    native.load()
except NotImplementedError as reason:
    pytest.skip(str(reason), allow_module_level=True)

KEY = jax.random.key(5)
SETS = native.instruction_sets()
ROWS = 9
NETS = {
    "odd sizes": Net(WaveNetShape((1, 2, 4, 8, 16), int8=True), 48, 40, 100, 52),
    "kernel 4, wide input, condition": Net(
        WaveNetShape((1, 9, 2), int8=True), 21, 17, 33, 41, 4, 3, condition=7
    ),
    "mixture, linear prediction": Net(
        WaveNetShape((1, 4), 65536, "mixture", 3, linear_prediction=6, mu=0, int8=True),
        24,
        24,
        24,
        24,
        scalar_input=True,
    ),
    "one layer": Net(WaveNetShape((1,), vocab_size=10, int8=True), 7, 5, 3, 9),
}


@cache
def case(name):
    return NETS[name], NETS[name].random_weights()


def generate(net, weights, batch, steps, implementation="cpu", state=None, first=0, **options):
    """Steps [first, first + steps) of 60, from the state before them."""
    rng = np.random.default_rng(2)
    given = {"inputs": rng.normal(size=(ROWS, 60, net.residual))[:batch, first : first + steps]}
    if net.condition:
        given["condition"] = rng.normal(size=(ROWS, 6, net.condition))[:batch, first // 10 :]
        options |= {"condition_hop": 10, "condition_offset": first % 10}
    options |= {name: jnp.asarray(x, jnp.float32) for name, x in given.items()}
    state = wavenet_init_state(weights, net.shape, batch) if state is None else state
    options |= {"implementation": implementation, "return_logits": True}
    return wavenet_generate(weights, net.shape, state, steps, key=KEY, **options)


@pytest.mark.parametrize("instruction_set", SETS)
def test_sums_of_bytes_are_exact_up_to_the_largest(instruction_set, monkeypatch):
    """A head whose hidden sums are whole numbers, read back by an output matrix that selects one of them each."""
    monkeypatch.setenv("WAVEGEN_INSTRUCTION_SET", instruction_set)
    net = Net(WaveNetShape((1,), vocab_size=70, int8=True), 4, 4, 130, 70)
    rng = np.random.default_rng(0)
    skip = rng.integers(0, 128, 130)
    skip[7] = 127
    hidden = rng.integers(-127, 128, (130, 70))
    hidden[7] = 127
    hidden[:, 0], hidden[:, 1] = 127, -127
    weights = {name: np.zeros(w.shape, np.float32) for name, w in net.random_weights().items()}
    weights |= {"skip_bias": np.float32(skip), "hidden": np.float32(hidden)}
    weights["output"] = np.eye(70, dtype=np.float32)
    weights["hidden_bias"] = np.full(70, 100.0, np.float32)
    weights = {name: jnp.asarray(w) for name, w in weights.items()}

    sums = np.maximum(np.float32(skip @ hidden) + 100, 0)
    read = np.rint(sums * (np.float32(127) / sums.max()))
    expected = np.float32(127) * read * (sums.max() / np.float32(127) * (np.float32(1) / np.float32(127)))
    _, _, outputs = wavenet_generate(
        weights,
        net.shape,
        wavenet_init_state(weights, net.shape, 3),
        2,
        key=KEY,
        implementation="cpu",
        return_logits=True,
    )
    np.testing.assert_allclose(outputs, np.broadcast_to(expected, outputs.shape), rtol=1e-6)


@pytest.mark.parametrize("name", NETS)
def test_rounding_is_the_references(name):
    """Sums of floats that differ in their last bit can round to another byte: nearly all outputs agree, all closely."""
    net, weights = case(name)
    tokens, state, outputs = generate(net, weights, ROWS, 60, temperature=0.7)
    _, expected_state, expected = generate(net, weights, ROWS, 60, "reference", forced=tokens)
    error = np.abs(outputs - expected) / np.abs(expected).max()
    assert (error < 2e-6).mean() > 0.9
    assert error.max() < 0.03
    assert np.abs(state["rings"] - expected_state["rings"]).max() < 0.05 * np.abs(state["rings"]).max()
    floating = replace(net, shape=replace(net.shape, int8=False))
    exact = generate(floating, weights, ROWS, 60, forced=tokens)[2]
    distance = np.abs(outputs - exact).max() / np.abs(exact).max()
    assert 1e-4 < distance < 0.1  # rounded, but not far


@pytest.mark.parametrize("name", NETS)
def test_rows_do_not_depend_on_the_batch_nor_on_threads(name, monkeypatch):
    net, weights = case(name)
    tokens, state, outputs = generate(net, weights, ROWS, 40)
    for batch in range(1, ROWS):
        monkeypatch.setenv("WAVEGEN_THREADS", str(1 + batch % 3))
        fewer_tokens, fewer_state, fewer_outputs = generate(net, weights, batch, 40)
        np.testing.assert_array_equal(fewer_tokens, tokens[:batch])
        np.testing.assert_array_equal(fewer_state["rings"], state["rings"][:, :batch])
        np.testing.assert_array_equal(fewer_outputs, outputs[:batch])


@pytest.mark.parametrize(("split", "batch"), [(1, 1), (7, 1), (8, 3), (23, 9)])
@pytest.mark.parametrize("name", ["odd sizes", "kernel 4, wide input, condition"])
def test_chunks_equal_the_whole(name, split, batch):
    net, weights = case(name)
    whole = generate(net, weights, batch, 40)
    first = generate(net, weights, batch, split)
    second = generate(net, weights, batch, 40 - split, state=first[1], first=split)
    np.testing.assert_array_equal(jnp.concatenate([first[0], second[0]], 1), whole[0])
    np.testing.assert_array_equal(jnp.concatenate([first[2], second[2]], 1), whole[2])
    np.testing.assert_array_equal(second[1]["rings"], whole[1]["rings"])


@pytest.mark.parametrize("name", NETS)
def test_instruction_sets_agree(name, monkeypatch):
    net, weights = case(name)
    tokens, _, expected = generate(net, weights, 5, 50)
    for instruction_set in SETS:
        monkeypatch.setenv("WAVEGEN_INSTRUCTION_SET", instruction_set)
        outputs = generate(net, weights, 5, 50, forced=tokens)[2]
        if instruction_set == "generic":  # no fused multiply-add, so another byte now and then
            error = np.abs(outputs - expected) / np.abs(expected).max()
            assert (error < 2e-6).mean() > 0.9
            assert error.max() < 0.03
        else:
            np.testing.assert_array_equal(outputs, expected)


def test_draws_are_cut_to_the_likeliest():
    net, weights = case("odd sizes")
    tokens, _, outputs = generate(net, weights, 2, 60, top_k=5, top_p=0.9)
    better = (outputs > np.take_along_axis(np.asarray(outputs), np.asarray(tokens)[..., None], -1)).sum(-1)
    assert 0 < better.max() < 5
    likeliest = generate(net, weights, 2, 60, temperature=0.0)
    np.testing.assert_array_equal(likeliest[0], likeliest[2].argmax(-1))


@pytest.mark.parametrize("name", NETS)
def test_rounded_weights_are_rounded_to_themselves(name):
    net, weights = case(name)
    rounded = round_matrices(weights)
    np.testing.assert_allclose(round_matrices(rounded)["dilated"], rounded["dilated"], rtol=3e-7)
    step = np.abs(weights["output"]).max(0) / 127
    assert (np.abs(rounded["output"] - weights["output"]) <= 0.51 * step).all()
    assert np.abs(rounded["output"] - weights["output"]).max() > 0
    tokens, _, outputs = generate(net, weights, 2, 30)
    again = generate(net, rounded, 2, 30, forced=tokens)[2]
    error = np.abs(outputs - again) / np.abs(outputs).max()
    assert (error < 2e-6).mean() > 0.9


def test_columns_of_zeros_and_of_the_smallest_numbers_are_zero():
    net, weights = case("odd sizes")
    small = weights | {"hidden": weights["hidden"].at[:, 3].set(0).at[:, 4].mul(1e-40)}
    zero = weights | {"hidden": weights["hidden"].at[:, 3:5].set(0)}
    outputs = generate(net, small, 1, 10)[2]
    assert np.isfinite(outputs).all()
    np.testing.assert_array_equal(outputs, generate(net, zero, 1, 10)[2])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_an_error(bad):
    net, weights = case("odd sizes")
    with pytest.raises(Exception, match="weights hold NaN or infinity; expected finite numbers"):
        jax.block_until_ready(generate(net, weights | {"skip": weights["skip"].at[0, 0, 0].set(bad)}, 1, 3))


@pytest.mark.parametrize("name", ["xla", "pallas_tpu", "mosaic_gpu", "mosaic_gpu_cluster"])
def test_other_implementations_refuse(name):
    net, weights = case("one layer")
    with pytest.raises(NotImplementedError, match="multiplies in floating point only, the network in 8 bits"):
        generate(net, weights, 1, 3, name)


def test_other_weights_are_refused():
    net, weights = case("one layer")
    low = {name: w.astype(jnp.bfloat16) for name, w in weights.items()}
    with pytest.raises(NotImplementedError, match="rounds float32 weights to 8 bits, got bfloat16"):
        generate(net, low, 1, 3)


def test_the_shipped_instrument_plays_in_8_bits_and_reads_with_the_same_weights():
    exact, rounded = wavegen.load(), wavegen.load(precision="int8")
    melody = wavegen.Performance.parse("tempo 240, C4 1")
    clip = rounded.generate(0.05, notes=melody)[0]
    assert clip.samples.shape == (800, 1)
    assert not np.array_equal(clip.samples, exact.generate(0.05, notes=melody)[0].samples)
    scores = [model.log_likelihood(clip, notes=melody) for model in (exact, rounded)]
    assert 0 < np.abs(scores[0] - scores[1]).mean() < 0.3


def test_other_models_have_no_8_bits():
    config = resolve({"data": {"sample_rate": 1000}, "model": {"kind": "lstm", "width": 8, "layers": 1}}, [])
    codecs = open_codecs(config)
    trained = Trained(config, {}, parameters(make_model(config, codecs, {}))[1], codecs)
    with pytest.raises(WavegenError, match=r"precision int8 is of a WaveNet, got a model of type \w*LSTM"):
        wavegen.AudioGenerator.open(trained, "int8")
