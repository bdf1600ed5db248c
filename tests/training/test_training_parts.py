"""State, optimizer, mesh and stop signals, each by its law."""

import math
import os
import platform
import signal
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from wavegen.config.models import WaveNetConfig
from wavegen.errors import WavegenError
from wavegen.models.likelihood import next_token
from wavegen.models.wavenet import WaveNet
from wavegen.networks.base import Outcome, add_outcomes
from wavegen.stopping import SIGNALS
from wavegen.training.mesh import initialize_distributed, make_mesh, shard_batch, shard_state, state_sharding
from wavegen.training.optimizer import make_optimizer, make_schedule, skipped_updates
from wavegen.training.signals import TrainingStop
from wavegen.training.state import abstract_state, count_parameters, init_state, state_hash, update_ema


def make_params():
    return {"kernel": jnp.arange(12.0).reshape(3, 4) / 10, "bias": jnp.ones(4)}


# --- objectives --------------------------------------------------------------------------------------------


def test_parts_of_a_batch_add_up_but_candidates_are_of_one():
    def outcome(x):
        statistics = {"counts": jnp.full(2, x), "candidates": jnp.full((2, 3), x)}
        return Outcome(jnp.float32(x), jnp.int32(x), {"mel": jnp.float32(x)}, statistics)

    both = add_outcomes(outcome(1), outcome(2))
    assert (both.total, both.scored, both.figures["mel"]) == (3, 3, 3)
    np.testing.assert_array_equal(both.statistics["counts"], 3)
    np.testing.assert_array_equal(both.statistics["candidates"], 2)


@pytest.mark.parametrize("head", ["softmax", "mixture"])
def test_accuracy_is_counted_over_scored_tokens_in_evaluation_alone(head):
    """Of three scored tokens two have the likeliest value; a mixture's parameters do not tell which that is."""
    config = WaveNetConfig(dilations=(1,), residual_channels=2, gate_channels=2, head={"kind": head})
    random = np.random.default_rng(0)
    model = WaveNet(config, vocab_size=4, mu=0, start_token=2, random=random)
    inputs = jnp.asarray([[[0], [3], [1], [2]]])
    logits = model(inputs)
    likeliest = jnp.argmax(logits[..., :4], axis=-1)
    examples = {
        "inputs": inputs,
        "targets": likeliest.at[0, 1].set((likeliest[0, 1] + 1) % 4),
        "mask": jnp.asarray([[True, True, True, False]]),
    }
    outcome = next_token(model, examples, None)
    assert int(outcome.scored) == 3
    assert {name: int(x) for name, x in outcome.figures.items()} == (
        {"accuracy": 2} if head == "softmax" else {}
    )
    assert next_token(model, examples, jax.random.key(0)).figures == {}


# --- state -------------------------------------------------------------------------------------------------


def test_state_can_be_donated_and_counts():
    params = make_params()
    state = init_state(params, make_optimizer(1e-3), ema=True)
    assert count_parameters(params) == 16
    assert sorted(state) == ["ema", "optimizer", "params", "step"]
    assert init_state(params, make_optimizer(1e-3), ema=False)["ema"] == {}
    double = jax.jit(lambda s: jax.tree.map(lambda x: x * 2, s), donate_argnums=0)
    assert int(double(state)["step"]) == 0
    assert state["params"]["kernel"].is_deleted()


def test_state_hash_tells_any_change():
    state = {"a": jnp.zeros(3), "b": {"c": jnp.ones((), jnp.int32)}}
    same = {"b": {"c": jnp.ones((), jnp.int32)}, "a": jnp.zeros(3)}
    assert state_hash(state) == state_hash(same)
    for other in (
        {**state, "a": jnp.zeros(3).at[1].set(-0.0)},  # equal as numbers, not as bits
        {**state, "a": jnp.zeros((3, 1))},
        {**state, "a": jnp.zeros(3, jnp.int32)},
        {"x": state["a"], "b": state["b"]},
    ):
        assert state_hash(other) != state_hash(state)


