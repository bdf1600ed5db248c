"""Distances of a set of generated clips from recordings, beside those of controls made from the recordings.

The recordings are divided into two halves. One is the reference of every row; of the other half, and so of no
recording of the reference, the controls are made. All rows have the same number of clips, on which the Fréchet distance
depends.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from wavegen.audio import Audio
from wavegen.errors import WavegenError
from wavegen.evaluation import controls
from wavegen.evaluation.distinct_bins import Bins
from wavegen.evaluation.embeddings.base import Embedding
from wavegen.evaluation.embeddings.log_mel import RATE, LogMelStatistics
from wavegen.evaluation.frechet import frechet_distance
from wavegen.evaluation.jackknife import standard_error
from wavegen.evaluation.kernel_distance import bandwidth_of, kernel_audio_distance
from wavegen.evaluation.life import PARTS, life
from wavegen.evaluation.repetition import repetition
from wavegen.evaluation.sets import halves

FEW_CLIPS, FEW_SECONDS = 50, 60.0
FEW_PIECES = 40
"""Pieces of the reference, below which there are too few bins: noise may fill each of two bins as music does."""


class Measured(NamedTuple):
    """A figure of one row, and how it is printed."""

    title: str
    digits: int
    meaning: str


FIGURES: Mapping[str, Measured] = {
    "kernel": Measured("KAD", 2, "kernel audio distance: around 0, above or below, where sets are alike; unbiased"),
    "frechet": Measured("Frechet", 1, "Fréchet distance: too large where clips are few; compare rows, not tables"),
    "different_bins": Measured("NDB", 2, "share of the kinds of sound of which there are too few or too many; 0.05"
                               " by chance alone, more where clips have several pieces"),
    "bin_divergence": Measured("JS", 3, "Jensen-Shannon divergence of the kinds of sound, 0 to 1 bit"),
    "repetition": Measured("repeats", 2, "share of a clip that repeats half a second of it nearly exactly"),
    "alive": Measured("alive", 2, "share of a clip until it stays 40 dB below its loudest moment"),
    "stuck": Measured("stuck", 2, "share of a clip whose spectrum stands still for half a second or more"),
    "noise": Measured("noise", 3, "share of frames that are loud and flat; consonants count, too"),
    "level_change_db": Measured("dB", 1, "level of the last quarter of a clip minus that of the first"),
}  # fmt: skip
"""The figures by their fields of ``Row``, in the order of the table."""


@dataclass(frozen=True)
class Row:
    """The figures of one set; see ``FIGURES`` for what they mean. None where clips are too short or too few for one.

    Attributes:
        clips: number of clips.
        seconds: their length together.
        kernel: kernel audio distance from the reference.
        kernel_error: its standard error.
        frechet: Fréchet distance from the reference.
        frechet_error: its standard error.
        different_bins: share of bins with different proportions.
        bin_divergence: Jensen-Shannon divergence of the bins, in bits.
        repetition: mean share of clips that repeats.
        alive: mean share of clips until they die.
        stuck: mean share of clips that stands still.
        noise: mean share of frames of noise.
        level_change_db: mean change of level.
        course: mean level in dB of full scale of each tenth of the clips; empty where clips are shorter than a second.
    """

    clips: int
    seconds: float
    kernel: float
    kernel_error: float | None
    frechet: float
    frechet_error: float | None
    different_bins: float | None
    bin_divergence: float | None
    repetition: float | None
    alive: float
    stuck: float | None
    noise: float
    level_change_db: float
    course: tuple[float, ...]


@dataclass(frozen=True)
class Comparison:
    """Figures by row, "generated" first, then the controls.

    Attributes:
        rows: figures by the name of the set.
        examples: one clip of each row, and of the reference.
        embedding: name of the embedding of the distances.
        width: numbers in an embedding.
        reference_clips: clips of the reference.
        reference_seconds: their length together.
        warnings: what speaks against relying on the figures.
    """

    rows: Mapping[str, Row]
    examples: Mapping[str, Audio]
    embedding: str
    width: int
    reference_clips: int
    reference_seconds: float
    warnings: tuple[str, ...]

    def text(self) -> str:
        """Returns the table, what it stands on, and how to read it."""
        first = next(iter(self.rows.values()))
        lines = [
            f"{first.clips} clips ({first.seconds:.1f} s) in the first row, against {self.reference_clips} clips "
            f"({self.reference_seconds:.1f} s) of recordings; embedding: {self.embedding}",
            "",
            f"{'':12}" + "".join(f"{each.title:>{_width(name)}}" for name, each in FIGURES.items()),
        ]
        lines += [
            f"{name:12}" + "".join(f"{_cell(row, figure):>{_width(figure)}}" for figure in FIGURES)
            for name, row in self.rows.items()
        ]
        if self.warnings:
            lines += ["", *(f"warning: {each}" for each in self.warnings)]
        meanings = {each.title: each.meaning for each in FIGURES.values()}
        lines += ["", *(f"{title:8} {meaning}" for title, meaning in meanings.items())]
        return "\n".join(lines)

    def json(self) -> str:
        """Returns the figures as JSON."""
        shown = {
            each.name: getattr(self, each.name)
            for each in fields(self)
            if each.name not in ("rows", "examples")
        }
        rows = {name: asdict(row) for name, row in self.rows.items()}
        return json.dumps(shown | {"rows": rows}, indent=1)


def compare(
    generated: Sequence[Audio],
    recordings: Sequence[Audio],
    embedding: Embedding,
    *,
    most: int = 200,
    seed: int = 0,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Comparison:
    """Compares generated clips with recordings, and controls with the same recordings.

    Recordings longer than the longest generated clip are cut, and everything is resampled to the generated rate.

    Args:
        generated: at least 2 clips of one sample rate; ``most`` of them are used.
        recordings: see ``wavegen.evaluation.sets.halves``.
        embedding: between whose vectors distances are measured.
        most: clips of a set at most.
        seed: of every random choice.
        progress: called with what is measured, the number of clips that are done, and the number of all.

    Raises:
        WavegenError: if there are too few clips or recordings, or clips of several rates.
    """
    rates = {clip.sample_rate for clip in generated}
    if len(generated) < 2 or len(rates) > 1:
        raise WavegenError(
            f"expected at least two generated clips of one sample rate, got {len(generated)} of "
            f"{sorted(rates) or 'no'} Hz"
        )
    (rate,) = rates
    random = np.random.default_rng(seed)
    longest = max(clip.duration for clip in generated)
    own = [generated[i].mono() for i in random.permutation(len(generated))[:most]]
    reference, held = halves([clip.mono().resample(rate) for clip in recordings], longest, most, seed)
    count = min(len(own), len(held))
    held = held[:count]
    # Made when their turn comes: all at once, sets of long clips would fill the memory.
    makers: dict[str, Callable[[], list[Audio]]] = {
        "generated": lambda: own[:count],
        "other half": lambda: held,
        "mu-law": lambda: [controls.coded(clip) for clip in held],
        "shuffled": lambda: [controls.shuffled(clip, seed + i) for i, clip in enumerate(held)],
        "sine": lambda: [controls.sine(clip) for clip in held],
        "noise": lambda: [controls.noise(clip, seed + i) for i, clip in enumerate(held)],
    }
    total = count * len(makers) + len(reference)
    done = 0

    def advance(what: str) -> None:
        nonlocal done
        done += 1
        progress(what, done, total)

    own_statistics = isinstance(embedding, LogMelStatistics)
    sounds = embedding if own_statistics else LogMelStatistics(min(rate, RATE))
    scale = _Scale(reference, embedding, sounds, seed, advance)
    rows: dict[str, Row] = {}
    examples = {"reference": reference[0]}
    for name, make in makers.items():
        clips = make()
        rows[name], examples[name] = scale.row(name, clips, advance), clips[0]
    return Comparison(
        rows,
        examples,
        embedding.name,
        scale.width,
        len(reference),
        sum(clip.duration for clip in reference),
        _warnings(rows["generated"], len(reference), scale.width, embedding.name),
    )


class _Scale:
    """The reference, ready to measure sets against it."""

    def __init__(
        self,
        reference: Sequence[Audio],
        embedding: Embedding,
        sounds: Embedding,
        seed: int,
        advance: Callable[[str], None],
    ) -> None:
        self._embedding, self._sounds = embedding, sounds
        self._reference, kinds = self._embed("reference", reference, advance)
        self._rows = np.concatenate(self._reference)
        self._bandwidth = bandwidth_of(self._rows)
        sounds_of_reference = np.concatenate(kinds)
        self._bins = Bins(sounds_of_reference, seed) if len(sounds_of_reference) >= FEW_PIECES else None
        self.width = self._rows.shape[1]

    def row(self, name: str, clips: Sequence[Audio], advance: Callable[[str], None]) -> Row:
        """Measures one set."""
        embedded, kinds = self._embed(name, clips, advance)
        rows = np.concatenate(embedded)
        bins = None if self._bins is None else self._bins.compare(np.concatenate(kinds))
        lives = [life(clip) for clip in clips]
        whole = [each.course for each in lives if len(each.course) == PARTS]
        return Row(
            clips=len(clips),
            seconds=sum(clip.duration for clip in clips),
            kernel=self._kernel(rows, self._rows),
            kernel_error=standard_error(self._kernel, embedded, self._reference),
            frechet=frechet_distance(rows, self._rows),
            frechet_error=standard_error(frechet_distance, embedded, self._reference),
            different_bins=None if bins is None else bins.different,
            bin_divergence=None if bins is None else bins.divergence,
            repetition=_mean([repetition(clip) for clip in clips]),
            alive=float(np.mean([each.alive for each in lives])),
            stuck=_mean([each.stuck for each in lives]),
            noise=float(np.mean([each.noise for each in lives])),
            level_change_db=float(np.mean([each.level_change_db for each in lives])),
            course=tuple(np.mean(whole, axis=0).tolist()) if whole else (),
        )

    def _kernel(self, generated: Float[np.ndarray, "M D"], reference: Float[np.ndarray, "N D"]) -> float:
        # One bandwidth for all rows and all subsets: otherwise it would be part of what varies.
        return kernel_audio_distance(generated, reference, self._bandwidth)

    def _embed(
        self, name: str, clips: Sequence[Audio], advance: Callable[[str], None]
    ) -> tuple[list[Float[np.ndarray, "_ D"]], list[Float[np.ndarray, "_ E"]]]:
        """Returns the embeddings of the clips' pieces, and their log-mel statistics, which the bins are made of."""
        embedded, kinds = [], []
        for clip in clips:
            embedded.append(self._embedding.embed(clip))
            kinds.append(embedded[-1] if self._sounds is self._embedding else self._sounds.embed(clip))
            advance(name)
        return embedded, kinds


def _mean(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return float(np.mean(there)) if there else None


def _warnings(row: Row, reference: int, width: int, embedding: str) -> tuple[str, ...]:
    found = []
    if min(row.clips, reference) < FEW_CLIPS or row.seconds < FEW_SECONDS:
        found.append(
            f"{row.clips} clips of {row.seconds:.1f} s against {reference} are few: from {FEW_CLIPS} clips and "
            f"{FEW_SECONDS:.0f} s on, smaller differences mean something"
        )
    if min(row.clips, reference) <= width:
        found.append(
            f"fewer clips than the {width} numbers of {embedding}: the Frechet distance is far too large; "
            "compare rows only, or read KAD"
        )
    return tuple(found)


def _width(figure: str) -> int:
    return 19 if f"{figure}_error" in Row.__dataclass_fields__ else 9


def _cell(row: Row, figure: str) -> str:
    value, digits = getattr(row, figure), FIGURES[figure].digits
    if value is None:
        return "-"
    error = getattr(row, f"{figure}_error", None)
    # No more than five digits of a large number mean anything.
    digits = max(0, min(digits, 4 - len(f"{abs(value):.0f}")))
    return f"{value:.{digits}f}" + (f" ±{error:.{digits}f}" if error is not None else "")
