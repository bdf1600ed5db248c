"""The second phase of a codec's training: when it begins, what it moves, and that a resumed run is the same run."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wavegen.codecs.base import Codecs
from wavegen.config import Config, resolve
from wavegen.errors import WavegenError
from wavegen.networks.base import parameters
from wavegen.runs.checkpoints import Checkpoints
from wavegen.runs.trained import open_trained, save_trained
from wavegen.runs.weights import read_weights
from wavegen.training.adversary import FIGURES
from wavegen.training.state import abstract_state, state_hash
from wavegen.training.step import first_state, make_train_step

RATE, CROP, STEPS, START = 1000, 128, 4, 2
TREE = {
    "data": {"sample_rate": RATE, "crop": CROP, "batch_size": 2, "augment": {"gain_db": 6}},
    "model": {
        "kind": "wave_vq",
        "strides": [4],
        "width": 2,
        "decoder_width": 16,
        "quantizer": {"kind": "ema", "codebooks": 1, "codebook_size": 8},
    },
    "optimizer": {"warmup_steps": 1},
    "training": {"steps": STEPS},
}
PHASE = f"model.adversarial={{start: {START}, learning_rate: 1e-2, periods: [2], windows: [], width: 2}}"


def state_of(config: Config) -> tuple[object, dict]:
    return first_state(config, {}, Codecs(None))


def batch(step: int) -> dict[str, jax.Array]:
    random = np.random.default_rng(step)
    pitch = random.uniform(0.1, 0.8, (2, 1))
    return {
        "pcm": jnp.asarray(8000 * np.sin(pitch * np.arange(CROP)), jnp.int16),
        "labels": jnp.zeros((2, 0), jnp.int32),
        "length": jnp.full(2, CROP, jnp.int32),
        "context": jnp.zeros(2, jnp.int32),
    }


class Run(NamedTuple):
    """The states before the first and after every step, the figures of every step, and the step itself."""

    states: list[dict]
    figures: list[dict]
    step: Callable


def train(config: Config) -> Run:
    model, state = state_of(config)
    # Where a checkpoint's arrays will be: else the step would be compiled again for them.
    state = jax.device_put(state, jax.devices()[0])
    step = jax.jit(make_train_step(config, parameters(model)[0]))
    run = Run([state], [], step)
    for number in range(STEPS):
        state, metrics = step(state, batch(number), Codecs(None))
        run.states.append(state)
        run.figures.append(metrics)
    return run


@pytest.fixture(scope="module")
def game() -> Run:
    return train(resolve(TREE, [PHASE]))


@pytest.fixture(scope="module")
def alone() -> Run:
    """The same run without discriminators."""
    return train(resolve(TREE))


def test_discriminators_learn_from_their_start_on_and_not_before(game):
    hashes = [state_hash(state["adversary"]) for state in game.states]
    assert len(set(hashes[: START + 1])) == 1
    assert len(set(hashes[START:])) == STEPS - START + 1
    before, after = (jax.tree.leaves(game.states[n]["adversary"]["params"]) for n in (START, STEPS))
    assert all((a != b).any() for a, b in zip(before, after, strict=True))


def test_the_codec_hears_of_them_from_their_start_on_and_not_before(game, alone):
    for step, (ours, theirs) in enumerate(zip(game.states, alone.states, strict=True)):
        leaves = [jax.tree.leaves(state["params"]["decoder"]) for state in (ours, theirs)]
        same = [np.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in zip(*leaves, strict=True)]
        assert all(same) if step <= START else not any(same)


def test_their_losses_are_reported_when_there_are_any(game, alone):
    for step, figures in enumerate(game.figures):
        for name in FIGURES:
            assert (figures[name] > 0) == (step >= START)
        assert FIGURES[0] not in alone.figures[step]
    # What the run is judged by stays the codec's own loss.
    np.testing.assert_allclose(game.figures[START]["loss"], alone.figures[START]["loss"], rtol=1e-5)


@pytest.fixture
def stopped(game, tmp_path) -> Callable[[int], Path]:
    """A run folder whose only checkpoint is of a step."""

    def save(step: int) -> Path:
        card = {"config": resolve(TREE, [PHASE]).model_dump(mode="json"), "labels": {}}
        with Checkpoints(tmp_path / "checkpoints") as checkpoints:
            checkpoints.save(step, game.states[step], card)
        return tmp_path

    return save


@pytest.mark.parametrize("step", range(1, STEPS))
def test_a_run_goes_on_from_any_step_as_if_it_had_not_stopped(game, stopped, step):
    with Checkpoints(stopped(step) / "checkpoints") as checkpoints:
        state, _, _ = checkpoints.restore(abstract_state(state_of(resolve(TREE, [PHASE]))[1]))
    for number in range(step, STEPS):
        state, _ = game.step(state, batch(number), Codecs(None))
    assert state_hash(state) == state_hash(game.states[STEPS])


def test_what_a_run_exports_holds_no_discriminator(alone, stopped, tmp_path):
    trained = open_trained(stopped(STEPS))
    assert jax.tree.structure(trained.params) == jax.tree.structure(alone.states[0]["params"])
    tensors, card = read_weights(save_trained(tmp_path / "codec.safetensors", trained))
    assert set(tensors) == set(alone.states[0]["params"])
    assert card["config"]["model"]["adversarial"]["start"] == START


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("training.steps=2", "start 2 must be less than training.steps 2"),
        ("optimizer.accumulate=2", "optimizer.accumulate=1"),
        ("model.adversarial.windows=[512]", "must fit into data.crop"),
        ("model.adversarial.windows=[30]", "multiples of 4 from 32 on"),
        ("model.adversarial.periods=[1]", "at least 2"),
    ],
)
def test_a_phase_that_cannot_be_is_refused(override, text):
    with pytest.raises(WavegenError, match=text):
        resolve(TREE, [PHASE, override])
