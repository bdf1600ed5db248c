"""Figures of training runs: loss curves from their metrics."""

from pathlib import Path

from wavegen.errors import WavegenError
from wavegen.metrics import read_metrics


def loss_curve(metrics: str | Path, path: str | Path) -> Path:
    """Draws the losses of a run over its steps.

    Args:
        metrics: ``metrics.jsonl`` of a run: one JSON object per line, with "step" and numbers by name.
        path: the PNG file to write.

    Returns:
        The path.

    Raises:
        WavegenError: if the file cannot be read, or contains neither bits nor a loss.
    """
    from matplotlib.figure import Figure

    rows = read_metrics(metrics)
    names = list(dict.fromkeys(name for row in rows for name in row))
    shown = [name for name in names if "bits_per_" in name] or [name for name in names if "loss" in name]
    if not shown:
        raise WavegenError(f"expected a loss in {metrics}, got only {', '.join(names) or 'an empty file'}")
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for name in shown:
        points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
        # The many noisy rows of training become a line; the few evaluations get markers.
        marker = "o" if len(points) <= 30 else None
        axes.plot(
            *zip(*points, strict=True),
            label=name.replace("_", " "),
            marker=marker,
            markersize=4,
            linewidth=1.4,
        )
    axes.set_xlabel("step")
    axes.set_ylabel(shown[0].rpartition("/")[2].replace("_", " ") if "bits_per_" in shown[0] else "loss")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110)
    return Path(path)
