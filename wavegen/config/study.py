"""A study: datasets x models x settings x seeds, each an experiment of its own, in one YAML file.

An experiment of the study is ``base``, changed by its dataset, its model, its setting, the command line and its seed,
in that order. Changes are written as in an experiment's file, or with dots: ``model: {dropout: 0.1}`` is
``model.dropout: 0.1``. A section that names its ``kind`` takes the place of the one before it; of any other section
only the named values change.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, StringConstraints, model_validator

from wavegen.config.experiment import Config
from wavegen.config.files import apply_override, checked, read_tree, resolve, unknown_key
from wavegen.config.section import Section
from wavegen.config.shipped import find
from wavegen.errors import WavegenError

_Name = Annotated[str, StringConstraints(pattern=r"^[\w-][\w.-]*$")]
_Changes = dict[str, Any]


class SampleConfig(Section):
    """What each trained model generates, to be listened to, timed and searched for repetition."""

    length: int = Field(128, ge=4, le=100_000, description="of notes: steps of the grid, or events")
    seconds: float = Field(1.0, ge=1e-3, le=3600, description="of audio")
    count: int = Field(4, ge=1, le=1000, description="clips; the first one is written")


class StudyConfig(Section):
    """The file of a study."""

    name: _Name
    base: str | _Changes = Field(
        default_factory=dict,
        description="a configuration: its file, seen from the study's, or what it would hold",
    )
    datasets: dict[_Name, _Changes] = Field(..., min_length=1)
    models: dict[_Name, _Changes] = Field(..., min_length=1)
    settings: dict[_Name, _Changes] = Field({"plain": {}}, min_length=1)
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    equal_parameters: float | None = Field(
        None, ge=0, le=1, description="by how much the largest model may exceed the smallest one"
    )
    train_batches: int = Field(
        100, ge=1, le=10**6, description="of the training split that are measured at the end"
    )
    samples: SampleConfig = SampleConfig()

    @model_validator(mode="after")
    def _seeds_differ(self) -> "StudyConfig":
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must differ, got {list(self.seeds)}")
        return self


@dataclass(frozen=True)
class Cell:
    """One experiment of a study.

    Attributes:
        dataset: name in the study, like those that follow.
        model: see ``dataset``.
        setting: see ``dataset``.
        seed: of the experiment.
        config: the experiment, whose name is that of the cell.
    """

    dataset: str
    model: str
    setting: str
    seed: int
    config: Config


@dataclass(frozen=True)
class Study:
    """A study, resolved.

    Attributes:
        config: what its file says.
        cells: all experiments; every combination has had its first seed before the next seed begins.
    """

    config: StudyConfig
    cells: tuple[Cell, ...]


def load_study(path: str | Path, overrides: Sequence[str] = ()) -> Study:
    """Reads a study and resolves all its experiments.

    Args:
        path: a YAML file, or the name of a study that comes with the package.
        overrides: ``a.b=c`` texts: of the study (``seeds=[0]``, ``datasets.jsb.data.path=...``) or of all its
            experiments (``training.steps=100``).

    Raises:
        WavegenError: the file is missing, or the study or one of its experiments cannot be resolved.
    """
    path = find(path, "studies")
    tree = read_tree(path, "studies")
    common = []
    for override in overrides:
        key = override.partition("=")[0]
        head = key.split(".")[0]
        if head == "seed":
            raise WavegenError(f"the experiments of a study have seeds, got {override}; set seeds=[0, 1, 2]")
        if head in StudyConfig.model_fields:
            apply_override(tree, override)
        elif head in Config.model_fields:
            common.append(override)
        else:
            raise unknown_key(key, StudyConfig, Config, here=StudyConfig)
    study = checked(tree, StudyConfig)
    base = study.base if isinstance(study.base, dict) else read_tree(path.parent / study.base)
    names = product(study.seeds, study.datasets, study.settings, study.models)
    return Study(study, tuple(_cell(study, base, common, *each) for each in names))


def _cell(
    study: StudyConfig, base: dict, common: Sequence[str], seed: int, dataset: str, setting: str, model: str
) -> Cell:
    name = f"{dataset}-{model}-{setting}-{seed}"
    parts = (study.datasets[dataset], study.models[model], study.settings[setting])
    changes = [text for part in parts for text in _overrides(part)]
    try:
        config = resolve(base, [*changes, *common, f"seed={seed}", f"name={name}"])
    except WavegenError as error:
        raise WavegenError(f"{name}: {error}") from None
    if config.model.is_codec:
        raise WavegenError(
            f"{name}: a study compares models of tokens, got model.kind={config.model.kind}, a codec"
        )
    return Cell(dataset, model, setting, seed, config)


def _overrides(changes: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Changes as ``a.b=c`` texts."""
    for key, value in changes.items():
        if isinstance(value, dict) and "kind" not in value:
            yield from _overrides(value, f"{prefix}{key}.")
        else:
            # JSON is YAML on one line.
            yield f"{prefix}{key}={json.dumps(value)}"
