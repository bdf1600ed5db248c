"""What a model is worth on a split, during training and after it: likelihood, or the parts of a codec's loss."""

import math
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Int, PyTree

from wavegen.codecs.base import Codecs
from wavegen.codecs.quantizers import code_usage
from wavegen.config import Config
from wavegen.data.batches import Batch, EvaluationSource
from wavegen.data.dataset import Dataset
from wavegen.data.open import expect_same_codec, open_dataset
from wavegen.models.base import MaskedModel
from wavegen.networks.base import Network, with_parameters
from wavegen.samplers.bound import order_agnostic_bound
from wavegen.stopping import ProgressCallback, announced, silent
from wavegen.training.mesh import make_mesh, shard_batch
from wavegen.training.step import EvaluationStep, make_evaluation_step, make_examples, metric_of

REPEATS = 4
"""Independent estimates of a masked model's bound, whose differences show its spread."""


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
    frame = 1 if codecs.tokens is None else codecs.tokens.hop_length
    hop = math.lcm(dataset.feature_hop or 1, 1 if local is None else local.hop_length, period)
    longest = -(-int(dataset.split(split).length.max()) // frame)
    windowed = codecs.tokens is not None and codecs.tokens.window is not None
    # A window that is coded on its own is a clip of its own, too.
    unit = hop if windowed else math.lcm(hop, model.alignment * frame)
    context = 0 if windowed else model.context(longest) * frame
    return EvaluationSource(
        dataset,
        split,
        batch_size=config.data.batch_size,
        window=config.data.crop if unit == hop else max(config.data.crop // unit, 1) * unit,
        context=-(-context // hop) * hop,
        fields=config.model.label_fields,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        period=period,
        whole=windowed,
    )


def evaluate(
    config: Config,
    step: EvaluationStep,
    weights: PyTree,
    codecs: Codecs,
    source: EvaluationSource,
    batches: int,
    mesh: Mesh,
    progress: ProgressCallback = silent,
) -> Evaluation:
    """The figures of so many batches, spread evenly over a source: its order is by length and name."""
    outcomes = []
    for number in announced(chosen_batches(source, batches), progress, "measuring"):
        outcomes.append(jax.device_get(step(weights, to_devices(source.batch(int(number)), mesh), codecs)))
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


def chosen_batches(source: EvaluationSource, batches: int) -> Int[np.ndarray, "batches"]:
    """The numbers of so many batches, spread evenly over a source."""
    return np.linspace(0, len(source) - 1, min(batches, len(source))).round().astype(int)


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
    orders: int = 0,
    new_in: str | Path | None = None,
    progress: ProgressCallback = silent,
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
        orders: of the tokens of a masked model, see ``masked_bound``; 0 leaves the bound out.
        new_in: see ``open_dataset``.
        progress: called for each batch, of the bound too.

    Returns:
        The figures, and of how many files they are.

    Raises:
        Stopped: ``progress`` raised it.
        WavegenError: there is no such data, or the split is empty.
    """
    if data is not None:
        config = config.model_copy(update={"data": config.data.model_copy(update={"path": str(data)})})
    dataset = open_dataset(config, new_in=new_in)
    expect_same_codec(dataset, config, codecs)
    source = evaluation_source(config, dataset, split, nnx.merge(graph, params), codecs)
    step = step or jax.jit(make_evaluation_step(config, graph))
    mesh = make_mesh()
    result = evaluate(config, step, params, codecs, source, batches or len(source), mesh, progress)
    if orders and isinstance(nnx.merge(graph, params), MaskedModel):
        count = batches or len(source)
        bound = masked_bound(config, graph, params, codecs, source, count, mesh, orders, progress)
        # The bound is the figure of the clips; that under one mask is last.
        result = Evaluation({**bound, **result.figures}, result.count)
    return result, len(source.files)


def masked_bound(
    config: Config,
    graph: nnx.GraphDef,
    params: PyTree,
    codecs: Codecs,
    source: EvaluationSource,
    batches: int,
    mesh: Mesh,
    orders: int,
    progress: ProgressCallback = silent,
) -> dict[str, float]:
    """The upper bound on the bits per token of a split under a masked model, over random orders of the tokens.

    Args:
        config: of the experiment that trained the model.
        graph: structure of the model.
        params: its weights.
        codecs: that it reads through.
        source: windows of the split, of which each is a clip of its own.
        batches: that are measured, spread evenly.
        mesh: devices.
        orders: passes for each codebook of a clip, rounded up to a multiple of 4. More make the figure steadier.
        progress: called for each batch.

    Returns:
        The bound; and "standard_error" of what the choice of orders adds to it, from four independent estimates. The
        choice of clips is not in it.
    """
    codec = codecs.tokens
    assert codec is not None, "a masked model has a codec"
    allowed = None if codec.allowed is None else jnp.asarray(codec.allowed)

    @jax.jit
    def estimate(params: PyTree, batch: dict[str, Array], codecs: Codecs, key: Array) -> tuple[Array, Array]:
        model = with_parameters(graph, params)
        examples = make_examples(config, model, codecs, batch, None)
        tokens, valid = examples["targets"], examples["mask"]
        labels, each = examples.get("labels"), -(-orders // REPEATS)

        def one(repeat: Array) -> Array:
            random = jax.random.fold_in(key, repeat)
            nats = order_agnostic_bound(model, tokens, valid, labels, random, each, allowed=allowed)
            return jnp.sum(nats * jnp.sum(valid, axis=1, keepdims=True))

        return lax.map(one, jnp.arange(REPEATS)), jnp.sum(valid) * tokens.shape[2]

    nats, count = np.zeros(REPEATS), 0
    for number in announced(chosen_batches(source, batches), progress, "measuring the bound"):
        key = jax.random.fold_in(jax.random.key(config.seed), number)
        summed, tokens = jax.device_get(
            estimate(params, to_devices(source.batch(int(number)), mesh), codecs, key)
        )
        nats, count = nats + summed, count + int(tokens)
    bits = nats / max(count, 1) / math.log(2)
    return {
        "bound_bits_per_token": float(bits.mean()),
        "standard_error": float(bits.std(ddof=1) / math.sqrt(REPEATS)),
    }
