"""Audio and pictures written during training, so that a run can be listened to while it learns."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import PyTree

from wavegen.audio import Audio
from wavegen.codecs import AudioCodec, Codec, Codecs, NoteCodec
from wavegen.config import Config
from wavegen.config.models import (
    BertConfig,
    CodeConditionConfig,
    MelConditionConfig,
    Seq2SeqConfig,
    WindowVAEConfig,
)
from wavegen.data.dataset import Dataset, Files
from wavegen.data.device import to_waveform
from wavegen.models.base import Choice
from wavegen.models.conditions.features import own_features
from wavegen.models.window_vae import prior_latents
from wavegen.networks.base import with_parameters
from wavegen.notes.midi import write_midi
from wavegen.pictures.audio import read_picture, spectrograms
from wavegen.runs.log import RunLog
from wavegen.samplers.autoregressive import stream
from wavegen.samplers.masked import filling_of, generate_long
from wavegen.types import AnyWaveform, Features, Labels, Pcm, Tokens


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

    A codec and a vocoder reconstruct the recordings instead; a model of notes writes MIDI files.

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
    labels = None
    if config.model.global_fields:
        labels = jnp.asarray(files.labels[rows][:, dataset.label_columns(config.model.global_fields)])
    if isinstance(codecs.tokens, NoteCodec):
        # Without a source nothing can be written: what an encoder-decoder is worth, `wavegen harmonise` tells.
        if not isinstance(config.model, Seq2SeqConfig):
            latents = None
            if isinstance(config.model, WindowVAEConfig):
                key = jax.random.key(config.seed)
                latents = prior_latents(key, config.training.sample_count, config.model.latent)
            tokens = _draw(config, codecs.tokens, graph, params, config.data.crop, labels, latents)
            _write_notes(folder, step, codecs.tokens, np.asarray(tokens))
        return
    rate, length = dataset.sample_rate, round(config.training.sample_seconds * dataset.sample_rate)
    recordings = [dataset.read(files, row, 0, min(length, int(files.length[row]))) for row in map(int, rows)]
    pcm = np.stack([np.pad(clip, ((0, length - len(clip)), (0, 0))) for clip in recordings])
    if dataset.channels == 1:
        pcm = pcm[:, :, 0]
    if isinstance(codecs.tokens, AudioCodec):
        made, frames = "generated", -(-length // codecs.tokens.hop_length)
        features = _features(config, codecs, dataset, files, rows, pcm)
        tokens = _draw(config, codecs.tokens, graph, params, frames, labels, features)
        clips = codecs.tokens.decode(tokens)[:, :length]
    else:
        made, clips = "reconstructed", _reconstruct(graph, params, jnp.asarray(pcm))
    if jax.process_index():
        return
    for clip, recording, row in zip(np.asarray(clips), recordings, map(int, rows), strict=True):
        name = Path(files.names[row]).stem
        audio = Audio(clip, rate)
        path = folder / "samples" / f"{step:07}-{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        audio.write(path)
        pictures = {made: audio, "recorded": Audio.from_pcm16(recording, rate)}
        picture = spectrograms(path.with_suffix(".png"), pictures)
        log.audio(step, f"samples/{name}", audio.samples, rate)
        log.image(step, f"samples/{name}", read_picture(picture))


def _write_notes(folder: Path, step: int, codec: NoteCodec, tokens: np.ndarray) -> None:
    if jax.process_index():
        return
    (folder / "samples").mkdir(parents=True, exist_ok=True)
    for number, clip in enumerate(tokens):
        write_midi(folder / "samples" / f"{step:07}-{number}.mid", codec.decode(clip))


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


def _draw(
    config: Config,
    codec: Codec,
    graph: nnx.GraphDef,
    params: PyTree,
    frames: int,
    labels: Labels | None,
    features: Features | None,
) -> Tokens:
    count, key = config.training.sample_count, jax.random.key(config.seed)
    allowed = codec.allowed if isinstance(codec, NoteCodec) else None
    choice = Choice(config.sampling.temperature, allowed=None if allowed is None else jnp.asarray(allowed))
    if isinstance(config.model, BertConfig):
        filling = filling_of(config.sampling, codec.codebooks)._replace(choice=choice)
        tokens = jnp.full((count, frames, codec.codebooks), codec.vocab_size, jnp.int32)
        window = max(-(-config.data.crop // codec.hop_length), 2)
        keys = jax.random.split(key, count)
        return generate_long(graph, params, tokens, keys, filling, window=window, labels=labels)
    pieces = stream(
        graph,
        params,
        frames,
        key,
        batch=count,
        choice=choice,
        labels=labels,
        features=features,
    )
    return jnp.concatenate(list(pieces), axis=1)


@partial(jax.jit, static_argnames="graph")
def _reconstruct(graph: nnx.GraphDef, params: PyTree, pcm: Pcm) -> AnyWaveform:
    codec = with_parameters(graph, params)
    return codec.decode(codec.encode(to_waveform(pcm)))[:, : pcm.shape[1]]
