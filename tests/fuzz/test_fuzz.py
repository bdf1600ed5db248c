"""The fuzzers and fault injectors of this folder, for a minute; longer by hand, as docs/reliability.md says."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).parent


def expect_no_failure(command: str) -> None:
    script, *options = command.split(" ")
    process = subprocess.run(
        [sys.executable, FUZZ / script, *options], capture_output=True, text=True, timeout=3000, check=False
    )
    assert process.returncode == 0, process.stdout + process.stderr
    *_, all_kinds = process.stdout.splitlines()
    _, tries, failures = all_kinds.split()
    assert int(tries) > 0
    assert failures == "0"


@pytest.mark.parametrize("command", ["files.py --files 480", "artefacts.py --tries 40"])
def test_damaged_files_are_read_refused_or_named(command):
    expect_no_failure(command)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory) -> Path:
    """A folder for what the injectors share: inputs, and compiled programs."""
    return tmp_path_factory.mktemp("workshop")


@pytest.mark.slow
@pytest.mark.skipif(
    not (sys.platform == "linux" and shutil.which("cc")), reason="needs Linux and a C compiler"
)
@pytest.mark.parametrize(
    "command",
    [
        "kills.py --tries 3 --only train",
        "kills.py --tries 3 --only prepare",
        "failing_writes.py --tries 6",
        "pairs.py --tries 1",
        "signals.py --tries 6",
    ],
)
def test_disturbed_commands_keep_their_promises(command, workshop):
    expect_no_failure(f"{command} --workshop {workshop}")
