"""Audio and pictures written during training, so that a run can be listened to while it learns."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import PyTree

from wavegen.audio import Audio
from wavegen.codecs.base import AudioCodec, Codecs
from wavegen.codecs.notes.base import NoteCodec
from wavegen.config import Config
from wavegen.data.dataset import Dataset, Files
from wavegen.data.device import to_waveform
from wavegen.models.conditions.base import LocalCondition
from wavegen.networks.base import with_parameters
from wavegen.notes.midi import write_midi
from wavegen.pictures.audio import read_picture, spectrograms
from wavegen.runs.log import RunLog
from wavegen.samplers.drawing import Sampler
from wavegen.types import AnyWaveform, Features, Pcm


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
    """Generates clips under the conditions of validation recordings, and writes pictures of each with its recording.

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
    if config.model.label_fields:
        labels = jnp.asarray(files.labels[rows][:, dataset.label_columns(config.model.label_fields)])
    if isinstance(codecs.tokens, NoteCodec):
        sampler = Sampler(config, graph, params, codecs.tokens)
        # Without a source nothing can be written: `wavegen harmonise` shows what an encoder-decoder is worth.
        if sampler.draws_freely:
            count = config.training.sample_count
            tokens = sampler.draw(config.data.crop, config.seed, count=count, labels=labels)
            _write_notes(folder, step, codecs.tokens, np.asarray(tokens))
        return
    rate, length = dataset.sample_rate, round(config.training.sample_seconds * dataset.sample_rate)
    recordings = [dataset.read(files, row, 0, min(length, int(files.length[row]))) for row in map(int, rows)]
    pcm = np.stack([np.pad(clip, ((0, length - len(clip)), (0, 0))) for clip in recordings])
    if dataset.channels == 1:
        pcm = pcm[:, :, 0]
    if isinstance(codecs.tokens, AudioCodec):
        made, frames = "generated", -(-length // codecs.tokens.hop_length)
        sampler = Sampler(config, graph, params, codecs.tokens)
        features = _features(sampler.network.local, codecs, dataset, files, rows, pcm)
        tokens = sampler.draw(frames, config.seed, count=len(rows), labels=labels, features=features)
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
    local: LocalCondition | None,
    codecs: Codecs,
    dataset: Dataset,
    files: Files,
    rows: np.ndarray,
    pcm: np.ndarray,
) -> Features | None:
    if local is None:
        return None
    frames = -(-pcm.shape[1] // local.input_hop)
    tracks = np.zeros((len(rows), frames, dataset.feature_width), np.float32)
    for place, row in enumerate(map(int, rows) if dataset.feature_width else ()):
        last = min(frames, -(-int(files.length[row]) // local.input_hop))
        there = dataset.read_features(files, row, 0, last)
        tracks[place, : len(there)] = there
    examples = {"features": jnp.asarray(tracks), "waveform": to_waveform(jnp.asarray(pcm))}
    return local.features(examples, codecs)


@partial(jax.jit, static_argnames="graph")
def _reconstruct(graph: nnx.GraphDef, params: PyTree, pcm: Pcm) -> AnyWaveform:
    codec = with_parameters(graph, params)
    return codec.decode(codec.encode(to_waveform(pcm)))[:, : pcm.shape[1]]
