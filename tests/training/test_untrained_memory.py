"""A memory, or a compression, that training never reads is refused before a run begins."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws.cases.decoder import build

from wavegen.codecs.base import Codecs
from wavegen.codecs.make import make_codec
from wavegen.config import Config
from wavegen.config.models import DecoderConfig, ReachConfig
from wavegen.errors import WavegenError
from wavegen.models.kinds import make_model
from wavegen.models.layers.memory import Reach
from wavegen.networks.base import parameters, with_parameters
from wavegen.training.step import first_state


def start(crop, model="decoder", codec=None, **reach):
    sizes = {"kind": model, "width": 8, "layers": 1, "heads": 2, "reach": reach}
    config = Config.model_validate(
        {"data": {"crop": crop}, "model": sizes, "codec": codec or {"kind": "mulaw", "levels": 16}}
    )
    codecs = Codecs(make_codec(config.codec))
    # What exists is opened: it is not asked how it was trained.
    make_model(config, codecs, {})
    return first_state(config, {}, codecs)


@pytest.mark.parametrize(
    ("crop", "reach"),
    [(16, {"segment": 16, "memory": 16}), (16, {"segment": 32, "memory": 8, "compressed": 4, "rate": 4})],
)
def test_a_crop_of_one_segment_is_refused(crop, reach):
    message = rf"crops of more than model.reach.segment {reach['segment']} frames, .* got 16; set model.reach.memory=0"
    with pytest.raises(WavegenError, match=message):
        start(crop, **reach)
    start(crop, segment=16, memory=0)
    start(17, segment=16, memory=16)


def test_a_crop_that_trains_no_compression_is_refused():
    reach = {"segment": 8, "memory": 8, "compressed": 2, "rate": 4}
    message = r"segment 8 \+ memory 8 frames, .* got 16; set model.reach.compressed=0"
    with pytest.raises(WavegenError, match=message):
        start(16, **reach)
    start(17, **reach)


def test_the_voices_of_a_source_do_not_count():
    grid = {"kind": "note_grid", "voices": 4}
    with pytest.raises(WavegenError, match=r"more than model.reach.segment 48 frames, .* got 48"):
        start(64, "seq2seq", grid, segment=48, memory=48)
    start(68, "seq2seq", grid, segment=48, memory=48)


@pytest.mark.parametrize(("rows", "trained"), [(10, False), (11, True)])
def test_what_is_refused_is_what_has_no_gradient(rows, trained):
    reach = {"segment": 5, "memory": 5, "compressed": 2, "rate": 5}
    graph, params = parameters(build(reach=Reach(**reach), layers=1))
    tokens = jnp.asarray(np.random.default_rng(0).integers(10, size=(1, rows, 1)), jnp.int32)
    loss = jax.jit(jax.grad(lambda p: with_parameters(graph, p).with_memory_loss(tokens)[1]))
    assert bool(np.any(np.asarray(loss(params)["blocks"][0]["attention"]["compress"]))) == trained
    section = DecoderConfig(width=8, heads=2, layers=1, reach=ReachConfig(**reach))
    if trained:
        section.check_training(Config(), rows)
    else:
        with pytest.raises(WavegenError, match="compression is trained"):
            section.check_training(Config(), rows)
