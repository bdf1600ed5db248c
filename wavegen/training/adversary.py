"""The second phase of a waveform codec's training: discriminators learn with it, inside the one training step.

From a given step on, the codec's audio is also pulled to where the discriminators take it for a recording, and where
their hidden layers cannot distinguish it from one. The discriminators are part of the training state, so that a run
resumes as if it had not stopped; what a run exports holds the codec alone.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int, PyTree

from wavegen.codecs.quantizers import draw_codebooks
from wavegen.codecs.waveform.adversarial import (
    adversarial_loss,
    balance,
    discriminator_loss,
    feature_matching_loss,
)
from wavegen.codecs.waveform.discriminators import Discriminators
from wavegen.config import Config
from wavegen.config.codec_models import AdversarialConfig
from wavegen.networks.base import Outcome, in_precision, parameters, with_parameters
from wavegen.training.optimizer import make_optimizer, make_schedule, skipped_updates
from wavegen.types import AnyWaveform

Adversary = dict[str, PyTree]
"""``params`` and ``optimizer`` of the discriminators, and the ``averages`` of ``balance``."""

FIGURES = ("discriminator", "adversarial", "features")
"""The losses of the game, 0 until it begins."""

SecondPhase = Callable[
    [PyTree, Adversary, Int[Array, ""], Mapping[str, Array], Array],
    tuple[Outcome, PyTree, Adversary, dict[str, Array]],
]
"""``(params, adversary, step, examples, key) -> (outcome, gradients, adversary, figures)``."""


def phase_of(config: Config) -> AdversarialConfig | None:
    """What a configuration says of a second phase, if it has one."""
    phase: AdversarialConfig | None = getattr(config.model, "adversarial", None)
    return phase


def first_adversary(config: Config, phase: AdversarialConfig) -> Adversary:
    """Discriminators that have seen nothing."""
    params = parameters(_make_discriminators(config, phase))[1]
    averages = {name: jnp.zeros(2) for name in ("reference", "adversarial", "features")}
    # Under one jit, as in ``first_state``.
    optimizer = jax.jit(_optimizer(config, phase).init)(params)
    return {"params": params, "optimizer": optimizer, "averages": averages}


def make_second_phase(config: Config, phase: AdversarialConfig, graph: nnx.GraphDef) -> SecondPhase:
    """The function that turns a batch into the codec's gradients and the discriminators after this step.

    Before ``phase.start`` the gradients are those of the reconstruction alone, and the discriminators stay as they are.

    Args:
        config: the experiment.
        phase: of it.
        graph: of the codec.
    """
    compute = jnp.dtype(config.training.precision)
    judges, optimizer = parameters(_make_discriminators(config, phase))[0], _optimizer(config, phase)
    shares = {"adversarial": phase.adversarial, "features": phase.features}

    def merged(graph: nnx.GraphDef, params: PyTree) -> Any:
        return with_parameters(graph, in_precision(params, compute))

    def second_phase(
        params: PyTree, adversary: Adversary, step: Int[Array, ""], examples: Mapping[str, Array], key: Array
    ) -> tuple[Outcome, PyTree, Adversary, dict[str, Array]]:
        recordings = examples["waveform"]

        def reconstruct(params: PyTree, change: AnyWaveform) -> tuple[tuple[Array, AnyWaveform], Outcome]:
            codec = merged(graph, params)
            codebooks = draw_codebooks(key, len(recordings), codec.codebooks, codec.quantizer_dropout)
            result = codec.reconstruct(recordings, codebooks=codebooks)
            result = result._replace(audio=result.audio + change)
            outcome = codec.judge(result, examples)
            return (outcome.total, result.audio), outcome

        nothing = jnp.zeros_like(recordings)
        (total, audio), pull, outcome = jax.vjp(reconstruct, params, nothing, has_aux=True)
        one = jnp.ones_like(total)
        # What the losses ask of the audio itself; nothing of the codec is run back for it.
        wanted = pull((one, nothing))[1]
        more, adversary, figures = jax.lax.cond(
            step >= phase.start, play, wait, adversary, recordings, audio, wanted
        )
        return outcome, pull((one, more))[0], adversary, figures

    def play(
        adversary: Adversary, recordings: AnyWaveform, audio: AnyWaveform, wanted: AnyWaveform
    ) -> tuple[AnyWaveform, Adversary, dict[str, Array]]:
        def judge(params: PyTree, audio: AnyWaveform) -> tuple[PyTree, PyTree]:
            discriminators = merged(judges, params)
            return discriminators(recordings), discriminators(audio)

        (real, decoded), back = jax.vjp(judge, adversary["params"], audio)
        loss, judged = jax.value_and_grad(discriminator_loss, argnums=(0, 1))(real, decoded)
        updates, optimizer_state = optimizer.update(
            back(judged)[0], adversary["optimizer"], adversary["params"]
        )
        unmoved = jax.tree.map(jnp.zeros_like, real)
        figures, gradients = {"discriminator": loss}, {}
        losses: dict[str, Callable] = {
            "adversarial": adversarial_loss,
            "features": partial(feature_matching_loss, real),
        }
        for name, codec_loss in losses.items():
            figures[name], to_judged = jax.value_and_grad(codec_loss)(decoded)
            gradients[name] = back((unmoved, to_judged))[1]
        more, averages = balance(wanted, gradients, shares, adversary["averages"])
        params = optax.apply_updates(adversary["params"], updates)
        return more, {"params": params, "optimizer": optimizer_state, "averages": averages}, figures

    def wait(
        adversary: Adversary, recordings: AnyWaveform, audio: AnyWaveform, wanted: AnyWaveform
    ) -> tuple[AnyWaveform, Adversary, dict[str, Float[Array, ""]]]:
        del recordings, audio
        return jnp.zeros_like(wanted), adversary, {name: jnp.zeros((), jnp.float32) for name in FIGURES}

    return second_phase


def skipped_in_a_row(adversary: Adversary) -> Int[Array, ""]:
    """How many updates of the discriminators were left out up to now, because they were not finite."""
    return skipped_updates(adversary["optimizer"])["in_a_row"]


def _make_discriminators(config: Config, phase: AdversarialConfig) -> Discriminators:
    return Discriminators(
        periods=phase.periods,
        windows=phase.windows,
        period_channels=tuple(phase.width * factor for factor in (1, 4, 16, 32, 32)),
        band_channels=phase.width,
        # Not the numbers that the codec's weights were drawn from.
        random=np.random.Generator(np.random.Philox(key=[config.seed, 1])),
    )


def _optimizer(config: Config, phase: AdversarialConfig) -> optax.GradientTransformation:
    o = config.optimizer
    schedule = make_schedule(
        learning_rate=phase.learning_rate,
        warmup_steps=0,
        total_steps=config.training.steps - phase.start,
        final_fraction=o.final_fraction,
    )
    return make_optimizer(schedule, weight_decay=o.weight_decay, clip_norm=o.clip_norm, b1=o.b1, b2=o.b2)
