"""Damage files that wavegen reads, and read them: each must be read or refused in one line.

    python tests/fuzz/files.py --files 10000 --seed 0
    python tests/fuzz/files.py --seed 0 --number 1234 --keep damaged

All are read in this process. What must not happen: any error but a `WavegenError` of one line, a crash, more than ten
seconds of processor time for one file, more memory than the given bound above what the process has before. MIDI files
are damaged by ``midi.py``, in ways of their own.
"""

import faulthandler
import json
import os
import resource
import signal
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ["JAX_PLATFORMS"] = "cpu"

import numpy as np
import soundfile
import tyro
from damage import BINARY, TEXT, Damage
from inputs import write_codec, write_model
from table import Table

import wavegen
from wavegen.audio import Audio
from wavegen.codecs.spectrogram.files import (
    read_codebook,
    read_codebook_csv,
    read_codes_csv,
    write_codebook,
)
from wavegen.config import load_config
from wavegen.config.study import load_study
from wavegen.data.dataset import Dataset
from wavegen.data.write import Clip, write_dataset
from wavegen.errors import WavegenError
from wavegen.notes.jsb import read_chorales
from wavegen.runs.trained import open_trained, rebuild
from wavegen.sealed import read_sealed, write_sealed

CONFIGS = Path(__file__).parents[2] / "configs"
AUDIO = {
    "wav": ("PCM_U8", "PCM_16", "PCM_24", "FLOAT", "ULAW", "DOUBLE"),
    "flac": ("PCM_16", "PCM_24"),
    "ogg": ("VORBIS", "OPUS"),
    "mp3": ("MPEG_LAYER_III",),
    "aiff": ("PCM_16", "FLOAT"),
    "au": ("PCM_16",),
    "caf": ("PCM_16", "ALAC_16"),
    "w64": ("PCM_16",),
}
"""Subtypes by ending."""
SECONDS = 10


@dataclass(frozen=True)
class Kind:
    """Files of one kind.

    Attributes:
        make: writes a sound one into a folder, and returns its path.
        read: reads it, as a command does.
        damages: ways to damage it.
    """

    make: Callable[[np.random.Generator, Path], Path]
    read: Callable[[Path], object]
    damages: tuple[Damage, ...]


def audio(ending: str) -> Kind:
    def make(rng: np.random.Generator, folder: Path) -> Path:
        path = folder / f"damaged.{ending}"
        channels = int(rng.integers(1, 4)) if ending != "mp3" else 1
        samples = 0.3 * np.sin(
            np.arange(int(rng.integers(1, 6000)))[:, None] * rng.uniform(0.01, 1, channels)
        )
        rate = int(rng.choice([8000, 16000, 48000]))
        soundfile.write(path, samples, rate, str(rng.choice(AUDIO[ending])))
        return path

    return Kind(make, Audio.read, BINARY)


def copy_of(pattern: str, name: str) -> Callable[[np.random.Generator, Path], Path]:
    def make(rng: np.random.Generator, folder: Path) -> Path:
        sources = sorted(CONFIGS.glob(pattern))
        (folder / name).write_bytes(sources[int(rng.integers(len(sources)))].read_bytes())
        return folder / name

    return make


def csv(columns: int) -> Callable[[np.random.Generator, Path], Path]:
    def make(rng: np.random.Generator, folder: Path) -> Path:
        rows = [
            ",".join(f"{x}" for x in row) for row in rng.integers(0, 100, (int(rng.integers(1, 50)), columns))
        ]
        (folder / "damaged.csv").write_text("\n".join(rows))
        return folder / "damaged.csv"

    return make


def chorales(rng: np.random.Generator, folder: Path) -> Path:
    pieces = rng.integers(36, 80, (3, 20, 4)).tolist()
    text = repr({"train": pieces, "valid": pieces[:1], "test": pieces[1:]}).replace("'", '"')
    (folder / "damaged.json").write_text(text)
    return folder / "damaged.json"


def melody(rng: np.random.Generator, folder: Path) -> Path:
    tunes = sorted((Path(wavegen.__file__).parent / "assets" / "melodies").glob("*.txt"))
    (folder / "damaged.txt").write_bytes(tunes[int(rng.integers(len(tunes)))].read_bytes())
    return folder / "damaged.txt"


def manifest(rng: np.random.Generator, folder: Path) -> Path:
    data = folder / "data"
    if not (data / "clips").exists():
        clips = [Clip(str(n), np.arange(50 + n, dtype=np.int16), {"n": str(n)}) for n in range(4)]
        write_dataset(data, clips, 8000, shard_samples=100)
        (data / "clips").write_bytes((data / "manifest.json").read_bytes())
    (data / "manifest.json").write_bytes((data / "clips").read_bytes())
    return data / "manifest.json"


def read_dataset(path: Path) -> None:
    dataset = Dataset.open(path.parent)
    for split in dataset.splits:
        files = dataset.split(split)
        for row in range(len(files)):
            dataset.read(files, row, 0, min(int(files.length[row]), 100))


