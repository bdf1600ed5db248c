"""Whether a clip stays alive: how long it can be heard, how its level moves, and how much of it stands still."""

from dataclasses import dataclass

import numpy as np

from wavegen.audio import Audio
from wavegen.evaluation.frames import FLOOR_DB, levels, log_mel_frames
from wavegen.evaluation.noise import noise_share

FRAME = 0.1  # seconds
QUIET_DB = 40.0  # below the loudest frame; what stays fainter to the end has died
STILL_DB = (
    0.5  # mean change of the bands from frame to frame; a held piano note moves more, a steady tone less
)
STILL_SECONDS = 0.5  # a shorter standstill is a held note
PARTS = 10


@dataclass(frozen=True)
class Life:
    """How a clip goes on over time.

    Attributes:
        alive: share of the clip until the last frame within 40 dB of the loudest one; 0 to 1.
        level_change_db: level of the last quarter minus that of the first.
        noise: share of frames that are noise (see ``noise_share``).
        stuck: share of the audible frames whose spectrum has not changed for half a second, 0 to 1; None where the
            clip is shorter.
        course: level in dB of full scale of each tenth of the clip.
    """

    alive: float
    level_change_db: float
    noise: float
    stuck: float | None
    course: tuple[float, ...]


def life(audio: Audio) -> Life:
    """Measures how a clip goes on; to see a model die, give clips of a minute.

    Args:
        audio: a clip, which is mixed to mono.

    Example:
        >>> import numpy as np
        >>> from wavegen.audio import Audio
        >>> from wavegen.evaluation.life import life
        >>> tone = 0.3 * np.sin(np.arange(32000) / 3)
        >>> tone[16000:] = 0
        >>> measured = life(Audio(tone, 8000))
        >>> measured.alive, measured.stuck, round(measured.level_change_db)
        (0.5, 1.0, -67)
    """
    level = levels(audio, FRAME)
    audible = level > max(level.max() - QUIET_DB, FLOOR_DB)
    last = np.flatnonzero(audible)[-1] + 1 if audible.any() else 0
    quarter = max(len(level) // 4, 1)
    return Life(
        alive=float(last / len(level)),
        level_change_db=_mean_level(level[-quarter:]) - _mean_level(level[:quarter]),
        noise=noise_share(audio),
        stuck=_stuck(audio, audible),
        course=tuple(_mean_level(part) for part in np.array_split(level, min(PARTS, len(level)))),
    )


def _mean_level(level: np.ndarray) -> float:
    """Returns the level of the mean power."""
    return float(10 * np.log10(np.mean(10 ** (level / 10))))


def _stuck(audio: Audio, audible: np.ndarray) -> float | None:
    """Returns the share of audible frames that lie in a run of at least half a second without change."""
    frames = log_mel_frames(audio, window=FRAME, hop=FRAME, bands=32)
    count = min(len(frames), len(audible))
    run = round(STILL_SECONDS / FRAME)
    if count < run:
        return None
    frames, audible = frames[:count], audible[:count]
    if not audible.any():
        return 0.0
    # Bands 60 dB below a frame's loudest are at rest whatever is played.
    counts = frames > frames.max(axis=1, keepdims=True) - 60
    both = counts[1:] | counts[:-1]
    change = np.sum(np.abs(np.diff(frames, axis=0)) * both, axis=1) / both.sum(axis=1)
    still = np.concatenate([[False], (change < STILL_DB) & audible[1:] & audible[:-1], [False]])
    edges = np.flatnonzero(still[1:] != still[:-1])
    stuck = sum(
        stop - start + 1
        for start, stop in zip(edges[::2], edges[1::2], strict=True)
        if stop - start + 1 >= run
    )
    return float(stuck / audible.sum())
