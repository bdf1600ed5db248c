"""From a configuration to an open dataset: prepared already, prepared now from a folder, or made on the spot."""

from pathlib import Path

from wavegen.config import Config
from wavegen.data.dataset import Dataset
from wavegen.data.prepare import prepared
from wavegen.errors import WavegenError
from wavegen.notes.corpus import cached_corpus
from wavegen.notes.score import FEATURES


def open_dataset(config: Config) -> Dataset:
    """Opens the data of an experiment.

    ``data.path`` may be a prepared dataset or a plain folder of recordings, which is prepared into ``data.cache``
    first. Without a path, the built-in corpus of melodies is rendered there.

    Raises:
        WavegenError: there is no such folder, nothing in it can be used, or it does not fit the configuration.
    """
    data, local = config.data, config.model.local
    if data.path is None:
        hop = local.hop_length if local is not None else 80
        path = cached_corpus(
            data.cache, sample_rate=data.sample_rate, minutes=data.corpus_minutes, seed=config.seed, hop=hop
        )
    else:
        path = prepared(
            data.path,
            data.cache,
            sample_rate=data.sample_rate,
            label_pattern=data.label_pattern,
            split={"test": data.split.test, "valid": data.split.valid},
            trim_silence_db=data.trim_silence_db,
            backend=data.backend,
        )
    dataset = Dataset.open(Path(path))
    if dataset.sample_rate != data.sample_rate:
        raise WavegenError(
            f"{path} was prepared at {dataset.sample_rate} Hz, data.sample_rate is {data.sample_rate}; "
            "make them equal, or give the folder of recordings"
        )
    if local is not None:
        wanted = (local.width if local.kind == "features" else FEATURES, local.hop_length)
        there = (dataset.feature_width, dataset.feature_hop)
        if there != wanted:
            has = f"{there[0]} every {there[1]} samples" if dataset.feature_hop else "none"
            raise WavegenError(
                f"model.local reads {wanted[0]} features every {wanted[1]} samples, {path} has {has}; "
                "change model.local, or leave it out"
            )
    return dataset
