"""Which implementation runs, what is refused before any of them does, and a native library that is not there."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest

from wavegen.kernels import (
    WaveNetShape,
    native,
    wavenet_generate,
    wavenet_init_state,
)
from wavegen.kernels.dispatch import dispatch
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
