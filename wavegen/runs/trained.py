"""Trained models and codecs, opened again: from a run folder, a file, or a published codec's folder."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import PyTree
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wavegen.codecs.base import Codec, Codecs
from wavegen.codecs.learned import LearnedCodec, freeze
from wavegen.codecs.make import LEARNED, make_codec
from wavegen.config import Config, load_config, resolve
from wavegen.config.codecs import TrainedCodecConfig
from wavegen.config.data import DataConfig
from wavegen.config.section import CodecSection
from wavegen.config.versions import upgraded_network
from wavegen.errors import WavegenError
from wavegen.models.kinds import make_model
from wavegen.networks.base import Given, parameters
from wavegen.networks.initial import Draws
from wavegen.runs.checkpoints import Checkpoints
from wavegen.runs.same import differences
from wavegen.runs.shipped import find, shipped
from wavegen.runs.weights import read_weights, write_weights

CODEC_FILES = {"tokens": "codec.safetensors", "condition": "condition.safetensors"}
"""Where a run keeps its copies of the learned codecs that it reads through."""


Label = Annotated[str, Field(max_length=2**16)]


class _Card(BaseModel):
    """What a file of weights, or a checkpoint, says of them; the configuration has a schema of its own."""

    model_config = ConfigDict(frozen=True, strict=True)

    config: dict[str, Any]
    labels: dict[Label, list[Label]]
    codecs: dict[Literal["tokens", "condition"], Annotated[list[Any], Field(min_length=2, max_length=2)]] = {}
    reads: dict[str, str] = {}  # checkpoints of before have none


class _CodecCard(BaseModel):
    """What is kept of a learned codec: the card of its network, and how many codebooks are used."""

    model_config = ConfigDict(frozen=True, strict=True)

    card: dict[str, Any]
    codebooks: int = Field(ge=1, le=2**16)


class Trained(NamedTuple):
    """Weights with all that is needed to use them; arrays of numpy."""

    config: Config
    labels: dict[str, list[str]]
    params: PyTree
    codecs: Codecs


def open_trained(path: str | Path | None, step: int | None = None) -> Trained:
    """Opens a run folder (averaged weights of a checkpoint) or a file that ``save_trained`` wrote.

    Args:
        path: of the folder or file, the name of a shipped model, or None for the shipped instrument.
        step: of a run's checkpoint; None is the newest sound one.

    Raises:
        WavegenError: there is no such run or file, it is damaged, or of a newer version.
    """
    path = find(path)
    if not path.exists():
        raise WavegenError(
            f"no run folder or .safetensors file at {path}, and no shipped model of that name (there are "
            f"{', '.join(shipped())}); train one with `wavegen train`"
        )
    return _open_run(path, step) if path.is_dir() else _open_file(path)


def without_paths(config: Config, path: Path, data: str | Path | None) -> Config:
    """The configuration in the card of a file, whoever wrote it, without the paths that it names.

    Args:
        config: from the card.
        path: of the file.
        data: what is to be read instead of ``data.path``; None where nothing else is given.

    Raises:
        WavegenError: nothing is given, and the model was trained on recordings.
    """
    if data is None and config.data.path is not None:
        raise WavegenError(
            f"{path} was trained on recordings that are not part of it; give them, or others, with --data FOLDER"
        )
    there = {"path": None if data is None else str(data), "cache": DataConfig().cache}
    return config.model_copy(update={"data": config.data.model_copy(update=there)})


def rebuild(trained: Trained) -> tuple[nnx.GraphDef, PyTree]:
    """The structure of a trained network, and its weights on the device.

    Raises:
        WavegenError: the weights do not fit the configuration.
    """
    most = sum(leaf.size for leaf in jax.tree.leaves(trained.params))
    graph, fresh = parameters(make_model(trained.config, trained.codecs, trained.labels, most))
    return graph, fitting(trained.params, fresh)


def save_trained(path: str | Path, trained: Trained) -> Path:
    """Writes a model, and the learned codecs that it reads through, as one safetensors file.

    Raises:
        WavegenError: see ``write_weights``.
    """
    learned = {name: c for name, c in trained.codecs._asdict().items() if isinstance(c, LearnedCodec)}
    for name, codec in learned.items():
        if not codec.card:
            raise WavegenError(
                f"the {name} codec stays in files of its own, {path} cannot hold it; use the run folder"
            )
    card = {
        "config": _without_folders(trained.config.model_dump(mode="json")),
        "labels": {field: list(values) for field, values in trained.labels.items()},
        "codecs": {name: [json.loads(codec.card), codec.codebooks] for name, codec in learned.items()},
    }
    if trained.config.model.is_codec:
        return write_weights(path, {}, card, trained.params)
    exact = {f"{name}_codec": codec.params for name, codec in learned.items()}
    return write_weights(path, trained.params, card, exact)


_PLACES = {"path", "cache", "run", "pretrained", "codebook", "start_from"}
"""Settings that are paths."""


def _without_folders(tree: dict[str, Any]) -> dict[str, Any]:
    """A configuration whose paths are names alone: a file that others get does not say how this machine is laid out."""
    return {
        key: _without_folders(value)
        if isinstance(value, dict)
        else Path(value).name
        if key in _PLACES and isinstance(value, str)
        else value
        for key, value in tree.items()
    }


def open_codecs(config: Config, folder: Path | None = None) -> Codecs:
    """Opens what the model of an experiment reads through.

    Args:
        config: the experiment.
        folder: of its run, whose own copies of learned codecs go first.

    Raises:
        WavegenError: a codec is missing, damaged, or of another sample rate, hop length or number of channels.
    """
    local, data = config.model.local, config.data
    kept = {name: folder / file for name, file in CODEC_FILES.items()} if folder else {}
    tokens = condition = None
    if not config.model.is_codec:
        tokens = _open_codec(config.codec, data, kept.get("tokens"))
    if local is not None and local.through is not None:
        condition = _open_learned(local.through, data, kept.get("condition"))
        if condition.hop_length != local.hop_length:
            raise WavegenError(
                f"model.local.hop_length is {local.hop_length}, the codec has {condition.hop_length}; make them equal"
            )
    return Codecs(tokens, condition)


def keep_codecs(folder: Path, codecs: Codecs) -> None:
    """Copies learned codecs into a run folder, so that the run does not depend on where they came from."""
    for name, codec in codecs._asdict().items():
        if isinstance(codec, LearnedCodec) and codec.card:
            write_weights(folder / CODEC_FILES[name], {}, json.loads(codec.card), codec.params)


def fingerprints(codecs: Codecs) -> dict[str, str]:
    """What a checkpoint says of the learned codecs that its model reads through: the sha256 of each one's weights."""
    learned = {name: c for name, c in codecs._asdict().items() if isinstance(c, LearnedCodec)}
    return {name: codec.fingerprint for name, codec in learned.items()}


