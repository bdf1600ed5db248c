"""Prepares a codec for its first step: scales of mel bands and entries of codebooks are placed on real audio."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from wavegen.codecs.network import CodecNetwork
from wavegen.config import Config
from wavegen.data.batches import BatchSource
from wavegen.data.dataset import Dataset
from wavegen.data.device import to_waveform
from wavegen.networks.base import parameters, with_parameters
from wavegen.training.state import TrainState


def start_codec(config: Config, graph: nnx.GraphDef, state: TrainState, dataset: Dataset) -> TrainState:
    """The state with codebooks of moving averages placed by k-means, and the bands of a spectrogram codec measured.

    Four frames for each entry are taken, from the first batches. Every process reads the whole batches, so that all
    hold the same numbers. Other models are returned as they are.
    """
    if not config.model.is_codec:
        return state
    model: CodecNetwork = with_parameters(graph, state["params"])
    data = config.data
    source = BatchSource(dataset, "train", batch_size=data.batch_size, crop=data.crop, seed=config.seed)
    frames = data.batch_size * -(-data.crop // model.hop_length)
    steps = range(-(-4 * model.vocab_size // frames))
    audio = [to_waveform(jnp.asarray(source.batch(step)["pcm"])) for step in steps]
    model.standardise(audio)
    if model.quantizer.starts_from_latents:
        encode = jax.jit(lambda params, clips: with_parameters(graph, params).latents(clips))
        params = parameters(model)[1]
        latents = np.concatenate([encode(params, clips) for clips in audio])
        random = np.random.Generator(np.random.Philox(config.seed))
        model.quantizer.start(jnp.asarray(latents), random=random)
    params = parameters(model)[1]
    return {**state, "params": params, "ema": jax.tree.map(jnp.copy, params) if state["ema"] else {}}
