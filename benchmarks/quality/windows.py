"""The variational autoencoder over windows of chorales: what it keeps, what it draws, and the way between two windows.

    python benchmarks/quality/windows.py Jsb16thSeparated.json runs/chorales-vae --judge runs/chorales-decoder

Notes are those of the grid: every sixteenth of every voice, silence being a value like any other. A judge, a causal
model of chorales, says how likely the middle of a way is (as the language model of MusicVAE's section 5.3 does), beside
the windows at its ends and a mixture that takes every note from the one or the other. Principal components of training
windows, as many as the latent has dimensions, say what linear maps alone would give back.
"""

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import tyro

import wavegen
from wavegen.codecs.base import Codecs
from wavegen.codecs.notes.grid import NoteGrid
from wavegen.generation.notes import NoteGenerator
from wavegen.generation.windows import WindowGenerator
from wavegen.notes.harmony import in_range, parallels
from wavegen.notes.jsb import read_chorales
from wavegen.notes.score import Score
from wavegen.training.evaluate import evaluate_split

GRID = NoteGrid()
WAY = 7
"""Windows on a way, its ends included."""


def texture(grids: Sequence[np.ndarray]) -> dict[str, object]:
    """Ranges, parallels and movement of grids of tokens."""
    pitches = [GRID.to_pitches(grid) for grid in grids]
    found = [parallels(grid) for grid in pitches]
    return {
        "within textbook ranges": np.round(np.mean([in_range(grid) for grid in pitches], axis=0), 3).tolist(),
        "parallels, share of moves": sum(p.fifths + p.octaves for p in found)
        / max(sum(p.moves for p in found), 1),
        "notes that differ from the sixteenth before": float(
            np.mean([np.mean(grid[1:] != grid[:-1]) for grid in grids])
        ),
    }


def grid_of(notes: Score, steps: int) -> np.ndarray:
    return GRID.encode(notes, steps)[:steps]


def judged(judge: NoteGenerator, pieces: Sequence[Score]) -> float:
    return float(np.mean([judge.nats(piece).mean() for piece in pieces]))


def kept(model: WindowGenerator, pieces: Sequence[np.ndarray]) -> dict[str, float]:
    """The share of notes that reconstructions have in their places, and that another piece has there."""
    shares = [model.accuracy(GRID.decode(piece)) for piece in pieces]
    lengths = [len(piece) for piece in pieces]
    others = [np.resize(piece, pieces[n - 1].shape) == pieces[n - 1] for n, piece in enumerate(pieces)]
    return {
        "reconstructed": float(np.average(shares, weights=lengths)),
        "another piece": float(np.mean(np.concatenate([same.ravel() for same in others]))),
    }


def windows_of(pieces: Sequence[np.ndarray], steps: int, semitones: Sequence[int]) -> np.ndarray:
    """Whole windows of tokens, one at every bar of every piece in every transposition that the grid has, flat."""
    windows = []
    for piece in pieces:
        for by in semitones:
            moved = np.where(piece > 0, piece + by, 0)
            if moved.max() < GRID.vocab_size and moved[piece > 0].min() > 0:
                windows += [moved[n : n + steps].ravel() for n in range(0, len(moved) - steps + 1, GRID.bar)]
    return np.stack(windows)


def principal_components(train: np.ndarray, test: np.ndarray, components: int) -> float:
    """The share of notes that are right when test windows, one-hot, keep these components of the training windows."""
    most = 4096
    train, test = (
        np.random.default_rng(0).permutation(windows)[:count]
        for windows, count in ((train, most), (test, 512))
    )
    values = np.arange(GRID.vocab_size)
    known, heard = (
        (windows[..., None] == values).astype(np.float32).reshape(len(windows), -1)
        for windows in (train, test)
    )
    mean = known.mean(axis=0)
    known -= mean
    # Of the small one of the two products: a window of 16 bars has 48,000 values.
    powers, vectors = np.linalg.eigh(known @ known.T)
    basis = known.T @ (vectors[:, -components:] / np.sqrt(np.maximum(powers[-components:], 1e-6)))
    given = (heard - mean) @ basis @ basis.T + mean
    return float(np.mean(given.reshape(*test.shape, -1).argmax(-1) == test))


