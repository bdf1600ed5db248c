"""The jitted training step and evaluation step: pure functions of a state, a batch and frozen codecs."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, PyTree

from wavegen.codecs.base import Codecs
from wavegen.codecs.quantizers import Average
from wavegen.codecs.quantizers.usage import code_usage
from wavegen.config import Config
from wavegen.data.device import make_example
from wavegen.models.kinds import make_model
from wavegen.networks.base import Network, Outcome, add_outcomes, in_precision, parameters, with_parameters
from wavegen.training.adversary import first_adversary, make_second_phase, phase_of, skipped_in_a_row
from wavegen.training.optimizer import make_optimizer, make_schedule, skipped_updates
from wavegen.training.state import TrainState, init_state, update_ema

TrainStep = Callable[[TrainState, dict[str, Array], Codecs], tuple[TrainState, dict[str, Array]]]
EvaluationStep = Callable[[PyTree, dict[str, Array], Codecs], Outcome]


def first_state(
    config: Config, labels: Mapping[str, Sequence[str]], codecs: Codecs
) -> tuple[Network, TrainState]:
    """The model of a configuration, and the state before its first step.

    Args:
        config: the experiment.
        labels: the values of each label field of its data.
        codecs: that the model reads through.

    Raises:
        WavegenError: the model does not fit the codecs and labels, or a part of it would never be trained.
    """
    model = make_model(config, codecs, labels)
    if codecs.tokens is not None:
        config.model.check_training(config, -(-config.data.crop // codecs.tokens.hop_length))
    # Under one jit: XLA would compile the zeros of every shape on their own.
    start = jax.jit(partial(init_state, optimizer=optimizer_of(config), ema=config.optimizer.ema_decay > 0))
    state = start(parameters(model)[1])
    if phase := phase_of(config):
        state["adversary"] = first_adversary(config, phase)
    return model, state


def optimizer_of(config: Config) -> optax.GradientTransformation:
    """The optimizer and schedules of a configuration."""
    o = config.optimizer
    schedule = partial(
        make_schedule,
        warmup_steps=config.warmup_steps,
        total_steps=config.training.steps,
        final_fraction=o.final_fraction,
    )
    return make_optimizer(
        schedule(learning_rate=o.learning_rate),
        weight_decay=o.weight_decay,
        clip_norm=o.clip_norm,
        b1=o.b1,
        b2=o.b2,
        matrices=schedule(learning_rate=o.matrix_learning_rate) if o.kind == "muon" else None,
    )


def metric_of(config: Config) -> tuple[str, float]:
    """The figure that a run is judged by, lower is better: its name, and what nats per token are multiplied by.

    It is of the likelihood alone; where training minimises more, "loss" is the name of the whole, in nats.
    """
    if config.model.is_codec:
        return "loss", 1.0
    token = "sample" if config.codec.of == "samples" else "token"
    return f"{config.model.measured}_per_{token}", 1 / math.log(2)


def make_examples(
    config: Config, network: Network, codecs: Codecs, batch: dict[str, Array], key: Array | None
) -> dict[str, Array]:
    """The device half of the pipeline, with the conditions that this network takes and no others."""
    augment = config.data.augment
    examples = make_example(
        batch,
        codecs.tokens,
        key,
        gain_db=(-augment.gain_db, 0.0),
        polarity=augment.polarity,
        input_noise=augment.input_noise,
        transpose=augment.transpose,
    )
    return network.reads(examples, codecs)


def make_train_step(config: Config, graph: nnx.GraphDef) -> TrainStep:
    """The function ``(state, batch, codecs) -> (state, metrics)`` of one update, to be jitted with the state donated.

    The random key is a function of the seed and of the state's step, so a resumed run draws what an uninterrupted
    one draws. With accumulation, gradients of summed losses are added up and divided once by the count of scored
    tokens: the result does not depend on how the batch is cut.
    """
    optimizer = optimizer_of(config)
    name, unit = metric_of(config)
    compute, phase = jnp.dtype(config.training.precision), phase_of(config)
    second_phase = make_second_phase(config, phase, graph) if phase else None

    def summed_loss(
        params: PyTree, batch: dict[str, Array], key: Array, codecs: Codecs
    ) -> tuple[Array, Outcome]:
        data_key, model_key = jax.random.split(key)
        network = with_parameters(graph, in_precision(params, compute))
        outcome = network.objective(make_examples(config, network, codecs, batch, data_key), model_key)
        return outcome.total, outcome

    def gradients(
        params: PyTree, batch: dict[str, Array], key: Array, codecs: Codecs
    ) -> tuple[Outcome, PyTree]:
        grads, outcome = jax.grad(summed_loss, has_aux=True)(params, batch, key, codecs)
        return outcome, grads

    def train_step(
        state: TrainState, batch: dict[str, Array], codecs: Codecs
    ) -> tuple[TrainState, dict[str, Array]]:
        key = jax.random.fold_in(jax.random.key(config.seed), state["step"])
        params, pieces = state["params"], config.optimizer.accumulate
        adversary: PyTree = {}
        game: dict[str, Array] = {}
        if second_phase is not None:
            data_key, model_key = jax.random.split(key)
            examples = make_examples(config, with_parameters(graph, params), codecs, batch, data_key)
            outcome, grads, adversary, game = second_phase(
                params, state["adversary"], state["step"], examples, model_key
            )
        elif pieces == 1:
            outcome, grads = gradients(params, batch, key, codecs)
        else:
            # Strided, so that every piece takes rows of every device.
            cut = jax.tree.map(
                lambda x: x.reshape(len(x) // pieces, pieces, *x.shape[1:]).swapaxes(0, 1), batch
            )

            def add(total: PyTree, piece: tuple[dict[str, Array], Array]) -> tuple[PyTree, None]:
                rows, index = piece
                more, grads = gradients(params, rows, jax.random.fold_in(key, index), codecs)
                return (add_outcomes(total[0], more), jax.tree.map(jnp.add, total[1], grads)), None

            shapes = jax.eval_shape(gradients, params, jax.tree.map(lambda x: x[0], cut), key, codecs)
            zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
            (outcome, grads), _ = jax.lax.scan(add, zero, (cut, jnp.arange(pieces)))
        count = jnp.maximum(outcome.scored, 1)
        grads = jax.tree.map(lambda g: g / count, grads)
        updates, optimizer_state = optimizer.update(grads, state["optimizer"], params)
        updated = optax.apply_updates(params, updates)
        skipped = skipped_updates(optimizer_state)["in_a_row"]
        if outcome.statistics:
            updated = _learn_averages(graph, params, updated, outcome.statistics, skipped > 0)
        if adversary:
            skipped = jnp.maximum(skipped, skipped_in_a_row(adversary))
        ema = update_ema(state["ema"], updated, decay=config.optimizer.ema_decay, step=state["step"])
        metrics = {
            **({} if outcome.nats is None else {"loss": outcome.total / count}),
            name: (outcome.total if outcome.nats is None else outcome.nats) / count * unit,
            **{figure: value / count for figure, value in outcome.figures.items()},
            **game,
            "gradient_norm": optax.tree.norm(grads),
            "skipped_in_a_row": skipped,
        }
        if "counts" in outcome.statistics:
            metrics["perplexity"] = jnp.mean(code_usage(outcome.statistics["counts"]).perplexity)
        new = {"params": updated, "ema": ema, "optimizer": optimizer_state, "step": state["step"] + 1}
        return new | ({"adversary": adversary} if adversary else {}), metrics

    return train_step


def _learn_averages(
    graph: nnx.GraphDef, before: PyTree, after: PyTree, statistics: dict[str, Array], skipped: Array
) -> PyTree:
    """What no gradient reaches follows the batch's statistics instead, unless the step was skipped."""
    model = with_parameters(graph, after)
    # The optimizer has moved these too, by weight decay.
    kept = nnx.state(with_parameters(graph, before), Average)
    nnx.update(model, kept)
    model.quantizer.update(statistics)
    learned = parameters(model)[1]
    nnx.update(model, kept)
    return jax.tree.map(lambda old, new: jnp.where(skipped, old, new), parameters(model)[1], learned)


def make_evaluation_step(config: Config, graph: nnx.GraphDef) -> EvaluationStep:
    """The function ``(params, batch, codecs) -> outcome`` without augmentation or dropout, to be jitted."""

    def evaluation_step(params: PyTree, batch: dict[str, Array], codecs: Codecs) -> Outcome:
        network: Network = with_parameters(graph, params)
        return network.objective(make_examples(config, network, codecs, batch, None), None)

    return evaluation_step