def test_ema_forgets_the_start_and_then_follows_the_decay():
    ema, params = {"x": jnp.zeros(2)}, {"x": jnp.ones(2)}
    np.testing.assert_allclose(update_ema(ema, params, decay=0.99, step=jnp.int32(0))["x"], 0.9)
    np.testing.assert_allclose(
        update_ema(ema, params, decay=0.99, step=jnp.int32(10**6))["x"], 0.01, rtol=1e-5
    )
    assert update_ema({}, params, decay=0.99, step=jnp.int32(0)) == {}


# --- optimizer ---------------------------------------------------------------------------------------------


def test_schedule_rises_falls_and_stays():
    rate = make_schedule(learning_rate=1.0, warmup_steps=4, total_steps=104, final_fraction=0.1)
    np.testing.assert_allclose([rate(n) for n in range(5)], [0.2, 0.4, 0.6, 0.8, 1.0], rtol=1e-6)
    np.testing.assert_allclose(rate(54), 0.55, rtol=1e-6)
    np.testing.assert_allclose([rate(104), rate(500)], 0.1, rtol=1e-6)
    assert make_schedule(learning_rate=1.0, warmup_steps=0, total_steps=10)(0) == 1.0
    with pytest.raises(WavegenError, match="got warmup_steps=10 and total_steps=10; shorten the warm-up"):
        make_schedule(learning_rate=1.0, warmup_steps=10, total_steps=10)


def test_weight_decay_leaves_biases_alone():
    params = make_params()
    optimizer = make_optimizer(0.1, weight_decay=0.5)
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zero, optimizer.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -0.05 * params["kernel"], rtol=1e-6)
    np.testing.assert_array_equal(updates["bias"], 0)


def test_gradients_are_clipped_by_their_global_norm():
    params = make_params()
    clipped, plain = make_optimizer(1.0, clip_norm=1.0), optax.adam(1.0)
    gradients = jax.tree.map(lambda p: 100 * jnp.ones_like(p), params)
    _, state = clipped.update(gradients, clipped.init(params), params)
    unit = jax.tree.map(lambda g: g / (100 * math.sqrt(16)), gradients)
    _, expected = plain.update(unit, plain.init(params), params)
    moments = optax.tree.get(state, "mu")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), moments, expected[0].mu)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_step_on_bad_gradients_changes_nothing_but_the_count(bad):
    params = make_params()
    optimizer = make_optimizer(
        make_schedule(learning_rate=1e-2, warmup_steps=2, total_steps=10), weight_decay=0.1
    )
    update = jax.jit(optimizer.update)
    good = jax.tree.map(jnp.ones_like, params)
    poisoned = {**good, "bias": good["bias"].at[2].set(bad)}
    _, before = update(good, optimizer.init(params), params)
    state = before
    for count in (1, 2, 3):
        updates, state = update(poisoned, state, params)
        assert all(not leaf.any() for leaf in jax.tree.leaves(updates))
        assert {k: int(v) for k, v in skipped_updates(state).items()} == {"in_a_row": count, "total": count}
    assert state_hash(state.inner_state) == state_hash(before.inner_state)
    updates, state = update(good, state, params)
    expected, _ = update(good, before, params)
    assert state_hash(updates) == state_hash(expected)
    assert {k: int(v) for k, v in skipped_updates(state).items()} == {"in_a_row": 0, "total": 3}


# --- mesh --------------------------------------------------------------------------------------------------


def test_mesh_takes_all_devices_or_says_why_not():
    assert dict(make_mesh().shape) == {"data": 8, "fsdp": 1}
    assert dict(make_mesh(fsdp=4).shape) == {"data": 2, "fsdp": 4}
    for data, fsdp in ((3, 2), (-1, 3), (-1, 0), (8, 2), (0, 8)):
        with pytest.raises(
            WavegenError, match=rf"data \* fsdp == 8 devices, got data={data} and fsdp={fsdp};"
        ):
            make_mesh(data, fsdp)


