"""The training state: one pytree of plain dicts that the jitted step takes, donates and returns.

``{"params": ..., "ema": ..., "optimizer": ..., "step": int32}``, and ``"adversary"`` where discriminators train with
a codec (see ``wavegen.training.adversary``): no module, no key, no iterator. The random
key and the batch of a step are functions of ``step``, so this tree is all that a run needs to resume bit for
bit.
"""

import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Int, PyTree

TrainState = dict[str, Any]
"""``params``, ``ema`` (like params; ``{}`` without), ``optimizer``, ``step`` (steps done), and maybe ``adversary``."""


def init_state(params: PyTree, optimizer: optax.GradientTransformation, *, ema: bool) -> TrainState:
    """Returns the state before the first step.

    Args:
        params: the model's parameters as plain dicts; the state keeps these very arrays.
        optimizer: what ``make_optimizer`` returns.
        ema: keep an exponential moving average of the parameters.
    """
    return {
        "params": params,
        # Copies: one buffer cannot be donated twice.
        "ema": jax.tree.map(jnp.copy, params) if ema else {},
        "optimizer": optimizer.init(params),
        "step": jnp.zeros((), jnp.int32),
    }


def abstract_state(state: PyTree) -> PyTree:
    """Returns the shapes, dtypes and shardings of ``state``, without its numbers: what to restore into."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)


def update_ema(ema: PyTree, params: PyTree, *, decay: float, step: Int[Array, ""]) -> PyTree:
    """Returns ``d * ema + (1 - d) * params`` with ``d = min(decay, (1 + step) / (10 + step))``.

    The smaller decay of the first steps forgets the random start: without it a short run would average mostly
    noise.

    Args:
        ema: the average so far; ``{}`` (no average is kept) stays ``{}``.
        params: the parameters after this step's update.
        decay: in [0, 1); the average spans about ``1 / (1 - decay)`` steps.
        step: updates done before this one.

    Source: the ``num_updates`` rule of TensorFlow's ``ExponentialMovingAverage``.
    """
    if not ema:
        return ema
    d = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda e, p: (e + (1 - d) * (p - e)).astype(e.dtype), ema, params)


def count_parameters(params: PyTree) -> int:
    """Returns how many numbers ``params`` holds."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def state_hash(state: PyTree) -> str:
    """Returns the sha256, in hex, of every leaf's path, dtype, shape and bytes.

    Two states have one hash exactly when they are equal bit for bit. Every leaf must be addressable from this
    process.
    """
    digest = hashlib.sha256()
    for path, leaf in jax.tree.leaves_with_path(state):
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
