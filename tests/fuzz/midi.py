"""Damage MIDI files in every way, and read them: each must be parsed or refused with one line.

    python tests/fuzz/midi.py --files 1000 --seed 0

All files are read in this process, under a limit of memory and of time for each. Prints a row a kind of damage.
"""

import resource
import signal
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tyro

from wavegen.errors import WavegenError
from wavegen.notes.midi import LARGEST, midi_bytes, parse_midi, read_midi
from wavegen.notes.score import Score, Track

Damage = Callable[[np.random.Generator, bytes], bytes]
END = b"\x00\xff\x2f\x00"


def piece(rng: np.random.Generator) -> Score:
    """Some notes on some tracks, with tempo and metre changes."""
    count, tracks = int(rng.integers(1, 300)), int(rng.integers(1, 6))
    return Score(
        rng.integers(0, 128, count),
        rng.integers(0, 50_000, count),
        rng.integers(1, 2_000, count),
        rng.integers(1, 128, count),
        rng.integers(0, tracks, count),
        tuple(Track(f"track {n}", int(rng.integers(128)), bool(rng.random() < 0.2)) for n in range(tracks)),
        int(rng.integers(1, 32768)),
        np.column_stack([rng.integers(0, 50_000, 5), rng.integers(200_000, 2_000_000, 5)]),
        np.column_stack([rng.integers(0, 50_000, 3), rng.integers(1, 13, 3), 1 << rng.integers(0, 5, 3)]),
    )


def file(
    events: bytes, *, tracks: int = 1, division: int = 480, kind: int = 1, length: int | None = None
) -> bytes:
    """A MIDI file of one chunk, true or false in its header."""
    header = b"MThd\0\0\0\6" + b"".join(number.to_bytes(2) for number in (kind, tracks, division))
    return header + b"MTrk" + (len(events) if length is None else length).to_bytes(4) + events


def track_of(data: bytes) -> bytes:
    """The events of the first track that has notes, in a file as `midi_bytes` writes it."""
    start = 22 + int.from_bytes(data[18:22])
    return data[start + 8 : start + 8 + int.from_bytes(data[start + 4 : start + 8])]


def truncated(rng: np.random.Generator, data: bytes) -> bytes:
    return data[: rng.integers(len(data))]


def bits_flipped(rng: np.random.Generator, data: bytes) -> bytes:
    damaged = np.frombuffer(data, np.uint8).copy()
    damaged[rng.integers(0, len(data), rng.integers(1, 20))] ^= 1 << rng.integers(0, 8, dtype=np.uint8)
    return damaged.tobytes()


def bytes_cut_out(rng: np.random.Generator, data: bytes) -> bytes:
    start = rng.integers(14, len(data))
    return data[:start] + data[start + rng.integers(1, 30) :]


def pieces_swapped(rng: np.random.Generator, data: bytes) -> bytes:
    first, second = sorted(rng.integers(14, len(data), 2))
    return data[:14] + data[second:] + data[first:second] + data[14:first]


def events_cut(rng: np.random.Generator, data: bytes) -> bytes:
    return file(track_of(data)[: rng.integers(len(track_of(data)))])


def events_flipped(rng: np.random.Generator, data: bytes) -> bytes:
    return file(bits_flipped(rng, track_of(data)))


def events_doubled(rng: np.random.Generator, data: bytes) -> bytes:
    events = track_of(data)
    start, stop = sorted(rng.integers(0, len(events), 2))
    return file(events[:stop] + events[start:])


def noise(rng: np.random.Generator, data: bytes) -> bytes:
    likely = np.frombuffer(
        b"\0\0\0\0\1\2\3\4\x3c\x40\x51\x58\x7f\x80\x90\x99\xb0\xc0\xd0\xf0\xf7\xff", np.uint8
    )
    return file(rng.choice(likely, int(rng.integers(1, 4000))).tobytes())


def pitches_above_127(rng: np.random.Generator, data: bytes) -> bytes:
    events = b"".join(bytes([0, 0x9F, 128 + int(pitch), 64]) for pitch in rng.integers(0, 128, 2000))
    return file(events + END)


def absurd_tempo(rng: np.random.Generator, data: bytes) -> bytes:
    tempo = int(rng.choice([0, 1, (1 << 24) - 1]))
    return file(
        b"\x00\xff\x51\x03" + tempo.to_bytes(3) + b"\x00\x90\x3c\x40\xff\xff\xff\x7f\x80\x3c\x00" + END
    )


def absurd_times(rng: np.random.Generator, data: bytes) -> bytes:
    return file(
        b"\xff\xff\xff\x7f\x90\x3c\x40" * int(rng.integers(1, 30)) + END, division=int(rng.integers(65536))
    )


