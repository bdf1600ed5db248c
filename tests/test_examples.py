"""The examples of docstrings run, each in an empty namespace, and print what they promise.

They are read from the source, as jaxtyping's wrappers hide functions from doctest's own search.
"""

import ast
import doctest
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest

import wavegen
import wavegen.kernels

EXTRAS = {"array_record", "fastapi", "librosa", "starlette", "symusic", "torch", "transformers", "uvicorn"}
"""Packages that a module may need and an installation may lack."""

SKIPPED = {
    *("MaskedGenerator", "NoteGenerator", "Reconstructor", "WindowGenerator"),
    *("Song", "compose_song"),
    "serve",
}
"""What has examples that are skipped: they need a run that does not ship, or go on until they are stopped."""


class Docstring(NamedTuple):
    """The examples of one docstring, by the name of what it describes, such as ``Audio.read``."""

    name: str
    examples: doctest.DocTest


def modules() -> dict[str, Path]:
    """Every module with an example, by its name."""
    found = {}
    for package in (wavegen, wavegen.kernels):
        folder = Path(str(package.__file__)).parent
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            if ">>>" in path.read_text(encoding="utf-8"):
                found[".".join([package.__name__, *(part for part in parts if part != "__init__")])] = path
    return found


def docstrings(path: Path) -> list[Docstring]:
    """The docstrings of a module that have examples, those of private functions too."""
    found = []

    def visit(node: ast.Module | ast.ClassDef | ast.FunctionDef, name: str) -> None:
        text = ast.get_docstring(node)
        if text and ">>>" in text:
            line = node.body[0].lineno - 1
            found.append(
                Docstring(name, doctest.DocTestParser().get_doctest(text, {}, name, str(path), line))
            )
        for inner in node.body:
            if isinstance(inner, ast.ClassDef | ast.FunctionDef):
                visit(inner, f"{name}.{inner.name}".lstrip("."))

    visit(ast.parse(path.read_text(encoding="utf-8")), "")
    return found


def is_skipped(example: doctest.Example) -> bool:
    return bool(example.options.get(doctest.SKIP))


MODULES = modules()


def public_docstrings(name: str) -> list[Docstring]:
    """Those of a public name and of its methods."""
    value = getattr(wavegen, name)
    path = MODULES.get(value.__module__)
    found = docstrings(path) if path else []
    return [each for each in found if each.name.split(".")[0] == value.__name__]


@pytest.mark.parametrize("module", MODULES)
def test_examples_print_what_they_promise(module: str) -> None:
    try:
        import_module(module)
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        pytest.skip(f"{module} needs {error.name}")
    found = docstrings(MODULES[module])
    assert found, "'>>>' stands in a docstring"
    for docstring in found:
        report: list[str] = []
        result = doctest.DocTestRunner(verbose=False).run(docstring.examples, out=report.append)
        assert not result.failed, "".join(report)


@pytest.mark.parametrize("name", wavegen.__all__)
def test_public_names_have_an_example(name: str) -> None:
    assert public_docstrings(name)


def test_no_other_examples_are_skipped() -> None:
    skipped = {
        docstring.name.split(".")[0]
        for path in MODULES.values()
        for docstring in docstrings(path)
        if any(is_skipped(example) for example in docstring.examples.examples)
    }
    assert skipped == SKIPPED
