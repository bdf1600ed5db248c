"""How fast notes are read, tokenised, rendered and generated.

    python benchmarks/speed/notes.py --midi pop909/ --chorales jsb/Jsb16thSeparated.json --runs runs/chorales-decoder

Rates are per second of this process's own CPU time, on one core, whatever else the machine does. "first" includes the
loading of the piano and the resampling of its keys to every pitch that is played.
"""

import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import tyro

import wavegen
from wavegen.codecs.notes.events import NoteEvents
from wavegen.codecs.notes.grid import NoteGrid
from wavegen.notes.harmony import Parallels, in_range, parallels
from wavegen.notes.jsb import read_chorales
from wavegen.notes.midi import midi_bytes, parse_midi, read_midi
from wavegen.notes.render import render
from wavegen.notes.roll import roll_features

Item = TypeVar("Item")
Result = TypeVar("Result")


def timed(
    name: str, work: Callable[[Item], Result], items: Iterable[Item], amounts: dict[str, float]
) -> list[Result]:
    """Do the work, and print how much of each amount it did a CPU second."""
    start = time.process_time()
    results = [work(item) for item in items]
    seconds = time.process_time() - start
    rates = ", ".join(f"{amount / seconds:,.0f} {unit}" for unit, amount in amounts.items())
    print(f"{name:34} {seconds:8.2f} s   {rates} a second")
    return results


def main(
    midi: Path | None = None,
    chorales: Path | None = None,
    rendered: int = 30,
    sample_rate: int = 16_000,
    soundfont: Path | None = None,
    runs: tuple[Path, ...] = (),
    length: int = 256,
) -> None:
    """Measure.

    Args:
        midi: folder of .mid files.
        chorales: JSON of grids.
        rendered: how many of the MIDI files to render.
        sample_rate: Hz of the rendering.
        soundfont: also render with it.
        runs: of models of notes that generate; timed after a draw that compiles them.
        length: of what they generate, in steps of the grid or notes of a codec of events.
    """
    if midi:
        files = sorted(midi.rglob("*.mid"))
        pieces = timed("read MIDI", read_midi, files, {"files": len(files)})
        count = sum(map(len, pieces))
        print(f"  {len(files)} files, {count:,} notes")
        codec = NoteEvents()
        tokens = timed("tokenise", codec.encode, pieces, {"files": len(files), "notes": count})
        timed("detokenise", codec.decode, tokens, {"files": len(files), "notes": count})
        again = timed("write MIDI", midi_bytes, pieces, {"files": len(files), "notes": count})
        same = sum(parse_midi(data) == notes for data, notes in zip(again, pieces, strict=True))
        print(f"  {same} of {len(files)} files read as they were written")
        played = pieces[:rendered]
        seconds = sum(notes.performance().seconds for notes in played)
        work = {"seconds of audio": seconds}
        timed(f"render {sample_rate} Hz, first", lambda notes: render(notes, sample_rate), played, work)
        timed(f"render {sample_rate} Hz, again", lambda notes: render(notes, sample_rate), played, work)
        if soundfont:
            timed(
                "render, SoundFont",
                lambda notes: render(notes, sample_rate, soundfont=soundfont),
                played,
                work,
            )
        timed(
            "features, hop 80",
            lambda notes: roll_features(notes, sample_rate, 80, round(notes.seconds * sample_rate)),
            [notes.performance() for notes in played],
            work,
        )
    if chorales:
        for split, grids in read_chorales(chorales).items():
            grid, tied = NoteGrid(), NoteGrid(ties=True)
            steps = {"steps": float(sum(map(len, grids)))}
            tokens = timed(f"chorales, {split}", tied.from_pitches, grids, steps)
            pieces = timed("  to notes", tied.decode, tokens, steps)
            same = sum(
                np.array_equal(grid.to_pitches(grid.encode(notes, len(pitches))), pitches)
                for notes, pitches in zip(pieces, grids, strict=True)
            )
            found = Parallels(*np.sum([parallels(pitches) for pitches in grids], axis=0).tolist())
            inside = np.mean([in_range(pitches) for pitches in grids], axis=0)
            print(
                f"  {same} of {len(grids)} the same through notes; {found}: {100 * found.rate:.3f} % of moves;"
            )
            print(f"  in range: {', '.join(f'{100 * share:.1f} %' for share in inside)}")
    for run in runs:
        model = wavegen.load(run)
        if not isinstance(model, wavegen.NoteGenerator):
            raise SystemExit(f"expected a run of a model of notes, got {run}")
        for count in (1, 8):
            generate = partial(model.generate, length, count=count)
            pieces = generate(seed=0)
            amounts = {"notes": float(sum(map(len, pieces))), "tokens": float(count * length * model.width)}
            timed(f"{run.name}, {count} at once", lambda seed, draw=generate: draw(seed=seed), [0], amounts)


if __name__ == "__main__":
    tyro.cli(main)
