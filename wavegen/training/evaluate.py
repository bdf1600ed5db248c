"""Exact likelihood of a split, during training and after it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, PyTree

from wavegen.codecs import make_codec
from wavegen.config import Config
from wavegen.data.batches import Batch, EvaluationSource
from wavegen.data.dataset import Dataset
from wavegen.models.base import CausalModel
from wavegen.training.dataset import open_dataset
from wavegen.training.mesh import make_mesh, shard_batch
from wavegen.training.step import make_evaluation_step

EvaluationStep = Callable[[PyTree, dict[str, Array]], tuple[Array, Array]]


@dataclass(frozen=True)
class Likelihood:
    """Bits per token, how many tokens they are a mean of, and from how many recordings."""

    bits: float
    tokens: int
    files: int


def evaluation_source(config: Config, dataset: Dataset, split: str, model: CausalModel) -> EvaluationSource:
    """The windows of a split with enough context for the model, this process's share of them."""
    hop = dataset.feature_hop or 1
    return EvaluationSource(
        dataset,
        split,
        batch_size=config.data.batch_size,
        window=config.data.crop,
        context=-(-model.receptive_field // hop) * hop,
        fields=config.model.global_fields,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )


def bits_per_token(
    step: EvaluationStep, weights: PyTree, source: EvaluationSource, batches: int, mesh: Mesh
) -> tuple[float, int]:
    """Bits per scored token of the first batches, and how many tokens were scored; NaN if any was not finite."""
    nats, count = 0.0, 0
    for number in range(min(batches, len(source))):
        a, b = step(weights, to_devices(source.batch(number), mesh))
        nats, count = nats + float(a), count + int(b)
    return (nats / max(count, 1) / math.log(2) if np.isfinite(nats) else math.nan), count


def to_devices(batch: Batch, mesh: Mesh) -> dict[str, jax.Array]:
    """The arrays of a batch that a step reads; where they came from stays on the host."""
    return shard_batch({name: rows for name, rows in batch.items() if name not in ("file", "start")}, mesh)


def evaluate_split(
    config: Config, graph: nnx.GraphDef, params: PyTree, split: str, data: str | Path | None = None
) -> Likelihood:
    """The likelihood of every sample of a split, each predicted from the whole receptive field before it.

    Args:
        config: of the experiment that trained the model.
        graph: structure of the model.
        params: its weights.
        split: for instance "test".
        data: a folder of recordings or a prepared dataset; None is the experiment's own.

    Raises:
        WavegenError: there is no such data, or the split is empty.
    """
    if data is not None:
        config = config.model_copy(update={"data": config.data.model_copy(update={"path": str(data)})})
    dataset = open_dataset(config)
    source = evaluation_source(config, dataset, split, nnx.merge(graph, params))
    step = jax.jit(make_evaluation_step(config, graph, make_codec(config.codec)))
    bits, count = bits_per_token(step, params, source, len(source), make_mesh())
    return Likelihood(bits, count, len(source.files))
