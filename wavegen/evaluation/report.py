"""Figures of generated clips next to those of controls: as a table, as JSON and as a picture."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from wavegen.audio import Audio
from wavegen.evaluation.controls import coded, noise, sine
from wavegen.evaluation.figures import Figures, measure
from wavegen.notes.performance import Performance, frequency
from wavegen.pictures.audio import spectrograms

COLUMNS = {
    "pitch_accuracy": "pitch right",
    "voiced_probability": "voiced",
    "rms_first": "rms first",
    "rms_last": "rms last",
    "envelope_correlation": "envelope",
    "mel_distance_db": "mel (dB)",
    "flatness_db": "flatness (dB)",
    "chroma_entropy": "chroma (bits)",
    "noise_share": "noise",
}
READING = """\
Compare every row with "recording", which is the ceiling, and "mu-law", which is the recording in 256 levels.
pitch right  share of the score's frames within 50 cents. The bare sine scores high too: alone it only shows that a
             model follows the pitch it is given.
voiced       mean probability of a pitch. Hiss lowers it before an ear would call the note lost.
rms          of the first and the last half second. A model that dies out is below the recording in the last.
envelope     correlation of loudness over time with the recording; the sine has no decay of a string.
mel          distance from the recording; lower is better. Noise between partials and wrong timbre raise it.
flatness     noise has -2.5, clean tones far less; compare with mu-law, which has a hiss of its own.
chroma       spread over the 12 pitch classes: low for a single clean note, 3.58 for noise.
noise        share of frames of 50 ms that are loud although their spectrum is flat: bursts of noise.
loud, low, high, long and repeated are two seconds of such notes, played by the model; the other rows are pieces."""


@dataclass(frozen=True)
class ControlledReport:
    """The means over clips of each row's figures.

    Attributes:
        rows: figures by name; "generated" first, then the controls.
        clips: number of clips that are averaged.
    """

    rows: Mapping[str, Figures]
    clips: int

    def text(self) -> str:
        """Returns the table and how to read it."""
        widths = {column: max(len(title), 7) + 2 for column, title in COLUMNS.items()}
        head = "".join(f"{COLUMNS[column]:>{width}}" for column, width in widths.items())
        lines = [f"{f'mean of {self.clips}':11}" + head]
        for name, figures in self.rows.items():
            cells = {column: getattr(figures, column) for column in COLUMNS}
            shown = {column: "-" if cell is None else f"{cell:.3f}" for column, cell in cells.items()}
            lines.append(
                f"{name:11}" + "".join(f"{shown[column]:>{width}}" for column, width in widths.items())
            )
        return "\n".join([*lines, "", READING])

    def json(self) -> str:
        """Returns the table as JSON."""
        return json.dumps(
            {"clips": self.clips, "rows": {name: asdict(row) for name, row in self.rows.items()}}, indent=1
        )


def compare(
    generated: Sequence[Audio], recordings: Sequence[Audio], notes: Sequence[Performance]
) -> ControlledReport:
    """Measures generated clips and, for the same music, the controls.

    Args:
        generated: the clips.
        recordings: the same music, played by the instrument; one recording per clip.
        notes: the notes of each clip.

    Raises:
        WavegenError: if librosa is not installed, a clip is shorter than half a second, or rates differ.
    """
    measured: dict[str, list[Figures]] = {}
    for clip, recording, score in zip(generated, recordings, notes, strict=True):
        for name, audio in {"generated": clip, **controls(recording, score)}.items():
            measured.setdefault(name, []).append(measure(audio, recording, score))
    return ControlledReport({name: _mean(figures) for name, figures in measured.items()}, len(generated))


def controls(recording: Audio, notes: Performance) -> dict[str, Audio]:
    """Returns what generated audio is compared with.

    Returns:
        The recording, the recording after mu-law, a sine at the score's pitch, and white noise, all equally loud.
    """
    mono = recording.mono()
    pitch = notes.frames(mono.sample_rate, 1, len(mono.samples))[:, 0]
    tone = sine(mono, np.where(pitch > 0, frequency(pitch), 0.0))
    return {"recording": mono, "mu-law": coded(mono), "sine": tone, "noise": noise(mono)}


def write(report: ControlledReport, out: Path, generated: Audio, recording: Audio) -> None:
    """Writes ``figures.txt``, ``figures.json`` and ``spectrogram.png``.

    Args:
        report: the report of all clips.
        out: a folder, created if missing.
        generated: the clip to draw.
        recording: the recording to draw below it.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / "figures.txt").write_text(report.text() + "\n", encoding="utf-8")
    (out / "figures.json").write_text(report.json() + "\n", encoding="utf-8")
    spectrograms(out / "spectrogram.png", {"generated": generated, "recording": recording})


def _mean(rows: Sequence[Figures]) -> Figures:
    """Averages field by field; a clip that lacks a figure does not count in its mean."""
    means: dict[str, Any] = {}
    for field in fields(Figures):
        values = [value for row in rows if (value := getattr(row, field.name)) is not None]
        means[field.name] = float(np.mean(values)) if values else None
    return Figures(**means)
