"""Checks and measures the samplers on a GPU, the most valuable first, within minutes.

    python benchmarks/gpu/gpu_check.py --out FOLDER          # on a GPU
    python benchmarks/gpu/gpu_check.py --out FOLDER --cpu    # small, with XLA in place of kernels, to find mistakes
    python benchmarks/gpu/gpu_check.py --out FOLDER --only parity,rates

Every step is a process of its own with a limit, at which it is killed; the next one goes on. Every figure is a line of
results.jsonl at once, so that what was measured before a kill is kept.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

LIMITS = {
    "machine": 60,
    "parity": 90,
    "rates": 90,
    "others": 100,
    "host": 40,
    "mosaic": 120,
    "training": 110,
    "product": 110,
}
"""Seconds for each step, in order of value."""
KEY = 3
TEMPERATURE = 0.7


def emit(out: Path, **row: Any) -> None:
    """Writes one result, and flushes it to the disk."""
    line = json.dumps(row, default=str)
    with (out / "results.jsonl").open("a") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())
    print(line, flush=True)


# steps: each takes what writes a result, and whether this is the small form on a CPU


def nets(small: bool) -> dict[str, Any]:
    """Returns the networks that are measured, by name."""
    from wavegen.kernels import WaveNetShape
    from wavegen.kernels.wavenet.shapes import NETS, Net

    tiny = Net(WaveNetShape((1, 2), vocab_size=64), 32, 32, 32, 32)
    if small:
        return {"tiny": tiny}
    quickstart = Net(WaveNetShape((1, 4, 16, 64)), 32, 32, 64, 64, 4)
    return {"tiny": tiny, "20x64x128": NETS["20x64x128"], "quickstart": quickstart} | NETS


def weights_of(net: Any, *dtypes: str) -> Any:
    """Returns random weights, rounded to one type after another."""
    import jax

    weights = net.random_weights()
    for dtype in dtypes:
        weights = jax.tree.map(lambda w, dtype=dtype: w.astype(dtype), weights)
    return weights


def generate(net: Any, weights: Any, batch: int, steps: int, name: str, **more: Any) -> Any:
    """Generates, from the beginning unless a state is given."""
    import jax

    from wavegen.kernels import wavenet_generate, wavenet_init_state

    state = more.pop("state", None) or wavenet_init_state(weights, net.shape, batch)
    if net.condition:
        more["condition"] = jax.numpy.ones((batch, 1, net.condition))
    options = {"key": jax.random.key(KEY), "temperature": TEMPERATURE, "implementation": name} | more
    return wavenet_generate(weights, net.shape, state, steps, **options)


def check_parity(
    result: Callable[..., None], net_name: str, net: Any, batch: int, steps: int, name: str
) -> None:
    """Compares outputs with the portable sampler's in float32 for the same tokens; halves; and the same call again."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    weights = weights_of(net, "bfloat16")
    start = time.time()
    tokens, state, outputs = jax.block_until_ready(
        generate(net, weights, batch, steps, name, return_logits=True)
    )
    first = time.time() - start
    again = generate(net, weights, batch, steps, name, return_logits=True)
    half = generate(net, weights, batch, steps // 2, name)
    rest = generate(net, weights, batch, steps - steps // 2, name, state=half[1])
    wide = weights_of(net, "bfloat16", "float32")
    exact = generate(net, wide, batch, steps, "xla", forced=tokens, return_logits=True)
    by_step = np.abs(np.asarray(outputs) - np.asarray(exact[2])).max(axis=(0, 2)) / np.abs(exact[2]).max()
    rings, true_rings = (np.asarray(s["rings"], np.float32) for s in (state, exact[1]))
    figures = {
        "error_first": float(by_step[0]),
        "error_worst": float(by_step.max()),
        "error_rings": float(np.abs(rings - true_rings).max() / np.abs(true_rings).max()),
        "chunks_equal": bool((jnp.concatenate([half[0], rest[0]], axis=1) == tokens).all()),
        "repeat_equal": bool((again[2] == outputs).all()),  # a figure that moves is a race
        "distinct": len(np.unique(tokens)),
    }
    good = max(figures["error_worst"], figures["error_rings"]) < 0.03
    good = good and figures["chunks_equal"] and figures["repeat_equal"]
    place = {"net": net_name, "implementation": name, "batch": batch, "steps": steps}
    result("parity", ok=good, first_s=round(first, 1), **place, **figures)


def measure(
    result: Callable[..., None],
    net_name: str,
    net: Any,
    batch: int,
    steps: int,
    name: str,
    dtype: str = "bfloat16",
) -> None:
    """Measures samples per second: the median of up to five calls after one that compiles."""
    import jax
    import numpy as np

    weights = weights_of(net, dtype)
    call = jax.jit(lambda weights: generate(net, weights, batch, steps, name)[0])
    start = time.time()
    jax.block_until_ready(call(weights))
    first, times = time.time() - start, []
    while len(times) < 5 and sum(times) < 3:
        start = time.perf_counter()
        jax.block_until_ready(call(weights))
        times.append(time.perf_counter() - start)
    seconds = float(np.median(times))
    place = {"net": net_name, "implementation": name, "dtype": dtype, "batch": batch, "steps": steps}
    rates = {"per_stream": round(steps / seconds), "total": round(steps * batch / seconds)}
    spread = round(max(times) / min(times), 3)
    result("rate", **place, **rates, calls=len(times), spread=spread, first_s=round(first, 2))


def step_machine(result: Callable[..., None], small: bool) -> None:
    """Versions, the device, and which implementation steps aside and why."""
    import importlib.metadata

    import jax

    from wavegen.kernels import native
    from wavegen.kernels.wavenet.api import IMPLEMENTATIONS

    names = ("jax", "jaxlib", "jax-cuda13-plugin", "numpy", "flax", "nvidia-cuda-nvrtc")
    installed = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
    device = jax.devices()[0]
    result("versions", python=sys.version.split()[0], **{name: installed.get(name) for name in names})
    about = {
        name: getattr(device, name, None) for name in ("device_kind", "compute_capability", "core_count")
    }
    result("device", backend=jax.default_backend(), native=native.status(), **about)
    net = nets(small)["tiny"]
    for name in IMPLEMENTATIONS:
        try:
            jax.block_until_ready(generate(net, weights_of(net, "bfloat16"), 64, 2, name))
            result("runs", implementation=name)
        except NotImplementedError as reason:
            result("steps aside", implementation=name, reason=str(reason))


def step_parity(result: Callable[..., None], small: bool) -> None:
    """Whether the CUDA kernel computes what it should."""
    name = "xla" if small else "cuda"
    for net_name, net in nets(small).items():
        for batch, steps in ((1, 2), (9, 64), (264, 200)):
            if not small or batch < 100:
                check_parity(result, net_name, net, batch, steps, name)


def step_rates(result: Callable[..., None], small: bool) -> None:
    """Samples per second of the CUDA kernel."""
    name = "xla" if small else "cuda"
    for net_name, net in nets(small).items():
        for batch in (1, 8, 64, 1024, 4096):
            if not small or batch < 64:
                measure(result, net_name, net, batch, 64 if small else 4000, name)


def step_others(result: Callable[..., None], small: bool) -> None:
    """What XLA makes of it: the peer."""
    for net_name, net in list(nets(small).items())[1 - small : 3]:
        for batch, dtype in ((1, "float32"), (1, "bfloat16"), (64, "bfloat16"), (1024, "bfloat16")):
            if not small or batch < 64:
                measure(result, net_name, net, batch, 64 if small else 500, "xla", dtype)


def step_host(result: Callable[..., None], small: bool) -> None:
    """The C++ sampler on the processors next to the GPU."""
    name, net = list(nets(small).items())[1 - small]
    for batch in (1, 8, 64):
        measure(result, name, net, batch, 64 if small else 2000, "cpu")


def step_mosaic(result: Callable[..., None], small: bool) -> None:
    """The forms in Pallas' Mosaic GPU."""
    for name, batch in (("mosaic_gpu_cluster", 16), ("mosaic_gpu", 64), ("mosaic_gpu", 8448)):
        if small:
            continue
        net = nets(small)["20x64x128"]
        if batch < 100:
            check_parity(result, "20x64x128", net, batch, 64, name)
        measure(result, "20x64x128", net, batch, 1000, name)


def step_training(result: Callable[..., None], small: bool) -> None:
    """Training steps, as ``wavegen bench --train`` has them."""
    command(result, "bench --train", "bench", "--train", "--rounds", "2" if small else "8")


def step_product(result: Callable[..., None], small: bool) -> None:
    """What a user does first."""
    command(result, "info", "info")
    for precision in ("float32", "bfloat16"):
        seconds = "0.05" if small else "5"
        command(
            result,
            f"sample {precision}",
            "sample",
            "--seconds",
            seconds,
            "--precision",
            precision,
            "-o",
            "clips",
        )


def command(result: Callable[..., None], label: str, *words: str) -> None:
    """Runs a command of wavegen, and notes how it ended."""
    start = time.time()
    done = subprocess.run([sys.executable, "-m", "wavegen", *words], capture_output=True, text=True)
    said = [line for line in done.stdout.splitlines() if line.strip()][-4:]
    wrong = done.stderr[-500:] if done.returncode else None
    result(
        "command",
        label=label,
        rc=done.returncode,
        seconds=round(time.time() - start, 1),
        said=said,
        wrong=wrong,
    )


# the driver


def drive(out: Path, names: list[str], budget: float, small: bool) -> int:
    """Runs the steps, each in a process that ends at its limit; returns how many did not succeed."""
    out.mkdir(parents=True, exist_ok=True)
    deadline, failed = time.time() + budget, 0
    for name in names:
        limit = min(LIMITS[name] * (20 if small else 1), deadline - time.time())
        if limit < 10:
            emit(out, step=name, what="step", how="no time left")
            failed += 1
            continue
        start = time.time()
        words = [sys.executable, __file__, "--out", str(out), "--step", name, *(["--cpu"] if small else [])]
        environment = os.environ | {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.6"}
        with (out / f"{name}.txt").open("w") as log:
            process = subprocess.Popen(
                words, stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=out, start_new_session=True
            )
            try:
                how = f"rc {process.wait(limit)}"
            except subprocess.TimeoutExpired:
                how = "killed at its limit"
        with suppress(
            ProcessLookupError
        ):  # also what a step left running: the next one needs the GPU for itself
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        failed += how != "rc 0"
        emit(out, step=name, what="step", how=how, seconds=round(time.time() - start, 1))
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--only", default=",".join(LIMITS), help="steps, separated by commas")
    parser.add_argument("--budget", type=float, default=450, help="seconds in all")
    parser.add_argument("--cpu", action="store_true", help="the small form, on a CPU")
    parser.add_argument("--step", choices=LIMITS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    out = given.out.resolve()
    if given.step is None:
        return drive(out, given.only.split(","), given.budget, given.cpu)
    globals()[f"step_{given.step}"](
        lambda what, **row: emit(out, step=given.step, what=what, **row), given.cpu
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
