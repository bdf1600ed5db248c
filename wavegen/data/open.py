"""From a configuration to an open dataset: prepared already, prepared now from a folder, or made on the spot."""

from pathlib import Path

from wavegen.codecs.base import Codecs
from wavegen.codecs.learned import LearnedCodec
from wavegen.codecs.make import make_codec
from wavegen.codecs.notes.base import NoteCodec
from wavegen.config import Config
from wavegen.config.conditions import PianoRollConditionConfig
from wavegen.config.data import DataConfig
from wavegen.data.corpus import cached_corpus
from wavegen.data.dataset import Dataset
from wavegen.data.prepare import prepared
from wavegen.data.rendering import Rendering
from wavegen.errors import WavegenError

MIDI_SHARD_BYTES = 1 << 16
"""MIDI files are small for the work that they make: so many bytes are some ten minutes of audio."""


def open_dataset(config: Config, *, new_in: str | Path | None = None) -> Dataset:
    """Opens the data of an experiment.

    ``data.path`` may be a prepared dataset or a plain folder of recordings, which is prepared into ``data.cache``
    first. Without a path, the built-in corpus of melodies is rendered there.

    Args:
        config: the experiment.
        new_in: the folder that is written to instead of ``data.cache``, which is then only read. A configuration from
            somebody else must not choose where something is written.

    Raises:
        WavegenError: there is no such folder, nothing in it can be used, or it does not fit the configuration.
    """
    data, local, codec = config.data, config.model.local, config.codec
    if codec.of == "notes":
        notes = make_codec(codec)
        assert isinstance(notes, NoteCodec)
        return _open_notes(data, notes, new_in)
    if isinstance(local, PianoRollConditionConfig):  # its fields say how the MIDI files are rendered
        return _open_rendered(data, local, new_in)
    if data.path is None:
        hop = local.hop_length if local is not None and local.stored else 80
        path = cached_corpus(
            data.cache,
            sample_rate=data.sample_rate,
            minutes=data.corpus_minutes,
            seed=config.seed,
            hop=hop,
            new_in=new_in,
        )
    else:
        path = prepared(
            data.path,
            data.cache,
            new_in=new_in,
            sample_rate=data.sample_rate,
            label_pattern=data.label_pattern,
            split={"test": data.split.test, "valid": data.split.valid},
            trim_silence_db=data.trim_silence_db,
            backend=data.backend,
            # What is cached as mono keeps its name, which is made of what is given here.
            **({"channels": data.channels} if data.channels > 1 else {}),
            **({"split_by": data.split.by} if data.split.by else {}),
        )
    dataset = Dataset.open(Path(path))
    if dataset.holds_notes:
        raise WavegenError(
            f"{path} holds notes, codec.kind={codec.kind} reads audio; set codec.kind=note_grid"
        )
    if dataset.sample_rate != data.sample_rate:
        raise WavegenError(
            f"{path} was prepared at {dataset.sample_rate} Hz, data.sample_rate is {data.sample_rate}; "
            "make them equal, or give the folder of recordings"
        )
    if dataset.channels != data.channels:
        raise WavegenError(
            f"{path} has {dataset.channels} channel(s), data.channels is {data.channels}; make them equal, or give "
            "the folder of recordings"
        )
    if local is not None and local.stored:
        wanted = (local.stored, local.hop_length)
        there = (dataset.feature_width, dataset.feature_hop)
        if there != wanted:
            has = f"{there[0]} every {there[1]} samples" if dataset.feature_hop else "none"
            raise WavegenError(
                f"model.local reads {wanted[0]} features every {wanted[1]} samples, {path} has {has}; "
                "change model.local, or leave it out"
            )
    return dataset


def _open_notes(data: DataConfig, codec: NoteCodec, new_in: str | Path | None) -> Dataset:
    if data.path is None:
        raise WavegenError("expected data.path, a folder of MIDI files, got none; set it")
    split = {"test": data.split.test, "valid": data.split.valid}
    path = prepared(
        data.path,
        data.cache,
        new_in=new_in,
        sample_rate=1,
        label_pattern=data.label_pattern,
        split=split,
        split_by=data.split.by,
        pedal=data.pedal,
        backend=data.backend,
        codec=codec,
    )
    dataset = Dataset.open(path)
    if not dataset.holds_notes or dataset.codec != codec.fingerprint:
        raise WavegenError(
            f"{path} does not hold the tokens of {codec}; give the folder of MIDI files, or the codec it was made with"
        )
    return dataset


def _open_rendered(data: DataConfig, local: PianoRollConditionConfig, new_in: str | Path | None) -> Dataset:
    if data.path is None:
        raise WavegenError("expected data.path, a folder of MIDI files to play, got none; set it")
    rendering = Rendering(local.hop_length, local.low, local.high)
    path = prepared(
        data.path,
        data.cache,
        new_in=new_in,
        sample_rate=data.sample_rate,
        label_pattern=data.label_pattern,
        split={"test": data.split.test, "valid": data.split.valid},
        split_by=data.split.by,
        pedal=data.pedal,
        backend=data.backend,
        rendering=rendering,
        shard_bytes=MIDI_SHARD_BYTES,
    )
    dataset = Dataset.open(path)
    there = dataset.manifest.format
    if (there.sample_rate, there.feature_hop, there.features) != (
        data.sample_rate,
        rendering.hop,
        rendering.columns,
    ):
        raise WavegenError(
            f"{path} does not hold the {rendering.columns} every {rendering.hop} samples at {data.sample_rate} Hz; "
            "give the folder of MIDI files, or the settings that it was made with"
        )
    return dataset


def expect_same_codec(dataset: Dataset, config: Config, codecs: Codecs) -> None:
    """Checks that tokens which were written beforehand are those that the model would be given.

    Raises:
        WavegenError: they are of another codec, or augmentation is asked for, which they cannot follow.
    """
    if not dataset.codec or dataset.holds_notes:
        return
    if not isinstance(codecs.tokens, LearnedCodec) or codecs.tokens.fingerprint != dataset.codec:
        raise WavegenError(
            f"{dataset.path} holds tokens of another codec than codec says; tokenize its recordings again"
        )
    if config.data.augment.gain_db or config.data.augment.polarity:
        raise WavegenError(
            f"{dataset.path} holds tokens, which cannot be augmented; leave data.augment out, or give the recordings"
        )
