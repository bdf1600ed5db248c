"""Decodes recordings with libsndfile, in blocks to the end of the data: the length in a header is only a claim."""

import io
import itertools
import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
from jaxtyping import Float32

from wavegen.errors import WavegenError
from wavegen.losses import Losses

LARGEST = 1 << 30  # values of a recording (samples times channels), 4 GiB: 18 hours of mono at 16 kHz
_BLOCK = 1 << 18  # values that are decoded at once
# Decoders drop or add up to two MPEG frames at the ends of an intact MP3.
_MP3_SLACK = 2 * 1152
# Recorders that write to a pipe cannot know the size of the data: they store a huge one, "until the end of the file".
_UNKNOWN_SIZE = 0x7FFF0000
_MP3_BLOCK = 4 * 1152  # values; of the block in which an MP3 is cut short, nothing is decoded
_MP3_TAG = 4096  # bytes before the first frame of an MP3, at most, that cannot be a recording
_UNKNOWN_FRAMES = 1 << 62


def decode(path: Path, losses: Losses) -> tuple[Float32[np.ndarray, "T C"], int]:
    """Returns all samples of a recording and their rate.

    Args:
        path: the file.
        losses: an MP3 that may be cut short, because no header gives its length, is counted here.

    Raises:
        WavegenError: if it cannot be decoded to its end, is cut short, or decodes to more than ``LARGEST`` values.
    """
    import soundfile

    try:
        with _opened(path) as file:
            _refuse_cut_header(path, file.extra_info)
            promised = file.frames if file.frames < _UNKNOWN_FRAMES else 0
            rate, is_mp3 = file.samplerate, file.format == "MP3"
            whole = file.format not in ("MP3", "OGG")
            samples = _to_the_end(path, file) if whole else np.zeros((0, file.channels), np.float32)
        if is_mp3:
            data = _without_tags(path.read_bytes())
            # libsndfile stops an MP3 at its estimate of the length; of a stream it knows none and reads to the end.
            samples = _joined(path, [_streamed(part) for part in _mp3_parts(data)], rate)
            if not any(name in data[:4096] for name in (b"Xing", b"Info", b"VBRI")):
                promised = 0
                losses["recordings without a length, whose end may be missing"] += 1
        elif not whole:
            samples = _joined(path, [_in_memory(part) for part in _ogg_parts(path.read_bytes())], rate)
    except WavegenError:
        raise
    # No error of the library may end a batch, and it raises many: damaged data, numbers out of range, assertions.
    except (soundfile.SoundFileError, RuntimeError, ValueError, TypeError, OSError, MemoryError) as error:
        reason = (getattr(error, "error_string", None) or str(error) or type(error).__name__).rstrip(".")
        if "does not exist" in reason:  # libsndfile's misleading words for an MP3 without any MPEG frame
            reason = "no audio found in it"
        raise WavegenError(
            f"cannot read {path}: it is damaged or not a recording that libsndfile decodes ({reason}); "
            "convert it to WAV or FLAC, or remove it"
        ) from error
    if len(samples) + (_MP3_SLACK if is_mp3 else 0) < promised:
        raise _cut_short(path, f"{promised} samples", f"{len(samples)}")
    return samples, rate


