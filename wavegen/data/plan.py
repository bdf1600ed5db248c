"""What there is to prepare and how it is cut into shards, known from names and file sizes alone."""

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from wavegen.config.splits import LabelPattern, SplitRule, Splits
from wavegen.data.manifest import VERSION, Backend, Format
from wavegen.data.rendering import Rendering
from wavegen.errors import WavegenError
from wavegen.notes.score import Score

AUDIO_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("wav", "wave", "flac", "ogg", "oga", "opus", "mp3", "aif", "aiff", "aifc", "au", "snd", "caf"),
        *("w64", "rf64", "voc", "sph"),
        # libsndfile does not decode these: they are listed to be reported as skipped, not overlooked.
        *("m4a", "aac", "mp4", "wma", "webm", "ape", "wv"),
    )
)

MIDI_SUFFIXES = frozenset((".mid", ".midi", ".kar", ".rmi"))

READERS = 2
"""A number that changes when the same file is read otherwise than before; shards of another number are made again."""


@runtime_checkable
class NoteTokens(Protocol):
    """What preparation needs of a note codec.

    A ``wavegen.codecs.NoteCodec`` provides it, but importing that class starts JAX.
    """

    @property
    def codebooks(self) -> int:
        """Tokens per frame."""

    @property
    def fingerprint(self) -> str:
        """An identifier, equal for codecs that write the same tokens."""

    def encode(self, notes: Score) -> np.ndarray:
        """Writes a piece as tokens, ``[N, K]`` int32."""


@dataclass(frozen=True)
class Settings:
    """What decides the content of a prepared dataset, apart from the recordings; see ``prepare``."""

    sample_rate: int
    channels: int
    label_pattern: str | None
    split: Splits
    trim_silence_db: float | None
    backend: Backend
    shard_bytes: int
    codec: NoteTokens | None = None
    rendering: Rendering | None = None
    split_by: str | None = None
    pedal: bool = True

    def __post_init__(self) -> None:
        for name in ("sample_rate", "channels", "shard_bytes"):
            if getattr(self, name) < 1:
                raise WavegenError(f"expected {name} of at least 1, got {getattr(self, name)}")
        if self.backend not in ("memmap", "array_record"):
            raise WavegenError(f"expected the backend memmap or array_record, got {self.backend!r}")
        if self.trim_silence_db is not None and self.trim_silence_db <= 0:
            raise WavegenError(f"expected trim_silence_db above 0, got {self.trim_silence_db}")
        SplitRule(self.split, self.split_by)
        if self.label_pattern is not None:
            LabelPattern(self.label_pattern)

    @property
    def format(self) -> Format:
        """The description of the dataset in its manifest."""
        if self.codec is not None:
            return Format(
                sample_rate=1,
                channels=self.codec.codebooks,
                backend=self.backend,
                codec=self.codec.fingerprint,
                tokens=True,
            )
        return Format(
            sample_rate=self.sample_rate,
            channels=self.channels,
            backend=self.backend,
            feature_hop=self.rendering.hop if self.rendering else None,
            features=self.rendering.columns if self.rendering else "",
        )

    @property
    def suffixes(self) -> frozenset[str]:
        """Suffixes of the files that are read."""
        return AUDIO_SUFFIXES if self.codec is None and self.rendering is None else MIDI_SUFFIXES

    @property
    def card(self) -> dict[str, Any]:
        """The settings in the types of JSON."""
        return asdict(self) | {"codec": self.codec and self.codec.fingerprint}


@dataclass(frozen=True)
class Source:
    """One recording to prepare: its name below the folder, and the size and time that show whether it changed."""

    name: str
    size: int
    modified_ns: int
    problem: str = ""
    """Why it cannot be read, where the folder shows that already."""


@dataclass(frozen=True)
class PlannedShard:
    """One unit of work: the recordings of one shard."""

    name: str
    sources: tuple[Source, ...]
    inputs: str
    """The sha256 of the settings and of the names, sizes and times of the recordings."""


def find_recordings(folder: str | Path, suffixes: frozenset[str] = AUDIO_SUFFIXES) -> list[Source]:
    """Finds every recording, or MIDI file, below a folder, sorted by name; hidden files and folders are left out.

    Linked folders are followed, each folder once. What is named as a recording and is no file, and folders that cannot
    be opened, are listed with the problem.

    Raises:
        WavegenError: if there is no such folder, or no recordings in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise WavegenError(
            f"expected a folder of recordings, got {folder}, which is not a folder; correct data.path, or give wavegen "
            "evaluate the folder by --data"
        )
    found: list[Source] = []
    visited: set[tuple[int, int]] = set()
    linked = [folder]
    # What is linked comes after all that is not, so that a recording has the name of its place, not that of a link.
    while linked:
        waiting = [linked.pop(0)]
        while waiting:
            here = waiting.pop()
            name = here.relative_to(folder).as_posix()
            try:
                status = here.stat()
                if (status.st_dev, status.st_ino) in visited:
                    continue
                visited.add((status.st_dev, status.st_ino))
                entries = sorted(os.scandir(here), key=lambda entry: entry.name)
            except OSError as error:
                found.append(Source(name, 0, 0, f"the folder cannot be opened: {error.strerror or error}"))
                continue
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                path = Path(entry.path)
                if path.is_dir():
                    (linked if entry.is_symlink() else waiting).append(path)
                elif path.suffix.lower() in suffixes:
                    found.append(_source(path, path.relative_to(folder).as_posix()))
    if not found:
        kind = "MIDI files" if suffixes == MIDI_SUFFIXES else "recordings (WAV, FLAC, OGG, MP3, ...)"
        raise WavegenError(f"expected {kind} in {folder}, got none; check the path")
    return sorted(found, key=lambda source: source.name)


def _source(path: Path, name: str) -> Source:
    try:
        name.encode()
        status = path.stat()
    except UnicodeEncodeError:  # a name in another encoding, which no manifest can hold
        return Source(ascii(name), 0, 0, "its name is not UTF-8; rename it")
    except FileNotFoundError:
        return Source(name, 0, 0, "a link to nothing; remove it, or restore what it pointed to")
    except OSError as error:
        return Source(name, 0, 0, f"it cannot be examined: {error.strerror or error}")
    if not stat.S_ISREG(status.st_mode):
        return Source(name, 0, 0, "a special file, not a recording")
    return Source(name, status.st_size, status.st_mtime_ns)


def plan_shards(sources: Sequence[Source], settings: Settings) -> Iterator[PlannedShard]:
    """Groups recordings into shards by the size of their files."""
    group: list[Source] = []
    index = size = 0
    for position, source in enumerate(sources):
        group.append(source)
        size += source.size
        if size >= settings.shard_bytes or position == len(sources) - 1:
            inputs = digest([VERSION, READERS, settings.card, [asdict(member) for member in group]])
            yield PlannedShard(f"shard-{index:05}", tuple(group), inputs)
            group, index, size = [], index + 1, 0


def digest(value: Any) -> str:
    """Returns the sha256 of a value of JSON types, the same in every process."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
