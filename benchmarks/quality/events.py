"""Models of notes as events beside counting, in nats a note, field by field; and what a masked one puts into gaps.

    python benchmarks/quality/events.py runs/events-decoder runs/events-bert

Each piece of the test split is measured by its first notes. A causal model's figures are exact, given all notes before
and the fields of the same note that come first (shift, pitch, duration, velocity, instrument); a masked model's is an
upper bound, over random orders. Counts are from the training split: of a field's values, and of pairs of them in two
notes that follow each other.
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tyro

import wavegen
from wavegen.codecs.notes.events import FIELDS
from wavegen.codecs.notes.remix import What
from wavegen.data.dataset import Dataset
from wavegen.data.open import open_dataset
from wavegen.generation.notes import NoteGenerator
from wavegen.notes.score import COLUMNS, Score

SMOOTHING = 0.1


def pieces_of(dataset: Dataset, split: str, notes: int | None = None) -> list[np.ndarray]:
    """Frames of five fields of every piece, the first ones if so many are asked for."""
    files, width = dataset.split(split), len(FIELDS)
    pieces = [dataset.read(files, row, 0, int(files.length[row])) for row in range(len(files))]
    return [piece.reshape(-1, width)[:notes].astype(np.int64) for piece in pieces]


def counting(
    train: list[np.ndarray], test: list[np.ndarray], sizes: tuple[int, ...]
) -> dict[str, list[float]]:
    """Nats of each field: by how often a value occurs, and how often it follows the value of the note before."""
    single = [np.full(size, SMOOTHING) for size in sizes]
    pairs = [np.zeros((size, size)) for size in sizes]
    for piece in train:
        for field in range(len(sizes)):
            np.add.at(single[field], piece[:, field], 1)
            np.add.at(pairs[field], (piece[:-1, field], piece[1:, field]), 1)
    alone, after, count = np.zeros(len(sizes)), np.zeros(len(sizes)), sum(map(len, test))
    for field in range(len(sizes)):
        p = single[field] / single[field].sum()
        q = pairs[field] + p[None]
        q /= q.sum(axis=1, keepdims=True)
        for piece in test:
            values = piece[:, field]
            alone[field] -= np.log(p[values]).sum()
            after[field] -= np.log(p[values[0]]) + np.log(q[values[:-1], values[1:]]).sum()
    return {"values": (alone / count).tolist(), "given the note before": (after / count).tolist()}


def columns(notes: Score, names: Sequence[str]) -> Counter[tuple[int, ...]]:
    return Counter(zip(*(getattr(notes, name).tolist() for name in names), strict=True))


def remixed(model: NoteGenerator, pieces: list[np.ndarray], train: np.ndarray) -> dict[str, dict[str, float]]:
    """How many of the pitches or durations that were drawn anew, half of all, came out as they were."""
    figures: dict[str, dict[str, float]] = {}
    parts: tuple[tuple[What, int, str], ...] = (("pitches", 1, "pitch"), ("durations", 2, "duration"))
    for what, field, name in parts:
        kept = [column for column in COLUMNS if column != name]
        same = drawn = 0
        for number, piece in enumerate(pieces):
            notes = model.codec.plain.decode(piece)
            [result] = model.remix(notes, 0.5, what, seed=number)
            # Notes of a chord are ordered by pitch, so they are compared without regard to order.
            before, after = (columns(piece, kept) for piece in (notes, result))
            if before != after:
                raise SystemExit(f"remixing {what} changed more than that in piece {number}")
            chosen = round(0.5 * len(notes))
            equal = columns(notes, COLUMNS) & columns(result, COLUMNS)
            same += equal.total() - (len(notes) - chosen)
            drawn += chosen
        share = np.bincount(train[:, field]) / len(train)
        figures[what] = {"as they were": same / drawn, "by drawing from all": float(np.sum(share**2))}
    return figures


def main(
    runs: tyro.conf.Positional[tuple[Path, ...]],
    notes: int = 128,
    pieces: int = 40,
    orders: int = 16,
    json_file: Path | None = None,
) -> None:
    """Print nats a note of counting and of runs, on the test split of the first run's data.

    Args:
        runs: trained as in configs/events-*.yaml.
        notes: of each piece.
        pieces: that are measured.
        orders: passes of the bound of masked models.
        json_file: where the figures are written too.
    """
    figures: dict[str, object] = {}
    for run in runs:
        model = wavegen.load(run)
        if not isinstance(model, NoteGenerator):
            raise SystemExit(f"expected a run of a model of notes, got {run}")
        dataset = open_dataset(model.config)
        train = pieces_of(dataset, "train")
        test = [piece for piece in pieces_of(dataset, "test", notes) if len(piece) == notes][:pieces]
        if not figures:
            figures["fields"] = FIELDS
            figures["pieces"] = {"train": len(train), "test": len(test)}
            figures["counting"] = counting(train, test, model.codec.plain.sizes)
        nats = np.mean([model.nats(model.codec.plain.decode(piece), orders=orders) for piece in test], axis=0)
        row: dict[str, object] = {"nats a note": float(nats.sum() / notes)}
        if model.masked:
            row["remixed"] = remixed(model, test, np.concatenate(train))
        else:
            row["fields"] = nats.reshape(notes, -1).mean(axis=0).tolist()
        figures[run.name] = row
        print(run.name, json.dumps(row, indent=1), flush=True)
    print(json.dumps(figures, indent=1))
    if json_file is not None:
        json_file.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
