"""The typed configuration: one YAML file is one experiment, checked whole before JAX starts.

A configuration is a tree of frozen pydantic models. ``load_config`` reads a YAML file, applies ``a.b=c`` overrides
from the command line, and refuses unknown keys with the nearest known ones. The resolved tree (with ``version``) is
written into the run folder and into every checkpoint, and loads back identically.
"""

import copy
import difflib
import math
import re
from collections.abc import Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from wavegen.data.splits import LabelPattern, SplitRule
from wavegen.errors import WavegenError

VERSION = 1


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


class SplitConfig(_Section):
    """Which files are held out: a fraction (chosen by a hash of the name) or a rule on a label, ``"take=0-4"``."""

    valid: float | str = 0.05
    test: float | str = 0.05

    @model_validator(mode="after")
    def _rules_can_be_read(self) -> "SplitConfig":
        SplitRule({"test": self.test, "valid": self.valid})
        return self


class AugmentConfig(_Section):
    """Random changes of a training crop, made on the device."""

    gain_db: float = Field(0.0, ge=0, le=40, description="gain drawn evenly from [-gain_db, 0] dB")
    polarity: bool = Field(False, description="flip the sign of half of the crops")
    input_noise: float = Field(
        0.0, ge=0, le=64, description="standard deviation, in levels, of noise on what the model reads alone"
    )


class DataConfig(_Section):
    """Where the recordings are and how they become batches."""

    path: str | None = Field(None, description="recordings, or a prepared dataset; none: the built-in corpus")
    sample_rate: int = Field(16000, ge=1000, le=384000, description="Hz")
    label_pattern: str | None = Field(None, description="'{digit}_{speaker}_{take}' or 'folder'")
    split: SplitConfig = SplitConfig()
    trim_silence_db: float | None = Field(None, gt=0, description="drop edges this far below the peak")
    backend: Literal["memmap", "array_record"] = "memmap"
    cache: str = Field("cache", description="folder for datasets prepared from a plain folder")
    crop: int = Field(8192, ge=16, description="samples per training example")
    batch_size: int = Field(8, ge=1, description="examples per step, over all devices and accumulation steps")
    augment: AugmentConfig = AugmentConfig()
    prefetch: int = Field(4, ge=0, description="batches read ahead")
    corpus_minutes: float = Field(12.0, gt=0, le=600, description="length of the built-in corpus")

    @model_validator(mode="after")
    def _pattern_can_be_read(self) -> "DataConfig":
        if self.label_pattern is not None:
            LabelPattern(self.label_pattern)
        return self


class MuLawConfig(_Section):
    """mu-law companding to ``levels`` tokens."""

    kind: Literal["mulaw"] = "mulaw"
    levels: int = Field(256, ge=4, le=65536)


class LinearConfig(_Section):
    """Even quantisation to ``levels`` tokens; 65536 is 16 bit, without loss."""

    kind: Literal["linear"] = "linear"
    levels: int = Field(65536, ge=4, le=65536)


class SashimiConfig(_Section):
    """Per-window scaling and 8-bit binning of the SaShiMi paper, for comparing published bits per sample."""

    kind: Literal["sashimi"] = "sashimi"
    quantization: Literal["linear", "mulaw"] = "mulaw"


CodecConfig = Annotated[MuLawConfig | LinearConfig | SashimiConfig, Field(discriminator="kind")]


class SoftmaxHeadConfig(_Section):
    """One logit per token."""

    kind: Literal["softmax"] = "softmax"


class MixtureHeadConfig(_Section):
    """Discretised mixture of logistics; for many levels (16 bit), where a softmax is too wide."""

    kind: Literal["mixture"] = "mixture"
    components: int = Field(10, ge=1, le=64)
    linear_prediction: int = Field(
        0, ge=0, le=64, description="order of the linear prediction that shifts the means; 0 is none"
    )


HeadConfig = Annotated[SoftmaxHeadConfig | MixtureHeadConfig, Field(discriminator="kind")]


class FeatureConditionConfig(_Section):
    """Local conditioning on the dataset's features at frame rate, with learned upsampling."""

    kind: Literal["features"] = "features"
    width: int = Field(..., ge=1, description="values per frame")
    channels: int = Field(64, ge=1, description="condition channels after the encoder")
    hop_length: int = Field(..., ge=1, description="samples per frame")
    upsample: tuple[int, ...] = Field(
        (), description="learned upsampling factors; what remains of the hop is held constant"
    )

    @model_validator(mode="after")
    def _factors_divide_the_hop(self) -> "FeatureConditionConfig":
        if min(self.upsample, default=1) < 1 or self.hop_length % math.prod(self.upsample):
            raise ValueError(f"upsample factors {self.upsample} must divide hop_length {self.hop_length}")
        return self


class NoteConditionConfig(_Section):
    """Conditioning on one melody: note features at frame rate and a sine excitation at the note's pitch."""

    kind: Literal["notes"] = "notes"
    channels: int = Field(32, ge=1)
    hop_length: int = Field(80, ge=1, description="samples per frame")
    harmonics: int = Field(2, ge=0, le=16, description="sine and cosine pairs in the excitation")


