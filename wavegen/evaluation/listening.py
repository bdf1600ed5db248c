"""A page for blind A/B listening: one HTML file with the audio inside, which needs no network and no server."""

import base64
import json
import tempfile
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from wavegen.atomic import atomic_write
from wavegen.audio import Audio
from wavegen.errors import WavegenError, require_least
from wavegen.evaluation.frames import levels

_TEMPLATE = Path(__file__).parents[1] / "assets" / "listening.html"
LEVEL_DB = -23.0
"""Level of the audible frames of every clip, in dB of full scale, unless a peak needs less."""
PEAK = 0.98
QUIET_DB = 40.0  # below the loudest frame; silence does not count
FRAME = 0.1  # seconds


def write_page(
    path: str | Path, systems: Mapping[str, Mapping[str, Audio]], *, questions: int = 20, seed: int = 0
) -> list[tuple[tuple[str, str], tuple[str, str]]]:
    """Writes a page that asks which of two clips sounds better.

    Every question has clips of two systems. Two systems that have clips of the same names are asked about pairs of one
    name, others about pairs drawn at random; all pairs of systems occur equally often, give or take one. The page
    randomises the order of the questions, and of the two clips, for each visitor, by a seed that the answers name.

    Args:
        path: ending in ``.html``.
        systems: clips by name, by the name of the system.
        questions: how many there are.
        seed: of the choice of the clips.

    Returns:
        The system and the name of both clips of each question.

    Raises:
        WavegenError: if there are fewer than two systems, one without clips, another ending, or no questions.
    """
    path = Path(path)
    require_least(questions=(questions, 1))
    if path.suffix != ".html":
        raise WavegenError(f"expected a page named NAME.html, got {path.name}; rename it")
    if len(systems) < 2 or not all(systems.values()):
        raise WavegenError(
            f"expected at least two systems, each with clips, got {', '.join(systems) or 'none'}; give two folders"
        )
    pairs = _pairs(systems, questions, seed)
    used = sorted({clip for pair in pairs for clip in pair})
    level = _common_level([systems[system][name] for system, name in used])
    clips = [
        {"system": system, "name": name, "wav": _wav(_at_level(systems[system][name], level))}
        for system, name in used
    ]
    test = {"clips": clips, "pairs": [[used.index(clip) for clip in pair] for pair in pairs]}
    # "</script" in a name would end the element.
    content = json.dumps(test).replace("<", "\\u003c")
    page = _TEMPLATE.read_text(encoding="utf-8").replace("/*TEST*/", content)
    with atomic_write(path) as file:
        file.write(page.encode())
    return pairs


def _pairs(
    systems: Mapping[str, Mapping[str, Audio]], questions: int, seed: int
) -> list[tuple[tuple[str, str], tuple[str, str]]]:
    random = np.random.default_rng(seed)
    both = list(combinations(systems, 2))
    remaining: dict[tuple[str, str], list[str]] = {}
    found = []
    for question in range(questions):
        one, other = both[question % len(both)]
        shared = sorted(set(systems[one]) & set(systems[other]))
        if shared:
            # A name comes again only when all have been asked.
            left = remaining.setdefault((one, other), [])
            if not left:
                left.extend(shared[i] for i in random.permutation(len(shared)))
            name = left.pop()
            found.append(((one, name), (other, name)))
        else:
            names = [str(random.choice(sorted(systems[system]))) for system in (one, other)]
            found.append(((one, names[0]), (other, names[1])))
    return found


def loudness(audio: Audio) -> float:
    """Returns the level of a clip in dB of full scale: the mean power of its frames within 40 dB of the loudest."""
    level = levels(audio, FRAME)
    return float(10 * np.log10(np.mean(10 ** (level[level > level.max() - QUIET_DB] / 10))))


def _common_level(clips: Sequence[Audio]) -> float:
    """Returns the level that all clips can have without clipping."""
    room = [
        loudness(clip) + 20 * np.log10(PEAK / peak)
        for clip in clips
        if (peak := float(np.abs(clip.samples).max())) > 0
    ]
    return min([LEVEL_DB, *room])


def _at_level(clip: Audio, level: float) -> Audio:
    return Audio(clip.samples * 10 ** ((level - loudness(clip)) / 20), clip.sample_rate)


def _wav(clip: Audio) -> str:
    with tempfile.TemporaryDirectory() as folder:
        clip.write(file := Path(folder) / "clip.wav")
        return base64.b64encode(file.read_bytes()).decode()
