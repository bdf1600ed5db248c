"""The C++ sampler next to a GPU: who is sampled there, where results come back, and JAX without a CPU backend.

There is no GPU here. JAX's default backend is said to be one; its device is the first of the CPU's, the host another.
"""

import jax
import numpy as np
import pytest

import wavegen
from wavegen.kernels import WaveNetShape, native, wavenet_generate, wavenet_init_state
from wavegen.kernels.dispatch import platform
from wavegen.kernels.wavenet.cpu import STREAMS_PER_THREAD, sampling_device
from wavegen.kernels.wavenet.shapes import Net
from wavegen.samplers import autoregressive

try:
    native.load()
except NotImplementedError as reason:
    pytest.skip(str(reason), allow_module_level=True)

KEY = jax.random.key(3)
NET = Net(WaveNetShape((1, 2, 4)), 16, 12, 20, 24)
WEIGHTS = NET.random_weights()


def generate(batch, **options):
    state = wavenet_init_state(WEIGHTS, NET.shape, batch)
    return wavenet_generate(WEIGHTS, NET.shape, state, 20, key=KEY, **options)


@pytest.fixture
def gpu(monkeypatch):
    """Returns the host's device."""
    host = jax.devices()[5]
    monkeypatch.setenv("WAVEGEN_THREADS", "1")
    monkeypatch.setattr(native, "host", lambda: host)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    return host


def test_few_streams_are_taken_off_a_gpu(monkeypatch):
    monkeypatch.setenv("WAVEGEN_THREADS", "1")
    most = STREAMS_PER_THREAD
    assert sampling_device(most, on="gpu") == sampling_device(1, "cpu", on="gpu") == native.host()
    for batch, name, on in ((most + 1, None, "gpu"), (1, "xla", "gpu"), (1, None, "tpu"), (1, None, "cpu")):
        assert sampling_device(batch, name, on) is None
    monkeypatch.setattr(native, "settings", missing)
    assert sampling_device(1, on="gpu") is None


def missing():
    raise NotImplementedError("native kernels were not built")


def test_a_call_runs_on_the_host_and_its_results_come_back(gpu):
    assert platform() == "gpu"
    tokens, state = generate(2)
    assert {leaf.device for leaf in jax.tree.leaves((tokens, state))} == {jax.devices()[0]}
    with jax.default_device(gpu):
        assert platform() == "cpu"
        expected, expected_state = generate(2, implementation="cpu")
    np.testing.assert_array_equal(tokens, expected)
    jax.tree.map(np.testing.assert_array_equal, state, expected_state)


def test_what_stays_on_a_gpu_says_why(gpu):
    with pytest.raises(NotImplementedError, match=r"beside a gpu for at most 8 streams; got 9 on gpu"):
        generate(9, implementation="cpu")
    with pytest.raises(NotImplementedError, match="part of a program that is compiled for gpu"):
        jax.jit(lambda: generate(2, implementation="cpu"))()
    assert jax.jit(lambda: generate(2)[0])().shape == (2, 20)  # by XLA


def test_a_stream_is_drawn_on_the_host_with_weights_that_were_copied_once(gpu, monkeypatch):
    piano, melody = wavegen.load(), wavegen.Performance.parse("tempo 240, C4 1")
    expected = piano.generate(0.02, notes=melody, implementation="xla")[0].samples
    drawn, seen = autoregressive._draw, []

    def draw(graph, params, *arguments):
        seen.append(params)
        return drawn(graph, params, *arguments)

    monkeypatch.setattr(autoregressive, "_draw", draw)
    blocks = list(piano.stream(0.02, notes=melody, chunk=200))
    np.testing.assert_array_equal(np.concatenate(blocks, axis=1)[0], expected[:, 0])
    list(piano.stream(0.01, notes=melody))
    leaves = [jax.tree.leaves(params) for params in seen]
    assert {leaf.device for leaf in leaves[0]} == {gpu}
    assert all(a is b for other in leaves for a, b in zip(leaves[0], other, strict=True))


def test_jax_without_a_cpu_backend_is_one_line_that_says_how_to_get_it(monkeypatch):
    def unknown(backend=None):
        raise RuntimeError(f"Unknown backend {backend}")

    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setattr(jax, "local_devices", unknown)
    native.host.cache_clear()
    native.load.cache_clear()
    native.instruction_sets.cache_clear()
    assert native.status() == (
        "native kernels need JAX's CPU backend, which JAX_PLATFORMS='cuda' leaves out; set JAX_PLATFORMS=cuda,cpu"
    )
    with pytest.raises(NotImplementedError, match="JAX_PLATFORMS=cuda,cpu"):
        generate(1, implementation="cpu")
    assert generate(1)[0].shape == (1, 20)  # by XLA