def expect_same_codecs(found: dict[str, str], reads: dict[str, str], folder: Path) -> None:
    """Compares the codecs of a run with those that a checkpoint of it was trained with.

    Args:
        found: ``fingerprints`` of the run's codecs.
        reads: those that the checkpoint has; one that an older version wrote has none.
        folder: of the run.

    Raises:
        WavegenError: a codec is another one.
    """
    for name, fingerprint in reads.items():
        if found.get(name) != fingerprint:
            raise WavegenError(
                f"{folder / CODEC_FILES.get(name, name)} is not the codec with which the run was trained; "
                "put the run's own file back"
            )


def freeze_codec(trained: Trained) -> LearnedCodec:
    """The codec that a codec run learned.

    Raises:
        WavegenError: the run learned something else.
    """
    if not trained.config.model.is_codec:
        raise WavegenError(
            f"expected a run that learned a codec, got one of model.kind={trained.config.model.kind}; "
            "train one with configs/fsdd-codec.yaml"
        )
    model, data = trained.config.model, trained.config.data
    card = {
        "sample_rate": data.sample_rate,
        "channels": data.channels,
        model.kind: model.model_dump(mode="json"),
    }
    return _thaw(card, trained.params)


def _thaw(card: dict[str, Any], params: PyTree) -> LearnedCodec:
    try:
        # Codecs that were written before there were stereo ones do not say.
        data = DataConfig(sample_rate=card["sample_rate"], channels=card.get("channels", 1))
        [(kind, section)] = [(k, s) for s in LEARNED if (k := s.model_fields["kind"].default) in card]
        config = section.model_validate(upgraded_network(dict(card[kind])))
    except (KeyError, ValueError, TypeError) as error:
        raise WavegenError(f"a codec's card is damaged ({error}); copy or export the codec again") from None
    most = sum(leaf.size for leaf in jax.tree.leaves(params))
    network = LEARNED[section].make(config, Given(data), Draws(0, most))
    codec = freeze(network, sample_rate=data.sample_rate, card=json.dumps(card))
    return replace(codec, params=fitting(params, codec.params))


