"""The form of a song, and the log of its stages."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wavegen.atomic import atomic_write
from wavegen.errors import WavegenError
from wavegen.stopping import ProgressCallback, Stopped


@dataclass(frozen=True)
class Stage:
    """What was done for a section of a song.

    Attributes:
        name: "generate", "harmonise", "remix", "vary" or "arrange".
        section: as the form names it, with its number where it is repeated; empty for the whole song.
        seed: that it was drawn with; None where nothing was drawn.
        arguments: what it was asked.
        size: of what came out: "notes" and "quarters", or "seconds".
    """

    name: str
    section: str
    seed: int | None
    arguments: Mapping[str, Any]
    size: Mapping[str, float]


def write_log(
    folder: Path,
    request: Mapping[str, Any],
    stages: Sequence[Stage],
    files: Mapping[str, Mapping[str, int | str]],
    **more: Any,
) -> list[Path]:
    """Writes ``song.json``: what was asked for, what was done, and what each file is.

    Returns:
        All files, the log last.
    """
    log = {"request": dict(request), "stages": [asdict(stage) for stage in stages], **more, "files": files}
    with atomic_write(folder / "song.json") as file:
        file.write(json.dumps(log, indent=2).encode())
    return [folder / name for name in (*files, "song.json")]


class SectionStopped(Exception):
    """``Stopped`` on its way out of a section: of half a section nothing is kept."""


def during(progress: ProgressCallback, stage: str, done: int, total: int) -> ProgressCallback:
    """What a stage of a song calls: ``progress`` with the stage, how many are done, and of how many.

    It raises ``SectionStopped`` where ``progress`` raises ``Stopped``.
    """

    def call(*within: object) -> None:
        del within
        try:
            progress(stage, done, total)
        except Stopped as stop:
            raise SectionStopped from stop

    return call


def parse_form(form: str) -> list[str]:
    """The sections of a form: AABA, or verse-chorus-verse.

    Raises:
        WavegenError: it names no sections.
    """
    names = form.split("-") if "-" in form else list(form)
    if not names or not all(name.isalnum() for name in names):
        raise WavegenError(
            f"expected a form of letters, as AABA, or of names, as verse-chorus-verse, got {form!r}"
        )
    return names


def seed_of(seed: int, number: int) -> int:
    """Another number for each section, and for each seed."""
    if seed < 0:
        raise WavegenError(f"expected a seed of at least 0, got {seed}")
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
