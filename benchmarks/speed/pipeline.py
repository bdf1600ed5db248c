"""How fast the data pipeline feeds a model, stage by stage: `python benchmarks/speed/pipeline.py`.

Rows of the table are cumulative: from the random crops alone to mu-law tokens on the device, which is what a
training step waits for. The recordings are noise, made on the spot; after the first pass they sit in the page
cache, so the table shows the cost of the pipeline, not of a disk. Run it on an idle machine.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import tyro

from wavegen.codecs.samples import MuLaw
from wavegen.data.batches import Batch, BatchSource, iterator
from wavegen.data.dataset import Dataset
from wavegen.data.device import make_example
from wavegen.data.prepare import Clip, write_dataset


@dataclass(frozen=True)
class Options:
    """What to measure."""

    batch_size: int = 32
    crop: int = 16384
    """Samples."""
    sample_rate: int = 16000
    """In Hz."""
    minutes: float = 60
    """Length of the corpus."""
    steps: int = 300
    """Batches per measurement."""
    repeats: int = 5
    """The fastest of so many is shown, and the slowest beside it."""
    backends: tuple[str, ...] = ("memmap", "array_record")


def recordings(options: Options) -> Iterator[Clip]:
    """Ten-second recordings of noise."""
    random = np.random.default_rng(0)
    length = 10 * options.sample_rate
    for index in range(int(options.minutes * 6)):
        yield Clip(f"{index}.wav", random.integers(-(2**15), 2**15, length, np.int16))


def seconds_per_step(consume: Callable[[Batch], object], batches: Iterator[Batch], steps: int) -> float:
    """Mean time of a step, after ten that warm caches and compile."""
    for _ in range(10):
        jax.block_until_ready(consume(next(batches)))
    begin = time.perf_counter()
    for _ in range(steps):
        last = consume(next(batches))
    jax.block_until_ready(last)
    return (time.perf_counter() - begin) / steps


def main(options: Options) -> None:
    codec = MuLaw()
    keys = iter(jax.random.split(jax.random.key(0), 100_000))
    encode = jax.jit(lambda batch: make_example(batch, codec)["targets"])
    augmented = jax.jit(
        lambda batch, key: make_example(batch, codec, key, gain_db=(-6.0, 0.0), polarity=True)["targets"]
    )
    audio_seconds = options.batch_size * options.crop / options.sample_rate
    print(f"{jax.devices()[0].device_kind}, {jax.device_count()} device(s), jax {jax.__version__}")
    print(
        f"B={options.batch_size} x {options.crop} samples at {options.sample_rate} Hz, {options.steps} steps"
    )
    print(f"{'backend':<14}{'up to':<30}{'ms/step':>9}{'audio-s/s':>12}{'slowest':>12}")
    with tempfile.TemporaryDirectory() as folder:
        for backend in options.backends:
            path = Path(folder, backend)
            write_dataset(path, recordings(options), options.sample_rate, backend=backend)
            source = BatchSource(
                Dataset.open(path), "train", batch_size=options.batch_size, crop=options.crop, seed=0
            )
            stages: dict[str, tuple[Callable[[Batch], object], int]] = {
                "crops": (lambda batch: batch, 0),
                "crops, read ahead by grain": (lambda batch: batch, 4),
                "device": (jax.device_put, 4),
                "mu-law": (encode, 4),
                "gain, polarity, mu-law": (lambda batch: augmented(batch, next(keys)), 4),
            }
            for stage, (consume, prefetch) in stages.items():
                times = [
                    seconds_per_step(consume, iterator(source, prefetch=prefetch), options.steps)
                    for _ in range(options.repeats)
                ]
                print(
                    f"{backend:<14}{stage:<30}{1000 * min(times):>9.2f}"
                    f"{audio_seconds / min(times):>12,.0f}{audio_seconds / max(times):>12,.0f}"
                )


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
