"""What a training step costs beside its arithmetic.

    python benchmarks/speed/step_overhead.py

Host overhead: the time of a step of a 30-layer network so narrow that its arithmetic is next to nothing; what is left
is Python, dispatch and the work per array, an upper bound of what the host adds to every step. Share of the peak:
floating-point operations of whole steps (forward, backward, optimizer, average) by formula, against the largest float32
matrix product that the same program measures on the same machine.
"""

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from wavegen.config import Config, resolve
from wavegen.networks.base import parameters
from wavegen.runs.trained import open_codecs
from wavegen.training.step import first_state, make_train_step

OVERHEAD = {
    "data": {"crop": 64, "batch_size": 1},
    "model": {
        "dilations": [2**n for n in range(10)],
        "cycles": 3,
        "residual_channels": 2,
        "gate_channels": 2,
        "skip_channels": 2,
        "head_channels": 2,
    },
}
# Kernel size, dilations, cycles, channels, batch and crop of networks that do real work.
NETWORKS = {
    "30 layers of 64, kernel 2": (2, [2**n for n in range(10)], 3, 64, 2, 8192),
    "10 layers of 96, kernel 4": (4, [4**n for n in range(5)], 2, 96, 4, 3072),
    "8 layers of 32, kernel 4": (4, [4**n for n in range(4)], 2, 32, 2, 4000),
}


def seconds(call: Callable[[], object], repeats: int = 7) -> float:
    """The median time of a call that has been compiled."""
    jax.block_until_ready(call())
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def matmul_peak() -> float:
    """The best float32 rate of square matrix products, in FLOP/s."""
    best = 0.0
    for size in (1024, 2048, 4096):
        a = jnp.asarray(np.random.default_rng(0).standard_normal((size, size), np.float32))
        product = jax.jit(lambda x: x @ x)
        best = max(best, 2 * size**3 / seconds(lambda f=product, x=a: f(x)))
    return best


def step_seconds(config: Config) -> tuple[float, float, int]:
    """Seconds until a step is dispatched, seconds until it is done, and floating-point operations of its network."""
    codecs = open_codecs(config)
    model, state = first_state(config, {}, codecs)
    step = jax.jit(make_train_step(config, parameters(model)[0]), donate_argnums=0)
    batch, crop = config.data.batch_size, config.data.crop
    pcm = np.random.default_rng(0).integers(-8000, 8000, (batch, crop)).astype(np.int16)
    rows = {"pcm": pcm, "length": np.full(batch, crop, np.int32), "context": np.zeros(batch, np.int32)}
    rows = jax.device_put({**rows, "labels": np.zeros((batch, 0), np.int32)})
    dispatched, done = [], []
    for _ in range(13):
        start = time.perf_counter()
        state, metrics = step(state, rows, codecs)
        dispatched.append(time.perf_counter() - start)
        jax.block_until_ready((state, metrics))
        done.append(time.perf_counter() - start)
    # Forward, and twice that backward.
    return (
        float(np.median(dispatched[3:])),
        float(np.median(done[3:])),
        3 * model.flops_per_frame(crop) * batch * crop,
    )


def main() -> None:
    """Measures and prints the table."""
    device = jax.devices()[0]
    print(f"{device.device_kind}, {jax.device_count()} device(s), jax {jax.__version__}\n")
    dispatched, done, _ = step_seconds(resolve(OVERHEAD))
    print(
        f"host overhead of a step, 30 layers: {1e3 * done:.2f} ms ({1e3 * dispatched:.2f} ms until dispatched)\n"
    )
    peak = matmul_peak()
    print(f"{'network':<28}{'ms a step':>11}{'GFLOP/s':>10}{'share of the matmul peak':>27}")
    print(f"{'float32 matrix product':<28}{'':>11}{peak / 1e9:>10.1f}{1:>27.0%}")
    for name, (kernel, dilations, cycles, channels, batch, crop) in NETWORKS.items():
        model = {
            "kernel_size": kernel,
            "dilations": dilations,
            "cycles": cycles,
            "residual_channels": channels,
        }
        model |= {"gate_channels": channels, "skip_channels": 128, "head_channels": 128}
        _, done, flops = step_seconds(resolve({"data": {"crop": crop, "batch_size": batch}, "model": model}))
        print(f"{name:<28}{1e3 * done:>11.1f}{flops / done / 1e9:>10.1f}{flops / done / peak:>27.0%}")


if __name__ == "__main__":
    main()
