"""Begins a run with weights that another one learned, instead of random ones: fine-tuning, or more steps."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from wavegen.codecs.base import Codecs
from wavegen.codecs.learned import LearnedCodec
from wavegen.config import Config
from wavegen.errors import WavegenError
from wavegen.runs.trained import open_trained, shapes_of
from wavegen.training.state import TrainState


def start_from(path: str | Path, config: Config, state: TrainState, codecs: Codecs) -> TrainState:
    """The state with the averaged weights of a trained model, as parameters and as their average.

    Everything else stays as it is before the first step: the optimizer, the step, discriminators.

    Args:
        path: a run folder (its newest sound checkpoint) or a ``.safetensors`` file.
        config: of the new run.
        state: before its first step.
        codecs: that its model reads through.

    Raises:
        WavegenError: there is no such run or file, or it is damaged; its weights are of other shapes, or it reads
            through another codec.
    """
    trained = open_trained(path)
    if trained.config.model.kind != config.model.kind:
        raise WavegenError(
            f"expected weights of model.kind={config.model.kind} in training.start_from, {path} has those of "
            f"{trained.config.model.kind}; give a run of the same model"
        )
    for name in Codecs._fields:
        if _identity(trained.config, trained.codecs, name) != _identity(config, codecs, name):
            raise WavegenError(
                f"training.start_from: the model in {path} reads through another codec ({name}); give this run "
                "the section codec of that run, or train without training.start_from"
            )
    here, there = dict(shapes_of(state["params"])), dict(shapes_of(trained.params))
    for leaf in here | there:
        if here.get(leaf) != there.get(leaf):
            raise WavegenError(
                f"training.start_from: expected weights{leaf} of shape {here.get(leaf)}, {path} has "
                f"{there.get(leaf)}; make the section model and the label fields those of that run"
            )
    params = jax.tree.map(lambda fresh, old: jnp.asarray(old, fresh.dtype), state["params"], trained.params)
    # Copies: one buffer cannot be donated twice.
    return {**state, "params": params, "ema": jax.tree.map(jnp.copy, params) if state["ema"] else {}}


def _identity(config: Config, codecs: Codecs, name: str) -> Any:
    codec = getattr(codecs, name)
    if isinstance(codec, LearnedCodec):
        return codec.fingerprint, codec.codebooks
    return None if codec is None else config.codec
