"""When the CUDA kernel runs, what it says when it does not, and that a wrong one is noticed; the GPU is an emulator."""

import ctypes
from dataclasses import replace

import emulation
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from emulation import Emulator

from wavegen.kernels import WaveNetShape, draw, native, wavenet_generate, wavenet_init_state
from wavegen.kernels.wavenet import api, cuda
from wavegen.kernels.wavenet.call import Call
from wavegen.kernels.wavenet.cuda import gpu, op
from wavegen.kernels.wavenet.cuda.gpu import Runner
from wavegen.kernels.wavenet.cuda.plan import make_plan
from wavegen.kernels.wavenet.shapes import Net

NET = Net(WaveNetShape((1, 2), vocab_size=32), 32, 32, 32, 32)
WEIGHTS = jax.tree.map(lambda w: w.astype(jnp.bfloat16), NET.random_weights())
STATE = wavenet_init_state(WEIGHTS, NET.shape, 2)
CALL = Call(WEIGHTS, NET.shape, STATE, 4, key=draw.key_words(jax.random.key(0)))


def runner(name, launch):
    return Runner(name, 227 * 1024, 16, launch)


def off_by_a_tenth(*launched):
    tokens, rings, outputs = Emulator()(*launched)
    return [tokens, rings, 1.1 * outputs]


def hanging(plan, given, numbers, clusters, results):
    assert numbers["patience"] > 0
    return [jnp.full(r.shape, -1, r.dtype) for r in results]


def failing(*launched):
    raise jax.errors.JaxRuntimeError("INTERNAL: CUDA cannot launch the kernel\nand more")


@pytest.mark.skipif(emulation.COMPILER is None, reason="there is no g++ to compile the emulator")
@pytest.mark.parametrize(
    ("launch", "wrong"),
    [(off_by_a_tenth, "off by 0"), (hanging, "off by nan"), (failing, "CUDA cannot launch the kernel")],
)
def test_a_wrong_kernel_is_not_used_and_is_warned_of_once_in_one_line(launch, wrong):
    broken = runner(launch.__name__, launch)
    message = f"fails its test on {launch.__name__}.*{wrong}"
    with (
        pytest.warns(RuntimeWarning, match=message) as warned,
        pytest.raises(NotImplementedError, match=wrong),
    ):
        cuda.generate(CALL, broken)
    with pytest.raises(NotImplementedError, match=wrong):  # without a warning, which would be an error here
        cuda.generate(CALL, broken)
    assert len(warned) == 1
    assert "\n" not in str(warned[0].message)


@pytest.mark.skipif(emulation.COMPILER is None, reason="there is no g++ to compile the emulator")
def test_a_right_one_comes_first_and_is_tested_once(monkeypatch):
    launched = []

    def launch(plan, given, numbers, *more):
        launched.append(numbers["steps"])
        return Emulator()(plan, given, numbers, *more)

    monkeypatch.setattr(op, "gpu_runner", lambda: runner("right", launch))
    assert next(iter(api.IMPLEMENTATIONS)) == "cuda"
    assert cuda.takes(WEIGHTS, NET.shape)
    tokens = [wavenet_generate(WEIGHTS, NET.shape, STATE, 4, key=jax.random.key(0))[0] for _ in range(2)]
    np.testing.assert_array_equal(*tokens)
    assert launched == [op.PROVEN_STEPS, 4, 4]
    # Other types go to the next implementation, which runs on this machine.
    wide = NET.random_weights()
    state = wavenet_init_state(wide, NET.shape, 2)
    assert not cuda.takes(wide, NET.shape)
    assert wavenet_generate(wide, NET.shape, state, 4, key=jax.random.key(0))[0].shape == (2, 4)


def test_groups_are_spread_over_clusters_first():
    plan = make_plan(WEIGHTS, NET.shape)
    assert op.divide(1, plan, 16) == (1, 1)
    assert op.divide(128, plan, 16) == (1, 16)
    assert op.divide(136, plan, 16) == (2, 9)
    assert op.divide(8 * 16 * 4 + 1, plan, 16) == (4, 17)


def test_without_a_gpu_it_steps_aside():
    with pytest.raises(NotImplementedError, match="runs on GPUs only, JAX computes on cpu"):
        cuda.generate(CALL)
    assert not cuda.takes(WEIGHTS, NET.shape)


@pytest.mark.parametrize("capability", ["7.0", "8.9"])
def test_gpus_without_clusters_are_refused(capability):
    with pytest.raises(NotImplementedError, match=f"9.0 or more, this one has {capability}"):
        gpu.check_capability(capability)


def test_capabilities_with_clusters():
    assert [gpu.check_capability(name) for name in ("9.0", "10.3", "12.1")] == [9, 10, 12]


def test_without_a_driver_the_native_library_says_so_in_one_line():
    try:
        ctypes.CDLL("libcuda.so.1")
        pytest.skip("this machine has a CUDA driver")
    except OSError:
        pass
    try:
        native.find()
    except NotImplementedError as reason:
        pytest.skip(str(reason))
    with pytest.raises(
        NotImplementedError, match=r"the CUDA driver cannot be opened: libcuda\.so\.1"
    ) as refused:
        gpu.library()
    assert "\n" not in str(refused.value)


def test_networks_are_described_by_their_weights():
    other = Net(WaveNetShape((1, 2), head="mixture"), 24, 16, 40, 32, 3, 2, condition=5, scalar_input=True)
    for net in (NET, other):
        assert op.net_of(jax.eval_shape(net.random_weights), net.shape) == net
    assert op.net_of(WEIGHTS, NET.shape) == replace(NET)
