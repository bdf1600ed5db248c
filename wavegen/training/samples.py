"""Audio and pictures written during training, so that a run can be listened to while it learns."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import PyTree

from wavegen.audio import Audio
from wavegen.codecs import Codec
from wavegen.config import Config
from wavegen.data.dataset import Dataset
from wavegen.evaluation.pictures import read_picture, spectrograms
from wavegen.models.base import Choice
from wavegen.samplers.autoregressive import stream
from wavegen.training.log import RunLog


def write_samples(
    folder: Path,
    log: RunLog,
    step: int,
    config: Config,
    codec: Codec,
    graph: nnx.GraphDef,
    params: PyTree,
    dataset: Dataset,
) -> None:
    """Generates clips under the conditions of validation recordings, and pictures each beside its recording.

    Args:
        folder: of the run; the files go to ``samples/``.
        log: shows them in TensorBoard too.
        step: updates done.
        config: of the run.
        codec: tokens to audio.
        graph: of the model.
        params: of the model.
        dataset: whose validation split lends labels and features.
    """
    files = dataset.split("valid")
    rows = np.linspace(0, len(files) - 1, config.training.sample_count).astype(int)
    rate, length = dataset.sample_rate, round(config.training.sample_seconds * dataset.sample_rate)
    labels = features = None
    if config.model.global_fields:
        labels = jnp.asarray(files.labels[rows][:, dataset.label_columns(config.model.global_fields)])
    if config.model.local is not None:
        frames = -(-length // config.model.local.hop_length)
        tracks = np.zeros((len(rows), frames, dataset.feature_width), np.float32)
        for place, row in enumerate(rows):
            there = dataset.read_features(
                files, row, 0, min(frames, -(-files.length[row] // dataset.feature_hop))
            )
            tracks[place, : len(there)] = there
        features = jnp.asarray(tracks)
    pieces = stream(
        graph,
        params,
        length,
        jax.random.key(config.seed),
        batch=len(rows),
        choice=Choice(config.sampling.temperature),
        labels=labels,
        features=features,
    )
    clips = np.asarray(codec.decode(jnp.concatenate(list(pieces), axis=1)))
    if jax.process_index():
        return
    for clip, row in zip(clips, map(int, rows), strict=True):
        name = Path(files.names[row]).stem
        generated = Audio(clip[:, None], rate)
        recorded = Audio.from_pcm16(dataset.read(files, row, 0, min(length, int(files.length[row]))), rate)
        path = folder / "samples" / f"{step:07}-{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        generated.write(path)
        picture = spectrograms(path.with_suffix(".png"), {"generated": generated, "recorded": recorded})
        log.audio(step, f"samples/{name}", generated.samples, rate)
        log.image(step, f"samples/{name}", read_picture(picture))
