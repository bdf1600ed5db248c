"""Configurations as YAML files with overrides, checked with one line that says what is wrong."""

import copy
import difflib
from collections.abc import Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from wavegen.bounded import read_text
from wavegen.config.experiment import VERSION, Config
from wavegen.config.shipped import find, shipped
from wavegen.config.versions import upgraded
from wavegen.config.yaml_text import LARGEST, parse_yaml
from wavegen.errors import WavegenError

Checked = TypeVar("Checked", bound=BaseModel)


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


def _complete(tree: dict, section: type[BaseModel], root: type[BaseModel], prefix: str = "") -> None:
    """Refuses unknown keys, and names the default kind where none is, so that ``codec.levels=1024`` alone works."""
    for name, value in tree.items():
        if name not in section.model_fields:
            raise unknown_key(f"{prefix}{name}", root, here=section)
        field = section.model_fields[name]
        options = _sections(field.annotation)
        if not (options and isinstance(value, dict)):
            continue
        if len(options) > 1 and "kind" not in value:
            # The default's kind, unless all that another needs is there: {run: ...} is a trained codec.
            defaults = [option for option in options if isinstance(field.default, option)]
            if chosen := [o for o in options if set() < _required(o) <= value.keys()] or defaults:
                value["kind"] = chosen[0].model_fields["kind"].default
        for option in options:
            if len(options) == 1 or option.model_fields["kind"].default == value.get("kind"):
                _complete(value, option, root, f"{prefix}{name}.")


def _required(section: type[BaseModel]) -> set[str]:
    return {name for name, field in section.model_fields.items() if field.is_required()}


def unknown_key(key: str, *roots: type[BaseModel], here: type[BaseModel]) -> WavegenError:
    """The error for a key that no section of the trees has: it names the nearest ones, or those of one section."""
    known = [k for root in roots for k in _all_keys(root)]
    near = difflib.get_close_matches(key, known, n=2, cutoff=0.5)
    near += [k for k in known if k.split(".")[-1] == key.split(".")[-1] and k not in near][:2]
    hint = f"did you mean {' or '.join(near)}?" if near else f"known here: {', '.join(here.model_fields)}"
    return WavegenError(f"unknown configuration key '{key}'; {hint}")


def apply_override(tree: dict, override: str) -> None:
    """Changes a plain tree in place as ``a.b=c`` says; the value is read as YAML."""
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
    node[leaf] = parse_yaml(text, f"the value of '{key}'")


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
        apply_override(tree, override)
    version = tree.get("version", VERSION)
    if not isinstance(version, int) or not 1 <= version <= VERSION:
        raise WavegenError(
            f"the configuration has version {version}, this wavegen reads versions 1 to {VERSION}; update wavegen"
        )
    tree = upgraded(tree, VERSION)
    return checked(tree, Config)


def checked(tree: dict, root: type[Checked]) -> Checked:
    """A plain tree as a section, with defaults and kinds filled in.

    Raises:
        WavegenError: an unknown key, or a value that the section refuses.
    """
    _complete(tree, root, root)
    try:
        return root.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        place = (
            ".".join(_place(root, first["loc"])) or root.__name__.removesuffix("Config").lower() or "config"
        )
        message = first["msg"].removeprefix("Value error, ")
        got = f" (got {first['input']!r})" if not isinstance(first["input"], dict) else ""
        raise WavegenError(f"configuration error at {place}: {message}{got}") from None


def _place(section: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Pydantic's place without the kinds of the sections that it went through, which are no keys."""
    if not location or location[0] not in section.model_fields:
        return [str(part) for part in location]
    name, rest = str(location[0]), location[1:]
    options = _sections(section.model_fields[name].annotation)
    if len(options) > 1 and rest:
        options, rest = [o for o in options if o.model_fields["kind"].default == rest[0]], rest[1:]
    return [name, *(_place(options[0], rest) if options else map(str, rest))]


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Reads one experiment.

    Args:
        path: a YAML file, or the name of a configuration that comes with the package, such as ``"quickstart"``.
        overrides: ``a.b=c`` texts.

    Returns:
        The frozen configuration.

    Raises:
        WavegenError: the file is missing, is not YAML, or does not pass ``resolve``.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from wavegen import load_config
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "digits.yaml"
        ...     _ = path.write_text("model: {label_fields: [digit]}")
        ...     load_config(path, ["training.steps=2000"]).training.steps
        2000
    """
    return resolve(read_tree(path), overrides)


def read_tree(path: str | Path, kind: str = "") -> dict:
    """The key: value pairs of a YAML file.

    Args:
        path: the file, or the name of a shipped one.
        kind: see ``wavegen.config.shipped.shipped``.

    Raises:
        WavegenError: the file is missing, no file, larger than 64 KiB or not UTF-8, or holds something else.
    """
    path = find(path, kind)
    if not path.exists():
        there = sorted(p.as_posix() for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.as_posix(), [*there, *shipped(kind)], n=2, cutoff=0.4)
        hint = f"; did you mean {' or '.join(near)}?" if near else "; `wavegen configs` lists what is shipped"
        raise WavegenError(f"no configuration file {path}{hint}")
    tree = parse_yaml(read_text(path, LARGEST, "a configuration", "shorten it"), str(path))
    tree = {} if tree is None else tree
    if not isinstance(tree, dict):
        raise WavegenError(f"{path} must hold key: value pairs, got {type(tree).__name__}")
    return tree


def dump_config(config: Config) -> str:
    """The resolved configuration as YAML text that ``load_config`` reads back identically."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
