"""A whole song from a model of notes: sections are generated, harmonised, varied where repeated, and arranged."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from wavegen.codecs.notes.choice import FAMILIES, family
from wavegen.codecs.notes.grid import NoteGrid
from wavegen.errors import WavegenError
from wavegen.generation.form import SectionStopped, Stage, during, parse_form, seed_of, write_log
from wavegen.generation.notes import TICKS, NoteGenerator
from wavegen.generation.stems import write_stems
from wavegen.notes.arrange import concatenate, skyline, with_same_tracks
from wavegen.notes.midi import midi_bytes
from wavegen.notes.score import Score, Track
from wavegen.samplers.drawing import USUAL, Drawing
from wavegen.stopping import ProgressCallback, Stopped, silent

NOTES_PER_QUARTER = 64
"""Sections with more notes per quarter note are discarded."""


@dataclass(frozen=True)
class Song:
    """A song, and how it was made.

    Attributes:
        notes: a track a player.
        stages: in the order in which they were done.
        request: what was asked for.

    Example:
        >>> import wavegen
        >>> decoder = wavegen.load("runs/chorales-decoder")  # doctest: +SKIP
        >>> song = wavegen.compose_song(decoder, bars=8, form="AB")  # doctest: +SKIP
        >>> [stage.name for stage in song.stages]  # doctest: +SKIP
        ['generate', 'generate', 'arrange']
    """

    notes: Score
    stages: tuple[Stage, ...]
    request: Mapping[str, Any]

    def write(
        self,
        folder: str | Path,
        *,
        sample_rate: int = 16_000,
        soundfont: str | Path | None = None,
        progress: ProgressCallback = silent,
    ) -> list[Path]:
        """Writes the song: the same song makes the same bytes.

        Args:
            folder: gets ``song.mid``, ``song.wav``, ``song.png``, for each track with notes ``stem-N-NAME.mid`` and
                ``.wav``, and ``song.json``, which lists the stages, and the sha256 of every other file.
            sample_rate: Hz.
            soundfont: see ``wavegen.notes.render.render``.
            progress: called for each file.

        Returns:
            The files; ``song.json`` is the last.

        Raises:
            WavegenError: a SoundFont that cannot be read, or a folder that cannot be written.
        """
        folder = Path(folder)
        files = write_stems(
            folder, self.notes, sample_rate=sample_rate, soundfont=soundfont, progress=progress
        )
        tracks = [track._asdict() for track in self.notes.tracks]
        played = {
            "sample_rate": sample_rate,
            "soundfont": None if soundfont is None else Path(soundfont).name,
        }
        return write_log(folder, self.request, self.stages, files, tracks=tracks, **played)


def compose_song(
    model: NoteGenerator,
    *,
    bars: int = 32,
    form: str = "AABA",
    seed: int = 0,
    seed_piece: Score | None = None,
    harmoniser: NoteGenerator | None = None,
    remixer: NoteGenerator | None = None,
    remix: float = 0.0,
    instruments: Sequence[str] = (),
    tempo: float | None = None,
    labels: Mapping[str, str] | None = None,
    drawing: Drawing = USUAL,
    progress: ProgressCallback = silent,
) -> Song:
    """Composes a song; the same arguments give the same song.

    The first section is generated, or continues the seed piece; every further new one continues the new one before
    it. A section that is repeated is the same again, or with ``remix`` a variation.

    Args:
        model: generates the sections.
        bars: of the whole song, a multiple of the sections.
        form: the sections in turn: letters, as AABA, or names, as verse-chorus-verse-chorus.
        seed: of all stages.
        seed_piece: what the song begins with, as the model's codec keeps it; its tempos and its metre are the song's.
        harmoniser: a model that writes voices to a melody, the highest line of each section; None leaves sections as
            they are.
        remixer: a masked model that varies sections; None is the harmoniser or the model, where it is one.
        remix: share of the notes of a repeated section to draw anew, 0 to 1.
        instruments: families of General MIDI. They play a grid's voices, from the highest on; from a model of events
            they are the only ones to play.
        tempo: quarter notes per minute; None is the seed piece's, or 120.
        labels: see ``NoteGenerator.generate``.
        drawing: of what is generated; None is the experiment's own.
        progress: called before each stage and within it. Where it raises ``Stopped``, the song is of the sections that
            are whole.

    Raises:
        Stopped: ``progress`` raised it before there was a section.
        WavegenError: a form, a number or a share that cannot be, or a model that cannot do its part.

    Example:
        >>> import wavegen
        >>> decoder = wavegen.load("runs/chorales-decoder")  # doctest: +SKIP
        >>> wavegen.compose_song(decoder, bars=32, form="AABA", seed=0).write("out")  # doctest: +SKIP
    """
    names = parse_form(form)
    if bars < 1 or bars % len(names):
        raise WavegenError(
            f"expected bars as a multiple of the {len(names)} sections of {form}, got {bars}; "
            f"use {max(-(-bars // len(names)), 1) * len(names)}"
        )
    if not 0 <= remix <= 1:
        raise WavegenError(f"expected a share to remix in [0, 1], got {remix}; 0.2 changes two notes of ten")
    if tempo is not None and not 4 <= tempo <= 1000:
        raise WavegenError(f"expected 4 to 1000 quarter notes per minute, got {tempo}")
    players = tuple(map(family, instruments))
    variation = _remixer(model, harmoniser, remixer) if remix else None
    of_events = harmoniser is None and not isinstance(model.codec.plain, NoteGrid)
    if of_events:
        drawing = replace(drawing, instruments=(*drawing.instruments, *players))
    length = bars // len(names) * _bar(model, seed_piece)
    new = len(set(names))
    total = new * (1 if harmoniser is None else 2) + (len(names) - new) * (variation is not None) + 1
    stages: list[Stage] = []

    def following(stage: str) -> ProgressCallback:
        follow = during(progress, stage, len(stages), total)
        follow(stage, len(stages), total)
        return follow

    def logged(name: str, section: str, drawn: int | None, piece: Score, **arguments: Any) -> Score:
        size = {"notes": len(piece), "quarters": piece.end / piece.ticks_per_quarter}
        stages.append(Stage(name, section, drawn, arguments, size))
        return piece

    progress("starting", 0, total)
    kept_piece = None if seed_piece is None else _kept(model, seed_piece)
    before: Score | None = None
    sections: dict[str, Score] = {}
    parts: list[Score] = []
    whole = 0
    try:
        for number, name in enumerate(names):
            drawn = seed_of(seed, number)
            if name in sections and variation is not None:
                again = f"{name}{names[: number + 1].count(name)}"
                its_labels, follow = labels if variation is model else None, following(f"remix {again}")
                [part] = variation.remix(
                    sections[name], remix, seed=drawn, labels=its_labels, progress=follow
                )
                section = logged("remix", again, drawn, part, share=remix)
            elif name in sections:
                section = sections[name]
            else:
                prompt, start = (kept_piece, 0) if before is None else (before, length)
                follow = following(f"generate {name}")
                grown = _grown(model, prompt, start + length, drawn, labels, drawing, follow)
                before = grown.between(start, start + length)
                if not len(before) and (harmoniser or variation):
                    raise WavegenError(
                        f"section {name} came out silent; try another seed, or a higher temperature"
                    )
                after = "section" if start else "nothing" if kept_piece is None else "seed piece"
                section = logged("generate", name, drawn, before, after=after, drawing=asdict(drawing))
                if harmoniser is not None:
                    section = _harmonised(harmoniser, before, length, drawn, following(f"harmonise {name}"))
                    logged("harmonise", name, drawn, section)
                sections[name] = section
            parts.append(section)
            whole = len(stages)
        following("arrange")
    except SectionStopped as stop:
        if not parts:
            raise Stopped from stop
        names, stages = names[: len(parts)], stages[:whole]
    song = concatenate(with_same_tracks(parts), length)
    if not of_events:
        song = _played_by(song, players)
    if tempo is not None:
        song = replace(song, tempos=np.array([[0, round(60e6 / tempo)]]))
    logged("arrange", "", None, song, form=form, sections=names, instruments=players, tempo=tempo)
    request = {
        "model": _described(model),
        "harmoniser": _described(harmoniser),
        "remixer": _described(variation),
        "bars": bars,
        "form": form,
        "seed": seed,
        "seed_piece": None if seed_piece is None else hashlib.sha256(midi_bytes(seed_piece)).hexdigest(),
        "labels": dict(labels or {}),
    }
    return Song(song, tuple(stages), request)


def _bar(model: NoteGenerator, seed_piece: Score | None) -> int:
    """Ticks of a bar: the grid's, or the seed piece's first, or four quarter notes."""
    codec = model.codec.plain
    if isinstance(codec, NoteGrid):
        return codec.bar * TICKS // codec.steps_per_quarter
    if seed_piece is not None and len(seed_piece.metres):
        _, numerator, denominator = seed_piece.metres[0].tolist()
        return numerator * 4 * TICKS // denominator
    return 4 * TICKS


def _kept(model: NoteGenerator, piece: Score) -> Score:
    """A piece as the codec keeps it, in its tracks."""
    if not len(piece):
        raise WavegenError("expected a seed piece with notes, got an empty one; leave it out")
    piece = piece.at_resolution(TICKS)
    kept = model.codec.decode(model.codec.encode(piece)).at_resolution(TICKS)
    return replace(kept, tempos=piece.tempos, metres=piece.metres)


def _grown(
    model: NoteGenerator,
    piece: Score | None,
    ticks: int,
    seed: int,
    labels: Mapping[str, str] | None,
    drawing: Drawing,
    progress: ProgressCallback,
) -> Score:
    """A piece, or nothing, and what the model writes after it, at least up to a tick."""
    codec = model.codec.plain
    if isinstance(codec, NoteGrid):
        steps = ticks * codec.steps_per_quarter // TICKS
        there = 0 if piece is None else len(codec.encode(piece))
        if piece is not None and there >= steps:
            return piece
        fresh = steps - there
        return model.generate(
            fresh, prompt=piece, seed=seed, labels=labels, drawing=drawing, progress=progress
        )[0]
    quarters = ticks // TICKS
    fresh, most = 4 * quarters, NOTES_PER_QUARTER * quarters
    while piece is None or not len(piece) or piece.onset[-1] < ticks:
        if piece is not None and len(piece) > most:
            raise WavegenError(
                f"{len(piece)} notes of the model last {piece.onset[-1] / TICKS:g} of {quarters} quarter notes; "
                "raise the temperature, or ask for fewer bars"
            )
        [piece] = model.generate(
            fresh, prompt=piece, seed=seed, labels=labels, drawing=drawing, progress=progress
        )
        # Each length is compiled: few and long is quicker.
        fresh = len(piece)
    return piece


def _harmonised(
    harmoniser: NoteGenerator, piece: Score, length: int, seed: int, progress: ProgressCallback
) -> Score:
    """Voices for the highest line of a section."""
    codec = harmoniser.codec.plain
    # On the harmoniser's grid, where no two notes of the line begin together.
    line = skyline(piece.at_resolution(getattr(codec, "steps_per_quarter", TICKS)))
    [voices] = harmoniser.harmonise(line, seed=seed, progress=progress)
    return voices.at_resolution(TICKS).between(0, length)


def _remixer(
    model: NoteGenerator, harmoniser: NoteGenerator | None, remixer: NoteGenerator | None
) -> NoteGenerator:
    """The model that varies sections, which must read what the last one before it wrote."""
    if remixer is not None:
        return remixer
    for candidate in (harmoniser, model):
        if candidate is not None and candidate.masked:
            return candidate
    raise WavegenError(
        f"remix needs a masked model, got {model.config.model.kind}; give one as the remixer, or remix 0"
    )


def _played_by(song: Score, instruments: Sequence[str]) -> Score:
    if len(instruments) > len(song.tracks):
        raise WavegenError(
            f"expected at most {len(song.tracks)} instruments, one a track, got {len(instruments)}; leave some out"
        )
    tracks = list(song.tracks)
    for number, name in enumerate(instruments):
        if name not in FAMILIES:
            raise WavegenError(f"a voice with pitches is not played on {name}; try {FAMILIES[0]}")
        tracks[number] = Track(name, FAMILIES.index(name) * 8)
    return replace(song, tracks=tuple(tracks))


def _described(model: NoteGenerator | None) -> dict[str, str] | None:
    if model is None:
        return None
    return {"name": model.config.name, "kind": model.config.model.kind, "codec": repr(model.codec)}
