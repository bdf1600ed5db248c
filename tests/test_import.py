"""`import wavegen` costs a program almost nothing; JAX comes with the first thing that needs it."""

import subprocess
import sys

import pytest

import wavegen

HEAVY = {
    "jax",
    "flax",
    "optax",
    "orbax",
    "grain",
    "scipy",
    "matplotlib",
    "librosa",
    "soundfile",
    "tensorboardX",
}
TIMED_IMPORT = "import time; start = time.perf_counter(); import wavegen; print(time.perf_counter() - start)"


def run(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout


def loaded_after(statement: str) -> set[str]:
    return set(
        run(f"import sys; {statement}; print(*{{name.split('.')[0] for name in sys.modules}})").split()
    )


def test_import_takes_less_than_300_ms() -> None:
    # The least of three: another program's load only ever adds.
    assert min(float(run(TIMED_IMPORT)) for _ in range(3)) < 0.3


def test_import_loads_nothing_heavy() -> None:
    loaded = loaded_after("import wavegen")
    assert "wavegen" in loaded
    assert not loaded & (HEAVY | {"numpy", "pydantic"})


@pytest.mark.parametrize("module", ["wavegen.errors", "wavegen.config", "wavegen.audio"])
def test_host_modules_do_not_load_jax(module: str) -> None:
    assert not loaded_after(f"import {module}") & {"jax", "flax", "matplotlib", "librosa"}


@pytest.mark.parametrize("name", wavegen.__all__)
def test_public_names_are_there(name: str) -> None:
    assert getattr(wavegen, name).__name__ == name
    assert name in dir(wavegen)


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(
        AttributeError,
        match=r"no attribute 'Wave'; it has Audio, AudioGenerator, Config, Drawing, MaskedGenerator",
    ):
        _ = wavegen.Wave


@pytest.mark.parametrize(("old", "new"), [("Generator", "AudioGenerator"), ("NoteDrawing", "Drawing")])
def test_old_names_still_work_and_say_what_replaces_them(old, new) -> None:
    with pytest.warns(DeprecationWarning, match=rf"wavegen\.{old} is now wavegen\.{new}"):
        assert getattr(wavegen, old) is getattr(wavegen, new)
