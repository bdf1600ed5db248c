"""The built-in corpus: known and composed melodies, played on the piano, with the notes as features.

Half of the clips are the package's melodies in other keys, tempos and articulations; the other half are composed.
Melodies and composed pieces of one split occur in no other.
"""

import math
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Literal

import numpy as np

from wavegen.data.dataset import Dataset
from wavegen.data.shards import Clip
from wavegen.data.write import write_dataset
from wavegen.errors import WavegenError
from wavegen.notes import melodies
from wavegen.notes.composer import HIGH, LOW, compose
from wavegen.notes.performance import Performance
from wavegen.notes.piano import Piano

Split = Literal["train", "valid", "test"]
SHARES: dict[Split, float] = {"train": 10 / 12, "valid": 1 / 12, "test": 1 / 12}
CLIP_SECONDS, SHORTEST_SECONDS = 15.0, 1.0
TAIL = 0.1  # seconds of a clip after its last note
HELD_OUT_MELODIES = 4  # in "valid", and as many in "test"


def cached_corpus(
    cache: str | Path,
    *,
    sample_rate: int,
    minutes: float,
    seed: int,
    hop: int,
    new_in: str | Path | None = None,
) -> Path:
    """Returns the folder of a corpus below ``cache``, which is built on the first call; see ``build_corpus``.

    The name of the folder depends on the modules and assets that make the notes and their audio, so that a change to
    them builds another corpus. One that is not below ``cache`` is built below ``new_in``, which by default is the same.
    """
    recipe = sha256(f"{sample_rate} {minutes} {seed} {hop}".encode())
    package = Path(__file__).parents[1]
    names = ("composer", "melodies", "performance", "piano")
    modules = [Path(__file__), *(package / "notes" / f"{name}.py" for name in names)]
    made_by = [*modules, *package.glob("assets/piano.*"), *melodies.FOLDER.iterdir()]
    for path in sorted(made_by):
        recipe.update(path.read_bytes())
    name = f"corpus-{sample_rate}-{recipe.hexdigest()[:12]}"
    if Dataset.is_whole(out := Path(cache) / name):
        return out
    if not Dataset.is_whole(out := Path(cache if new_in is None else new_in) / name):
        build_corpus(out, sample_rate=sample_rate, minutes=minutes, seed=seed, hop=hop)
    return out


def build_corpus(out: str | Path, *, sample_rate: int, minutes: float, seed: int, hop: int) -> None:
    """Renders the corpus and writes it as a prepared dataset.

    Args:
        out: folder of the dataset.
        sample_rate: sample rate in Hz.
        minutes: length of all audio; a twelfth is held out for validation and another for test.
        seed: decides which melodies are held out, how they are played, and what is composed.
        hop: samples per feature frame; onsets fall on frames.

    Raises:
        WavegenError: if ``minutes`` is not above 0, or the disk is full or not writable.
    """
    if minutes <= 0:
        raise WavegenError(f"expected a corpus of more than 0 minutes, got {minutes}")
    write_dataset(out, _clips(sample_rate, minutes, seed, hop), sample_rate, hop)


def pieces(split: Split, seconds: float, seed: int) -> Iterator[tuple[str, Performance]]:
    """Yields the pieces of a split, alternately a known melody and a composed one, of at most ``CLIP_SECONDS``.

    Args:
        split: "train", "valid" or "test".
        seconds: length of all pieces together; the last one is cut to fit, but to no less than ``SHORTEST_SECONDS``.
        seed: seed of the corpus.

    Yields:
        A name that is unique within the split, and the notes.
    """
    names = melodies_of(split, seed)
    number, done = 0, 0.0
    while done < seconds:
        rng = np.random.Generator(np.random.Philox([seed, list(SHARES).index(split), number]))
        length = max(SHORTEST_SECONDS, min(CLIP_SECONDS, seconds - done))
        if number % 2:
            name, notes = "composed", compose(int(rng.integers(2**63)), length)
        else:
            name = names[number // 2 % len(names)]
            notes = perform(melodies.melody(name), rng)
            # In training a melody begins anywhere, so that all of it is learned; elsewhere with its first note.
            start = rng.choice(notes.onset[notes.onset < 0.7 * notes.seconds]) if split == "train" else 0.0
            notes = notes.between(start, start + length)
        yield f"{number:04}-{name}", notes
        number, done = number + 1, done + notes.seconds


def melodies_of(split: Split, seed: int) -> list[str]:
    """Returns the known melodies of a split: all of them are shuffled by the seed and divided in three."""
    names = melodies.names()
    np.random.Generator(np.random.Philox(seed)).shuffle(names)
    held = HELD_OUT_MELODIES
    return {"test": names[:held], "valid": names[held : 2 * held], "train": names[2 * held :]}[split]


def perform(melody: Performance, rng: np.random.Generator) -> Performance:
    """Plays a melody in some key between F3 and C6, at some tempo, loudness and articulation."""
    lowest, highest = LOW - int(melody.pitch.min()), HIGH - int(melody.pitch.max())
    melody = melody.transpose(int(rng.integers(max(lowest, -7), min(highest, 7), endpoint=True)))
    melody = melody.stretch(rng.uniform(0.75, 1.3))
    velocity = rng.uniform(0.6, 0.95) + rng.normal(0, 0.04, len(melody))
    gate = rng.uniform(0.8, 0.98)
    return Performance(melody.pitch, melody.onset, gate * melody.duration, np.clip(velocity, 0.3, 1.0))


def _clips(sample_rate: int, minutes: float, seed: int, hop: int) -> Iterator[Clip]:
    piano = Piano.load()
    for split, share in SHARES.items():
        for name, notes in pieces(split, 60 * minutes * share, seed):
            notes = notes.quantize(sample_rate, hop)
            length = math.ceil((notes.seconds + TAIL) * sample_rate / hop) * hop
            audio = piano.render(notes, sample_rate, length=length)
            features = notes.frames(sample_rate, hop, length)
            yield Clip(f"{split}/{name}", audio.to_pcm16()[:, 0], {}, split, features)
