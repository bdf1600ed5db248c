"""Damage every file of runs, datasets and models in six ways, and read them: nothing false is read without a word.

    python tests/fuzz/artefacts.py --seed 0
    python tests/fuzz/artefacts.py --seed 0 --number 12

Ways: one bit flipped, another one, cut in the middle, emptied, missing, replaced by the file of the same name of
another run (dataset, model) of the same shapes. What is read then must be equal to what was read before, or the reader
refuses it in one line, or warns of what it leaves out (a damaged checkpoint, for which the one before it is read).
"""

import hashlib
import os
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"

import jax
import numpy as np
import tyro
from inputs import RATE, pcm, write_codec, write_model
from table import Table

from wavegen.codecs.spectrogram.files import read_codebook, write_codebook
from wavegen.config import load_config
from wavegen.data.dataset import Dataset
from wavegen.data.write import Clip, write_dataset
from wavegen.errors import WavegenError
from wavegen.runs.trained import open_trained, rebuild
from wavegen.training.loop import train

RUN = """
name: run
data: {path: HERE/memmap, sample_rate: 8000, crop: 256, batch_size: 2}
codec: {kind: trained, run: HERE/files/codec.safetensors}
model: {kind: lstm, width: 4, layers: 1}
optimizer: {warmup_steps: 0}
training: {steps: 2, checkpoint_every: 1, evaluate_every: 2, evaluate_batches: 1, sample_seconds: 0.05, sample_count: 1}
seed: SEED
"""
SPLITS = ("train", "train", "train", "valid", "test")
NOT_READ = {"samples", "tensorboard", ".lock", "1"}
"""What is never read again, and a checkpoint that is not the newest one."""


def make(here: Path, seed: int) -> None:
    """Writes datasets, files of models and a run that reads through a codec; their content depends on the seed."""
    rng = np.random.default_rng(seed)
    for backend in ("memmap", "array_record"):
        clips = [Clip(f"{s}/{n}", pcm(rng, 900), {"n": str(n % 2)}, s) for n, s in enumerate(SPLITS)]
        write_dataset(here / backend, clips, RATE, shard_samples=1500, backend=backend)
    frames = [
        Clip(str(n), pcm(rng, 640), features=rng.standard_normal((20, 3)).astype("f4")) for n in range(2)
    ]
    write_dataset(here / "with features", frames, RATE, feature_hop=32)
    (here / "files").mkdir()
    write_model(here / "files" / "model.safetensors", seed)
    write_codec(here / "files" / "codec.safetensors", seed)
    entries = rng.standard_normal((4, 3)).astype("f4")
    write_codebook(here / "files" / "codebook.safetensors", {"codebook": entries}, {"batches": 1})
    (here / "run.yaml").write_text(RUN.replace("HERE", str(here)).replace("SEED", str(seed)))
    with open(here / "out", "w") as out, redirect_stdout(out):
        train(load_config(here / "run.yaml"), here / "run")


def read_run(folder: Path) -> object:
    """All that comes out of a run: its settings, labels, weights and codec."""
    trained = open_trained(folder)
    return trained.config.model_dump(), trained.labels, numbers(trained.params), numbers(trained.codecs)


def read_dataset(folder: Path) -> object:
    """All that comes out of a dataset: its rate, labels, samples and features."""
    dataset = Dataset.open(folder)
    found: list[object] = [dataset.sample_rate, dataset.labels]
    for split in dataset.splits:
        files = dataset.split(split)
        for row in range(len(files)):
            found += [split, files.names[row], files.labels[row].tolist()]
            found.append(numbers(dataset.read(files, row, 0, int(files.length[row]))))
            if dataset.feature_hop:
                found.append(numbers(dataset.read_features(files, row, 0, 20)))
    return found


def read_files(folder: Path) -> object:
    """All that comes out of the files of a model, a codec and a codebook."""
    found: list[object] = []
    for name in ("model", "codec"):
        trained = open_trained(folder / f"{name}.safetensors")
        found += [trained.config.model_dump(), numbers(rebuild(trained)[1])]
    arrays, card = read_codebook(folder / "codebook.safetensors")
    return [*found, card, numbers(arrays)]