def endless_numbers(rng: np.random.Generator, data: bytes) -> bytes:
    return file(b"\xff" * int(rng.integers(1, 200_000)) + b"\x00\x90\x3c\x40" + END)


def absurd_lengths(rng: np.random.Generator, data: bytes) -> bytes:
    return file(data[22:], tracks=int(rng.integers(65536)), length=int(rng.integers(1 << 32)))


def no_length(rng: np.random.Generator, data: bytes) -> bytes:
    return file(b"\x00\x90\x3c\x40\x00\x80\x3c\x00" * int(rng.integers(1, 500)) + END)


def never_ended(rng: np.random.Generator, data: bytes) -> bytes:
    return file(b"\x01\x90\x3c\x40" * int(rng.integers(1, 5000)))


def all_programs(rng: np.random.Generator, data: bytes) -> bytes:
    players = [(channel, program) for channel in range(16) for program in range(128)]
    return file(
        b"".join(bytes([0, 0xC0 | c, p, 0, 0x90 | c, 60, 64, 1, 0x80 | c, 60, 0]) for c, p in players) + END
    )


def ten_million_notes(rng: np.random.Generator, data: bytes) -> bytes:
    return file(b"\x00\x90\x3c\x40" + b"\x00\x3c\x40" * 10_000_000 + END)


def text(rng: np.random.Generator, data: bytes) -> bytes:
    return ("It is no MIDI file.\n" * int(rng.integers(0, 100))).encode()


DAMAGES: tuple[Damage, ...] = (
    truncated, bits_flipped, bytes_cut_out, pieces_swapped, events_cut, events_flipped, events_doubled, noise,
    pitches_above_127, absurd_tempo, absurd_times, endless_numbers, absurd_lengths, no_length, never_ended,
    all_programs, ten_million_notes, text,
)  # fmt: skip


@dataclass
class Row:
    """What became of the files of one damage."""

    outcomes: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    message: str = ""


def fuzz(files: int, seed: int, folder: Path, seconds: float = 60.0) -> dict[str, Row]:
    """Make and read damaged files, one after another; any end but "parsed" and "refused" is an exception.

    Raises:
        TimeoutError: reading a file took longer than `seconds`.
    """

    def too_slow(*_: object) -> None:
        raise TimeoutError(f"expected a file to be read within {seconds} s; it lies in {folder}")

    before = signal.signal(signal.SIGALRM, too_slow)
    rows: dict[str, Row] = {}
    try:
        for number in range(files):
            rng = np.random.default_rng([seed, number])
            damage = DAMAGES[number % len(DAMAGES)]
            path = folder / "damaged.mid"
            path.write_bytes(damage(rng, midi_bytes(piece(rng))))
            row = rows.setdefault(damage.__name__, Row())
            signal.setitimer(signal.ITIMER_REAL, seconds)
            start = time.perf_counter()
            try:
                notes = read_midi(path)
            except WavegenError as error:
                row.outcomes["refused"] += 1
                row.message = str(error).removeprefix(f"cannot read {path}: ")
                assert "\n" not in row.message, row.message
            else:
                row.outcomes["parsed"] += 1
                assert len(parse_midi(midi_bytes(notes))) == len(notes)
            row.slowest = max(row.slowest, time.perf_counter() - start)
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return rows


def main(files: int = 1000, seed: int = 0, gigabytes: float = 2.0) -> None:
    """Damage and read MIDI files.

    Args:
        files: how many.
        seed: of the files and the damage.
        gigabytes: of address space that this process may have.
    """
    warnings.simplefilter("ignore")  # A reader says what it left out.
    resource.setrlimit(resource.RLIMIT_AS, (int(gigabytes * 2**30),) * 2)
    with tempfile.TemporaryDirectory() as folder:
        rows = fuzz(files, seed, Path(folder))
        fullest = Path(folder) / "fullest.mid"
        fullest.write_bytes(file(b"\x00\x90\x3c\x40" + b"\x00\x3c\x40" * (LARGEST // 3 - 20) + END))
        start = time.perf_counter()
        count = len(read_midi(fullest))
        fullest_seconds = time.perf_counter() - start
    print(f"{'damage':20} {'parsed':>7} {'refused':>8} {'slowest ms':>11}  the last refusal")
    for name, row in rows.items():
        counts = f"{row.outcomes['parsed']:7} {row.outcomes['refused']:8}"
        print(f"{name:20} {counts} {1000 * row.slowest:11.1f}  {row.message[:120]}")
    print(f"{sum(sum(row.outcomes.values()) for row in rows.values())} files: all parsed or refused")
    print(f"the fullest file that is read ({LARGEST} bytes, {count} notes): {fullest_seconds:.1f} s")
    print(f"memory at most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    tyro.cli(main)
