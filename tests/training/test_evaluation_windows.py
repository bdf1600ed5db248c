"""Windows of evaluation give what ``log_likelihood`` gives of whole clips."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wavegen.audio import Audio
from wavegen.codecs.base import Codecs
from wavegen.codecs.samples import MuLaw
from wavegen.config import Config
from wavegen.data.dataset import Dataset
from wavegen.data.shards import Clip
from wavegen.data.write import write_dataset
from wavegen.generation.audio import AudioGenerator
from wavegen.models.kinds import make_model
from wavegen.networks.base import parameters, with_parameters
from wavegen.runs.trained import Trained
from wavegen.training.evaluate import evaluate, evaluation_source
from wavegen.training.mesh import make_mesh
from wavegen.training.step import make_evaluation_step

RATE = 8000
MODELS = {
    # Segments do not divide the crop of 64; the second has a memory that reaches over several of them.
    "decoder": {
        "kind": "decoder",
        "width": 8,
        "layers": 2,
        "heads": 1,
        "reach": {"segment": 48, "memory": 48},
    },
    "compressed": {
        "kind": "decoder",
        "width": 8,
        "layers": 1,
        "heads": 1,
        "reach": {"segment": 24, "memory": 12, "compressed": 9, "rate": 4},
    },
    "lstm": {"kind": "lstm", "width": 8, "layers": 1},
    "ssm": {"kind": "ssm", "width": 8, "layers": 1, "pooling": [4]},
    "wavenet": {
        "kind": "wavenet",
        "dilations": [1, 2, 4],
        "cycles": 1,
        "residual_channels": 8,
        "gate_channels": 8,
        "skip_channels": 8,
        "head_channels": 8,
    },
}


@pytest.mark.parametrize("name", MODELS)
def test_evaluation_sums_the_likelihoods_of_whole_clips(name, tmp_path, rng):
    config = Config.model_validate(
        {
            "data": {"sample_rate": RATE, "crop": 64, "batch_size": 8},
            "codec": {"kind": "mulaw", "levels": 16},
            "model": MODELS[name],
        }
    )
    clips = [
        Clip(f"{length}", rng.integers(-(2**15), 2**15, length).astype(np.int16)) for length in (37, 300, 411)
    ]
    write_dataset(tmp_path, clips, RATE)
    codecs = Codecs(MuLaw(16))
    graph, params = parameters(make_model(config, codecs, {}))
    params = jax.tree.map(lambda x: x + 0.3 * jnp.asarray(rng.standard_normal(x.shape, np.float32)), params)
    source = evaluation_source(
        config, Dataset.open(tmp_path), "train", with_parameters(graph, params), codecs
    )
    step = jax.jit(make_evaluation_step(config, graph))
    result = evaluate(config, step, params, codecs, source, len(source), make_mesh())
    generator = AudioGenerator.open(Trained(config, {}, params, codecs))
    nats = -sum(generator.log_likelihood(Audio.from_pcm16(clip.pcm[:, None], RATE)).sum() for clip in clips)
    assert result.count == 748
    np.testing.assert_allclose(result.figures["bits_per_sample"], nats / 748 / np.log(2), rtol=2e-6)
