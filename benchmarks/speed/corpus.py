"""How fast melodies are composed and rendered, and the built-in corpus made.

    python benchmarks/speed/corpus.py

Prints audio seconds a wall second, on one core. "first" includes the resampling of every key to its pitch.
"""

import tempfile
import time
from collections.abc import Callable

from wavegen.data.corpus import build_corpus
from wavegen.notes.composer import compose
from wavegen.notes.piano import Piano

RATE, PIECES, SECONDS, MINUTES = 16_000, 30, 20.0, 12.0


def timed(name: str, audio_seconds: float, work: Callable[[], object]) -> None:
    start = time.perf_counter()
    work()
    wall = time.perf_counter() - start
    print(f"{name:28} {wall:8.3f} s {audio_seconds / wall:10,.0f} x real time")


def main() -> None:
    piano, total = Piano.load(), PIECES * SECONDS
    timed("compose", total, lambda: [compose(seed, SECONDS) for seed in range(PIECES)])
    pieces = [compose(seed, SECONDS) for seed in range(PIECES)]
    timed(f"render {RATE} Hz, first", total, lambda: [piano.render(notes, RATE) for notes in pieces])
    timed(f"render {RATE} Hz, again", total, lambda: [piano.render(notes, RATE) for notes in pieces])
    with tempfile.TemporaryDirectory() as out:
        arguments = {"sample_rate": RATE, "minutes": MINUTES, "seed": 0, "hop": 80}
        timed(f"corpus of {MINUTES:.0f} minutes", 60 * MINUTES, lambda: build_corpus(out, **arguments))


if __name__ == "__main__":
    main()
