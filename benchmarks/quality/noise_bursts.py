"""How often a note-conditioned WaveNet bursts into noise, by the velocity of its notes.

    python benchmarks/quality/noise_bursts.py [RUN ...] [--seeds 4]

Two melodies are played at each velocity with each seed. A frame of 50 ms counts as noise where its spectrum is flat
(geometric mean of its power over the arithmetic mean, above 0.05) although it is loud (above -30 dBFS): the loud notes
of a piano have a flatness far below that. The recorded piano, after mu-law, is the control.
"""

from pathlib import Path

import numpy as np
import tyro
from jaxtyping import Float

import wavegen
from wavegen.codecs.samples import MuLaw
from wavegen.notes.melodies import melody
from wavegen.notes.performance import Performance
from wavegen.notes.piano import Piano

VELOCITIES = (0.3, 0.5, 0.65, 0.8, 1.0)
TUNES, SECONDS = ("ode_to_joy", "minuet_in_g"), 10.0
FRAME, FLAT, LOUD_DB = 0.05, 0.05, -30.0


def noise_share(wave: Float[np.ndarray, " T"], rate: int) -> float:
    """The share of frames that are loud and whose spectrum is flat."""
    size = round(FRAME * rate)
    frames = wave[: len(wave) // size * size].reshape(-1, size)
    power = np.abs(np.fft.rfft(frames * np.hanning(size), axis=1)) ** 2 + 1e-12
    flatness = np.exp(np.log(power).mean(axis=1)) / power.mean(axis=1)
    level = 10 * np.log10(np.mean(frames**2, axis=1) + 1e-12)
    return float(np.mean((flatness > FLAT) & (level > LOUD_DB)))


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
                        noise_share(clip.samples[:, 0], model.sample_rate)
                        for seed in range(seeds)
                        for clip in model.generate(notes=at(velocity), count=len(TUNES), seed=seed)
                    ]
                )
            )
            for velocity in VELOCITIES
        ]
    piano, codec = Piano.load(), MuLaw()
    recorded = [[piano.render(notes, 8000).samples[None, :, 0] for notes in at(v)] for v in VELOCITIES]
    rows["recorded piano, mu-law"] = [
        float(np.mean([noise_share(np.asarray(codec.decode(codec.encode(x)))[0], 8000) for x in clips]))
        for clips in recorded
    ]
    print(f"{'share of noise frames, %':28}" + "".join(f"{v:>8}" for v in (*VELOCITIES, "mean")))
    for name, shares in rows.items():
        print(f"{name:28}" + "".join(f"{100 * share:8.2f}" for share in (*shares, np.mean(shares))))


if __name__ == "__main__":
    tyro.cli(main)
