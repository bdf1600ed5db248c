"""A piece as files: the whole and every track on its own, as MIDI and as audio, and a picture."""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from wavegen.audio import Audio
from wavegen.notes.midi import write_midi
from wavegen.notes.render import LOUDNESS, PEAK, levelled, render
from wavegen.notes.score import Score
from wavegen.pictures.notes import plot_notes

RELEASE = 1.0  # seconds of sound after the last note


def write_stems(
    folder: Path,
    notes: Score,
    *,
    sample_rate: int,
    soundfont: str | Path | None = None,
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> dict[str, dict[str, int | str]]:
    """Writes ``song.mid``, ``song.wav``, ``song.png``, and ``stem-N-NAME`` for each track with notes.

    Stems are as long as the song, and at the level that they have in it: ``song.wav`` is their sum.

    Args:
        folder: is made if it is missing.
        notes: the piece.
        sample_rate: Hz.
        soundfont: see ``wavegen.notes.render.render``.
        progress: called with the name of the stem that is rendered, how many are done, and of how many.

    Returns:
        The size in bytes and the sha256 of every file, by name.
    """
    length = round((float(notes.seconds(np.array(notes.end))) + RELEASE) * sample_rate)
    stems: dict[str, Audio] = {}
    paths = [folder / "song.mid", folder / "song.png"]
    write_midi(paths[0], notes)
    plot_notes(paths[1], {"song": notes})
    sounding = sorted(set(notes.track.tolist()))
    for done, number in enumerate(sounding):
        alone = _alone(notes, number)
        label = re.sub(r"[^a-z0-9]+", "-", alone.tracks[0].name.lower()).strip("-")
        name = f"stem-{number + 1}-{label}" if label else f"stem-{number + 1}"
        progress(name, done, len(sounding))
        stems[name] = render(alone, sample_rate, soundfont=soundfont, loudness=None, length=length)
        paths.append(folder / f"{name}.mid")
        write_midi(paths[-1], alone)
    mixed = sum((stem.samples for stem in stems.values()), np.zeros((length, 1), np.float32))
    gain = _gain(Audio(mixed, sample_rate), [stem.samples for stem in stems.values()])
    for name, audio in {"song": Audio(mixed, sample_rate), **stems}.items():
        paths.append(folder / f"{name}.wav")
        Audio(audio.samples * gain, sample_rate).write(paths[-1])
    progress("files", len(sounding), len(sounding))
    return {path.name: fingerprint(path) for path in sorted(paths)}


def _alone(notes: Score, number: int) -> Score:
    """One track of a piece."""
    played = notes.where(notes.track == number)
    return replace(played, track=np.zeros(len(played), np.int64), tracks=(notes.tracks[number],))


def _gain(mixed: Audio, stems: Sequence[Float[np.ndarray, "T 1"]]) -> np.float32:
    """What brings the mix to the usual loudness, and lets no stem clip."""
    peak = np.abs(mixed.samples).max()
    if not peak:
        return np.float32(1)
    loudest = max(np.abs(stem).max() for stem in stems)
    return np.float32(min(np.abs(levelled(mixed, LOUDNESS).samples).max() / peak, PEAK / loudest))


def fingerprint(path: Path) -> dict[str, int | str]:
    """The size of a file, and its sha256."""
    data = path.read_bytes()
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