def trained(rng: np.random.Generator, folder: Path) -> Path:
    """A model, a codec or a codebook."""
    for number, write in enumerate((write_model, write_codec, _write_codebook)):
        if not (folder / f"sound-{number}.safetensors").exists():
            write(folder / f"sound-{number}.safetensors", seed=number)
    path = folder / "damaged.safetensors"
    path.write_bytes((folder / f"sound-{rng.integers(3)}.safetensors").read_bytes())
    return path


def _write_codebook(path: Path, seed: int) -> None:
    codebook = np.random.default_rng(seed).standard_normal((4, 3)).astype(np.float32)
    write_codebook(path, {"codebook": codebook}, {"batches": 1})


def read_trained(path: Path) -> None:
    if read_sealed(path)[1].get("codec") is None:
        rebuild(open_trained(path))
    else:
        read_codebook(path)


def sealed_again(rng: np.random.Generator, data: bytes) -> bytes:
    """A card that somebody has changed, with the seal that belongs to it."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "m.safetensors"
        path.write_bytes(data)
        arrays, card = read_sealed(path)
        text = TEXT[int(rng.integers(3))](rng, json.dumps(card).encode())
        try:
            changed = json.loads(text)
        except (ValueError, RecursionError):
            changed = card | {"config": text.decode(errors="replace")}
        write_sealed(path, arrays, changed if isinstance(changed, dict) else {})
        return path.read_bytes()


KINDS = {
    **{ending: audio(ending) for ending in AUDIO},
    "configuration": Kind(copy_of("*.yaml", "damaged.yaml"), load_config, TEXT),
    "study": Kind(copy_of("studies/*.yaml", "damaged.yaml"), load_study, TEXT),
    "codebook csv": Kind(csv(5), lambda path: read_codebook_csv(path, 5), TEXT),
    "codes csv": Kind(csv(1), lambda path: read_codes_csv(path, 100), TEXT),
    "chorales json": Kind(chorales, read_chorales, TEXT),
    "manifest json": Kind(manifest, read_dataset, TEXT),
    "melody": Kind(melody, wavegen.Performance.read, TEXT),
    "safetensors": Kind(trained, read_trained, (*BINARY, sealed_again)),
}


def peak_memory() -> int:
    """The most memory that this process has used since the last call, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    Path("/proc/self/clear_refs").write_text("5")
    return peak * 1024


def read_one(
    kind: Kind, damage: Damage, rng: np.random.Generator, folder: Path, largest: int
) -> tuple[str, str]:
    """Damages and reads one file; returns how it ended, and what was wrong with that ("" if nothing was)."""
    path = kind.make(rng, folder)
    path.write_bytes(damage(rng, path.read_bytes()))
    faulthandler.dump_traceback_later(
        20 * SECONDS, exit=True, file=sys.stderr
    )  # for loops that no signal interrupts
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    before = peak_memory()
    outcome = problem = ""
    try:
        kind.read(path)
        outcome = "read"
    except WavegenError as error:
        outcome = "refused"
        if len(str(error).splitlines()) != 1:
            problem = f"not one line: {error}"
    except Exception as error:
        problem = f"{type(error).__name__}: {str(error)[:300]}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        faulthandler.cancel_dump_traceback_later()
    used = peak_memory() - before
    return outcome, problem or (f"{used >> 20} MB of memory" if used > largest else "")


def main(
    files: int = 1000,
    seed: int = 0,
    only: str = "",
    number: int | None = None,
    keep: Path | None = None,
    megabytes: int = 300,
) -> None:
    """Damages and reads files.

    Args:
        files: how many; half of them are audio.
        seed: of the files and the damage.
        only: the kinds whose names begin so.
        number: of the one file to repeat.
        keep: folder in which the last damaged file of each kind stays.
        megabytes: of memory that one file may cost.
    """
    # libmpg123 prints what it meets, and would print pages.
    errors = os.dup(2)
    sys.stderr = os.fdopen(errors, "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    faulthandler.enable(errors)
    warnings.simplefilter("ignore")

    def too_slow(*_: object) -> None:
        raise TimeoutError(f"more than {SECONDS} s of processor time")

    signal.signal(signal.SIGPROF, too_slow)
    resource.setrlimit(resource.RLIMIT_AS, (32 << 30,) * 2)
    kinds = {name: kind for name, kind in KINDS.items() if name.startswith(only)}
    options = f" --only {only}" * bool(only)
    with (
        Table(f"python tests/fuzz/files.py --seed {seed}{options}") as table,
        TemporaryDirectory() as temporary,
    ):
        folder = keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for n in range(files) if number is None else [number]:
            rng = np.random.default_rng([seed, n])
            name = list(kinds)[n % len(kinds)]
            damage = kinds[name].damages[n // len(kinds) % len(kinds[name].damages)]
            outcome, problem = read_one(kinds[name], damage, rng, folder, megabytes << 20)
            table.add(name, n, problem and f"{damage.__name__}: {problem}", outcome=outcome)


if __name__ == "__main__":
    tyro.cli(main)
