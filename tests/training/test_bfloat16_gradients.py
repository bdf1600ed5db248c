"""Law: a gradient in bfloat16 is that in float32, for every parameter of a model; only its rounding differs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wavegen.codecs.base import Codecs
from wavegen.codecs.make import make_codec
from wavegen.config import resolve
from wavegen.models.kinds import make_model
from wavegen.networks.base import in_precision, parameters, with_parameters

BATCH, FRAMES = 8, 2048
CHANNELS = {f"{name}_channels": 16 for name in ("residual", "gate", "skip", "head")}
MODELS = {
    "wavenet": {"kind": "wavenet", "dilations": [1, 2, 4], "cycles": 1, **CHANNELS},
    "lstm": {"kind": "lstm", "width": 16, "layers": 1},
    "decoder": {"kind": "decoder", "width": 16, "layers": 1, "heads": 2, "reach": {"memory": 0}},
    "ssm": {"kind": "ssm", "width": 16, "layers": 1},
}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_gradients_in_bfloat16_are_those_in_float32(model, rng):
    config = resolve({"model": model, "data": {"sample_rate": 8000, "crop": FRAMES}})
    codecs = Codecs(make_codec(config.codec))
    graph, params = parameters(make_model(config, codecs, {}))
    # As of audio: a few values are used thousands of times.
    targets = np.clip(np.round(rng.normal(128, 3, (BATCH, FRAMES, 1))), 0, 255).astype(np.int32)
    inputs = np.pad(targets, ((0, 0), (1, 0), (0, 0)), constant_values=128)[:, :-1]
    examples = {"targets": jnp.asarray(targets), "inputs": jnp.asarray(inputs)}
    examples["mask"] = jnp.ones((BATCH, FRAMES), bool)

    def loss(params, dtype):
        outcome = with_parameters(graph, in_precision(params, dtype)).objective(examples, None)
        return outcome.total / outcome.scored

    gradient = jax.jit(jax.grad(loss), static_argnums=1)
    exact, rounded = (gradient(params, dtype) for dtype in (jnp.float32, jnp.bfloat16))
    errors = jax.tree.map(lambda x, y: float(jnp.linalg.norm(x - y) / jnp.linalg.norm(x)), exact, rounded)
    # The largest are 0.01; plain sums in bfloat16 give 0.17 for an embedding (0.77 with eight times the frames), and an
    # oscillator's frequency in 8 bits 0.9.
    worst = max(jax.tree.leaves_with_path(errors), key=lambda item: item[1])
    assert worst[1] < 0.05, worst
