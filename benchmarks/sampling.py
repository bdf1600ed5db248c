"""Sampling speed beside a plain PyTorch loop with ring buffers: the same weights, the same random numbers.

The implementations take turns, so that a busy moment of the machine hits all of them; medians are shown.

    python benchmarks/sampling.py --net 20x64x128 --batches 1 8 --samples 500 --rounds 9
"""

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from wavegen.kernels import wavenet_generate, wavenet_init_state
from wavegen.kernels.wavenet.api import IMPLEMENTATIONS
from wavegen.kernels.wavenet.draw import key_words, uniforms
from wavegen.kernels.wavenet.shapes import NETS, Net

KEY = jax.random.key(0)
PRODUCTS = ("dilated", "residual", "skip", "hidden", "output")
"""Weights that every sample is multiplied with."""


def jax_sampler(
    net: Net, weights: dict, batch: int, samples: int, implementation: str
) -> Callable[[], np.ndarray]:
    state = wavenet_init_state(weights, net.shape, batch)
    condition = jnp.zeros((batch, 1, net.condition)) if net.condition else None

    def sample() -> np.ndarray:
        tokens, _ = wavenet_generate(
            weights, net.shape, state, samples, key=KEY, condition=condition, implementation=implementation
        )
        return np.asarray(tokens)

    return sample


def torch_sampler(net: Net, weights: dict, batch: int, samples: int) -> Callable[[], np.ndarray]:
    import torch

    if net.shape.head != "softmax" or net.scalar_input or net.condition or net.input_kernel_size > 1:
        raise SystemExit(
            "the PyTorch loop knows softmax networks with one embedding and no condition; choose one"
        )
    w = {name: torch.from_numpy(np.array(value)) for name, value in weights.items()}
    dilated = w["dilated"].flatten(1, 2)
    positions, rows = jnp.arange(samples), jnp.arange(batch)
    uniform = jax.vmap(uniforms, (None, 0, None))(key_words(KEY), positions, rows)[0]
    uniform = torch.from_numpy(np.array(uniform))[..., None]

    @torch.inference_mode()
    def sample() -> np.ndarray:
        taps = net.kernel_size - 1
        rings = [torch.zeros(taps * d, batch, net.residual) for d in net.shape.dilations]
        token = torch.full((batch,), net.shape.start_token)
        tokens = torch.empty(batch, samples, dtype=torch.int64)
        for t in range(samples):
            h = w["embedding"][0, token] + w["input_bias"]
            skip = w["skip_bias"].expand(batch, -1)
            for layer, (dilation, ring) in enumerate(zip(net.shape.dilations, rings, strict=True)):
                past = [ring[(t - (taps - j) * dilation) % len(ring)] for j in range(taps)]
                a = torch.addmm(w["dilated_bias"][layer], torch.cat([*past, h], 1), dilated[layer])
                ring[t % len(ring)] = h
                z = torch.tanh(a[:, : net.gate]) * torch.sigmoid(a[:, net.gate :])
                skip = torch.addmm(skip, z, w["skip"][layer])
                h = h + torch.addmm(w["residual_bias"][layer], z, w["residual"][layer])
            y = torch.relu(torch.addmm(w["hidden_bias"], torch.relu(skip), w["hidden"]))
            mass = torch.softmax(torch.addmm(w["output_bias"], y, w["output"]), -1).cumsum(-1)
            token = (mass <= uniform[t] * mass[:, -1:]).sum(-1)
            tokens[:, t] = token
        return tokens.numpy()

    return sample


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    rate: float
    """Samples per second and stream, median."""
    batch: int
    operations: int
    """Floating-point operations per sample."""
    equal: float
    """Share of tokens equal to the first implementation's, over all streams."""


def measure(net: Net, batch: int, samples: int, rounds: int, names: tuple[str, ...]) -> list[Row]:
    weights = net.random_weights()
    samplers = {
        name: torch_sampler(net, weights, batch, samples)
        if name == "torch"
        else jax_sampler(net, weights, batch, samples, name)
        for name in names
    }
    tokens = {name: sample() for name, sample in samplers.items()}  # also compiles
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name, sample in samplers.items():
            start = time.perf_counter()
            sample()
            seconds[name].append(time.perf_counter() - start)
    operations = 2 * sum(weights[name].size for name in PRODUCTS)
    first = tokens[names[0]]
    return [
        Row(
            name,
            samples / float(np.median(seconds[name])),
            batch,
            operations,
            float((tokens[name] == first).mean()),
        )
        for name in names
    ]


def main(
    net: str = "20x64x128",
    batches: tuple[int, ...] = (1, 8),
    samples: int = 500,
    rounds: int = 9,
    implementations: tuple[str, ...] = ("xla", "torch"),
) -> None:
    """Time implementations of WaveNet sampling in turn.

    Args:
        net: network by name.
        batches: streams generated side by side.
        samples: samples of each stream in one round.
        rounds: rounds, of which the median counts.
        implementations: names known to `wavenet_generate`, and "torch".
    """
    unknown = set(implementations) - {*IMPLEMENTATIONS, "torch"}
    if net not in NETS or unknown:
        raise SystemExit(f"nets: {', '.join(NETS)}; implementations: {', '.join(IMPLEMENTATIONS)}, torch")
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    print(f"{net}, {samples} samples x {rounds} rounds; {machine}, load {os.getloadavg()[0]:.1f}")
    heads = (
        ("batch", 6),
        ("kHz/stream", 12),
        ("kHz", 9),
        ("x 16 kHz", 10),
        ("GFLOP/s", 9),
        ("x last", 8),
        ("equal", 8),
    )
    print(" " * 12 + "".join(f"{head:>{width}}" for head, width in heads))
    for batch in batches:
        rows = measure(NETS[net], batch, samples, rounds, implementations)
        for row in rows:
            total = row.rate * batch
            print(
                f"{row.name:12}{batch:6}{row.rate / 1e3:12.2f}{total / 1e3:9.2f}{row.rate / 16e3:10.2f}"
                f"{total * row.operations / 1e9:9.1f}{row.rate / rows[-1].rate:8.2f}{row.equal:8.3f}"
            )


if __name__ == "__main__":
    tyro.cli(main)
