"""Checkpoints: what was saved comes back bit for bit, and damage never does."""

import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from wavegen.errors import WavegenError
from wavegen.runs import checkpoints
from wavegen.runs.checkpoints import Checkpoints
from wavegen.runs.checksums import find_damage
from wavegen.training.mesh import make_mesh, state_sharding
from wavegen.training.optimizer import make_optimizer
from wavegen.training.state import abstract_state, init_state, state_hash

CONFIG = {"version": 1, "model": {"name": "wavenet", "dilations": [1, 2, 4]}, "rate": 1e-4}


def make_state(seed: int = 0, width: int = 5, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    params = {
        "layers": {0: {"kernel": jnp.asarray(rng.normal(size=(2, width)), dtype)}, 1: {"bias": jnp.ones(3)}},
        "embedding": jnp.asarray(rng.normal(size=(8, 4)), jnp.float32),
    }
    return init_state(params, make_optimizer(1e-3), ema=True)


def save_steps(folder: Path, steps, **options) -> dict[int, str]:
    """Save one state a step and return their hashes."""
    hashes = {}
    with Checkpoints(folder, **options) as checkpoints:
        for step in steps:
            state = make_state(seed=step)
            hashes[step] = state_hash(state)
            checkpoints.save(step, state, {**CONFIG, "step": step})
    return hashes


def kept_steps(folder: Path) -> list[int]:
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def test_restore_returns_state_step_and_config_as_saved(tmp_path):
    hashes = save_steps(tmp_path, [1, 2])
    with Checkpoints(tmp_path) as checkpoints:
        state, step, config = checkpoints.restore(abstract_state(make_state()))
        assert (step, state_hash(state)) == (2, hashes[2])
        assert config == {**CONFIG, "step": 2}
        assert jax.tree.structure(state) == jax.tree.structure(make_state())
        state, step, _ = checkpoints.restore(abstract_state(make_state()), step=1)
        assert (step, state_hash(state)) == (1, hashes[1])
        assert checkpoints.config(1)["step"] == 1
        assert checkpoints.latest_step() == 2


def test_state_without_an_average_comes_back(tmp_path):
    state = init_state({"a": jnp.arange(3.0)}, make_optimizer(1e-3), ema=False)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, CONFIG)
        restored, _, _ = checkpoints.restore(abstract_state(state))
    assert restored["ema"] == {}
    assert state_hash(restored) == state_hash(state)


def test_a_saved_state_may_be_donated_at_once(tmp_path):
    state = {"x": jnp.arange(2.0**18)}
    before = state_hash(state)
    step = jax.jit(lambda s: jax.tree.map(lambda x: x * -3, s), donate_argnums=0)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, CONFIG)
        for _ in range(20):
            state = step(state)
        restored, _, _ = checkpoints.restore(abstract_state(state))
    assert state_hash(restored) == before


# Orbax's own notes about the commit: they change after the manifest is written, and no restore needs them.
NOT_NEEDED = {"_CHECKPOINT_METADATA", "commit_success.txt"}


def test_a_flipped_byte_is_found_in_every_file(tmp_path):
    save_steps(tmp_path, [1])
    folder = epath.Path(tmp_path / "1")
    assert find_damage(folder) is None
    files = [path for path in (tmp_path / "1").rglob("*") if path.is_file() and path.name not in NOT_NEEDED]
    assert len(files) > 5
    for path in files:
        flip_a_byte(path)
        why = "is missing or damaged" if path.name == "manifest.json" else "does not have the sha256"
        assert re.match(f"{path} {why}", find_damage(folder) or ""), path
        flip_a_byte(path)
    assert find_damage(folder) is None


def test_a_flipped_byte_in_the_newest_checkpoint_warns_and_the_one_before_is_used(tmp_path):
    hashes = save_steps(tmp_path, [1, 2])
    for name in NOT_NEEDED:
        flip_a_byte(tmp_path / "2" / name)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore(abstract_state(make_state()))[1] == 2
    data = max((tmp_path / "2/state").rglob("d/*"), key=lambda path: path.stat().st_size)
    flip_a_byte(data)
    message = (
        f"checkpoint 2 is damaged and is left out: {data} does not have the sha256 with which it was written"
    )
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.warns(UserWarning, match=re.escape(message)):
            state, step, config = checkpoints.restore(abstract_state(make_state()))
        assert (step, state_hash(state), config["step"]) == (1, hashes[1], 1)


