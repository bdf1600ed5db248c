"""Places the entries of a codec's codebooks before its first step, where the quantizer wants that."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from wavegen.codecs.quantizers import EMAResidualVQ
from wavegen.config import Config
from wavegen.data.batches import BatchSource
from wavegen.data.dataset import Dataset
from wavegen.data.device import to_waveform
from wavegen.models.base import parameters, with_parameters
from wavegen.training.state import TrainState


def start_quantizer(config: Config, graph: nnx.GraphDef, state: TrainState, dataset: Dataset) -> TrainState:
    """The state with codebooks placed by k-means on the first batches, for a quantizer of moving averages.

    Four vectors an entry are taken. Every process reads the whole batches, so that all hold the same numbers.
    """
    model = with_parameters(graph, state["params"])
    if not isinstance(getattr(model, "quantizer", None), EMAResidualVQ):
        return state
    data = config.data
    source = BatchSource(dataset, "train", batch_size=data.batch_size, crop=data.crop, seed=config.seed)
    encode = jax.jit(lambda params, pcm: with_parameters(graph, params).latents(to_waveform(pcm)))
    wanted, rows = 4 * model.quantizer.codebook_size, []
    for step in range(wanted):
        rows.append(np.asarray(encode(state["params"], source.batch(step)["pcm"])))
        if sum(row.shape[0] * row.shape[1] for row in rows) >= wanted:
            break
    latents = jnp.asarray(np.concatenate(rows, axis=1))
    model.quantizer.start(latents, random=np.random.Generator(np.random.Philox(config.seed)))
    params = parameters(model)[1]
    return {**state, "params": params, "ema": jax.tree.map(jnp.copy, params) if state["ema"] else {}}
