"""AdamW or Muon with linear warm-up, cosine decay, clipping by global norm, and no step on non-finite gradients.

    rate(n) = peak * (n + 1) / (warmup + 1)                                   while n < warmup
    rate(n) = floor + (peak - floor) * (1 + cos(pi * (n - warmup) / (total - warmup))) / 2   after

Sources: Loshchilov and Hutter 2019 (decoupled weight decay), 2017 (cosine); Pascanu et al. 2013 (clipping).
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import optax
from jaxtyping import Array, Int, PyTree

from wavegen.errors import WavegenError
from wavegen.training.muon import make_muon


def make_schedule(
    *, learning_rate: float, warmup_steps: int, total_steps: int, final_fraction: float = 0.1
) -> optax.Schedule:
    """Returns the learning rate as a function of the number of updates done.

    Args:
        learning_rate: the peak, reached after ``warmup_steps``.
        warmup_steps: length of the linear rise; 0 starts at the peak.
        total_steps: where the cosine reaches its floor; the rate stays there afterwards.
        final_fraction: the floor as a share of the peak, in [0, 1].

    Raises:
        WavegenError: the warm-up does not end before ``total_steps``.
    """
    if not 0 <= warmup_steps < total_steps:
        raise WavegenError(
            f"expected 0 <= warmup_steps < total_steps, got warmup_steps={warmup_steps} and "
            f"total_steps={total_steps}; shorten the warm-up or train for longer"
        )
    decay = optax.cosine_decay_schedule(learning_rate, total_steps - warmup_steps, alpha=final_fraction)
    if warmup_steps == 0:
        return decay
    # Not from 0: the first update would do nothing.
    rise = optax.linear_schedule(learning_rate / (warmup_steps + 1), learning_rate, warmup_steps)
    return optax.join_schedules([rise, decay], [warmup_steps])


NOT_DECAYED = frozenset(
    {"gain", "alpha", "length", "through", "decay", "phase", "mean", "deviation", "share"}
)
"""Names of gains, of rates and frequencies of oscillators, and of statistics that no gradient reaches."""


def decays(path: Sequence[Any]) -> bool:
    """Returns whether weight decay moves a parameter: matrices and embeddings, but not biases and gains.

    The name decides, as layers that are stacked in one array give their biases a second axis.

    Args:
        path: keys of the parameter in its tree, from ``jax.tree_util``.

    Example:
        >>> import jax
        >>> from wavegen.training.optimizer import decays
        >>> tree = {"dilated": 1.0, "dilated_bias": 2.0}
        >>> jax.tree.map_with_path(lambda path, _: decays(path), tree)
        {'dilated': True, 'dilated_bias': False}
    """
    names = [key.key for key in path if isinstance(key, jax.tree_util.DictKey) and isinstance(key.key, str)]
    name = names[-1] if names else ""
    return not (name == "bias" or name.endswith("_bias") or name in NOT_DECAYED)


def make_optimizer(
    schedule: optax.ScalarOrSchedule,
    *,
    weight_decay: float = 0.0,
    clip_norm: float = 1.0,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    matrices: optax.ScalarOrSchedule | None = None,
) -> optax.GradientTransformation:
    """Returns the optimizer of every run.

    An update whose gradient holds a NaN or an infinity is left out whole: parameters, moments and the
    schedule stay where they were, and ``skipped_updates`` counts it. Stopping after too many is the loop's
    part.

    Args:
        schedule: learning rate, a number or a function of the number of updates done.
        weight_decay: share of a weight that is taken away per update, times the learning rate; see ``decays``.
        clip_norm: gradients with a larger global norm are scaled down to it.
        b1: decay of the mean of gradients.
        b2: decay of the mean of squared gradients.
        eps: added to the root of the squared mean.
        matrices: learning rate of the matrices that Muon updates; None updates them by AdamW too.
    """
    update = optax.adamw(
        schedule,
        b1=b1,
        b2=b2,
        eps=eps,
        weight_decay=weight_decay,
        mask=lambda params: jax.tree.map_with_path(lambda path, _: decays(path), params),
    )
    if matrices is not None:
        update = make_muon(matrices, update, weight_decay=weight_decay)
    step = optax.chain(optax.clip_by_global_norm(clip_norm), update)
    # Past this count optax would apply the bad update after all.
    return optax.apply_if_finite(step, max_consecutive_errors=np.iinfo(np.int32).max)


def skipped_updates(optimizer_state: PyTree) -> dict[str, Int[Array, ""]]:
    """Returns how many updates were left out: ``in_a_row`` up to now, and in ``total``."""
    return {"in_a_row": optimizer_state.notfinite_count, "total": optimizer_state.total_notfinite}
