"""Ways to damage a file: each takes a random generator and the whole file, and returns a damaged one."""

import re
from collections.abc import Callable

import numpy as np

Damage = Callable[[np.random.Generator, bytes], bytes]
NUMBERS = (
    b"-1",
    b"0",
    b"1e400",
    b"NaN",
    b"99999999999999999999",
    b"1.5",
    b'"7"',
    b"null",
    b"true",
    b"[]",
    b"{}",
)
WORDS = (
    b"!!int abc",
    b"2026-11-28",
    b"*a",
    b"&a [*a]",
    b"\x00",
    b"\xff\xfe",
    b"../../etc",
    b"%",
    b"\xe2\x80\xae",
    b": :",
)


def flipped(rng: np.random.Generator, data: bytes) -> bytes:
    damaged = np.frombuffer(data, np.uint8).copy()
    damaged[rng.integers(0, len(data), rng.integers(1, 20))] ^= 1 << rng.integers(0, 8, dtype=np.uint8)
    return damaged.tobytes()


def flipped_at_the_start(rng: np.random.Generator, data: bytes) -> bytes:
    head = int(min(len(data), 64))
    return flipped(rng, data[:head]) + data[head:]


def absurd_field(rng: np.random.Generator, data: bytes) -> bytes:
    """A number of 1, 2, 4 or 8 bytes in the header becomes an extreme one, of either byte order."""
    size = int(rng.choice([1, 2, 4, 8]))
    most = 2 ** (8 * size) - 1
    value = (0, 1, most, most // 2, most // 2 + 1, 2 ** (4 * size))[rng.integers(6)]
    start = int(rng.integers(0, min(len(data), 200)))
    return data[:start] + value.to_bytes(size, str(rng.choice(["little", "big"]))) + data[start + size :]


def truncated(rng: np.random.Generator, data: bytes) -> bytes:
    return data[: rng.integers(len(data))]


def cut_out(rng: np.random.Generator, data: bytes) -> bytes:
    start = int(rng.integers(len(data)))
    return data[:start] + data[start + int(rng.integers(1, 2 + len(data) // 4)) :]


def zeroed(rng: np.random.Generator, data: bytes) -> bytes:
    start, stop = sorted(rng.integers(0, len(data) + 1, 2))
    return data[:start] + bytes([int(rng.choice([0, 255]))]) * int(stop - start) + data[stop:]


def swapped(rng: np.random.Generator, data: bytes) -> bytes:
    first, second, third = sorted(rng.integers(0, len(data) + 1, 3))
    return data[:first] + data[second:third] + data[first:second] + data[third:]


def doubled(rng: np.random.Generator, data: bytes) -> bytes:
    start, stop = sorted(rng.integers(0, len(data) + 1, 2))
    return data[:stop] + data[start:]


def noise(rng: np.random.Generator, data: bytes) -> bytes:
    head = int(rng.integers(0, min(len(data), 64)))
    return data[:head] + rng.bytes(int(rng.integers(0, 4000)))


def followed_by_noise(rng: np.random.Generator, data: bytes) -> bytes:
    return data + rng.bytes(int(rng.integers(1, 4000)))


def number_replaced(rng: np.random.Generator, data: bytes) -> bytes:
    return _replaced(rng, data, rb"-?\d+\.?\d*(e-?\d+)?", NUMBERS)


def word_replaced(rng: np.random.Generator, data: bytes) -> bytes:
    return _replaced(rng, data, rb"[A-Za-z_]+", NUMBERS + WORDS)


def words_exchanged(rng: np.random.Generator, data: bytes) -> bytes:
    return _replaced(rng, data, rb"[\w.]+", re.findall(rb"[\w.]+", data) or NUMBERS)


def nested(rng: np.random.Generator, data: bytes) -> bytes:
    start, deep = int(rng.integers(len(data))), int(10 ** rng.uniform(0, 5))
    return data[:start] + rng.choice([b"[", b"{", b'{"a":', b"- ", b"(", b"!"]) * deep + data[start:]


def line_removed(rng: np.random.Generator, data: bytes) -> bytes:
    lines = data.splitlines(keepends=True)
    del lines[int(rng.integers(len(lines)))]
    return b"".join(lines)


def lines_shuffled(rng: np.random.Generator, data: bytes) -> bytes:
    lines = data.splitlines(keepends=True)
    return b"".join(lines[i] for i in rng.permutation(len(lines)))


def repeated(rng: np.random.Generator, data: bytes) -> bytes:
    return data * int(rng.integers(2, 50))


def other_encoding(rng: np.random.Generator, data: bytes) -> bytes:
    return data.decode("latin-1").encode(
        str(rng.choice(["utf-16", "utf-32", "utf-8-sig", "cp037"])), errors="replace"
    )


def _replaced(
    rng: np.random.Generator, data: bytes, pattern: bytes, others: list[bytes] | tuple[bytes, ...]
) -> bytes:
    found = list(re.finditer(pattern, data))
    if not found:
        return truncated(rng, data)
    for match in sorted(rng.choice(len(found), int(rng.integers(1, 3))), reverse=True):
        start, stop = found[match].span()
        data = data[:start] + others[int(rng.integers(len(others)))] + data[stop:]
    return data


BINARY: tuple[Damage, ...] = (
    flipped, flipped_at_the_start, absurd_field, truncated, cut_out, zeroed, swapped, doubled, noise, followed_by_noise,
)  # fmt: skip
TEXT: tuple[Damage, ...] = (
    number_replaced, word_replaced, words_exchanged, nested, line_removed, lines_shuffled, repeated, other_encoding,
    truncated, flipped, cut_out, zeroed, swapped, doubled, noise,
)  # fmt: skip
