"""Exact test bits per sample of a trained run on the Free Spoken Digit Dataset, beside simple predictors.

    python benchmarks/quality/likelihood.py RUN [--folder FSDD_FOLDER] [--json-file RESULT.json]

RUN is a run folder or a `.safetensors` file, trained as in `configs/fsdd.yaml`: 8 kHz, 256 mu-law codes,
takes 0-4 held out. Every sample of every test recording counts once, predicted from all that stands before it
in its clip; the first one from silence. See `baselines.py` for the other rows of the table.
"""

import json
import math
from pathlib import Path

import baselines
import jax
import numpy as np
import tyro

import wavegen


def bits_per_sample(generator: wavegen.AudioGenerator, folder: Path) -> float:
    """The mean over all samples of the test split of minus the logarithm of a code's probability, in bits."""
    if generator.codec != baselines.CODEC or generator.sample_rate != baselines.SAMPLE_RATE:
        raise SystemExit(
            f"expected a run on {baselines.CODEC} at {baselines.SAMPLE_RATE} Hz, got {generator.codec} "
            f"at {generator.sample_rate} Hz; bits per sample of different codes cannot be compared"
        )
    fields = generator.config.model.label_fields
    nats = []
    for path in baselines.recordings(folder, *baselines.TEST_TAKES):
        labels = dict(zip(("digit", "speaker"), path.stem.split("_"), strict=False))
        # Clips are short: a small window wastes less of the last, padded one.
        nats.append(
            generator.log_likelihood(
                wavegen.Audio.read(path), labels={field: labels[field] for field in fields}, window=2048
            )
        )
    return -float(np.concatenate(nats).mean()) / math.log(2)


def main(
    run: tyro.conf.Positional[Path], /, folder: Path | None = None, json_file: Path | None = None
) -> None:
    """Measure a run's bits per sample on the test split of the Free Spoken Digit Dataset.

    Args:
        run: Run folder or .safetensors file.
        folder: Folder of the dataset's WAV files; without it, the one that the run was trained on.
        json_file: Where to write the figures as JSON.
    """
    generator = wavegen.load(run)
    if folder is None:
        if generator.config.data.path is None:
            raise SystemExit("the run was not trained on a folder; say where the dataset is with --folder")
        folder = Path(generator.config.data.path)
    size = sum(x.size for x in jax.tree.leaves(generator.params))
    rows = {f"{run.name}, {size:,} parameters": bits_per_sample(generator, folder)}
    rows |= baselines.measure(folder)
    baselines.show(rows)
    if json_file:
        json_file.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
