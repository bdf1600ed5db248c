"""Muon updates the matrices inside every network by their axes, and leaves the rest to AdamW."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training.test_weight_decay import CASES, config_of

from wavegen.codecs.base import Codecs
from wavegen.codecs.make import make_codec
from wavegen.models.kinds import make_model
from wavegen.networks.base import parameters
from wavegen.training.muon import matrix_axes
from wavegen.training.optimizer import make_optimizer

# Per kind of model, in the order of CASES.
TRANSFORMER = "project output gate_up down"
MATRICES = [
    "dilated residual skip hidden condition",
    "dilated residual skip hidden condition kernel",
    "dilated residual skip hidden",
    "input recurrent",
    "mix down up",
    f"compress {TRANSFORMER}",
    f"query {TRANSFORMER}",
    TRANSFORMER,
    f"input recurrent {TRANSFORMER}",
    "kernel",
    "kernel",
]


def params_of(model, codec):
    config = config_of(model, codec)
    codecs = Codecs(None if config.model.is_codec else make_codec(config.codec))
    return parameters(make_model(config, codecs, {"take": ["0", "1"]}))[1]


def last(path):
    return next(k.key for k in reversed(path) if isinstance(getattr(k, "key", None), str))


@pytest.mark.parametrize(
    ("model", "codec", "matrices"), [(m, c, n) for (m, c, _, _), n in zip(CASES, MATRICES, strict=True)]
)
def test_matrices_get_orthogonal_updates_and_nothing_else_does(model, codec, matrices):
    params = params_of(model, codec)
    random = np.random.default_rng(0)
    gradients = jax.tree.map(lambda x: jnp.asarray(random.standard_normal(x.shape), x.dtype), params)
    optimizer = make_optimizer(1e-3, clip_norm=1e9, matrices=0.1)
    updates, _ = jax.jit(optimizer.update)(gradients, optimizer.init(params), params)
    found = set()
    for path, update in jax.tree.leaves_with_path(updates):
        axes = matrix_axes(path, update.ndim)
        if axes is None:
            # The first step of Adam is the sign of the gradient.
            np.testing.assert_allclose(jnp.abs(update), 1e-3, rtol=1e-3)
            continue
        found.add(last(path))
        inputs = int(np.prod([update.shape[axis] for axis in axes.reduction_axis]))
        outputs = int(np.prod([update.shape[axis] for axis in axes.output_axis]))
        flat = np.moveaxis(
            np.asarray(update),
            (*axes.reduction_axis, *axes.output_axis),
            range(-len(axes.reduction_axis) - len(axes.output_axis), 0),
        ).reshape(-1, inputs, outputs)
        values = np.linalg.svd(flat, compute_uv=False) / (0.1 * max(1, outputs / inputs) ** 0.5)
        # Five steps of the iteration bring the singular values near 1, within what its source says; the smallest of a
        # square matrix may stay behind.
        assert values.max() < 1.3
        assert np.median(values) > 0.6
    assert found == set(matrices.split())


def test_decay_reaches_matrices_and_embeddings_but_no_biases():
    params = {
        "dilated": jnp.ones((2, 2, 4, 8)),
        "dilated_bias": jnp.ones((2, 8)),
        "embedding": jnp.ones((8, 4)),
    }
    optimizer = make_optimizer(0.1, weight_decay=0.5, matrices=0.2)
    still = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(still, optimizer.init(params), params)
    np.testing.assert_allclose(updates["dilated"], -0.1, rtol=1e-6)
    np.testing.assert_allclose(updates["embedding"], -0.05, rtol=1e-6)
    np.testing.assert_array_equal(updates["dilated_bias"], 0.0)
