"""A procedural composer: endless melodies, each a function of its seed.

A piece has a key, a mode, a metre and a tempo. It is a chain of four-bar phrases whose rhythm is motif, answer,
motif, long note. Strong beats take notes of the bar's chord; the beats between move mostly by steps. This is enough
variety to learn an instrument from: all keys, notes of up to three seconds, repeated notes, leaps, rests, and loud
and soft strokes.
"""

import numpy as np

from wavegen.errors import WavegenError
from wavegen.notes.performance import Performance

MODES = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "pentatonic": (0, 2, 4, 7, 9),
}
# A chord is given by its root, a degree of the scale; a phrase has four bars.
PROGRESSIONS = ((0, 3, 4, 0), (0, 5, 3, 4), (0, 4, 5, 3), (0, 1, 4, 0), (0, 0, 3, 4))
# Beats of one bar, by metre; a negative number is a rest.
RHYTHMS: dict[int, tuple[tuple[float, ...], ...]] = {
    4: ((1, 1, 1, 1), (1, 0.5, 0.5, 1, 1), (1.5, 0.5, 1, 1), (2, 1, 1), (0.5, 0.5, 0.5, 0.5, 1, 1), (2, 2),
        (1, 1, 0.5, 0.5, -1), (3, 1), (0.5, 0.25, 0.25, 1, 1, 1)),
    3: ((1, 1, 1), (2, 1), (1, 0.5, 0.5, 1), (1.5, 0.5, 1), (0.5, 0.5, 0.5, 0.5, 1), (1, 1, -1),
        (2, 0.5, 0.5)),
}  # fmt: skip
LONGEST = 3.0  # seconds of one note
LOW, HIGH = 53, 84  # F3 to C6: the usual range of tunes


def compose(seed: int, seconds: float) -> Performance:
    """Composes a melody.

    Args:
        seed: the same seed gives the same notes; a shorter piece is the beginning of a longer one.
        seconds: length of the piece; the last note is cut there.

    Returns:
        Notes that do not overlap, of pitches 53 to 84.

    Raises:
        WavegenError: if ``seconds`` is not above 0.

    Example:
        >>> from wavegen.notes.composer import compose
        >>> short, long = compose(seed=1, seconds=4.0), compose(seed=1, seconds=60.0)
        >>> short.seconds <= 4.0, long.pitch[: len(short)].tolist() == short.pitch.tolist()
        (True, True)
    """
    if seconds <= 0:
        raise WavegenError(f"expected a length above 0 seconds, got {seconds}")
    rng = np.random.Generator(np.random.Philox(seed))
    scale = MODES[str(rng.choice(list(MODES)))]
    tonic = int(rng.integers(55, 67))
    metre = int(rng.choice([4, 4, 3]))
    beat = 60 / rng.uniform(54, 138)
    gate = rng.uniform(0.8, 0.98)  # share of its time that a note is held
    rows: list[tuple[int, float, float, float]] = []
    now, degree = 0.0, 0
    while now < seconds:
        roots = PROGRESSIONS[rng.integers(len(PROGRESSIONS))]
        motif = RHYTHMS[metre][rng.integers(len(RHYTHMS[metre]))]
        answer = RHYTHMS[metre][rng.integers(len(RHYTHMS[metre]))]
        loudness = rng.uniform(0.55, 0.9)
        for bar, (root, rhythm) in enumerate(zip(roots, (motif, answer, motif, (metre,)), strict=True)):
            position = 0.0
            for beats in rhythm:
                length = min(abs(beats) * beat, LONGEST)
                degree = _next_degree(rng, degree, root, len(scale), strong=position % 2 == 0)
                if beats > 0:
                    octave, step = divmod(degree, len(scale))
                    accent = 0.08 * (position == 0) + 0.06 * np.sin(np.pi * (bar + position / metre) / 4)
                    velocity = loudness + accent + rng.normal(0, 0.03)
                    rows.append((tonic + 12 * octave + scale[step], now, gate * length, velocity))
                now += length
                position += abs(beats)
            if bar == 3 and rng.random() < 0.3:
                now += beat  # a breath between phrases
    pitch, onset, duration, velocity = (np.array(column) for column in zip(*rows, strict=True))
    pitch = np.where(pitch < LOW, pitch + 12, np.where(pitch > HIGH, pitch - 12, pitch))
    return Performance(pitch, onset, duration, np.clip(velocity, 0.3, 1.0)).between(0, seconds)


def _next_degree(rng: np.random.Generator, degree: int, root: int, size: int, *, strong: bool) -> int:
    """Moves mostly by steps, within about an octave; on a strong beat, to the nearest note of the chord."""
    degree += int(rng.choice([-3, -2, -1, 0, 1, 2, 3, 4], p=[0.06, 0.13, 0.25, 0.1, 0.25, 0.13, 0.05, 0.03]))
    if strong:
        chord = [root + third + size * octave for third in (0, 2, 4) for octave in (-2, -1, 0, 1, 2)]
        degree = min(chord, key=lambda member: abs(member - degree))
    low, high = -size // 2, size + size // 2
    return degree + size if degree < low else degree - size if degree > high else degree