def test_large_arrays_are_split_over_fsdp_by_their_longest_axis_and_small_ones_whole():
    mesh = make_mesh(data=2, fsdp=4)
    shapes = {
        "wide": (64, 2048),
        "tall": (2048, 64),
        "odd": (333, 2048),
        "prime": (331, 331),
        "small": (64, 64),
    }
    params = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    found = {name: sharding.spec for name, sharding in state_sharding(params, mesh).items()}
    whole = P()
    assert found == {
        "wide": P(None, "fsdp"),
        "tall": P("fsdp"),
        "odd": P(None, "fsdp"),
        "prime": whole,
        "small": whole,
    }
    assert all(s.spec == whole for s in state_sharding(params, make_mesh()).values())


def train(state, mesh, steps: int = 3):
    """A few steps of a linear regression on the mesh; the loss and the state."""
    optimizer = make_optimizer(1e-2)

    def step(state, batch):
        def loss_of(params):
            return jnp.mean((batch["x"] @ params["kernel"] - batch["y"]) ** 2)

        loss, gradients = jax.value_and_grad(loss_of)(state["params"])
        updates, optimizer_state = optimizer.update(gradients, state["optimizer"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        return {**state, "params": params, "optimizer": optimizer_state, "step": state["step"] + 1}, loss

    step = jax.jit(step, donate_argnums=0)
    for index in range(steps):
        rng = np.random.default_rng(index)
        x = rng.normal(size=(16, 64)).astype(np.float32)
        state, loss = step(state, shard_batch({"x": x, "y": x[:, :1].repeat(2048, axis=1)}, mesh))
    return float(loss), state


def test_eight_devices_train_as_one():
    def start():
        kernel = jax.random.normal(jax.random.key(0), (64, 2048))
        return init_state({"kernel": kernel}, make_optimizer(1e-2), ema=True)

    single = Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("data", "fsdp"))
    loss, one = train(start(), single)
    mesh = make_mesh(data=2, fsdp=4)
    sharded_loss, many = train(shard_state(start(), mesh), mesh)
    np.testing.assert_allclose(sharded_loss, loss, rtol=1e-5)
    np.testing.assert_allclose(many["params"]["kernel"], one["params"]["kernel"], rtol=1e-4, atol=1e-6)
    for part in (many["params"], many["ema"], optax.tree.get(many["optimizer"], "mu")):
        assert part["kernel"].addressable_shards[0].data.shape == (64, 512)
    assert abstract_state(many)["params"]["kernel"].sharding == many["params"]["kernel"].sharding


def test_a_batch_that_cannot_be_dealt_out_is_one_line():
    with pytest.raises(
        WavegenError, match=r"8 devices can share evenly, got 12 rows in \['x'\]; make the batch"
    ):
        shard_batch({"x": np.zeros((12, 3), np.float32)}, make_mesh())


def test_half_given_process_settings_name_the_missing(monkeypatch):
    monkeypatch.setenv("WAVEGEN_COORDINATOR", "localhost:1234")
    with pytest.raises(WavegenError, match="got no WAVEGEN_PROCESS_ID; set that too"):
        initialize_distributed(num_processes=2)
    monkeypatch.setenv("WAVEGEN_NUM_PROCESSES", "two")
    with pytest.raises(WavegenError, match=r"expected whole numbers in .*'two'"):
        initialize_distributed(process_id=0)


def test_one_process_alone_has_nothing_to_join(monkeypatch):
    jax.devices()  # devices in use, as in a notebook
    initialize_distributed()
    assert not jax.distributed.is_initialized()
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    with pytest.raises(WavegenError, match="join the processes that SLURM_STEP_NUM_TASKS announces, got jax"):
        initialize_distributed()
    initialize_distributed(num_processes=1)
    assert not jax.distributed.is_initialized()


TWO_PROCESSES = """
import os, signal, sys
import jax, jax.numpy as jnp, numpy as np
from wavegen.runs.checkpoints import Checkpoints
from wavegen.training.mesh import initialize_distributed, make_mesh, shard_batch, shard_state
from wavegen.training.signals import TrainingStop
from wavegen.training.state import abstract_state

initialize_distributed()
assert jax.process_count() == int(os.environ.get("WAVEGEN_NUM_PROCESSES", 1))
mesh = make_mesh(data=1, fsdp=2)
state = shard_state({"w": jnp.linspace(-1, 1, 2**16).reshape(256, 256)}, mesh)
assert state["w"].addressable_shards[0].data.shape == (128, 256)

@jax.jit
def update(state, batch):
    loss, grad = jax.value_and_grad(lambda w: jnp.mean((batch @ w - 1) ** 2))(state["w"])
    return {"w": state["w"] - grad}, loss

folder, count, index = sys.argv[1], jax.process_count(), jax.process_index()
checkpoints = Checkpoints(folder)
with TrainingStop() as stop:
    for step in range(1, 2000):
        rows = np.random.default_rng(step).normal(size=(4, 256)).astype(np.float32)
        share = 4 // count
        state, loss = update(state, shard_batch(rows[index * share : (index + 1) * share], mesh))
        if step == 5:
            print("loss", float(loss), flush=True)
            checkpoints.save(step, state, {"step": step})
            if index == count - 1:
                os.kill(os.getpid(), signal.SIGTERM)
        if stop.reached(step):
            break
print("stopped", step, flush=True)
checkpoints.save(step + 1, state, {"step": step})
restored, at, _ = checkpoints.restore(abstract_state(state))
assert at == step + 1
same = jax.jit(lambda a, b: (a == b).all())(restored["w"], state["w"])
print("same", bool(same), flush=True)
restored, at, _ = checkpoints.restore(abstract_state(state), step=5)
print("again", at, flush=True)
checkpoints.close()
"""


def run_processes(tmp_path: Path, count: int) -> list[dict[str, str]]:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    common = {
        k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "OMPI", "KUBERNETES", "WAVEGEN"))
    }
    common["XLA_FLAGS"] = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={2 // count}"
    processes = []
    for index in range(count):
        names = {
            "WAVEGEN_COORDINATOR": f"localhost:{port}",
            "WAVEGEN_NUM_PROCESSES": str(count),
            "WAVEGEN_PROCESS_ID": str(index),
        }
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", TWO_PROCESSES, str(tmp_path)],
                env=common | (names if count > 1 else {}),
                cwd=Path(__file__).parents[2],
                stdout=subprocess.PIPE,
                text=True,
            )
        )
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * count
    return [
        dict(line.split() for line in output.splitlines() if len(line.split()) == 2) for output in outputs
    ]


