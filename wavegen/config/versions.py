"""Reads configurations of earlier versions: what a setting was called, and what it is called now.

Version 2 renamed settings and changed none. A tree without a version may use either version's names, as files that
people write by hand rarely name one.
"""

from collections.abc import Mapping
from typing import Any

MODEL_NAMES: Mapping[str, str] = {
    "global_fields": "label_fields",
    "global_channels": "label_channels",
    "condition_dropout": "label_dropout",
    "reconstruction": "memory_loss",
}
"""Settings of networks, of version 1 and of version 2."""


def upgraded(tree: Mapping[str, Any], version: int) -> dict[str, Any]:
    """A tree of settings with today's names.

    Args:
        tree: a configuration, or a part of one, as read from YAML or from a file of weights.
        version: that the result has; a tree that names this version is returned as it is.

    Returns:
        A new tree; the one that is given is not changed.
    """
    if tree.get("version") == version:
        return dict(tree)
    new = {**tree, "version": version}
    if isinstance(tree.get("model"), Mapping):
        new["model"] = upgraded_network(tree["model"])
    if isinstance(tree.get("codec"), Mapping):
        new["codec"] = _codec(tree["codec"])
    return new


def upgraded_network(section: Mapping[str, Any]) -> dict[str, Any]:
    """The section of a network with today's names."""
    new = {MODEL_NAMES.get(name, name): value for name, value in section.items()}
    quantizer, local = new.get("quantizer"), new.get("local")
    if isinstance(quantizer, Mapping) and quantizer.get("kind") == "residual":
        new["quantizer"] = {**quantizer, "kind": "gradient"}
    if isinstance(local, Mapping) and isinstance(local.get("codec"), Mapping):
        new["local"] = {**local, "codec": _codec(local["codec"])}
    return new


def _codec(section: Mapping[str, Any]) -> dict[str, Any]:
    """Of a learned codec ``levels`` were the codebooks that are used; of mu-law they still are levels."""
    learned = "run" in section or "pretrained" in section
    return {"codebooks" if learned and k == "levels" else k: value for k, value in section.items()}