@pytest.mark.parametrize("how", ["truncated", "empty", "missing"])
def test_a_broken_file_is_named_and_the_step_before_is_used(tmp_path, how):
    hashes = save_steps(tmp_path, [1, 2])
    path = max((tmp_path / "2/state").rglob("*"), key=lambda p: p.stat().st_size if p.is_file() else 0)
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: 7 if how == "truncated" else 0])
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.warns(UserWarning, match=f"checkpoint 2 is damaged and is left out: {path} "):
            state, step, _ = checkpoints.restore(abstract_state(make_state()))
        assert (step, state_hash(state)) == (1, hashes[1])
        assert checkpoints.config()["step"] == 1  # the same choice, and no second warning
        with pytest.raises(
            WavegenError, match=r"expected an undamaged checkpoint in .*, got damage in step 2;"
        ):
            checkpoints.restore(abstract_state(make_state()), step=2)


def test_a_run_goes_on_over_a_damaged_step(tmp_path):
    save_steps(tmp_path, [10, 20])
    (tmp_path / "20/manifest.json").unlink()
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.warns(UserWarning, match=r"20/manifest.json is missing"):
            _, step, _ = checkpoints.restore(abstract_state(make_state()))
        assert step == 10
        checkpoints.save(15, make_state(15), CONFIG)
        assert checkpoints.latest_step() == 15
        checkpoints.save(20, make_state(20), CONFIG)
        state, step, _ = checkpoints.restore(abstract_state(make_state()))
    assert (step, state_hash(state)) == (20, state_hash(make_state(20)))


def test_nothing_usable_is_one_line(tmp_path):
    with Checkpoints(tmp_path / "none") as checkpoints:
        with pytest.raises(WavegenError, match=r"expected a checkpoint in .*none, got none; train first"):
            checkpoints.restore(abstract_state(make_state()))
        assert checkpoints.latest_step() is None
        assert checkpoints.best_step() is None
    save_steps(tmp_path, [1, 2])
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(
            WavegenError, match=re.escape("expected one of the steps [1, 2] of ") + ".*, got 7;"
        ):
            checkpoints.restore(abstract_state(make_state()), step=7)
        for step in (1, 2):
            (tmp_path / f"{step}/config/metadata").unlink()
        with (
            pytest.warns(UserWarning, match="config/metadata is missing"),
            pytest.raises(WavegenError, match="got damage in step 1, 2; choose another") as caught,
        ):
            checkpoints.restore(abstract_state(make_state()))
    assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WavegenError, match=r"expected a writable folder for checkpoints, got .* \(Not a dir"):
        Checkpoints(tmp_path / "file/checkpoints")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            {"width": 6},
            r"expected params/layers/0/kernel to be float32\[2,6\], got float32\[2,5\] in checkpoint 1",
        ),
        ({"dtype": jnp.bfloat16}, r"params/layers/0/kernel to be bfloat16\[2,5\], got float32\[2,5\]"),
    ],
)
def test_a_checkpoint_of_another_model_names_the_array(tmp_path, other, message):
    save_steps(tmp_path, [1])
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(WavegenError, match=message.replace("params", "(params|ema)")) as caught:
            checkpoints.restore(abstract_state(make_state(**other)))
        assert "another model; use the config it was trained with" in str(caught.value)
        more = make_state()
        more["params"]["gain"] = jnp.ones(2)
        with pytest.raises(WavegenError, match=r"expected params/gain to be float32\[2\], got none"):
            checkpoints.restore(abstract_state(more))
        less = make_state()
        del less["params"]["embedding"]
        with pytest.raises(WavegenError, match=r"expected params/embedding to be absent, got float32\[8,4\]"):
            checkpoints.restore(abstract_state(less))


def test_newest_and_best_stay_and_nan_is_never_best(tmp_path):
    metrics = [3.0, 1.0, float("nan"), 2.0, None, float("inf"), 5.0]
    with Checkpoints(tmp_path, keep_latest=2, keep_best=1) as checkpoints:
        for step, metric in enumerate(metrics[:4]):
            checkpoints.save(step, make_state(step), CONFIG, metric)
    assert kept_steps(tmp_path) == [1, 2, 3]
    with Checkpoints(tmp_path, keep_latest=2, keep_best=1) as checkpoints:  # metrics are read back
        assert checkpoints.best_step() == 1
        for step, metric in list(enumerate(metrics))[4:]:
            checkpoints.save(step, make_state(step), CONFIG, metric)
        assert checkpoints.best_step() == 1
    assert kept_steps(tmp_path) == [1, 5, 6]


def test_worsening_metrics_do_not_cost_the_newest(tmp_path):
    with Checkpoints(tmp_path, keep_latest=1, keep_best=2) as checkpoints:
        for step in range(5):
            checkpoints.save(step, make_state(step), CONFIG, metric=float(step))
    assert kept_steps(tmp_path) == [0, 1, 4]


