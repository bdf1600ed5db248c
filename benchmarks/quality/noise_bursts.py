"""How often a note-conditioned WaveNet bursts into noise, by the velocity of its notes.

    python benchmarks/quality/noise_bursts.py [RUN ...] [--seeds 4]

Two melodies are played at each velocity with each seed. A frame of 50 ms counts as noise where its spectrum is flat
(geometric mean of its power over the arithmetic mean, above 0.05) although it is loud (above -30 dBFS): the loud notes
of a piano have a flatness far below that. The recorded piano, after mu-law, is the control.
"""

from pathlib import Path

import numpy as np
import tyro

import wavegen
from wavegen.evaluation.controls import coded
from wavegen.evaluation.noise import noise_share
from wavegen.notes.melodies import melody
from wavegen.notes.performance import Performance
from wavegen.notes.piano import Piano

VELOCITIES = (0.3, 0.5, 0.65, 0.8, 1.0)
TUNES, SECONDS = ("ode_to_joy", "minuet_in_g"), 10.0


def at(velocity: float) -> list[Performance]:
    """The melodies with all notes of one velocity."""
    tunes = [melody(name).between(0.0, SECONDS) for name in TUNES]
    return [Performance(t.pitch, t.onset, t.duration, np.full(len(t.pitch), velocity)) for t in tunes]


def main(runs: tyro.conf.Positional[tuple[Path, ...]] = (), /, seeds: int = 4) -> None:
    """Print a table.

    Args:
        runs: run folders or .safetensors files; none is the instrument that comes with the package.
        seeds: clips of each melody at each velocity.
    """
    rows: dict[str, list[float]] = {}
    for run in runs or (None,):
        model = wavegen.load(run)
        rows[run.name if run else "shipped"] = [
            float(
                np.mean(
                    [
                        noise_share(clip)
                        for seed in range(seeds)
                        for clip in model.generate(notes=at(velocity), count=len(TUNES), seed=seed)
                    ]
                )
            )
            for velocity in VELOCITIES
        ]
    piano = Piano.load()
    rows["recorded piano, mu-law"] = [
        float(np.mean([noise_share(coded(piano.render(notes, 8000))) for notes in at(velocity)]))
        for velocity in VELOCITIES
    ]
    print(f"{'share of noise frames, %':28}" + "".join(f"{v:>8}" for v in (*VELOCITIES, "mean")))
    for name, shares in rows.items():
        print(f"{name:28}" + "".join(f"{100 * share:8.2f}" for share in (*shares, np.mean(shares))))


if __name__ == "__main__":
    tyro.cli(main)