def between(
    model: WindowGenerator, pieces: Sequence[np.ndarray], judge: NoteGenerator | None
) -> dict[str, float]:
    """How evenly ways go from one first window to the next piece's, and how likely their middles are."""
    steps, random = model.steps, np.random.default_rng(0)
    windows = [piece[:steps] for piece in pieces if len(piece) >= steps]
    jumps, far, middles, mixtures = [], [], [], []
    for first, last in pairwise(windows):
        way = model.interpolate(GRID.decode(first), GRID.decode(last), WAY)
        grids = [grid_of(notes, steps) for notes in way]
        jumps.append([np.mean(a != b) for a, b in pairwise(grids)])
        far.append(np.mean(grids[0] != grids[-1]))
        middles.append(way[WAY // 2])
        mixtures.append(GRID.decode(np.where(random.random(first.shape) < 0.5, first, last)))
    figures = {
        "notes that differ at the ends": float(np.mean(far)),
        "from one to the next": float(np.mean(jumps)),
        "the largest jump of a way": float(np.mean(np.max(jumps, axis=1))),
    }
    if judge is not None:
        figures |= {
            "judge, windows of Bach": judged(judge, [GRID.decode(window) for window in windows]),
            "judge, reconstructed": judged(judge, [model.reconstruct(GRID.decode(w)) for w in windows]),
            "judge, middles": judged(judge, middles),
            "judge, mixtures of notes": judged(judge, mixtures),
        }
    return figures


def main(
    chorales: tyro.conf.Positional[Path],
    runs: tyro.conf.Positional[tuple[Path, ...]],
    judge: Path | None = None,
    pieces: int = 77,
    ways: int = 24,
    drawn: int = 64,
    json_file: Path | None = None,
) -> None:
    """Print figures of runs, on the test split.

    Args:
        chorales: the JSON file.
        runs: of configs/chorales-vae.yaml.
        judge: run of a causal model of chorales.
        pieces: that are reconstructed.
        ways: pieces between whose first windows the model goes.
        drawn: windows drawn from the prior.
        json_file: where the figures are written too.
    """
    train, test = (
        [GRID.from_pitches(piece) for piece in read_chorales(chorales)[split]] for split in ("train", "test")
    )
    listener = None if judge is None else wavegen.load(judge)
    if listener is not None and not isinstance(listener, NoteGenerator):
        raise SystemExit(f"expected a run of a causal model of notes, got {judge}")
    figures: dict[str, object] = {"Bach": texture(test)}
    for run in runs:
        model = wavegen.load(run)
        if not isinstance(model, WindowGenerator):
            raise SystemExit(f"expected a run of a window autoencoder, got {run}")
        evaluation, _ = evaluate_split(model.config, model.graph, model.params, Codecs(model.codec), "test")
        windows = [grid_of(notes, model.steps) for notes in model.generate(count=drawn)]
        figures[run.name] = {
            "sixteenths of a window": model.steps,
            "bound, nats a note": evaluation.figures["bound_bits_per_token"] * np.log(2),
            "of these KL, nats a window": evaluation.figures["kl_per_window"],
            "accuracy given the notes before": evaluation.figures["accuracy"],
            **kept(model, test[:pieces]),
            "as many principal components": principal_components(
                windows_of(train, model.steps, range(-5, 6)),
                windows_of(test, model.steps, (0,)),
                model.config.model.latent,
            ),
            "drawn": texture(windows),
            "between": between(model, test[:ways], listener),
        }
    print(json.dumps(figures, indent=1))
    if json_file is not None:
        json_file.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