def test_a_full_disk_warns_once_then_raises_and_spares_older_steps(tmp_path):
    hashes = save_steps(tmp_path, [1, 2])
    big = {"x": jax.random.normal(jax.random.key(0), (2**16,))}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    checkpoints = Checkpoints(tmp_path)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**14, limits[1]))  # stands in for a full disk
        checkpoints.save(3, big, CONFIG)
        with pytest.warns(UserWarning, match=r"expected to write checkpoint 3 in .*too large.*free space"):
            checkpoints.save(4, big, CONFIG)
        with pytest.raises(WavegenError, match=r"expected to write checkpoint 4 in .*too large.*free space"):
            checkpoints.save(5, big, CONFIG)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert kept_steps(tmp_path) == [1, 2]
    state, step, _ = checkpoints.restore(abstract_state(make_state()))
    assert (step, state_hash(state)) == (2, hashes[2])
    checkpoints.save(5, big, CONFIG)  # there is space again
    checkpoints.close()
    assert kept_steps(tmp_path) == [2, 5]
    assert not list(tmp_path.glob("*tmp*"))


def test_of_what_escapes_orbax_only_late_writes_are_silent(monkeypatch):
    told = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, trace: told.append(error))
    monkeypatch.setattr(sys, "unraisablehook", lambda what: told.append(what.exc_value))
    checkpoints._leave_words_to_us.__wrapped__()
    for error in (RuntimeError("Event loop is closed"), RuntimeError("something else")):
        sys.excepthook(RuntimeError, error, None)
        # What tensorstore does with an error in a callback.
        parts = {"exc_type": RuntimeError, "exc_value": error, "exc_traceback": None, "err_msg": None}
        sys.unraisablehook(SimpleNamespace(**parts, object=None))
    assert [str(error) for error in told] == ["something else"] * 2


def test_close_raises_when_the_last_save_failed(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    checkpoints = Checkpoints(tmp_path)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**14, limits[1]))
        checkpoints.save(1, {"x": jax.random.normal(jax.random.key(0), (2**16,))}, CONFIG)
        with (
            pytest.warns(UserWarning, match="checkpoint 1"),
            pytest.raises(WavegenError, match="checkpoint 1"),
        ):
            checkpoints.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_saved_on_eight_devices_restores_on_one_and_back(tmp_path):
    state = {"params": {"kernel": jnp.arange(64.0 * 24).reshape(64, 24), "bias": jnp.arange(24.0)}}
    before = state_hash(state)
    mesh = make_mesh(data=2, fsdp=4)
    shardings = state_sharding(state, mesh, smallest=1)
    spread = jax.device_put(state, shardings)
    assert len(spread["params"]["kernel"].addressable_shards[0].data) == 16
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, spread, CONFIG)
        one, _, _ = checkpoints.restore(jax.eval_shape(lambda: state))
        assert one["params"]["kernel"].devices() == {jax.devices()[0]}
        assert state_hash(one) == before
        checkpoints.save(2, one, CONFIG)
        back, _, _ = checkpoints.restore(abstract_state(spread))
        assert back["params"]["kernel"].sharding == shardings["params"]["kernel"]
        assert state_hash(back) == before


SAVER = """
import sys
import jax, jax.numpy as jnp
from wavegen.runs.checkpoints import Checkpoints

step_once = jax.jit(lambda s: {"x": s["x"] * 1.0001 + 0.5, "step": s["step"] + 1}, donate_argnums=0)
state = {"x": jnp.arange(50_000.0), "step": jnp.zeros((), jnp.int32)}
start, last = 0, int(sys.argv[2])
checkpoints = Checkpoints(sys.argv[1])
if checkpoints.latest_step() is not None:
    state, start, _ = checkpoints.restore(state)
print("start", start, flush=True)
for step in range(start + 1, last + 1):
    state = step_once(state)
    checkpoints.save(step, state, {"step": step})
    print("saved", step, flush=True)
checkpoints.close()
"""


@pytest.mark.slow
def test_killed_in_the_middle_of_saves_it_goes_on_as_if_uninterrupted(tmp_path):
    def start(folder: str, last: int) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-W", "error::UserWarning", "-c", SAVER, str(tmp_path / folder), str(last)],
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=1",
            },
            cwd=Path(__file__).parents[2],
        )

    chance = random.Random(0)
    reached = 0
    for _ in range(3):
        process = start("killed", 10_000)
        assert process.stdout is not None
        assert int(process.stdout.readline().split()[1]) >= reached - 2
        for _ in range(chance.randint(2, 5)):
            reached = int(process.stdout.readline().split()[1])
        time.sleep(chance.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    last = reached + 5
    final = start("killed", last)
    final.communicate()
    assert final.returncode == 0
    target = {"x": jnp.arange(50_000.0), "step": jnp.zeros((), jnp.int32)}
    with Checkpoints(tmp_path / "killed") as checkpoints:
        state, *rest = checkpoints.restore(target)
    assert rest == [last, {"step": last}]
    step_once = jax.jit(lambda s: {"x": s["x"] * 1.0001 + 0.5, "step": s["step"] + 1})
    for _ in range(last):
        target = step_once(target)
    assert state_hash(state) == state_hash(target)