LocalConditionConfig = Annotated[FeatureConditionConfig | NoteConditionConfig, Field(discriminator="kind")]


class WaveNetConfig(_Section):
    """WaveNet (van den Oord et al. 2016, arXiv:1609.03499)."""

    kind: Literal["wavenet"] = "wavenet"
    kernel_size: int = Field(2, ge=2, le=16)
    dilations: tuple[int, ...] = Field((1, 2, 4, 8, 16, 32, 64, 128, 256, 512), min_length=1)
    cycles: int = Field(2, ge=1, le=16, description="how many times the dilations are repeated")
    residual_channels: int = Field(64, ge=1, le=4096)
    gate_channels: int = Field(64, ge=1, le=4096, description="width of each half of the gate")
    skip_channels: int = Field(128, ge=1, le=8192)
    head_channels: int = Field(128, ge=1, le=8192)
    input: Literal["embedding", "scalar"] = "embedding"
    input_kernel_size: int = Field(1, ge=1, le=64)
    dropout: float = Field(0.0, ge=0, lt=1)
    head: HeadConfig = SoftmaxHeadConfig()
    global_fields: tuple[str, ...] = Field((), description="label fields of the dataset to condition on")
    global_channels: int = Field(16, ge=1)
    local: LocalConditionConfig | None = None

    @model_validator(mode="after")
    def _positive_dilations(self) -> "WaveNetConfig":
        if min(self.dilations) < 1:
            raise ValueError(f"dilations must be at least 1, got {self.dilations}")
        if len(self.dilations) * self.cycles > 256:
            raise ValueError(f"{len(self.dilations)} dilations x {self.cycles} cycles is over 256 layers")
        return self


class OptimizerConfig(_Section):
    """AdamW with linear warm-up and cosine decay."""

    learning_rate: float = Field(2e-3, gt=0, lt=1)
    warmup_steps: int = Field(100, ge=0)
    final_fraction: float = Field(0.02, ge=0, le=1, description="last learning rate as a share of the peak")
    weight_decay: float = Field(1e-4, ge=0, lt=1)
    b1: float = Field(0.9, ge=0, lt=1)
    b2: float = Field(0.98, ge=0, lt=1)
    clip_norm: float = Field(1.0, gt=0)
    ema_decay: float = Field(0.99, ge=0, lt=1, description="0 keeps no average")
    accumulate: int = Field(1, ge=1, description="microbatches per step")
    max_bad_steps: int = Field(20, ge=1, description="stop after this many non-finite steps in a row")


class MeshConfig(_Section):
    """Devices along each axis; -1 takes what is left."""

    data: int = Field(-1, ge=-1)
    fsdp: int = Field(1, ge=1)
    cpu_devices: int = Field(1, ge=1, le=256, description="how many a CPU is split into; one a core is best")


class TrainingConfig(_Section):
    """How long, how exactly, and what is written on the way."""

    objective: Literal["next_token"] = "next_token"
    steps: int = Field(1000, ge=1)
    precision: Literal["float32", "bfloat16"] = "float32"
    log_every: int = Field(10, ge=1)
    evaluate_every: int = Field(500, ge=1)
    evaluate_batches: int = Field(16, ge=1, description="batches of the validation split per evaluation")
    checkpoint_every: int = Field(500, ge=1)
    keep_latest: int = Field(2, ge=1)
    keep_best: int = Field(1, ge=0)
    sample_every: int = Field(0, ge=0, description="steps between audio samples; 0: only at the end")
    sample_seconds: float = Field(2.0, gt=0)
    sample_count: int = Field(2, ge=1)
    mesh: MeshConfig = MeshConfig()


class SamplingConfig(_Section):
    """How audio is drawn unless the one who asks says otherwise."""

    temperature: float = Field(1.0, ge=0, le=10)


class Config(_Section):
    """One experiment."""

    version: int = Field(VERSION, ge=VERSION, le=VERSION)
    name: str = Field("run", pattern=r"^[\w.-]+$", description="the run folder is runs/NAME")
    seed: int = Field(0, ge=0, lt=2**32)
    data: DataConfig = DataConfig()
    codec: CodecConfig = MuLawConfig()
    model: WaveNetConfig = WaveNetConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    training: TrainingConfig = TrainingConfig()
    sampling: SamplingConfig = SamplingConfig()

    @model_validator(mode="after")
    def _parts_fit(self) -> "Config":
        levels = getattr(self.codec, "levels", 256)
        if self.model.head.kind == "softmax" and levels > 4096:
            raise ValueError(f"a softmax over {levels} levels is too wide; use model.head.kind=mixture")
        if self.model.input == "embedding" and levels > 4096:
            raise ValueError(f"an embedding of {levels} levels is too large; use model.input=scalar")
        if self.data.batch_size % self.optimizer.accumulate:
            raise ValueError(
                f"batch_size {self.data.batch_size} must be a multiple of accumulate {self.optimizer.accumulate}"
            )
        if self.model.local is not None and self.data.crop % self.model.local.hop_length:
            raise ValueError(
                f"crop {self.data.crop} must be a multiple of local.hop_length {self.model.local.hop_length}"
            )
        if self.optimizer.warmup_steps >= self.training.steps:
            raise ValueError(
                f"warmup_steps {self.optimizer.warmup_steps} must be less than training.steps {self.training.steps}"
            )
        if self.training.sample_every % self.training.evaluate_every:
            raise ValueError(
                f"sample_every {self.training.sample_every} must be a multiple of "
                f"evaluate_every {self.training.evaluate_every}"
            )
        return self


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads ``1e-4`` as text; this one reads it as the number that was meant."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d+)([eE][-+]?\d+)?$|^[-+]?\.(inf|Inf)$|^\.(nan|NaN)$"),
    list("-+0123456789."),
)


