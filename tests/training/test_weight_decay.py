"""Weight decay moves matrices and embeddings alone, in every model that a run can train."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wavegen.codecs.base import Codecs
from wavegen.codecs.make import make_codec
from wavegen.config import Config
from wavegen.models.kinds import KINDS, make_model
from wavegen.networks.base import parameters
from wavegen.training.adversary import first_adversary, phase_of
from wavegen.training.optimizer import decays, make_optimizer

NOTES = {"kind": "note_grid", "voices": 2, "low": 60, "high": 72, "bar": 4}
TRANSFORMER = {"width": 8, "layers": 1, "heads": 2}
WAVENET = {"dilations": [1], "cycles": 1, "residual_channels": 4, "gate_channels": 4, "skip_channels": 4}
WAVENET |= {"head_channels": 4}
WAVE = {"width": 4, "decoder_width": 16, "strides": [4]}
LABELLED = {"label_fields": ["take"]}

WAVENET_DECAYS = "dilated residual skip hidden output"
WAVENET_KEPT = "input_bias dilated_bias residual_bias skip_bias hidden_bias output_bias"
BLOCK = "project output gate_up down"

CASES = [
    # The section of the model, that of the codec, what decays, and what does not.
    (
        {"kind": "wavenet", **WAVENET, **LABELLED},
        {},
        f"{WAVENET_DECAYS} embedding tables condition",
        WAVENET_KEPT,
    ),
    (
        {"kind": "wavenet", **WAVENET, "input": "scalar", "local": {"kind": "notes", "channels": 4}},
        {},
        f"{WAVENET_DECAYS} scalar condition excitation pitches kernel",
        f"{WAVENET_KEPT} bias",
    ),
    ({"kind": "wavenet", **WAVENET}, NOTES, f"{WAVENET_DECAYS} embedding places", WAVENET_KEPT),
    ({"kind": "lstm", "width": 4, **LABELLED}, NOTES, "embedding places tables input recurrent head", "bias"),
    (
        {"kind": "ssm", "width": 4, "layers": 1, "state": 2, "pooling": [2]},
        {},
        "embedding head output mix down up",
        "gain through decay phase",
    ),
    (
        {"kind": "decoder", **TRANSFORMER, "reach": {"segment": 4, "memory": 4, "compressed": 2, "rate": 2}},
        {},
        f"embedding head compress {BLOCK}",
        "gain",
    ),
    ({"kind": "seq2seq", **TRANSFORMER}, NOTES, f"embedding places head query {BLOCK}", "gain"),
    (
        {"kind": "bert", **TRANSFORMER, **LABELLED},
        NOTES,
        f"embedding places tables edges head {BLOCK}",
        "gain",
    ),
    (
        {"kind": "window_vae", **TRANSFORMER, "latent": 120},
        NOTES,
        f"embedding places head input recurrent to_bar to_bars to_latent to_narrow to_places to_rows {BLOCK}",
        "bias gain",
    ),
    (
        {"kind": "wave_vq", **WAVE},
        {},
        "kernel codebook project_in project_out",
        "bias alpha project_in_bias project_out_bias",
    ),
    (
        {"kind": "spectrogram_vq", "vocoder": {"width": 8, "depth": 1}},
        {},
        "kernel codebook taps",
        "bias mean deviation share",
    ),
]


def config_of(model, codec):
    return Config.model_validate(
        {"model": model, "data": {"crop": 960}} | ({"codec": codec} if codec else {})
    )


def names(params, kept):
    return {
        next(k.key for k in reversed(path) if isinstance(getattr(k, "key", None), str))
        for path, _ in jax.tree.leaves_with_path(params)
        if decays(path) != kept
    }


@pytest.mark.parametrize(("model", "codec", "decayed", "kept"), CASES)
def test_matrices_decay_and_biases_and_gains_do_not(model, codec, decayed, kept):
    config = config_of(model, codec)
    codecs = Codecs(None if config.model.is_codec else make_codec(config.codec))
    params = parameters(make_model(config, codecs, {"take": ["0", "1"]}))[1]
    assert names(params, kept=False) == set(decayed.split())
    assert names(params, kept=True) == set(kept.split())


def test_every_kind_of_model_is_listed():
    assert {type(config_of(model, codec).model) for model, codec, _, _ in CASES} == set(KINDS)


def test_discriminators_keep_their_biases_and_lengths():
    config = config_of({"kind": "wave_vq", **WAVE, "adversarial": {"start": 1, "windows": [64]}}, {})
    params = first_adversary(config, phase_of(config))["params"]
    assert (names(params, kept=False), names(params, kept=True)) == ({"direction"}, {"bias", "length"})


def test_an_update_without_gradient_moves_a_stacked_matrix_and_no_stacked_bias():
    params = {
        "dilated": jnp.ones((3, 2, 2)),
        "dilated_bias": jnp.ones((3, 2)),
        "blocks": [{"gain": jnp.ones((2, 2))}],
    }
    optimizer = make_optimizer(0.1, weight_decay=0.5)
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    np.testing.assert_allclose(updates["dilated"], -0.05, rtol=1e-6)
    np.testing.assert_array_equal(updates["dilated_bias"], 0)
    np.testing.assert_array_equal(updates["blocks"][0]["gain"], 0)
