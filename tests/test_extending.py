"""What docs/extending.md shows is applied to a copy of the package, where the model and the codec obey all laws."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import wavegen
import wavegen.kernels

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = REPOSITORY / "docs" / "extending.md"
BLOCK = re.compile(
    r"<!-- file: (?P<path>\S+) -->\n```(?P<language>\w+)\n(?P<text>.*?)^```", re.MULTILINE | re.DOTALL
)


class Block(NamedTuple):
    """A new file ("python"), or lines to add to one ("diff"), on the page."""

    path: str
    language: str
    text: str


def blocks() -> list[Block]:
    return [Block(*match.groups()) for match in BLOCK.finditer(PAGE.read_text(encoding="utf-8"))]


def edited(text: str, diff: str) -> str:
    """The text with each hunk applied where its old lines stand, which is one place."""
    for hunk in diff.split("@@\n"):
        lines = hunk.splitlines()
        old = "".join(f"{line[1:]}\n" for line in lines if line[:1] != "+")
        new = "".join(f"{line[1:]}\n" for line in lines if line[:1] != "-")
        places = [place.start() for place in re.finditer(f"^{re.escape(old)}", text, re.MULTILINE)]
        assert len(places) == 1, f"expected these lines in one place, found them in {len(places)}:\n{old}"
        text = text[: places[0]] + new + text[places[0] + len(old) :]
    return text


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library and its laws, in which files that the page does not touch are links."""
    folder = tmp_path_factory.mktemp("extended")
    library, kernels = (Path(str(package.__file__)).parent for package in (wavegen, wavegen.kernels))
    for source, target in ((library, "wavegen"), (REPOSITORY / "tests" / "laws", "tests/laws")):
        for path in source.rglob("*"):
            inside = path.relative_to(source)
            if path.is_file() and "__pycache__" not in inside.parts and inside.parts[0] != "kernels":
                link = folder / target / inside
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(path)
    (folder / "wavegen" / "kernels").symlink_to(kernels)
    (folder / "pyproject.toml").symlink_to(REPOSITORY / "pyproject.toml")
    for block in blocks():
        path = folder / block.path
        text = (
            block.text if block.language == "python" else edited(path.read_text(encoding="utf-8"), block.text)
        )
        path.unlink(missing_ok=block.language == "python")
        path.write_text(text, encoding="utf-8")
    return folder


def test_the_page_shows_all_places():
    assert {block.language for block in blocks()} == {"python", "diff"}
    assert len(blocks()) == 10


def test_what_the_page_adds_obeys_all_laws(copy):
    # Without site an editable installation does not lead `wavegen` back to the repository.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(copy), *filter(None, sys.path)])}
    command = [sys.executable, "-S", "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider"]
    laws = [f"tests/laws/{name}.py" for name in ("test_tables", "test_causal", "test_audio_codecs")]
    chosen = [*laws, "-k", "GRU or ALaw or test_tables or test_every"]
    result = subprocess.run(
        [*command, *chosen], cwd=copy, env=environment, capture_output=True, text=True, timeout=3600
    )
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
    passed = re.search(r"(\d+) passed", result.stdout)
    assert passed
    assert int(passed[1]) > 30, result.stdout
    assert "failed" not in result.stdout
