"""Networks over tokens: each obeys the contract in ``base``."""

from collections.abc import Mapping, Sequence

import numpy as np

from wavegen.codecs import Codec
from wavegen.config import Config
from wavegen.errors import WavegenError
from wavegen.models.wavenet import WaveNet


def make_model(config: Config, codec: Codec, labels: Mapping[str, Sequence[str]]) -> WaveNet:
    """The model that a configuration describes, with fresh weights drawn from its seed.

    Args:
        config: the experiment.
        codec: whose tokens the model reads.
        labels: the values of each label field of the dataset, in the order of their numbers.

    Raises:
        WavegenError: the model is conditioned on a field that the dataset does not have.
    """
    for field in config.model.global_fields:
        if field not in labels:
            there = ", ".join(labels) or "none; set data.label_pattern"
            raise WavegenError(f"model.global_fields names '{field}', the dataset has label fields: {there}")
    return WaveNet(
        config.model,
        vocab_size=codec.vocab_size,
        mu=codec.mu,
        label_sizes=tuple(len(labels[field]) for field in config.model.global_fields),
        sample_rate=config.data.sample_rate,
        random=np.random.Generator(np.random.Philox(config.seed)),
    )
