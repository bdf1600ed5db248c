"""Four-part chorales: models of notes beside counting, in nats per note, and harmonisations beside Bach's.

    python benchmarks/quality/chorales.py write Jsb16thSeparated.json chorales
    python benchmarks/quality/chorales.py measure Jsb16thSeparated.json runs/chorales-lstm runs/chorales-bert ...

`write` turns the JSON (https://github.com/czhuang/JSB-Chorales-dataset: train, valid and test lists of sixteenths of
four pitches) into MIDI files, a folder a split. `measure` counts every step of every voice as one note, silence being a
value like any other, as the data's own baselines do. A causal model's figure is exact, given all that precedes in the
piece; that of a masked model is an upper bound, over random orders, in windows of the length that it was trained on.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import wavegen
from wavegen.codecs.base import Codecs
from wavegen.codecs.notes.grid import NoteGrid
from wavegen.config.models import Seq2SeqConfig
from wavegen.generation.notes import NoteGenerator
from wavegen.networks.base import with_parameters
from wavegen.notes.harmony import in_range, parallels
from wavegen.notes.jsb import read_chorales
from wavegen.notes.midi import write_midi
from wavegen.samplers.bound import order_agnostic_bound
from wavegen.training.evaluate import evaluate_split

GRID = NoteGrid()
SMOOTHING = 0.1


def write(chorales: tyro.conf.Positional[Path], out: tyro.conf.Positional[Path]) -> None:
    """Write the chorales as MIDI files.

    Args:
        chorales: the JSON file.
        out: a folder for train, valid and test.
    """
    for split, pieces in read_chorales(chorales).items():
        (out / split).mkdir(parents=True, exist_ok=True)
        for number, piece in enumerate(pieces):
            write_midi(out / split / f"{number:03}.mid", GRID.decode(GRID.from_pitches(piece)))
        print(f"{out / split}: {len(pieces)} pieces")


def counting(train: list[np.ndarray], held: list[np.ndarray]) -> dict[str, float]:
    """Nats per note of models that count, each voice for itself; the first step of a piece is told by the unigram."""
    size, voices = GRID.vocab_size, GRID.voices
    single = np.full((voices, size), SMOOTHING)
    pairs = np.full((4, voices, size, size), 0.0)
    same = total = 0
    for piece in train:
        for v in range(voices):
            np.add.at(single[v], piece[:, v], 1)
            np.add.at(pairs[:, v], (np.arange(1, len(piece)) % 4, piece[:-1, v], piece[1:, v]), 1)
        same += int((piece[1:] == piece[:-1]).sum())
        total += piece[1:].size
    single /= single.sum(axis=1, keepdims=True)

    def conditional(counts: np.ndarray) -> np.ndarray:
        smoothed = counts + 2 * single[:, None]
        return smoothed / smoothed.sum(axis=-1, keepdims=True)

    bigram, by_place = conditional(pairs.sum(axis=0)), [conditional(part) for part in pairs]
    stay, nats, count = same / total, dict.fromkeys(("unigram", "repeat", "bigram", "by place"), 0.0), 0
    for piece in held:
        v, before, now = np.arange(voices)[None], piece[:-1], piece[1:]
        first = -np.log(single[v[0], piece[0]]).sum()
        likelihood = {
            "unigram": single[v, now],
            "repeat": stay * (before == now) + (1 - stay) * single[v, now],
            "bigram": bigram[v, before, now],
            "by place": np.stack(
                [by_place[t % 4][v[0], before[t - 1], now[t - 1]] for t in range(1, len(piece))]
            ),
        }
        for name, p in likelihood.items():
            nats[name] += first - np.log(p).sum()
        count += piece.size
    return {name: value / count for name, value in nats.items()}


def counting_given_soprano(train: list[np.ndarray], held: list[np.ndarray]) -> dict[str, float]:
    """Nats per note of the lower voices: from the note before, and from that and the soprano's note together."""
    size, voices = GRID.vocab_size, GRID.voices
    single = np.full((voices, size), SMOOTHING)
    pairs = np.zeros((voices, size, size))
    triples = np.zeros((voices, size, size, size))
    for piece in train:
        soprano = piece[1:, 0]
        for v in range(voices):
            np.add.at(single[v], piece[:, v], 1)
            np.add.at(pairs[v], (piece[:-1, v], piece[1:, v]), 1)
            np.add.at(triples[v], (piece[:-1, v], soprano, piece[1:, v]), 1)
    single /= single.sum(axis=1, keepdims=True)
    pairs += 2 * single[:, None]
    pairs /= pairs.sum(axis=2, keepdims=True)
    triples += 2 * pairs[:, :, None]
    triples /= triples.sum(axis=3, keepdims=True)
    nats, count, v = np.zeros(2), 0, np.arange(1, voices)[None]
    for piece in held:
        before, now, soprano = piece[:-1, 1:], piece[1:, 1:], piece[1:, :1]
        nats -= np.log(single[v[0], piece[0, 1:]]).sum()
        nats -= [np.log(pairs[v, before, now]).sum(), np.log(triples[v, before, soprano, now]).sum()]
        count += piece[:, 1:].size
    return dict(zip(("bigram", "bigram given the soprano"), (nats / count).tolist(), strict=True))