def _to_the_end(path: Path, file: Any) -> Float32[np.ndarray, "T C"]:
    blocks: list[np.ndarray] = []
    total = 0
    frames = max(1, (_MP3_BLOCK if file.format == "MP3" else _BLOCK) // file.channels)
    while len(block := _read(file, frames, bool(blocks))):
        blocks.append(block)
        total += block.size
        if total > LARGEST:
            raise WavegenError(
                f"cannot read {path}: expected at most {LARGEST} values of all channels, got more; split it"
            )
    return np.concatenate(blocks) if blocks else np.zeros((0, file.channels), np.float32)


def _read(file: Any, frames: int, begun: bool) -> Float32[np.ndarray, "T C"]:
    import soundfile

    try:
        return file.read(frames, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError:
        # The last frame of an MP3 that is cut short is an error; what came before it is audio, and its end is missing.
        if not (begun and file.format == "MP3"):
            raise
        return np.zeros((0, file.channels), np.float32)


@cache
def _sequential() -> type:
    """Returns the class of a file that is read in order: the library then neither seeks nor allocates by the header."""
    import soundfile

    class Sequential(soundfile.SoundFile):
        def seekable(self) -> bool:
            return False

    return Sequential


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    with _sequential()(path) as file:
        yield file


@contextmanager
def _in_memory(data: bytes) -> Iterator[Any]:
    with _sequential()(io.BytesIO(data)) as file:
        yield file


@contextmanager
def _streamed(audio: bytes) -> Iterator[Any]:
    """Opens an encoded recording through a pipe."""
    reader, writer = os.pipe()

    def feed() -> None:
        try:
            with open(writer, "wb") as pipe:
                pipe.write(audio)
        except BrokenPipeError:  # the reader failed, and says why itself
            return

    feeder = Thread(target=feed, daemon=True)
    feeder.start()
    try:
        with _sequential()(reader, closefd=False) as file:
            yield file
    finally:
        os.close(reader)
        feeder.join()


def _joined(path: Path, parts: list[AbstractContextManager[Any]], rate: int) -> Float32[np.ndarray, "T C"]:
    """Returns the samples of recordings that stand one behind the other in a file."""
    samples: list[np.ndarray] = []
    for part in parts:
        with part as file:
            if file.samplerate != rate or (samples and file.channels != samples[0].shape[1]):
                raise WavegenError(
                    f"cannot read {path}: expected parts of one sample rate and number of channels, got {rate} Hz and "
                    f"{file.samplerate} Hz, {file.channels} channel(s) in part {len(samples)}; convert it to WAV"
                )
            samples.append(_to_the_end(path, file))
    if sum(part.size for part in samples) > LARGEST:
        raise WavegenError(
            f"cannot read {path}: expected at most {LARGEST} values of all channels, got more; split it"
        )
    return np.concatenate(samples)


def _mp3_parts(data: bytes) -> list[bytes]:
    """Cuts an MP3 before each frame that gives a length: MP3 files that were joined have several.

    The header of such a frame is 4 bytes and, by its version and channels, 9, 17 or 32 more before the name.
    """
    starts: list[int] = []
    for found in re.finditer(rb"Xing|Info", data):
        for at in (found.start() - before for before in (13, 21, 36)):
            if at >= 0 and data[at] == 0xFF and data[at + 1] & 0xE6 == 0xE2:
                starts.append(at)
    # What stands before the first such frame may be a tag, or a recording that gives no length.
    starts[: bool(starts) and starts[0] < _MP3_TAG] = [0]
    return [data[start:stop] for start, stop in itertools.pairwise([*starts, len(data)])]


def _ogg_parts(data: bytes) -> list[bytes]:
    """Cuts an Ogg file before each chained stream: a page that begins one, behind a page that does not (RFC 3533)."""
    starts, at, beginning = [0], 0, True
    while data[at : at + 4] == b"OggS" and at + 27 <= len(data):
        begins = bool(data[at + 5] & 2)
        if begins and not beginning:
            starts.append(at)
        beginning = begins
        segments = data[at + 26]
        at += 27 + segments + sum(data[at + 27 : at + 27 + segments])
    return [data[start:stop] for start, stop in itertools.pairwise([*starts, len(data)])]


def _without_tags(data: bytes) -> bytes:
    """Returns an MP3 without the ID3v2 tags before it: https://id3.org/id3v2.4.0-structure, section 3.1."""
    at = 0
    while data[at : at + 3] == b"ID3" and at + 10 <= len(data):
        size = 0
        for byte in data[at + 6 : at + 10]:
            size = size << 7 | byte & 0x7F
        at += 10 + size + (10 if data[at + 5] & 0x10 else 0)
    return data[at:]


def _refuse_cut_header(path: Path, log: str) -> None:
    """Raises if libsndfile noted that a WAV or AIFF header promises more bytes than the file has."""
    for promised, present in re.findall(r"(?:data|SSND) *: *(\d+) \(should be (\d+)\)", log):
        if int(present) < int(promised) < _UNKNOWN_SIZE:
            raise _cut_short(path, f"{promised} bytes of audio", present)


def _cut_short(path: Path, promised: str, present: str) -> WavegenError:
    return WavegenError(
        f"cannot read {path}: it is cut short (the header promises {promised}, the file holds {present}); "
        "copy it again"
    )
