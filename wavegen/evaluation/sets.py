"""Sets of clips that are compared: cut alike, halved by recording, and equally large."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from wavegen.audio import Audio
from wavegen.data.plan import find_recordings
from wavegen.errors import WavegenError, require_least


def read_folder(
    folder: str | Path,
    most: int,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Audio]:
    """Reads recordings of a folder, drawn at random if there are more, mixed to mono.

    Args:
        folder: searched with its subfolders.
        most: recordings that are read at most.
        seed: of the choice.
        progress: called with the number of recordings read, and how many there are to read.

    Returns:
        The recordings by their names below the folder, in the order of names.

    Raises:
        WavegenError: if there is no such folder, or one of the recordings cannot be read.
    """
    require_least(most=(most, 1))
    found = find_recordings(folder)
    chosen = sorted(np.random.default_rng(seed).permutation(len(found))[:most])
    clips = {}
    for done, index in enumerate(chosen):
        clips[found[index].name] = Audio.read(Path(folder) / found[index].name).mono()
        progress(done + 1, len(chosen))
    return clips


def cut(recording: Audio, seconds: float) -> list[Audio]:
    """Cuts a recording into clips of this length, end to end; one that is not longer is left whole.

    A remainder is left out, so that all clips of a longer recording have one length.
    """
    size = round(seconds * recording.sample_rate)
    if len(recording.samples) <= size:
        return [recording]
    starts = range(0, len(recording.samples) - size + 1, size)
    return [Audio(recording.samples[start : start + size], recording.sample_rate) for start in starts]


def halves(
    recordings: Sequence[Audio], seconds: float, most: int, seed: int = 0
) -> tuple[list[Audio], list[Audio]]:
    """Divides recordings into two sets of clips, so that none has a clip in both.

    A single recording is divided into its first and its last half.

    Args:
        recordings: at least one.
        seconds: longest clip; longer recordings are cut.
        most: clips of a set at most, drawn at random.
        seed: of the division and of the choice.

    Raises:
        WavegenError: if there are not at least two clips for each set.
    """
    random = np.random.default_rng(seed)
    order = [cut(recordings[i], seconds) for i in random.permutation(len(recordings))]
    if len(order) == 1:
        (clips,) = order
        order = [clips[: len(clips) // 2], clips[len(clips) // 2 :]]
    parts = [[clip for clips in order[start::2] for clip in clips] for start in (0, 1)]
    if min(map(len, parts)) < 2:
        raise WavegenError(
            f"expected recordings for two sets of at least two clips of {seconds:.2f} s, got "
            f"{' and '.join(str(len(part)) for part in parts)}; give more recordings"
        )
    first, last = ([part[i] for i in random.permutation(len(part))[:most]] for part in parts)
    return first, last
