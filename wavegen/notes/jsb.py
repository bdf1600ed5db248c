"""Chorales as grids of pitches: the JSON files of the JSB corpus in sixteenths (Jsb16thSeparated.json)."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from wavegen.bounded import read_text
from wavegen.errors import WavegenError

LARGEST = 1 << 26  # bytes of a corpus, fifty times that of the chorales
SPLITS = ("train", "valid", "test")


def read_chorales(path: str | Path) -> dict[str, list[Int[np.ndarray, "N K"]]]:
    """Reads chorales.

    Args:
        path: a JSON object with the lists "train", "valid" and "test" of pieces; a piece is a list of steps, and a
            step a list of the MIDI numbers of all voices, highest voice first, -1 for silence.

    Returns:
        The pieces of each split, ``[steps, voices]`` int64.

    Raises:
        WavegenError: if the file is missing, larger than 64 MiB or not JSON, a split is missing, the number of voices
            changes between steps, or a value is not a MIDI number.
    """
    text = read_text(path, LARGEST, "chorales as JSON", "split the corpus")
    try:
        corpus = json.loads(text)
    except (
        RecursionError,
        ValueError,
    ) as error:  # ValueError: damaged JSON, or a number of thousands of digits
        raise WavegenError(f"expected chorales as JSON in {path}, got: {error}") from error
    if not isinstance(corpus, dict) or not all(isinstance(corpus.get(split), list) for split in SPLITS):
        raise WavegenError(f'expected lists "train", "valid" and "test" in {path}, got other JSON')
    return {
        split: [
            _grid(piece, f"{path}, {split}, piece {number}") for number, piece in enumerate(corpus[split])
        ]
        for split in SPLITS
    }


def _grid(piece: Any, where: str) -> Int[np.ndarray, "N K"]:
    try:
        grid = np.array(piece)
    except (ValueError, OverflowError) as error:  # rows of different lengths
        raise WavegenError(
            f"{where}: expected steps with a pitch for every voice, got steps of different lengths"
        ) from error
    if grid.ndim != 2 or grid.dtype.kind != "i":
        raise WavegenError(
            f"{where}: expected steps of whole numbers, got an array {list(grid.shape)} of {grid.dtype}"
        )
    if grid.min() < -1 or grid.max() > 127:
        raise WavegenError(f"{where}: expected MIDI numbers or -1, got {grid.min()} to {grid.max()}")
    return grid.astype(np.int64)