def _yaml(text: str, source: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise WavegenError(f"{source} is not valid YAML: {reason}") from None


def _sections(annotation: Any) -> list[type[BaseModel]]:
    """The configuration classes that a field may hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) is Annotated:
        return _sections(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [section for option in get_args(annotation) for section in _sections(option)]
    return []


def _all_keys(section: type[BaseModel], prefix: str = "") -> list[str]:
    keys = []
    for name, field in section.model_fields.items():
        keys.append(prefix + name)
        for inner in _sections(field.annotation):
            keys.extend(_all_keys(inner, f"{prefix}{name}."))
    return list(dict.fromkeys(keys))


def _complete(tree: dict, section: type[BaseModel], prefix: str = "") -> None:
    """Refuses unknown keys, and names the default kind where none is, so that ``codec.levels=1024`` alone works."""
    for name, value in tree.items():
        if name not in section.model_fields:
            raise _unknown_key(f"{prefix}{name}", section)
        field = section.model_fields[name]
        options = _sections(field.annotation)
        if not (options and isinstance(value, dict)):
            continue
        if len(options) > 1 and field.default is not None:
            value.setdefault("kind", field.default.kind)
        for option in options:
            if len(options) == 1 or option.model_fields["kind"].default == value.get("kind"):
                _complete(value, option, f"{prefix}{name}.")


def _unknown_key(key: str, section: type[BaseModel]) -> WavegenError:
    known = _all_keys(Config)
    near = difflib.get_close_matches(key, known, n=2, cutoff=0.5)
    near += [k for k in known if k.split(".")[-1] == key.split(".")[-1] and k not in near][:2]
    hint = f"did you mean {' or '.join(near)}?" if near else f"known here: {', '.join(section.model_fields)}"
    return WavegenError(f"unknown configuration key '{key}'; {hint}")


def _apply(tree: dict, override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise WavegenError(
            f"an override is written key=value, for example optimizer.learning_rate=1e-3; got '{override}'"
        )
    *parents, leaf = key.split(".")
    node = tree
    for parent in parents:
        child = node.setdefault(parent, {})
        if not isinstance(child, dict):
            child = node[parent] = {}
        node = child
    node[leaf] = _yaml(text, f"the value of '{key}'")


def resolve(tree: dict, overrides: Sequence[str] = ()) -> Config:
    """Checks a plain tree (as read from YAML or a checkpoint), with overrides, into a ``Config``.

    Args:
        tree: nested dictionaries; missing keys take their defaults.
        overrides: ``a.b=c`` texts; the value is read as YAML.

    Returns:
        The frozen configuration.

    Raises:
        WavegenError: an unknown key, a value out of range, parts that do not fit, a newer version.
    """
    tree = copy.deepcopy(tree)
    for override in overrides:
        _apply(tree, override)
    version = tree.get("version", VERSION)
    if version != VERSION:
        raise WavegenError(
            f"the configuration has version {version}, this wavegen reads version {VERSION}; update wavegen"
        )
    _complete(tree, Config)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        # Pydantic's place also holds the kinds of the sections that it went through, which are no keys.
        keys = {key.split(".")[-1] for key in _all_keys(Config)}
        place = (
            ".".join(str(part) for part in first["loc"] if part in keys or isinstance(part, int)) or "config"
        )
        message = first["msg"].removeprefix("Value error, ")
        got = f" (got {first['input']!r})" if not isinstance(first["input"], dict) else ""
        raise WavegenError(f"configuration error at {place}: {message}{got}") from None


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Reads one experiment.

    Args:
        path: a YAML file.
        overrides: ``a.b=c`` texts.

    Returns:
        The frozen configuration.

    Raises:
        WavegenError: the file is missing, is not YAML, or does not pass ``resolve``.
    """
    path = Path(path)
    if not path.is_file():
        there = sorted(p.as_posix() for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.as_posix(), there, n=2, cutoff=0.4)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise WavegenError(f"no configuration file {path}{hint}")
    tree = _yaml(path.read_text(), str(path)) or {}
    if not isinstance(tree, dict):
        raise WavegenError(f"{path} must hold key: value pairs, got {type(tree).__name__}")
    return resolve(tree, overrides)


def dump_config(config: Config) -> str:
    """The resolved configuration as YAML text that ``load_config`` reads back identically."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
