"""The device half of the pipeline: int16 batches to inputs, targets and masks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wavegen.codecs.samples import Linear
from wavegen.data.device import augment, make_example, shift, to_waveform
from wavegen.networks.base import frame_mask

PCM = Linear(65536)  # tokens are the int16 values plus 32768


def host_batch(rng, rows=4, samples=32):
    return {
        "pcm": jnp.asarray(rng.integers(-(2**15), 2**15, (rows, samples)), jnp.int16),
        "length": jnp.array([samples, 5, 1, 0]),
        "context": jnp.array([0, 2, 0, 0]),
        "labels": jnp.zeros((rows, 2), jnp.int32),
    }


def test_inputs_are_the_targets_one_frame_later_behind_the_start_token(rng):
    batch = host_batch(rng)
    example = jax.jit(lambda batch: make_example(batch, PCM))(batch)
    np.testing.assert_array_equal(example["targets"][..., 0], batch["pcm"].astype(int) + 32768)
    np.testing.assert_array_equal(example["inputs"][:, 1:], example["targets"][:, :-1])
    assert (example["inputs"][:, 0] == 32768).all()
    assert "features" not in example


def test_mask_holds_the_valid_frames_after_the_context(rng):
    example = make_example(host_batch(rng), PCM)
    assert [np.flatnonzero(row).tolist() for row in example["mask"]] == [list(range(32)), [2, 3, 4], [0], []]
    frames = frame_mask(jnp.array([0, 8]), jnp.array([9, 16]), frames=4, hop=4)
    assert frames.tolist() == [[True, True, True, False], [False, False, True, True]]


def test_augmentation_changes_gain_and_sign_of_whole_clips(key):
    waveform = jnp.broadcast_to(jnp.linspace(-0.5, 0.5, 9)[None], (200, 9))
    louder = augment(waveform, key, gain_db=(-6.0, 3.0), polarity=True)
    scale = louder[:, 0] / waveform[:, 0]
    np.testing.assert_allclose(louder, waveform * scale[:, None], atol=1e-6)
    decibels = 20 * jnp.log10(jnp.abs(scale))
    assert decibels.min() == pytest.approx(-6, abs=0.3)
    assert decibels.max() == pytest.approx(3, abs=0.3)
    assert 70 < (scale < 0).sum() < 130
    assert jnp.abs(augment(waveform, key, gain_db=(20.0, 20.0))).max() == 1


def test_without_a_key_or_by_default_waveforms_stay_as_they_are(rng, key):
    batch = host_batch(rng)
    plain = np.asarray(batch["pcm"], np.float32) / 32768
    np.testing.assert_array_equal(to_waveform(batch["pcm"]), plain)
    np.testing.assert_array_equal(
        make_example(batch, PCM, gain_db=(6.0, 6.0), polarity=True)["waveform"], plain
    )
    np.testing.assert_array_equal(make_example(batch, PCM, key)["waveform"], plain)


def test_shift_keeps_shape_and_codebooks_apart():
    tokens = jnp.arange(12).reshape(1, 4, 3)
    assert shift(tokens, 99).tolist() == [[[99, 99, 99], [0, 1, 2], [3, 4, 5], [6, 7, 8]]]
