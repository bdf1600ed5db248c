"""The one law of the tree: an import points down the list of layers, never up."""

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "wavegen"
# Sections of the configuration and the contracts of codecs come before the networks that are built for them.
LAYERS = (
    *(
        "types",
        "errors",
        "locks",
        "stopping",
        "bounded",
        "losses",
        "progress",
        "metrics",
        "atomic",
        "sealed",
        "audio_files",
        "audio",
        "kernels",
        "config",
        "codecs.base",
        "networks",
        "spectral",
        "notes",
    ),
    *("pictures", "codecs", "data", "models", "samplers", "runs", "training", "generation"),
    *("evaluation", "study", "bench", "app", "cli"),
)
MODULES = sorted(p.relative_to(PACKAGE.parent) for p in PACKAGE.rglob("*.py"))


def layer(module: str) -> int | None:
    """The number of a module's layer, from its dotted name behind ``wavegen.``; None for the root."""
    names = [name for name in LAYERS if module == name or module.startswith(name + ".")]
    return LAYERS.index(max(names, key=len)) if names else None


def imported(path: Path) -> Iterator[str]:
    """What a module imports from the package, dotted, behind ``wavegen.``; imports inside functions too."""
    for node in ast.walk(ast.parse((PACKAGE.parent / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "wavegen":
            for alias in node.names:
                yield f"{node.module}.{alias.name}".removeprefix("wavegen.")
        elif isinstance(node, ast.Import):
            yield from (a.name.removeprefix("wavegen.") for a in node.names if a.name.startswith("wavegen."))


def test_every_package_has_a_layer():
    for path in MODULES:
        name = ".".join(path.with_suffix("").parts[1:])
        assert layer(name) is not None or name in ("__init__", "__main__"), f"{path} is in no layer"


def test_imports_point_down():
    upward = []
    for path in MODULES:
        own = layer(".".join(path.with_suffix("").parts[1:]))
        for name in imported(path) if own is not None else ():
            there = layer(name)
            if there is not None and there > own:
                upward.append(f"{path} imports {name}, which lies above it")
    assert not upward, "\n".join(upward)
