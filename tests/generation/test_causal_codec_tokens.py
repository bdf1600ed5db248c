"""A causal model of a learned codec: clips of the length that was asked for, and likelihoods of all codebooks."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wavegen.audio import Audio
from wavegen.codecs.base import Codecs
from wavegen.codecs.learned import freeze
from wavegen.codecs.waveform.network import WaveVQ
from wavegen.config import Config
from wavegen.config.codec_models import WaveVQConfig
from wavegen.config.data import DataConfig
from wavegen.generation.audio import AudioGenerator
from wavegen.generation.requests import to_tokens
from wavegen.models.kinds import make_model
from wavegen.networks.base import Given, parameters, with_parameters
from wavegen.stopping import Stopped

RATE, HOP, CODEBOOKS = 8000, 16, 3


@cache
def made() -> AudioGenerator:
    random = np.random.default_rng(0)
    section = WaveVQConfig.model_validate(
        {
            "strides": [4, 4],
            "width": 4,
            "decoder_width": 16,
            "quantizer": {
                "kind": "gradient",
                "codebooks": CODEBOOKS,
                "codebook_size": 8,
                "codebook_width": 4,
            },
        }
    )
    codec = freeze(WaveVQ.make(section, Given(DataConfig(sample_rate=RATE)), random), sample_rate=RATE)
    config = Config.model_validate(
        {
            "data": {"sample_rate": RATE, "crop": 1024},
            "codec": {"kind": "trained", "run": "codec"},
            "model": {"kind": "lstm", "width": 8, "layers": 1},
        }
    )
    graph, params = parameters(make_model(config, Codecs(codec), {}))
    params = jax.tree.map(lambda x: x + 0.3 * random.standard_normal(x.shape).astype(np.float32), params)
    return AudioGenerator(config, {}, graph, params, codec)


def recording(samples: int) -> Audio:
    return Audio(0.3 * np.sin(np.arange(samples) / 5).astype(np.float32)[:, None], RATE)


def test_clips_have_the_length_that_was_asked_for_with_and_without_a_prompt():
    for seconds, prompt, length in (
        (0.02, None, 160),
        (0.02, recording(100), 260),
        (0.0205, recording(64), 228),
    ):
        clips = made().generate(seconds, count=2, prompt=prompt)
        assert [clip.samples.shape for clip in clips] == [(length, 1)] * 2
    whole = made().generate(0.05, seed=1)[0].samples
    (block,) = made().stream(0.05, seed=1, chunk=7)
    np.testing.assert_array_equal(block[0], whole[:, 0])


def test_a_clip_that_is_stopped_ends_with_the_last_frame_drawn():
    calls = []

    def progress(what, done, total):
        calls.append((done, total))
        if done:
            raise Stopped

    (clip,) = made().generate(0.2, progress=progress)
    assert calls == [(0, 100), (64, 100)]
    assert len(clip.samples) == 64 * HOP


@pytest.mark.parametrize("window", [4, 8192])
def test_likelihoods_are_of_all_codebooks_and_do_not_depend_on_the_window(window):
    generator, audio = made(), recording(200)
    scores = generator.log_likelihood(audio, window=window)
    assert scores.shape == (13,)
    tokens = to_tokens(generator.codec, audio, RATE)
    inputs = jnp.pad(tokens, ((0, 0), (1, 0), (0, 0)), constant_values=generator.codec.start_token)[:, :-1]
    examples = {"targets": tokens, "inputs": inputs, "mask": jnp.ones((1, 13), bool)}
    outcome = with_parameters(generator.graph, generator.params).objective(examples, None)
    assert int(outcome.scored) == 13 * CODEBOOKS
    np.testing.assert_allclose(scores.sum(), -outcome.total, rtol=1e-5)
