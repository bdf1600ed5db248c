"""The vocoder of the spectrogram codec: its lengths and reach, what its losses move, and that it learns."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from laws.cases.spectrogram import FRAMES, HOP, RATE, VOCODER, build, tones

from wavegen.codecs.base import Codecs
from wavegen.codecs.quantizers import Average
from wavegen.codecs.spectrogram.vocoder import Vocoder
from wavegen.config import resolve
from wavegen.errors import WavegenError
from wavegen.networks.base import parameters
from wavegen.training.step import first_state, make_train_step

CLIP = 20 * HOP


def examples(audio):
    return {"waveform": audio, "length": jnp.full(len(audio), audio.shape[1])}


objective = jax.jit(lambda codec, audio: codec.objective(examples(audio), None))


def test_a_frame_depends_on_the_rows_within_reach_and_on_no_others():
    vocoder = Vocoder(FRAMES, width=8, depth=2, random=np.random.default_rng(0))
    # Blocks begin as the identity.
    for block in vocoder.blocks:
        block.narrow.kernel[...] = jnp.asarray(np.random.default_rng(1).standard_normal((24, 8)), jnp.float32)
    rows, changed, reach = jnp.zeros((1, 60, FRAMES.bands)), 30, vocoder.reach
    audio = vocoder(rows)
    assert audio.shape == (1, 60 * HOP)
    differs = np.flatnonzero(np.asarray(audio != vocoder(rows.at[:, changed].add(1.0)))[0])
    window = FRAMES.n_fft // 2
    assert differs.min() >= (changed - reach) * HOP - window
    assert differs.max() < (changed + reach) * HOP + window
    assert differs.min() < (changed - reach + 1) * HOP
    assert differs.max() >= (changed + reach - 1) * HOP


def test_the_losses_of_its_audio_move_the_vocoder_alone():
    codec = build("EMA", VOCODER)
    graph, params = nnx.split(codec)

    def loss(params, audio):
        outcome = nnx.merge(graph, params).objective(examples(audio), None)
        return sum(outcome.figures[f"audio_{name}"] for name in ("mel", "stft", "waveform"))

    gradient = nnx.to_pure_dict(jax.jit(jax.grad(loss))(params, jnp.asarray(tones(0, 2, CLIP))))
    assert all(jnp.any(leaf != 0) for leaf in jax.tree.leaves(gradient["vocoder"]["last"]))
    others = {name: leaf for name, leaf in gradient.items() if name != "vocoder"}
    assert not any(jnp.any(leaf != 0) for leaf in jax.tree.leaves(others))


def test_the_total_is_the_weighted_sum_of_all_parts():
    outcome = objective(build("EMA", VOCODER), jnp.asarray(tones(0, 2, CLIP)))
    weights = {"mel": 0.1, "convergence": 0.1, "commitment": 0.25, "codebook": 1.0}
    weights |= {"audio_mel": 15.0, "audio_stft": 1.0, "audio_waveform": 1.0}
    assert set(outcome.figures) == set(weights)
    total = sum(weight * outcome.figures[name] for name, weight in weights.items())
    np.testing.assert_allclose(outcome.total, total, rtol=1e-5)


def test_it_learns_the_sound_of_its_clips():
    graph, params, averages = nnx.split(build("EMA", VOCODER), nnx.Param, Average)
    audio, optimizer = jnp.asarray(tones(4, 4, CLIP)), optax.adam(3e-3)

    @jax.jit
    def step(params, state):
        def loss(params):
            outcome = nnx.merge(graph, params, averages).objective(examples(audio), None)
            return outcome.total / outcome.scored, outcome.figures["audio_mel"] / outcome.scored

        gradient, distance = jax.grad(loss, has_aux=True)(params)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state, distance

    state, history = optimizer.init(params), []
    for _ in range(100):
        params, state, distance = step(params, state)
        history.append(float(distance))
    assert history[-1] < 0.5 * history[0]


TREE = {
    "data": {"sample_rate": RATE, "crop": CLIP, "batch_size": 2},
    "model": {"kind": "spectrogram_vq", "n_fft": 128, "hop_length": HOP, "bands": 10, "width": 8, "depth": 1}
    | {
        "latent": 4,
        "quantizer": {"kind": "ema", "codebooks": 1, "codebook_size": 8},
        "vocoder": {"width": 8},
    },
    "optimizer": {"warmup_steps": 0},
    "training": {"steps": 4},
}
PHASE = "model.adversarial={start: 1, periods: [2], windows: [], width: 2}"


def test_discriminators_judge_its_audio_and_move_it_alone():
    config = resolve(TREE, [PHASE])
    model, state = first_state(config, {}, Codecs(None))
    step = jax.jit(make_train_step(config, parameters(model)[0]))
    batch = {
        "pcm": jnp.asarray(16000 * tones(0, 2, CLIP), jnp.int16),
        "labels": jnp.zeros((2, 0), jnp.int32),
        "length": jnp.full(2, CLIP, jnp.int32),
        "context": jnp.zeros(2, jnp.int32),
    }
    state, before = step(state, batch, Codecs(None))
    assert before["discriminator"] == 0
    _, after = step(state, batch, Codecs(None))
    assert after["discriminator"] > 0
    assert np.isfinite(after["loss"])


def test_discriminators_without_audio_to_judge_are_refused():
    tree = TREE | {"model": {**TREE["model"], "vocoder": None}}
    with pytest.raises(WavegenError, match=r"discriminators judge audio: set model\.vocoder\.depth=4"):
        resolve(tree, [PHASE])