def bound(
    model: NoteGenerator, pieces: list[np.ndarray], orders: int, known_voice: int | None = None
) -> float:
    """Nats per note of a masked model: an upper bound, given one voice if it is named."""
    window, voices = model.config.data.crop, GRID.voices
    rows, valid = [], []
    for piece in pieces:
        flat = piece.reshape(-1, 1)
        for first in range(0, len(flat), window):
            part = flat[first : first + window]
            rows.append(np.pad(part, ((0, window - len(part)), (0, 0))))
            valid.append(np.arange(window) < len(part))
    known = np.broadcast_to(np.arange(window) % voices == known_voice, (len(rows), window))

    @jax.jit
    def measure(params, tokens, valid, known, key):
        network = with_parameters(model.graph, params)
        return order_agnostic_bound(network, tokens, valid, None, key, orders, known)[:, 0]

    nats = count = 0.0
    for at in range(0, len(rows), 16):
        part = slice(at, at + 16)
        v, k = np.stack(valid[part]), known[part]
        tokens = jnp.asarray(np.stack(rows[part]), jnp.int32)
        result = measure(model.params, tokens, jnp.asarray(v), jnp.asarray(k), jax.random.key(at))
        weight = (v & ~k).sum(axis=1)
        nats += float((np.asarray(result) * weight).sum())
        count += weight.sum()
    return nats / count


def exact(model: NoteGenerator, split: str) -> float:
    evaluation, _ = evaluate_split(model.config, model.graph, model.params, Codecs(model.codec), split)
    return evaluation.figures["bits_per_token"] * np.log(2)


def harmonies(model: NoteGenerator, pieces: list[np.ndarray], count: int) -> dict[str, dict[str, object]]:
    """Voice leading of harmonised sopranos beside that of the chorales."""
    grids = {"Bach": [], "model": []}
    for number, piece in enumerate(pieces[:count]):
        notes = GRID.decode(piece)
        melody = notes.select(lambda track: track.name == "voice 1")
        [result] = model.harmonise(melody, seed=number)
        tokens = GRID.encode(result, max(len(piece), -(-result.end * 4 // result.ticks_per_quarter)))
        if not np.array_equal(tokens[: len(piece), 0], piece[:, 0]):
            raise SystemExit(f"the melody of piece {number} was changed")
        grids["Bach"].append(GRID.to_pitches(piece))
        grids["model"].append(GRID.to_pitches(tokens))
    figures: dict[str, dict[str, object]] = {}
    for name, group in grids.items():
        found = [parallels(grid) for grid in group]
        moves = max(sum(p.moves for p in found), 1)
        within = np.mean([in_range(grid) for grid in group], axis=0)
        figures[name] = {
            "parallel fifths and octaves, share of moves": sum(p.fifths + p.octaves for p in found) / moves,
            "within textbook ranges": [round(float(x), 3) for x in within],
        }
    return figures


def measure(
    chorales: tyro.conf.Positional[Path],
    runs: tyro.conf.Positional[tuple[Path, ...]],
    orders: int = 32,
    harmonise: int = 20,
    json_file: Path | None = None,
) -> None:
    """Print nats per note of counting and of runs.

    Args:
        chorales: the JSON file.
        runs: trained as in configs/chorales-*.yaml.
        orders: passes of the bound of masked models.
        harmonise: how many sopranos of the test split are harmonised.
        json_file: where the figures are written too.
    """
    data = {
        split: [GRID.from_pitches(piece) for piece in pieces]
        for split, pieces in read_chorales(chorales).items()
    }
    figures: dict[str, object] = {}
    for split in ("valid", "test"):
        figures[f"counting, {split}"] = counting(data["train"], data[split])
        figures[f"counting, {split}, lower voices"] = counting_given_soprano(data["train"], data[split])
    for run in runs:
        model = wavegen.load(run)
        if not isinstance(model, NoteGenerator):
            raise SystemExit(f"expected a run of a model of notes, got {run}")
        size = sum(np.size(x) for x in jax.tree.leaves(model.params))
        writes_to_a_melody = isinstance(model.config.model, Seq2SeqConfig)
        row: dict[str, object] = {"parameters": size}
        for split in ("valid", "test"):
            what = f"{split}, lower voices given the soprano"
            if writes_to_a_melody:
                row[what] = exact(model, split)
            elif model.masked:
                row[split] = bound(model, data[split], orders)
                row[what] = bound(model, data[split], orders, known_voice=0)
            else:
                row[split] = exact(model, split)
        if model.masked or writes_to_a_melody:
            row["voice leading"] = harmonies(model, data["test"], harmonise)
        figures[run.name] = row
        print(run.name, json.dumps(row, indent=1), flush=True)
    print(json.dumps(figures, indent=1))
    if json_file is not None:
        json_file.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"write": write, "measure": measure}, description=__doc__)
