"""What a model is worth on a split, during training and after it: likelihood, or the parts of a codec's loss."""

import math
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import PyTree

from wavegen.codecs.base import Codecs
from wavegen.codecs.quantizers import code_usage
from wavegen.config import Config
from wavegen.data.batches import Batch, EvaluationSource
from wavegen.data.dataset import Dataset
from wavegen.data.open import expect_same_codec, open_dataset
from wavegen.networks.base import Network
from wavegen.training.mesh import make_mesh, shard_batch
from wavegen.training.step import EvaluationStep, make_evaluation_step, metric_of


@dataclass(frozen=True)
class Evaluation:
    """Figures of a split.

    Attributes:
        figures: by name; the one that ``metric_of`` names, the accuracy of a model of tokens, and the parts of a
            codec's loss and the use of its codebooks. NaN if anything was not finite.
        count: scored tokens, or clips of a codec.
    """

    figures: dict[str, float]
    count: int


def evaluation_source(
    config: Config, dataset: Dataset, split: str, model: Network, codecs: Codecs
) -> EvaluationSource:
    """The windows of a split with enough context for the model, this process's share of them."""
    local = config.model.local
    period = 1 if codecs.tokens is None else codecs.tokens.period
    hop = math.lcm(dataset.feature_hop or 1, 1 if local is None else local.hop_length, period)
    context = model.context(int(dataset.split(split).length.max()))
    return EvaluationSource(
        dataset,
        split,
        batch_size=config.data.batch_size,
        window=config.data.crop,
        context=-(-context // hop) * hop,
        fields=config.model.label_fields,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        period=period,
    )


def evaluate(
    config: Config,
    step: EvaluationStep,
    weights: PyTree,
    codecs: Codecs,
    source: EvaluationSource,
    batches: int,
    mesh: Mesh,
) -> Evaluation:
    """The figures of so many batches, spread evenly over a source: its order is by length and name."""
    chosen = np.linspace(0, len(source) - 1, min(batches, len(source))).round().astype(int)
    outcomes = [
        jax.device_get(step(weights, to_devices(source.batch(int(number)), mesh), codecs))
        for number in chosen
    ]
    sums = jax.tree.map(lambda *parts: np.sum(np.asarray(parts, np.float64), axis=0), *outcomes)
    name, unit = metric_of(config)
    count = max(int(sums.scored), 1)
    totals = {name: sums.total * unit, **sums.figures}
    figures = {k: float(v) / count if np.isfinite(v) else math.nan for k, v in totals.items()}
    if "counts" in sums.statistics:
        usage = code_usage(jnp.asarray(sums.statistics["counts"], jnp.int32))
        figures["perplexity"] = float(usage.perplexity.mean())
        figures["used"] = float(usage.used.mean())
        figures["efficiency"] = float(usage.efficiency)
    return Evaluation(figures, int(sums.scored))


def to_devices(batch: Batch, mesh: Mesh) -> dict[str, jax.Array]:
    """The arrays of a batch that a step reads; where they came from stays on the host."""
    return shard_batch({name: rows for name, rows in batch.items() if name not in ("file", "start")}, mesh)


def evaluate_split(
    config: Config,
    graph: nnx.GraphDef,
    params: PyTree,
    codecs: Codecs,
    split: str,
    data: str | Path | None = None,
    *,
    batches: int | None = None,
    step: EvaluationStep | None = None,
) -> tuple[Evaluation, int]:
    """The figures of a whole split; for a causal model every sample is predicted from all of its receptive field.

    Args:
        config: of the experiment that trained the model.
        graph: structure of the model.
        params: its weights.
        codecs: that it reads through.
        split: for instance "test".
        data: a folder of recordings or a prepared dataset; None is the experiment's own.
        batches: that are measured, spread evenly over the split; None is all.
        step: jitted, where several calls are to share what was compiled.

    Returns:
        The figures, and of how many files they are.

    Raises:
        WavegenError: there is no such data, or the split is empty.
    """
    if data is not None:
        config = config.model_copy(update={"data": config.data.model_copy(update={"path": str(data)})})
    dataset = open_dataset(config)
    expect_same_codec(dataset, config, codecs)
    source = evaluation_source(config, dataset, split, nnx.merge(graph, params), codecs)
    step = step or jax.jit(make_evaluation_step(config, graph))
    result = evaluate(config, step, params, codecs, source, batches or len(source), make_mesh())
    return result, len(source.files)
