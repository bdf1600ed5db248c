"""Figures of notes, drawn without a display."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from wavegen.errors import WavegenError
from wavegen.notes.performance import pitch_name
from wavegen.notes.score import Score


def plot_notes(path: str | Path, pieces: Mapping[str, Score]) -> Path:
    """Draws piano rolls one above the other, on one time axis and one pitch axis.

    A note is a bar from its onset to its end, in the colour of its track, and fainter the softer it is. Drums are
    left out.

    Args:
        path: the PNG file to write.
        pieces: notes by title.

    Returns:
        The path.

    Raises:
        WavegenError: if there are no pieces.
    """
    from matplotlib import colormaps
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import to_rgb
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    if not pieces:
        raise WavegenError("expected at least one piece to draw, got none")
    pitched = {title: notes.select(lambda track: not track.drum) for title, notes in pieces.items()}
    figure = Figure(figsize=(10, 0.9 + 2.3 * len(pieces)), layout="constrained")
    panels = figure.subplots(len(pieces), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    palette = colormaps["tab10"]
    for axes, (title, notes) in zip(panels, pitched.items(), strict=True):
        onset, end = notes.seconds(notes.onset), notes.seconds(notes.onset + notes.duration)
        low, high = notes.pitch - 0.4, notes.pitch + 0.4
        corners = np.stack([onset, low, onset, high, end, high, end, low], axis=1).reshape(-1, 4, 2)
        colours = np.array([to_rgb(palette(number % 10)) for number in range(len(notes.tracks))]).reshape(
            -1, 3
        )
        strength = 0.35 + 0.65 * notes.velocity / 127
        axes.add_collection(
            PolyCollection(list(corners), facecolors=np.column_stack([colours[notes.track], strength]))
        )
        names = {
            track.name: colour for track, colour in zip(notes.tracks, colours, strict=True) if track.name
        }
        if len(names) > 1:
            patches = [Patch(color=tuple(colour), label=name) for name, colour in list(names.items())[:10]]
            # Above the panel, where it hides no notes.
            legend = axes.legend(
                handles=patches,
                frameon=False,
                fontsize=8,
                loc="lower right",
                bbox_to_anchor=(1, 1),
                borderaxespad=0,
                ncols=5,
            )
            for text in legend.get_texts():
                text.set_parse_math(False)  # names come from files, where "$" is a dollar
        axes.set_title(title, loc="left", fontsize=10, parse_math=False)
        axes.set_ylabel("pitch")
        axes.grid(alpha=0.2)
        axes.spines[["top", "right"]].set_visible(False)
    pitches = np.concatenate([notes.pitch for notes in pitched.values()])
    lowest, highest = (int(pitches.min()), int(pitches.max())) if len(pitches) else (60, 72)
    octaves = range(lowest // 12 * 12, highest + 12, 12)
    panels[-1].set_yticks(octaves, [pitch_name(pitch) for pitch in octaves])
    panels[-1].set_ylim(lowest - 2, highest + 2)
    panels[-1].set_xlim(
        0, max(float(notes.seconds(np.array(notes.end))) for notes in pitched.values()) or 1.0
    )
    panels[-1].set_xlabel("time (s)")
    figure.savefig(path, dpi=110)
    return Path(path)
