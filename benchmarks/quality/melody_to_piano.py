"""A piano for a melody: an encoder-decoder beside the accompaniment of the most similar melody.

    python benchmarks/quality/melody_to_piano.py write POP909_FOLDER songs
    python train.py configs/chorales-seq2seq.yaml name=piano data.path=songs codec.voices=5 codec.low=28 codec.high=96 \
        codec.steps_per_quarter=2 codec.bar=8 data.crop=320 data.batch_size=16
    python benchmarks/quality/melody_to_piano.py measure songs runs/piano

`write` takes the tracks MELODY and PIANO of songs (https://github.com/music-x-lab/POP909-Dataset, MIT) on a grid of
eighths: voice 1 is the melody, voices 2 to 4 the highest notes of the piano, voice 5 its lowest. Every tenth song is
for the test, every tenth for validation.

`measure` asks for eight bars at a time. The rival takes the eight bars of the training songs, moved to any key, whose
melody has the same pitch class in most steps, and plays what was played there.
"""

from pathlib import Path

import numpy as np
import tyro
from numpy.lib.stride_tricks import sliding_window_view
from rich.progress import track

import wavegen
from wavegen.codecs.notes.base import Interleaved
from wavegen.codecs.notes.grid import NoteGrid
from wavegen.errors import WavegenError
from wavegen.generation.notes import NoteGenerator
from wavegen.notes.harmony import chord_agreement, chord_tone_match, pitch_classes
from wavegen.notes.midi import read_midi, write_midi
from wavegen.notes.score import Score
from wavegen.samplers.drawing import Drawing

GRID = NoteGrid(voices=5, low=28, high=96, steps_per_quarter=2, bar=8)
WINDOW = 8 * GRID.bar
HEARD = 0.5  # of the steps of a window have a melody


def sounding(notes: Score, steps: int) -> np.ndarray:
    """Which pitches sound in each step of the grid: bool [steps, 128]."""
    grid = notes.at_resolution(GRID.steps_per_quarter)
    roll = np.zeros((steps, 128), bool)
    for pitch, first, length in zip(grid.pitch, grid.onset, grid.duration, strict=True):
        roll[first : first + length, pitch] = True
    return roll


def in_voices(song: Score) -> np.ndarray:
    """A song as a grid of pitches, [steps, 5]; -1 is silence."""
    steps = song.at_resolution(GRID.steps_per_quarter).end
    parts = {}
    for name in ("MELODY", "PIANO"):
        part = song.select(lambda track, name=name: track.name.strip().upper() == name)
        if not len(part):
            raise WavegenError(f"expected a track {name}, got {[track.name for track in song.tracks]}")
        parts[name] = sounding(part, steps)
    for roll in parts.values():
        roll[:, : GRID.low] = roll[:, GRID.high + 1 :] = False
    pitches = np.full((steps, GRID.voices), -1)
    for step in range(steps):
        melody, piano = (np.flatnonzero(roll[step])[::-1] for roll in parts.values())
        pitches[step, 0] = melody[0] if len(melody) else -1
        if len(piano):
            upper = piano[:-1][:3]
            pitches[step, 1 : 1 + len(upper)] = upper
            pitches[step, 4] = piano[-1]
    return pitches


def write(songs: tyro.conf.Positional[Path], out: tyro.conf.Positional[Path]) -> None:
    """Write songs as five voices.

    Args:
        songs: folder of MIDI files with tracks MELODY and PIANO.
        out: a folder for train, valid and test.
    """
    left_out = 0
    files = sorted(songs.rglob("*.mid"))
    for number, file in enumerate(track(files, "writing")):
        split = {0: "test", 1: "valid"}.get(number % 10, "train")
        (out / split).mkdir(parents=True, exist_ok=True)
        try:
            pitches = in_voices(read_midi(file))
        except WavegenError as error:
            print(f"{file}: {error}")
            left_out += 1
            continue
        write_midi(out / split / file.name, GRID.decode(GRID.from_pitches(pitches)))
    print(f"{out}: {len(files) - left_out} songs, {left_out} left out")