def numbers(tree: object) -> str:
    """A digest of all arrays in a tree."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    parts = (f"{leaf.dtype} {leaf.shape} ".encode() + leaf.tobytes() for leaf in leaves)
    return hashlib.sha256(b"".join(parts)).hexdigest()


READERS: dict[str, Callable[[Path], object]] = {
    "run": read_run,
    "memmap": read_dataset,
    "array_record": read_dataset,
    "with features": read_dataset,
    "files": read_files,
}
WAYS = ("flipped", "flipped again", "cut", "emptied", "missing", "of another")


def damage(path: Path, way: str, other: Path, rng: np.random.Generator) -> bool:
    """Damages a file; returns whether it is another one now."""
    data = path.read_bytes()
    if way == "missing":
        path.unlink()
        return True
    if way == "of another":
        path.write_bytes(other.read_bytes())
    elif way.startswith("flipped") and data:
        changed = bytearray(data)
        changed[rng.integers(len(data))] ^= 1 << rng.integers(8)
        path.write_bytes(changed)
    else:
        path.write_bytes(data[: len(data) // 2] if way == "cut" else b"")
    return path.read_bytes() != data


def counterpart(file: Path, one: Path, other: Path) -> Path:
    """The file of the same name in the other folder; of orbax's random names, that of the same rank."""
    same = other / file.relative_to(one)
    if same.exists():
        return same
    there, here = sorted(same.parent.iterdir()), sorted(file.parent.iterdir())
    return there[here.index(file) % len(there)]


def damages(one: Path) -> Iterator[tuple[str, Path, str]]:
    """Every file in every way: what it belongs to, its path and the way."""
    for name in READERS:
        for file in sorted((one / name).rglob("*")):
            if file.is_file() and not NOT_READ & {*file.relative_to(one).parts}:
                # Another model's file under this one's name is that model, and nothing is wrong with it.
                ways = WAYS[:-1] if name == "files" else WAYS
                yield from ((name, file.relative_to(one), way) for way in ways)


def look(place: Path, seed: int, chosen: Iterable[int], table: Table) -> None:
    """Damages one file after the other in a copy, and reads it."""
    one, other, copy = place / "0", place / "1", place / "damaged"
    before = {name: read(one / name) for name, read in READERS.items()}
    all_damages = list(damages(one))
    for number in chosen:
        if number >= len(all_damages):
            break
        name, file, way = all_damages[
            number * 101 % len(all_damages)
        ]  # so that the first ones are of all kinds
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(one / name, copy / name)
        rng = np.random.default_rng([seed, number])
        if not damage(copy / file, way, counterpart(one / file, one, other), rng):
            continue
        problem = ""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                found = READERS[name](copy / name)
            except WavegenError:
                outcome = "refused"
            except Exception as error:
                outcome, problem = "traceback", f"{type(error).__name__}: {str(error)[:200]}"
            else:
                told = any(warning.category is UserWarning for warning in caught)
                outcome = "equal" if found == before[name] else "told" if told else "silent"
                problem = "something else was read without a word" if outcome == "silent" else ""
        table.add(f"{name}: {way}", number, problem and f"{file}: {problem}", outcome=outcome)


def main(tries: int | None = None, seed: int = 0, number: int | None = None) -> None:
    """Damages files.

    Args:
        tries: how many; by default every file in every way.
        seed: of which bits.
        number: of the one try to repeat.
    """
    with TemporaryDirectory() as folder, Table(f"python tests/fuzz/artefacts.py --seed {seed}") as table:
        for n in (0, 1):
            make(Path(folder) / str(n), n)
        most = 1 << 30 if tries is None else tries
        look(Path(folder), seed, range(most) if number is None else [number], table)


if __name__ == "__main__":
    tyro.cli(main)
