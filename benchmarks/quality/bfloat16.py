"""What bfloat16 weights cost a trained WaveNet: the sampler's distributions beside those of float32 weights.

    python benchmarks/quality/bfloat16.py RUN [--folder FSDD_FOLDER]

RUN is a run folder or a `.safetensors` file, trained as in `configs/fsdd.yaml`. The sampler is fed with every test
recording, sample by sample, with float32 weights and with the same weights rounded to bfloat16; printed are the mean
over all samples of the Kullback-Leibler divergence of the second distribution from the first, in nats, and the bits per
sample of both.
"""

import math
from pathlib import Path

import baselines
import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.progress import track

import wavegen
from wavegen.generation.audio import Precision
from wavegen.kernels import wavenet_generate, wavenet_init_state
from wavegen.networks.base import with_parameters

BATCH = 16


def log_probabilities(
    run: Path, precision: Precision, tokens: np.ndarray, labels: np.ndarray, implementation: str | None
) -> jax.Array:
    """Ln p [B, T, V] of every level, by the sampler."""
    generator = wavegen.load(run, precision=precision)
    model = with_parameters(generator.graph, generator.params)
    weights = model.weights()
    condition = model.encode(labels if labels.shape[1] else None, None)
    window = {} if condition is None else {"condition": condition.astype(jnp.float32)}
    state = wavenet_init_state(weights, model.shape, len(tokens))
    outputs = wavenet_generate(
        weights,
        model.shape,
        state,
        tokens.shape[1],
        key=jax.random.key(0),
        forced=jnp.asarray(tokens),
        return_logits=True,
        implementation=implementation,
        **window,
    )[2]
    return jax.nn.log_softmax(outputs)


def main(
    run: tyro.conf.Positional[Path],
    /,
    folder: Path | None = None,
    implementation: str | None = None,
) -> None:
    """Compare bfloat16 weights with float32 ones on the test split of the Free Spoken Digit Dataset.

    Args:
        run: Run folder or .safetensors file.
        folder: Folder of the dataset's WAV files; without it, the one that the run was trained on.
        implementation: Of the sampler, by name; the best one here by default.
    """
    generator = wavegen.load(run)
    folder = folder or Path(generator.config.data.path or ".")
    paths = sorted(baselines.recordings(folder, *baselines.TEST_TAKES), key=lambda path: path.stat().st_size)
    divergence, bits, count = 0.0, np.zeros(2), 0
    for first in track(range(0, len(paths), BATCH), "recordings"):
        part = paths[first : first + BATCH]
        clips = [
            np.asarray(generator.codec.encode(wavegen.Audio.read(path).samples.T))[0, :, 0] for path in part
        ]
        values = [dict(zip(("digit", "speaker"), path.stem.split("_"), strict=False)) for path in part]
        fields = generator.config.model.label_fields
        labels = [[generator.labels[field].index(value[field]) for field in fields] for value in values]
        # Lengths in steps of 1,024, so that few shapes are compiled.
        longest = -(-max(len(clip) for clip in clips) // 1024) * 1024
        tokens = np.stack([np.pad(clip, (0, longest - len(clip))) for clip in clips]).astype(np.int32)
        heard = np.arange(longest) < np.array([len(clip) for clip in clips])[:, None]
        exact, rounded = (
            log_probabilities(run, precision, tokens, np.array(labels, np.int32), implementation)
            for precision in ("float32", "bfloat16")
        )
        distances = np.asarray(jnp.sum(jnp.exp(exact) * (exact - rounded), -1), np.float64)
        divergence += distances[heard].sum()
        for i, scores in enumerate((exact, rounded)):
            chosen = np.take_along_axis(np.asarray(scores), tokens[..., None], -1)[..., 0]
            bits[i] -= chosen[heard].sum(dtype=np.float64) / math.log(2)
        count += int(heard.sum())
    print(f"{count:,} samples of {len(paths)} recordings")
    print(f"divergence      {divergence / count:.2e} nats per sample")
    print(f"bits per sample {bits[0] / count:.4f} in float32, {bits[1] / count:.4f} in bfloat16")


if __name__ == "__main__":
    tyro.cli(main)