def _open_codec(section: CodecSection, data: DataConfig, kept: Path | None) -> Codec:
    if section.of == "frames":
        return _open_learned(section, data, kept)
    return make_codec(section).with_window(data.crop)


def _open_learned(section: CodecSection, data: DataConfig, kept: Path | None) -> LearnedCodec:
    if kept is not None and kept.exists():
        params, card = read_weights(kept)
        codec = _thaw(card, params)
    elif isinstance(section, TrainedCodecConfig):  # the one codec that is a run, and so opened here
        codec = freeze_codec(open_trained(section.run))
    else:
        opened = make_codec(section)
        assert isinstance(opened, LearnedCodec)
        codec = opened
    if codec.sample_rate != data.sample_rate:
        raise WavegenError(
            f"the codec is of {codec.sample_rate} Hz, data.sample_rate is {data.sample_rate}; make them equal"
        )
    if codec.audio_channels != data.channels:
        raise WavegenError(
            f"the codec has {codec.audio_channels} channel(s), data.channels is {data.channels}; make them equal"
        )
    codebooks = getattr(section, "codebooks", 0)
    return codec.with_codebooks(codebooks) if codebooks else codec


def _open_run(folder: Path, step: int | None) -> Trained:
    if not (folder / "checkpoints").is_dir():
        raise WavegenError(
            f"{folder} is not a run folder (it has no checkpoints); give the folder that wavegen train named"
        )
    with Checkpoints(folder / "checkpoints") as checkpoints:
        card = _card(folder, checkpoints.config(step))
        config = resolve(card.config)
        stated = folder / "config.yaml"
        if stated.exists() and (different := differences(load_config(stated), config)):
            raise WavegenError(
                f"{folder} holds a checkpoint of another run ({different[0]} by the checkpoint); "
                "put the run's own checkpoints back"
            )
        codecs = open_codecs(config, folder)
        expect_same_codecs(fingerprints(codecs), card.reads, folder)
        fresh = jax.eval_shape(lambda: parameters(make_model(config, codecs, card.labels))[1])
        params, _ = checkpoints.restore_weights(fresh, step)
    return Trained(config, card.labels, jax.tree.map(np.asarray, params), codecs)


def _open_file(path: Path) -> Trained:
    params, values = read_weights(path)
    card = _card(path, values)
    labels = card.labels
    try:
        config = resolve(card.config)
        kept = {
            name: _CodecCard(card=described, codebooks=codebooks)
            for name, (described, codebooks) in card.codecs.items()
        }
    except ValueError as error:
        raise _damaged(path, error) from None
    learned = {
        name: _thaw(codec.card, params.pop(f"{name}_codec", {})).with_codebooks(codec.codebooks)
        for name, codec in kept.items()
    }
    if config.model.is_codec:
        return Trained(config, labels, params, Codecs(None))
    tokens: Codec | None = learned.get("tokens")
    if tokens is None and config.codec.of == "frames":
        # Its section names a file or a folder, of whoever wrote the card.
        raise WavegenError(f"{path} lacks the codec that its model reads through; export it again")
    if tokens is None:
        tokens = _open_codec(config.codec, config.data, None)
    return Trained(config, labels, params, Codecs(tokens, learned.get("condition")))


def _card(path: Path, values: Any) -> _Card:
    try:
        return _Card.model_validate(values)
    except ValidationError as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: ValueError) -> WavegenError:
    return WavegenError(f"{path} holds a damaged wavegen card ({error}); copy or export it again")


def fitting(params: PyTree, fresh: PyTree) -> PyTree:
    """The parameters on the device, if they are of the shapes of fresh ones.

    Raises:
        WavegenError: they are not.
    """
    if shapes_of(fresh) != shapes_of(params):
        raise WavegenError("the weights do not fit the configuration they came with; the file is damaged")
    return jax.tree.map(lambda old, new: jnp.asarray(new, old.dtype), fresh, params)


def shapes_of(params: PyTree) -> list[tuple[str, tuple[int, ...]]]:
    """The path and the shape of every array."""
    return [(jax.tree_util.keystr(path), leaf.shape) for path, leaf in jax.tree.leaves_with_path(params)]
