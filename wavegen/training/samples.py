"""Audio and pictures written during training, so that a run can be listened to while it learns."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import PyTree

from wavegen.audio import Audio
from wavegen.codecs import Codecs
from wavegen.config import Config
from wavegen.config.models import (
    BertConfig,
    CodeConditionConfig,
    MelConditionConfig,
    WaveVQConfig,
)
from wavegen.data.dataset import Dataset, Files
from wavegen.data.device import own_features, to_waveform
from wavegen.evaluation.pictures import read_picture, spectrograms
from wavegen.models.base import Choice, with_parameters
from wavegen.samplers.autoregressive import stream
from wavegen.samplers.masked import filling_of, generate_long
from wavegen.training.log import RunLog
from wavegen.types import Features, Labels, Pcm, Waveform


def write_samples(
    folder: Path,
    log: RunLog,
    step: int,
    config: Config,
    codecs: Codecs,
    graph: nnx.GraphDef,
    params: PyTree,
    dataset: Dataset,
) -> None:
    """Generates clips under the conditions of validation recordings, and pictures each beside its recording.

    A codec and a vocoder reconstruct the recordings instead.

    Args:
        folder: of the run; the files go to ``samples/``.
        log: shows them in TensorBoard too.
        step: updates done.
        config: of the run.
        codecs: that the model reads through.
        graph: of the model.
        params: of the model.
        dataset: whose validation split lends recordings, labels and features.
    """
    files = dataset.split("valid")
    rows = np.linspace(0, len(files) - 1, config.training.sample_count).astype(int)
    rate, length = dataset.sample_rate, round(config.training.sample_seconds * dataset.sample_rate)
    recordings = [
        dataset.read(files, row, 0, min(length, int(files.length[row])))[:, 0] for row in map(int, rows)
    ]
    pcm = np.stack([np.pad(clip, (0, length - len(clip))) for clip in recordings])
    labels = None
    if config.model.global_fields:
        labels = jnp.asarray(files.labels[rows][:, dataset.label_columns(config.model.global_fields)])
    if isinstance(config.model, WaveVQConfig):
        clips = _reconstruct(graph, params, jnp.asarray(pcm))
    elif isinstance(config.model, BertConfig):
        clips = _bert(config, codecs, graph, params, length, labels)
    else:
        features = _features(config, codecs, dataset, files, rows, pcm)
        clips = _causal(config, codecs, graph, params, length, labels, features)
    if jax.process_index():
        return
    made = "reconstructed" if isinstance(config.model, WaveVQConfig) else "generated"
    for clip, recording, row in zip(np.asarray(clips), recordings, map(int, rows), strict=True):
        name = Path(files.names[row]).stem
        audio = Audio(clip[:, None], rate)
        path = folder / "samples" / f"{step:07}-{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        audio.write(path)
        pictures = {made: audio, "recorded": Audio.from_pcm16(recording[:, None], rate)}
        picture = spectrograms(path.with_suffix(".png"), pictures)
        log.audio(step, f"samples/{name}", audio.samples, rate)
        log.image(step, f"samples/{name}", read_picture(picture))


def _features(
    config: Config, codecs: Codecs, dataset: Dataset, files: Files, rows: np.ndarray, pcm: np.ndarray
) -> Features | None:
    local = config.model.local
    if local is None:
        return None
    if isinstance(local, MelConditionConfig | CodeConditionConfig):
        return own_features(to_waveform(jnp.asarray(pcm)), local, codecs.condition, dataset.sample_rate)
    frames = -(-pcm.shape[1] // local.hop_length)
    tracks = np.zeros((len(rows), frames, dataset.feature_width), np.float32)
    for place, row in enumerate(map(int, rows)):
        last = min(frames, -(-int(files.length[row]) // local.hop_length))
        there = dataset.read_features(files, row, 0, last)
        tracks[place, : len(there)] = there
    return jnp.asarray(tracks)


def _causal(
    config: Config,
    codecs: Codecs,
    graph: nnx.GraphDef,
    params: PyTree,
    length: int,
    labels: Labels | None,
    features: Features | None,
) -> Waveform:
    assert codecs.tokens is not None
    pieces = stream(
        graph,
        params,
        -(-length // codecs.tokens.hop_length),
        jax.random.key(config.seed),
        batch=config.training.sample_count,
        choice=Choice(config.sampling.temperature),
        labels=labels,
        features=features,
    )
    return codecs.tokens.decode(jnp.concatenate(list(pieces), axis=1))[:, :length]


def _bert(
    config: Config, codecs: Codecs, graph: nnx.GraphDef, params: PyTree, length: int, labels: Labels | None
) -> Waveform:
    codec = codecs.tokens
    assert codec is not None
    count, hop = config.training.sample_count, codec.hop_length
    filling = filling_of(config.sampling, codec.codebooks)
    tokens = jnp.full((count, -(-length // hop), codec.codebooks), codec.vocab_size, jnp.int32)
    keys = jax.random.split(jax.random.key(config.seed), count)
    window = max(-(-config.data.crop // hop), 2)
    filled = generate_long(graph, params, tokens, keys, filling, window=window, labels=labels)
    return codec.decode(filled)[:, :length]


@partial(jax.jit, static_argnames="graph")
def _reconstruct(graph: nnx.GraphDef, params: PyTree, pcm: Pcm) -> Waveform:
    return with_parameters(graph, params).reconstruct(to_waveform(pcm)).audio
