"""What bfloat16 and int8 cost a trained WaveNet: the sampler's distributions compared with those in float32.

    python benchmarks/quality/precisions.py [RUN] [--split test] [--data FOLDER] [--batches 20]

RUN is a run folder or a `.safetensors` file; without one it is the instrument that ships with the package. The sampler
is fed with windows of the split's recordings, sample by sample, in each precision. Printed are the bits per sample, and
the mean over all scored samples of the Kullback-Leibler divergence of the distribution from that of float32, in nats.
"""

import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.progress import track

import wavegen
from wavegen.codecs.base import Codecs
from wavegen.data.open import open_dataset
from wavegen.kernels import wavenet_generate
from wavegen.networks.base import with_parameters
from wavegen.training.evaluate import chosen_batches, evaluation_source
from wavegen.training.step import make_examples

PRECISIONS = ("float32", "bfloat16", "int8")


def log_probabilities(
    model: wavegen.models.wavenet.WaveNet, examples: dict[str, jax.Array], implementation: str | None
) -> jax.Array:
    """Ln p [B, T, V] of every level, by the sampler."""
    tokens = examples["targets"][..., 0].astype(jnp.int32)
    state = model.init_state(len(tokens), examples.get("labels"), examples.get("features"))
    window = model._window(state, tokens.shape[1])
    outputs = wavenet_generate(
        model.weights(),
        model.shape,
        state["network"],
        tokens.shape[1],
        key=jax.random.key(0),
        forced=tokens,
        return_logits=True,
        implementation=implementation,
        **window,
    )[2]
    return jax.nn.log_softmax(outputs)


def main(
    run: tyro.conf.Positional[Path | None] = None,
    /,
    split: str = "test",
    data: Path | None = None,
    cache: Path | None = None,
    batches: int | None = None,
    implementation: str | None = None,
) -> None:
    """Compare the precisions of a WaveNet with a softmax head on a split.

    Args:
        run: Run folder or .safetensors file; by default the instrument that ships with the package.
        split: Of the dataset, such as valid or test.
        data: Folder of recordings; by default the one that the run was trained on.
        cache: Folder where prepared data is kept; by default the run's.
        batches: That are measured, spread evenly over the split; by default all.
        implementation: Of the sampler, by name; the best one here by default.
    """
    opened = [wavegen.load(run, precision=precision) for precision in PRECISIONS]
    models = [with_parameters(generator.graph, generator.params) for generator in opened]
    config = opened[0].config
    given = {"path": data and str(data), "cache": cache and str(cache)}
    changed = config.data.model_copy(update={name: value for name, value in given.items() if value})
    config = config.model_copy(update={"data": changed})
    codecs = Codecs(opened[0].codec, opened[0].condition)
    source = evaluation_source(config, open_dataset(config), split, models[0], codecs)
    distances, bits, count = np.zeros(len(models)), np.zeros(len(models)), 0
    for number in track(chosen_batches(source, batches or len(source)), "batches"):
        rows = source.batch(int(number))
        batch = {name: jnp.asarray(x) for name, x in rows.items() if name not in ("file", "start")}
        examples = make_examples(config, models[0], codecs, batch, None)
        scored = np.asarray(examples["mask"])
        chosen = np.asarray(examples["targets"])
        exact = None
        for i, model in enumerate(models):
            scores = log_probabilities(model, examples, implementation)
            exact = scores if exact is None else exact
            distance = jnp.sum(jnp.exp(exact) * (exact - scores), -1)
            distances[i] += np.asarray(distance, np.float64)[scored].sum()
            likely = np.take_along_axis(np.asarray(scores), chosen, -1)[..., 0]
            bits[i] -= likely[scored].sum(dtype=np.float64) / math.log(2)
        count += int(scored.sum())
    print(f"{count:,} samples of the {split} split")
    for name, distance, total in zip(PRECISIONS, distances / count, bits / count, strict=True):
        print(
            f"{name:<9}{total:.4f} bits per sample, {distance:.2e} nats from float32, "
            f"{total - bits[0] / count:+.4f} bits"
        )


if __name__ == "__main__":
    tyro.cli(main)
