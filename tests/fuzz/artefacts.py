"""Damage every file of a run, a dataset and a model's file in six ways, and read them: nothing is read silently as it is not.

    python tests/fuzz/artefacts.py --seed 0
    python tests/fuzz/artefacts.py --seed 0 --number 12

Ways: one bit flipped, another one, cut in the middle, emptied, missing, replaced by the file of the same name of another
run (dataset, model) of the same shapes. What is read then must be equal to what was read before, or the reader refuses it in
one line, or warns of what it leaves out (a damaged checkpoint, for which the one before it is read).
"""

import hashlib
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tyro
from faults import run, start_again_with_library, workshop_folder
from table import Table

CODED = """
name: coded
data: {path: HERE/data, sample_rate: 8000, crop: 256, batch_size: 2}
codec: {kind: trained, run: HERE/codec-SEED.safetensors}
model: {kind: lstm, width: 4, layers: 1}
optimizer: {warmup_steps: 0}
training: {steps: 2, checkpoint_every: 1, evaluate_every: 2, evaluate_batches: 1, sample_seconds: 0.05, sample_count: 1}
seed: SEED
"""


def make(place: Path, seed: int) -> Path:
    """A run that reads through a codec, a dataset in both formats and model's files; of other content for each seed."""
    from commands import pcm
    from inputs import write_codec, write_model

    from wavegen.cli import main as wavegen
    from wavegen.codecs.spectrogram.files import write_codebook
    from wavegen.data.write import Clip, write_dataset

    here, rng = place / str(seed), np.random.default_rng(seed)
    for backend in ("memmap", "array_record"):
        clips = [
            Clip(f"{s}/{n}", pcm(rng, 900), {"n": str(n % 2)}, s)
            for n, s in enumerate(["train"] * 3 + ["valid", "test"])
        ]
        write_dataset(here / f"dataset {backend}", clips, 8000, shard_samples=1500, backend=backend)
    features = [
        Clip(str(n), pcm(rng, 640), features=rng.standard_normal((20, 3)).astype("f4")) for n in range(2)
    ]
    write_dataset(here / "dataset with features", features, 8000, feature_hop=32)
    (here / "files").mkdir()
    write_model(here / "files" / "model.safetensors", seed)
    write_codec(here / "files" / "codec.safetensors", seed)
    write_codebook(
        here / "files" / "codebook.safetensors", {"codebook": rng.standard_normal((4, 3))}, {"batches": 1}
    )
    shutil.copy(here / "files" / "codec.safetensors", place / f"codec-{seed}.safetensors")
    (place / f"coded-{seed}.yaml").write_text(CODED.replace("HERE", str(place)).replace("SEED", str(seed)))
    wavegen(["train", str(place / f"coded-{seed}.yaml"), "--runs", str(here)])
    return here


def read_run(folder: Path) -> object:
    """All that comes out of a run: its weights, its codec, its labels and settings."""
    from wavegen.runs.trained import open_trained

    trained = open_trained(folder)
    return trained.config.model_dump(), trained.labels, _numbers(trained.params), _numbers(trained.codecs)


def read_dataset(folder: Path) -> object:
    """All samples, features and labels."""
    from wavegen.data.dataset import Dataset

    dataset = Dataset.open(folder)
    found: list[object] = [dataset.sample_rate, dataset.labels]
    for split in dataset.splits:
        files = dataset.split(split)
        for row in range(len(files)):
            found += [split, files.names[row], files.labels[row].tolist()]
            found.append(_numbers(dataset.read(files, row, 0, int(files.length[row]))))
            if dataset.feature_hop:
                found.append(_numbers(dataset.read_features(files, row, 0, 20)))
    return found


def read_files(folder: Path) -> object:
    from wavegen.codecs.spectrogram.files import read_codebook
    from wavegen.runs.trained import open_trained, rebuild

    found: list[object] = []
    for name in ("model", "codec"):
        trained = open_trained(folder / f"{name}.safetensors")
        found += [trained.config.model_dump(), _numbers(rebuild(trained)[1])]
    arrays, card = read_codebook(folder / "codebook.safetensors")
    return [*found, card, _numbers(arrays)]