@pytest.mark.slow
def test_two_processes_train_save_and_stop_as_one(tmp_path):
    first, second = run_processes(tmp_path / "two", 2)
    (alone,) = run_processes(tmp_path / "one", 1)
    assert first == second  # the step of a SIGTERM to one of them included
    assert first["same"] == alone["same"] == "True"
    assert first["again"] == alone["again"] == "5"
    assert 5 <= int(first["stopped"]) < 1999
    assert alone["stopped"] == "5"
    np.testing.assert_allclose(float(first["loss"]), float(alone["loss"]), rtol=1e-5)


# --- signals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_asks_and_the_second_insists(number, capfd, request):
    # This test may run in a job of nohup, where SIGHUP is ignored and stays so.
    outside = signal.signal(number, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(number, outside))
    before = [signal.getsignal(n) for n in SIGNALS]
    with TrainingStop() as stop:
        assert not stop.reached(1)
        os.kill(os.getpid(), number)
        assert stop.reached(2)
        assert f"{number.name}: stopping after this step" in capfd.readouterr().err
        with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else SystemExit) as caught:
            os.kill(os.getpid(), number)
        if number != signal.SIGINT:
            assert caught.value.code == 128 + number
    assert [signal.getsignal(n) for n in SIGNALS] == before
    with pytest.raises(type(caught.value)):
        stop.interrupt()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library's malloc is not glibc's")
def test_freed_memory_is_kept_and_not_mapped_anew():
    program = """
import resource
import numpy as np
from wavegen.training.malloc import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        np.ones(2**24, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(faults(), keep_freed_memory(), np.ones(2**24).size and faults(), faults())
"""
    result = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    before, done, _, after = result.stdout.split()
    assert done == "True"
    assert int(after) < 0.01 * int(before), result.stdout
