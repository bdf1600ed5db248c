"""The jitted training step and evaluation step: pure functions of a state and a batch."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, PyTree

from wavegen.codecs import Codec, make_codec
from wavegen.config import Config
from wavegen.data.device import make_example
from wavegen.models import make_model
from wavegen.models.base import CausalModel, parameters, with_parameters
from wavegen.training.objectives import next_token
from wavegen.training.optimizer import make_optimizer, make_schedule, skipped_updates
from wavegen.training.state import TrainState, init_state, update_ema

OBJECTIVES = {"next_token": next_token}


def first_state(config: Config, labels: Mapping[str, Sequence[str]]) -> tuple[CausalModel, TrainState]:
    """The model of a configuration, and the state before its first step.

    Args:
        config: the experiment.
        labels: the values of each label field of its data.
    """
    model = make_model(config, make_codec(config.codec), labels)
    # Under one jit: XLA would compile the zeros of every shape on their own.
    start = jax.jit(partial(init_state, optimizer=optimizer_of(config), ema=config.optimizer.ema_decay > 0))
    return model, start(parameters(model)[1])


def optimizer_of(config: Config) -> optax.GradientTransformation:
    """The optimizer and schedule of a configuration."""
    o = config.optimizer
    schedule = make_schedule(
        learning_rate=o.learning_rate,
        warmup_steps=o.warmup_steps,
        total_steps=config.training.steps,
        final_fraction=o.final_fraction,
    )
    return make_optimizer(schedule, weight_decay=o.weight_decay, clip_norm=o.clip_norm, b1=o.b1, b2=o.b2)


def _examples(config: Config, codec: Codec, batch: dict[str, Array], key: Array | None) -> dict[str, Array]:
    """The device half of the pipeline, with the conditions that this model takes and no others."""
    augment = config.data.augment
    examples = make_example(
        batch,
        codec,
        key,
        gain_db=(-augment.gain_db, 0.0),
        polarity=augment.polarity,
        input_noise=augment.input_noise,
    )
    if not config.model.global_fields:
        del examples["labels"]
    if config.model.local is None:
        examples.pop("features", None)
    return examples


def make_train_step(
    config: Config, graph: nnx.GraphDef, codec: Codec
) -> Callable[[TrainState, dict[str, Array]], tuple[TrainState, dict[str, Array]]]:
    """The function ``(state, batch) -> (state, metrics)`` of one update, to be jitted with the state donated.

    The random key is a function of the seed and of the state's step, so a resumed run draws what an uninterrupted
    one draws. With accumulation, gradients of summed losses are added up and divided once by the count of scored
    tokens: the result does not depend on how the batch is cut.
    """
    objective, optimizer = OBJECTIVES[config.training.objective], optimizer_of(config)
    compute = jnp.dtype(config.training.precision)

    def summed_loss(params: PyTree, batch: dict[str, Array], key: Array) -> tuple[Float[Array, ""], Array]:
        data_key, dropout_key = jax.random.split(key)
        examples = _examples(config, codec, batch, data_key)
        cast = jax.tree.map(lambda p: p.astype(compute), params)
        return objective(with_parameters(graph, cast), examples, dropout_key)

    def gradients(params: PyTree, batch: dict[str, Array], key: Array) -> tuple[Array, Array, PyTree]:
        (loss, count), grads = jax.value_and_grad(summed_loss, has_aux=True)(params, batch, key)
        return loss, count, grads

    def train_step(state: TrainState, batch: dict[str, Array]) -> tuple[TrainState, dict[str, Array]]:
        key = jax.random.fold_in(jax.random.key(config.seed), state["step"])
        params, pieces = state["params"], config.optimizer.accumulate
        if pieces == 1:
            loss, count, grads = gradients(params, batch, key)
        else:
            # Strided, so that every piece takes rows of every device.
            cut = jax.tree.map(
                lambda x: x.reshape(len(x) // pieces, pieces, *x.shape[1:]).swapaxes(0, 1), batch
            )

            def add(total: PyTree, piece: tuple[dict[str, Array], Array]) -> tuple[PyTree, None]:
                rows, index = piece
                return jax.tree.map(
                    jnp.add, total, gradients(params, rows, jax.random.fold_in(key, index))
                ), None

            shapes = jax.eval_shape(gradients, params, jax.tree.map(lambda x: x[0], cut), key)
            zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
            (loss, count, grads), _ = jax.lax.scan(add, zero, (cut, jnp.arange(pieces)))
        count = jnp.maximum(count, 1)
        grads = jax.tree.map(lambda g: g / count, grads)
        updates, optimizer_state = optimizer.update(grads, state["optimizer"], params)
        params = optax.apply_updates(params, updates)
        ema = update_ema(state["ema"], params, decay=config.optimizer.ema_decay, step=state["step"])
        metrics = {
            "bits_per_sample": loss / count / math.log(2),
            "gradient_norm": optax.tree.norm(grads),
            "skipped_in_a_row": skipped_updates(optimizer_state)["in_a_row"],
        }
        new = {"params": params, "ema": ema, "optimizer": optimizer_state, "step": state["step"] + 1}
        return new, metrics

    return train_step


def make_evaluation_step(
    config: Config, graph: nnx.GraphDef, codec: Codec
) -> Callable[[PyTree, dict[str, Array]], tuple[Array, Array]]:
    """The function ``(params, batch) -> (nats, scored tokens)`` without augmentation or dropout, to be jitted."""
    objective = OBJECTIVES[config.training.objective]

    def evaluation_step(params: PyTree, batch: dict[str, Array]) -> tuple[Array, Array]:
        examples = _examples(config, codec, batch, None)
        return objective(with_parameters(graph, params), examples, None)

    return evaluation_step