def windows(folder: Path, hop: int) -> np.ndarray:
    """Grids of pitches of eight bars with a melody, [windows, steps, voices]."""
    found = []
    for file in sorted(folder.glob("*.mid")):
        pitches = GRID.to_pitches(GRID.encode(read_midi(file)))
        if len(pitches) >= WINDOW:
            found.append(np.moveaxis(sliding_window_view(pitches, WINDOW, axis=0)[::hop], 2, 1))
    every = np.concatenate(found)
    return every[(every[:, :, 0] >= 0).mean(axis=1) >= HEARD]


def nearest(melody: np.ndarray, library: np.ndarray) -> np.ndarray:
    """The accompaniment of the window whose melody agrees in most steps, in the key where it does."""
    there = library[:, :, 0]
    best, chosen = -1.0, None
    for key in range(12):
        moved = np.where(there >= 0, (there + key) % 12, -1)
        agreement = (moved == np.where(melody >= 0, melody % 12, -1)[None]).mean(axis=1)
        if agreement.max() > best:
            best, chosen = agreement.max(), (int(agreement.argmax()), key)
    window, key = library[chosen[0]][:, 1:], chosen[1]
    return np.where(window >= 0, window + (key if key <= 6 else key - 12), -1)


def played(model: NoteGenerator, melody: np.ndarray, seed: int, temperature: float) -> np.ndarray:
    """What a model plays to a melody, as a grid of pitches."""
    alone = np.where(np.arange(GRID.voices)[None] == 0, melody[:, None], -1)
    notes = GRID.decode(GRID.from_pitches(alone)).select(lambda track: track.name == "voice 1")
    [result] = model.harmonise(notes, seed=seed, drawing=Drawing(temperature))
    tokens = GRID.encode(result)[:WINDOW]
    return GRID.to_pitches(np.pad(tokens, ((0, WINDOW - len(tokens)), (0, 0))))[:, 1:]


def measure(
    songs: tyro.conf.Positional[Path],
    run: tyro.conf.Positional[Path],
    split: str = "test",
    temperature: float = 1.0,
    count: int = 60,
    seed: int = 0,
) -> None:
    """Print how well chords fit the melody, and how like the pianist's they are.

    Args:
        songs: written by the other command.
        run: trained on them.
        split: whose windows are asked for: choose a temperature on valid.
        temperature: at which the model draws.
        count: windows, chosen by the seed.
        seed: see count.
    """
    model = wavegen.load(run)
    if not (
        isinstance(model, NoteGenerator)
        and isinstance(model.codec, Interleaved)
        and model.codec.codec == GRID
    ):
        raise SystemExit(f"expected a run over {GRID}, got {run}")
    library, held = windows(songs / "train", GRID.bar), windows(songs / split, WINDOW)
    rng = np.random.Generator(np.random.Philox(seed))
    asked = rng.permutation(len(held))[:count]
    figures: dict[str, list[tuple[float, float]]] = {"pianist": [], "model": [], "nearest": [], "random": []}
    for number in track(asked, "playing"):
        melody, piano = held[number][:, 0], held[number][:, 1:]
        sung, reference = pitch_classes(melody[:, None]), pitch_classes(piano)
        answers = {
            "pianist": piano,
            "model": played(model, melody, int(number), temperature),
            "nearest": nearest(melody, library),
            "random": library[rng.integers(len(library))][:, 1:],
        }
        for name, answer in answers.items():
            chords = pitch_classes(answer)
            figures[name].append((chord_tone_match(sung, chords), chord_agreement(chords, reference)))
    print(f"{len(asked)} windows of 8 bars; {len(library):,} windows to choose from")
    print(f"{'':<10}{'melody in the chord':>22}{'agreement with the pianist':>30}")
    for name, rows in figures.items():
        match, agreement = np.nanmean(rows, axis=0)
        print(f"{name:<10}{match:>22.3f}{agreement:>30.3f}")


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"write": write, "measure": measure}, description=__doc__)
