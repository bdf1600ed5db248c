"""Figures of several sets as bars, one panel per figure."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from wavegen.errors import WavegenError

SPAN = 20.0
"""The largest bar over the middle one, above which the axis is logarithmic beyond the middle one."""


def bars(
    path: str | Path,
    panels: Mapping[str, Mapping[str, tuple[float | None, float | None]]],
    lines: Mapping[str, Sequence[float]] | None = None,
) -> Path:
    """Draws one panel of bars for each figure, and one of lines.

    Args:
        path: the PNG file to write.
        panels: by title of the figure and name of the set, the value and its standard error; either may be None.
        lines: levels in dB over the tenths of clips, by name of the set; None or empty draws no such panel.

    Returns:
        The path.

    Raises:
        WavegenError: if there is nothing to draw.

    Example:
        >>> import tempfile
        >>> from wavegen.pictures.audio import read_picture
        >>> from wavegen.pictures.bars import bars
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = bars(f"{folder}/bars.png", {"distance": {"noise": (3.0, 0.2), "speech": (0.1, None)}})
        ...     read_picture(path).shape[2]
        3
    """
    from matplotlib.figure import Figure

    if not panels:
        raise WavegenError("expected at least one figure to draw, got none")
    count = len(panels) + bool(lines)
    columns = min(count, 3)
    rows = -(-count // columns)
    figure = Figure(figsize=(4.2 * columns, 2.6 * rows), layout="constrained")
    places = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (title, values) in zip(places, panels.items(), strict=False):
        names = list(values)
        axes.barh(
            range(len(names)),
            [values[name][0] or 0.0 for name in names],
            xerr=[values[name][1] or 0.0 for name in names],
            color=["tab:orange", *["tab:blue"] * (len(names) - 1)],
        )
        for row, name in enumerate(names):
            if values[name][0] is None:
                axes.text(0.0, row, " none", va="center", fontsize=8)
        sizes = sorted(abs(value) for value, _ in values.values() if value)
        if sizes and sizes[-1] > SPAN * sizes[len(sizes) // 2]:
            axes.set_xscale("symlog", linthresh=max(sizes[len(sizes) // 2], sizes[-1] / SPAN**2))
        axes.set_yticks(range(len(names)), names, parse_math=False)
        axes.invert_yaxis()
        axes.set_title(title, loc="left", fontsize=10, parse_math=False)
    if lines:
        axes = places[len(panels)]
        for name, course in lines.items():
            axes.plot([(i + 0.5) / len(course) for i in range(len(course))], course, label=name)
        axes.set_title("level over the clip (dB)", loc="left", fontsize=10)
        axes.set_xlabel("share of the clip")
        axes.legend(frameon=False, fontsize=7)
    for axes in places:
        axes.spines[["top", "right"]].set_visible(False)
    for axes in places[count:]:
        axes.set_axis_off()
    figure.savefig(path, dpi=110)
    return Path(path)
