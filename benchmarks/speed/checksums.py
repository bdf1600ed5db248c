"""What the checksums of blocks cost when batches are read: `python benchmarks/speed/checksums.py`.

The same batches are read from the same dataset with checksums and without, in turns, each time by a process that sees
the dataset for the first time: every block is checked once, and then again after 32 passes. Shown is the ratio of the
times up to mu-law tokens, which is what a training step waits for, for so many passes over the recordings. They are
noise, made on the spot, in the page cache: from a disk they would take longer, and the share be smaller. Run it on an
idle machine; with others beside it the ratio is as noisy as they are.
"""

import json
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import tyro

from wavegen.codecs.samples import MuLaw
from wavegen.data.batches import BatchSource, iterator
from wavegen.data.dataset import Dataset
from wavegen.data.device import make_example
from wavegen.data.sealed_json import read_sealed_json, write_sealed_json
from wavegen.data.shards import Clip
from wavegen.data.write import write_dataset


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
    passes: tuple[float, ...] = (1, 3, 10)
    """How often as many samples are read as the corpus has."""
    repeats: int = 9
    """Pairs, of which the median ratio is shown, and the quartiles."""


def without_checksums(folder: Path, out: Path) -> None:
    """The same dataset as before there were any."""
    out.mkdir()
    for path in folder.iterdir():
        if path.name != "manifest.json":
            (out / path.name).hardlink_to(path)
    tree = read_sealed_json(folder / "manifest.json", "a manifest", "")
    for row in tree["shards"]:
        for file in row["data"]:
            file["blocks"] = ""
    write_sealed_json(out / "manifest.json", json.dumps(tree, indent=1))


def main(options: Options) -> None:
    codec = MuLaw()
    encode = jax.jit(lambda batch: make_example(batch, codec)["targets"])
    random = np.random.default_rng(0)
    length = 10 * options.sample_rate
    clips = (
        Clip(f"{index}.wav", random.integers(-(2**15), 2**15, length, np.int16))
        for index in range(int(options.minutes * 6))
    )
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}; B={options.batch_size} x {options.crop}")
    print(f"{'passes':>7}{'ms/step':>9}{'checked / unchecked':>21}{'quartiles':>18}")
    with tempfile.TemporaryDirectory() as folder:
        there = [Path(folder, "checked"), Path(folder, "unchecked")]
        write_dataset(there[0], clips, options.sample_rate)
        without_checksums(*there)

        def seconds(path: Path, steps: int) -> float:
            source = BatchSource(
                Dataset.open(path), "train", batch_size=options.batch_size, crop=options.crop, seed=0
            )
            batches = iterator(source)
            begin = time.perf_counter()
            for _ in range(steps):
                last = encode(next(batches))
            jax.block_until_ready(last)
            return (time.perf_counter() - begin) / steps

        for path in there:
            seconds(path, 10)
        for passes in options.passes:
            samples = options.minutes * 60 * options.sample_rate
            steps = max(1, round(passes * samples / (options.batch_size * options.crop)))
            pairs = []
            for repeat in range(options.repeats):
                # Which one is first alternates, so that a drift of the machine favours neither.
                order = there if repeat % 2 else there[::-1]
                times = {path: seconds(path, steps) for path in order}
                pairs.append((times[there[0]] / times[there[1]], times[there[0]]))
            low, middle, high = statistics.quantiles([ratio for ratio, _ in pairs], n=4)
            best = 1000 * min(time for _, time in pairs)
            print(f"{passes:>7g}{best:>9.2f}{middle:>21.3f}{low:>10.3f}-{high:.3f}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
