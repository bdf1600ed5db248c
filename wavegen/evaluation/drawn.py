"""Clips of a trained model for a comparison, drawn with a fixed seed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from wavegen.audio import Audio
from wavegen.errors import WavegenError, require_least
from wavegen.generation.audio import AudioGenerator
from wavegen.generation.load import load
from wavegen.generation.masked import MaskedGenerator
from wavegen.notes.composer import compose
from wavegen.samplers.drawing import USUAL, Drawing

BATCH = 8


def is_run(path: Path) -> bool:
    """Whether a path is a trained model: a run folder or a ``.safetensors`` file."""
    return (path / "checkpoints").is_dir() or path.suffix == ".safetensors"


def draw(
    path: str | Path | None,
    count: int,
    seconds: float,
    *,
    seed: int = 0,
    drawing: Drawing = USUAL,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Audio]:
    """Draws clips from a model of audio: with random labels if it has any, playing composed notes if it plays.

    Args:
        path: a run folder, a ``.safetensors`` file, or None for the shipped instrument.
        count: number of clips.
        seconds: length of each.
        seed: of the labels, the notes and the clips.
        drawing: how tokens are drawn.
        progress: called with the number of clips that are drawn, and of all.

    Raises:
        WavegenError: if it is no model of audio, or a vocoder, which draws from recordings.
    """
    require_least(count=(count, 1), seconds=(seconds, 0.05))
    model = load(path)
    if not isinstance(model, AudioGenerator | MaskedGenerator) or model.condition is not None:
        raise WavegenError(
            f"expected a model that generates audio by itself, got {path} of model.kind={model.config.model.kind}; "
            "write its audio to a folder, and compare that"
        )
    random = np.random.default_rng(seed)
    fields = model.config.model.label_fields
    clips: list[Audio] = []
    while len(clips) < count:
        # Labels are of a whole call, so that a model with labels draws its clips one by one.
        number = 1 if fields else min(BATCH, count - len(clips))
        labels = {field: str(random.choice(model.labels[field])) for field in fields}
        options: dict[str, Any] = {
            "count": number,
            "seed": seed + len(clips),
            "drawing": drawing,
            "labels": labels or None,
        }
        if isinstance(model, AudioGenerator) and model.plays:
            notes = [compose(seed + len(clips) + i, seconds).between(0.0, seconds) for i in range(number)]
            clips += model.generate(seconds, notes=notes, **options)
        else:
            clips += model.generate(seconds, **options)
        progress(len(clips), count)
    return clips