def _numbers(tree: object) -> str:
    import jax

    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    return hashlib.sha256(
        b"".join(str((x.dtype, x.shape)).encode() + x.tobytes() for x in leaves)
    ).hexdigest()


READERS: dict[str, Callable[[Path], object]] = {
    "coded": read_run, "dataset memmap": read_dataset, "dataset array_record": read_dataset,
    "dataset with features": read_dataset, "files": read_files,
}  # fmt: skip
WAYS = ("flipped", "flipped again", "cut", "emptied", "missing", "of another")


def damage(path: Path, way: str, other: Path, rng: np.random.Generator) -> bool:
    """Damages a file; returns whether it is another one now."""
    data = path.read_bytes()
    if way == "missing":
        path.unlink()
        return True
    if way.startswith("flipped") and data:
        changed = bytearray(data)
        changed[rng.integers(len(data))] ^= 1 << rng.integers(8)
        path.write_bytes(changed)
    elif way == "of another":
        if other.exists():
            path.write_bytes(other.read_bytes())
    else:
        path.write_bytes(data[: len(data) // 2] if way == "cut" else b"")
    return path.read_bytes() != data


def counterpart(file: Path, one: Path, other: Path) -> Path:
    """The file of the same name in the other one; those of orbax have random names, of which the same place is taken."""
    same = other / file.relative_to(one)
    if same.exists() or not same.parent.exists():
        return same
    return sorted(same.parent.iterdir())[
        sorted(file.parent.iterdir()).index(file) % len(list(same.parent.iterdir()))
    ]


def tries(one: Path, other: Path) -> Iterator[tuple[str, Path, str]]:
    """Every file in every way."""
    for name in READERS:
        for file in sorted((one / name).rglob("*")):
            if file.is_file() and file.name != ".lock" and not {"samples", "tensorboard"} & {*file.parts}:
                yield from ((name, file.relative_to(one), way) for way in WAYS)


def look(place: Path, one: Path, other: Path, seed: int, number: int | None, table: Table) -> None:
    """Damages one file after the other in a copy."""
    from wavegen.errors import WavegenError

    before = {name: read(one / name) for name, read in READERS.items()}
    for n, (name, file, way) in enumerate(tries(one, other)):
        if number not in (None, n):
            continue
        shutil.rmtree(place / "damaged", ignore_errors=True)
        shutil.copytree(one / name, place / "damaged" / name)
        changed = damage(
            place / "damaged" / file,
            way,
            counterpart(one / file, one, other),
            np.random.default_rng([seed, n]),
        )
        if not changed:
            continue
        problem = ""
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                found = READERS[name](place / "damaged" / name)
                outcome = "the same" if found == before[name] else "told" if said else "SILENT"
            except WavegenError:
                outcome = "refused"
            except Exception as error:
                outcome, problem = "traceback", f"{file}, {way}: {type(error).__name__}: {str(error)[:200]}"
        if outcome == "SILENT":
            problem = f"{file}, {way}: something else was read, without a word"
        table.add(f"{name}: {way}", n, problem, outcome=outcome)


def main(seed: int = 0, number: int | None = None, workshop: Path | None = None) -> None:
    """Damages files.

    Args:
        seed: of which bits.
        number: of the one try to repeat.
        workshop: folder that keeps inputs and compiled programs for the next time; by default a temporary one.
    """
    with workshop_folder(workshop) as place:
        start_again_with_library(place)
        from commands import make_inputs

        make_inputs(place)
        for n in (0, 1):
            shutil.rmtree(place / str(n), ignore_errors=True)
            ended = run(lambda n=n: make(place, n), place)
            assert ended.status == 0, ended
        with Table(f"python tests/fuzz/artefacts.py --seed {seed}") as table:
            look(place, place / "0", place / "1", seed, number, table)


if __name__ == "__main__":
    tyro.cli(main)
