"""The command line: every command from a folder of recordings to new audio, and bad input as one line."""

import ast
import json
import math
import os
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import jax
import numpy as np
import pytest

from wavegen.audio import Audio
from wavegen.cli import COMMANDS, GROUPS, main
from wavegen.cli.runs import _next_command
from wavegen.config import dump_config, load_config, resolve
from wavegen.data.prepare import Clip, write_dataset
from wavegen.models.kinds import make_model
from wavegen.networks.base import parameters
from wavegen.progress import Progress
from wavegen.runs.checkpoints import Checkpoints
from wavegen.runs.trained import Trained, open_codecs, save_trained
from wavegen.training.step import first_state

ROOT = Path(__file__).parents[2]
RATE = 8000
TINY = {"dilations": [1, 2, 4, 8, 16, 32], "cycles": 1, "residual_channels": 4, "gate_channels": 4}
TINY |= {"skip_channels": 4, "head_channels": 4}
TREE = {
    "data": {"sample_rate": RATE, "crop": 64, "batch_size": 8},
    "model": TINY,
    "optimizer": {"warmup_steps": 0},
    "training": {"steps": 2, "sample_seconds": 0.01, "sample_count": 1},
}


def write_config(folder: Path, data: Path, *overrides: str) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(
        dump_config(resolve(TREE, [f"data.path={data}", f"data.cache={folder / 'cache'}", *overrides]))
    )
    return path


def write_model(path: Path, *overrides: str) -> Path:
    """An untrained model in a file."""
    config = resolve(TREE, overrides)
    codecs = open_codecs(config)
    return save_trained(path, Trained(config, {}, parameters(make_model(config, codecs, {}))[1], codecs))


def tone(samples: int) -> np.ndarray:
    return (8000 * np.sin(np.arange(samples) / 3)).astype(np.int16)


def fails(capsys, *arguments: object) -> str:
    """What a command that must fail says, after checking that it is one line and that the exit status is 2."""
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    assert caught.value.code == 2
    output = capsys.readouterr()
    (line,) = output.err.splitlines()
    assert line.startswith("wavegen: ")
    return line.removeprefix("wavegen: ")


# --- help ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    summary = COMMANDS[command].__doc__.splitlines()[0]
    assert re.fullmatch(r"[A-Z]\w*s .{15,100}\.", summary), "a sentence in the third person"
    assert summary in " ".join(capsys.readouterr().out.split())


def test_the_program_names_every_command_in_one_group(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    before, list_of_commands = capsys.readouterr().out.split("subcommands", 1)
    text = " ".join(before.split())
    named = [
        name
        for group in GROUPS
        for name in re.search(rf"{group}: ([a-z, -]+)\.", text)[1].split(", ")  # each group ends with a stop
    ]
    assert sorted(named) == sorted(COMMANDS)
    functions = [command for group in GROUPS.values() for command in group]
    assert len(functions) == len(set(functions)) == len(COMMANDS)
    assert all(re.search(rf"• {command} +[A-Z]", list_of_commands) for command in COMMANDS)


def test_no_module_imports_another_in_a_circle():
    folder = ROOT / "wavegen" / "cli"
    modules = {f"wavegen.cli.{path.stem}": path for path in folder.glob("*.py") if path.stem != "__init__"}
    graph = {}
    for name, path in modules.items():
        graph[name] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path.name} has a relative import, which this test does not follow"
                assert node.module != "wavegen.cli", f"{path.name} imports the package, which imports it"
                graph[name].add(node.module)
            elif isinstance(node, ast.Import):
                graph[name] |= {alias.name for alias in node.names}
        graph[name] &= set(modules)
    assert graph["wavegen.cli.song"] >= {"wavegen.cli.notes", "wavegen.cli.options"}, "the walk finds imports"
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle
    assert sorted(order) == sorted(modules)


def test_the_command_line_does_not_start_jax():
    code = "import sys, wavegen.cli; sys.exit('jax' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True)


def test_progress_ends_on_the_last_text_or_leaves_no_trace(capsys):
    with Progress() as progress:
        progress.line("waiting")
        progress.line("starting", total=2).update("stem [drums]", done=2)
    shown = capsys.readouterr()
    assert "waiting" in shown.out
    assert "stem [drums]" in shown.out
    assert "starting" not in shown.out
    with Progress(aside=True) as progress:
        progress.line("starting").update("compiling", done=1, total=2)
    # Not even an empty line, which would stand before the one line of an error.
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("script", ["train.py", "sample.py"])
def test_the_scripts_in_the_root_are_commands(script):
    run = subprocess.run(
        [sys.executable, ROOT / script, "--help"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=True,
    )
    assert f"wavegen {script.removesuffix('.py')}" in run.stdout


@pytest.mark.parametrize(
    ("config", "command"),
    [
        ("quickstart", "wavegen sample 'my runs/a'"),
        ("chorales-bert", "wavegen compose 'my runs/a'"),
        ("chorales-seq2seq", "wavegen harmonise 'my runs/a' MELODY.mid"),
        ("fsdd-codec", "wavegen reconstruct 'my runs/a' RECORDING"),
    ],
)
def test_a_training_ends_with_the_command_that_uses_it(config, command):
    assert _next_command(load_config(ROOT / "configs" / f"{config}.yaml"), Path("my runs/a")) == command


# --- the whole way ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_from_a_folder_of_recordings_to_new_audio(tmp_path, capsys):
    recordings = tmp_path / "recordings"
    for n, split in enumerate(["train", "train", "valid", "test"]):
        # The first clip is shorter than the receptive field, 64 samples, and than the crop.
        # Copies would share a split.
        Audio.from_pcm16(tone(40 if n == 0 else 303 - n)[:, None], RATE).write(
            recordings / split / f"{n}.wav"
        )
    (recordings / "notes.txt").write_text("not a recording")
    (recordings / "train" / "broken.wav").write_bytes(b"RIFF")
    rule = ("--valid", "valid/*", "--test", "test/*")
    main(["prepare", str(recordings), "-o", str(tmp_path / "data"), "--sample-rate", str(RATE), *rule])
    said = capsys.readouterr().out
    assert re.search(r"train +2 files", said)
    assert "train/broken.wav: " in said

    config = write_config(tmp_path, tmp_path / "data")
    main(["train", str(config), "name=first", "--runs", str(tmp_path / "runs")])
    run = tmp_path / "runs" / "first"
    assert f"wavegen sample {run}" in capsys.readouterr().out

    out = tmp_path / "out"
    arguments = [
        "--seconds",
        "0.02",
        "--seed",
        "3",
        "--count",
        "2",
        "--prompt",
        str(recordings / "test" / "3.wav"),
    ]
    main(["sample", str(run), *arguments, "-o", str(out)])
    assert sorted(path.name for path in out.iterdir()) == [
        *(
            "first-continue-3-seed3-0.png",
            "first-continue-3-seed3-0.wav",
            "first-continue-3-seed3-1.png",
            "first-continue-3-seed3-1.wav",
        )
    ]
    assert Audio.read(out / "first-continue-3-seed3-1.wav").samples.shape == (300 + 160, 1)

    main(["evaluate", str(run)])
    said = capsys.readouterr().out
    assert "test split, 300 tokens of 1 files\nbits_per_sample" in said
    main(["export", str(run), str(tmp_path / "first.safetensors")])
    main(
        [
            "evaluate",
            str(tmp_path / "first.safetensors"),
            "--split",
            "valid",
            "--data",
            str(tmp_path / "data"),
        ]
    )
    said = capsys.readouterr().out
    assert "bytes" in said
    figures = dict(line.split() for line in said.splitlines()[-2:])
    assert 6 < float(figures["bits_per_sample"]) < 9
    main(["info"])
    assert "8 x cpu" in capsys.readouterr().out


@pytest.mark.slow
def test_a_platform_that_is_not_there_is_one_line(tmp_path):
    process = subprocess.run(
        [sys.executable, "-m", "wavegen", "sample", "--seconds", "0.1", "-o", tmp_path],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cuda"},
        check=False,
    )
    line = "JAX_PLATFORMS=cuda names no device of this machine; unset it, or install the extra for it"
    assert (process.returncode, process.stderr.splitlines()[-1]) == (2, f"wavegen: {line}")
    assert "Traceback" not in process.stderr


# --- bad input ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "HERE/quikstart.yaml"], "no configuration file HERE/quikstart.yaml"),
        (["train", "HERE/tiny.yaml", "data.batchsize=4"], "did you mean data.batch_size"),
        (
            ["train", "HERE/tiny.yaml", "optimizer.learning_rate=2"],
            "error at optimizer.learning_rate: Input should",
        ),
        (["train", "HERE/tiny.yaml", "data.path=HERE/nowhere", "--runs", "HERE/runs"], "HERE/nowhere"),
        (["train", "HERE/tiny.yaml", "data.path=HERE/empty", "--runs", "HERE/runs"], "HERE/empty"),
        (
            ["train", "HERE/tiny.yaml", "--runs", "HERE/file/runs"],
            "cannot write the run in HERE/file/runs/run: Not a",
        ),
        (["train", "HERE/tiny.yaml", "model.label_fields=[digit]", "--runs", "HERE/runs"], "names 'digit'"),
        (
            ["train", "HERE/tiny.yaml", "training.mesh.fsdp=3", "--runs", "HERE/runs"],
            "expected data * fsdp == 8",
        ),
        (
            ["train", "HERE/tiny.yaml", "data.batch_size=4", "--runs", "HERE/runs"],
            "make the batch a multiple of 8",
        ),
        (["prepare", "HERE/nowhere", "-o", "HERE/out"], "HERE/nowhere"),
        (["prepare", "HERE/empty", "-o", "HERE/out"], "HERE/empty"),
        (["prepare", "HERE/wavs", "-o", "HERE/out", "--valid", "soon"], "expected a fraction, labels"),
        (["prepare", "HERE/wavs", "-o", "HERE/file/out"], "cannot write HERE/file/out"),
        (["sample", "HERE/nowhere", "--seconds", "1"], "no run folder or .safetensors file at HERE/nowhere"),
        (["sample", "HERE/empty", "--seconds", "1"], "HERE/empty is not a run folder"),
        (
            ["sample", "HERE/m.safetensors", "--labels", "three"],
            "a label is written field=value, for example digit=3",
        ),
        (["sample", "HERE/m.safetensors", "--labels", "digit=3"], "this model has no label field 'digit'"),
        (["sample", "HERE/m.safetensors", "--prompt", "HERE/nowhere.wav"], "HERE/nowhere.wav"),
        (["sample", "HERE/m.safetensors", "--prompt", "HERE/tiny.yaml"], "cannot read HERE/tiny.yaml"),
        (["sample", "HERE/m.safetensors", "--notes", "HERE/nowhere.txt"], "HERE/nowhere.txt"),
        (
            ["sample", "HERE/m.safetensors", "--notes", "HERE/melody.txt"],
            "this model is not conditioned on notes",
        ),
        (
            ["sample", "HERE/m.safetensors", "--seconds", "-1"],
            "--seconds must be a number above 0 and up to 86,400, got -1.0",
        ),
        (
            ["sample", "HERE/m.safetensors", "--top-p", "2"],
            "--top-p must be a number above 0 and up to 1, got 2.0",
        ),
        (["sample", "HERE/m.safetensors", "--implementation", "x"], "there is no implementation 'x'"),
        (["sample", "HERE/m.safetensors", "-o", "HERE/file/out"], "cannot write HERE/file/out"),
        (
            ["evaluate", "HERE/m.safetensors", "--split", "dev", "--data", "HERE/data"],
            "expected recordings in split 'dev'",
        ),
        (["evaluate", "HERE/m.safetensors"], "give them, or others, with --data FOLDER"),
        (["evaluate", "HERE/m.safetensors", "--data", "HERE/nowhere"], "HERE/nowhere"),
        (
            ["export", "HERE/m.safetensors", "HERE/m.wav"],
            "expected a file named NAME.safetensors, got m.wav",
        ),
        (["report", "HERE/m.safetensors"], "notes"),
        (["bench", "--net", "x"], "expected one of the networks 20x64x128, "),
        (["bench", "--steps", "0"], "--steps must be a whole number from 1 to 1,000,000,000, got 0"),
        (["bench", "--implementation", "mosaic_gpu", "--steps", "1"], "none of the implementations can run"),
    ],
)
def test_bad_input_is_one_line(tmp_path, capsys, arguments, message):
    (tmp_path / "file").write_text("")
    (tmp_path / "melody.txt").write_text("C4 1")
    (tmp_path / "empty").mkdir()
    Audio.from_pcm16(tone(300)[:, None], RATE).write(tmp_path / "wavs" / "a.wav")
    clips = [Clip(f"{split}.wav", tone(200), split=split) for split in ("train", "valid")]
    write_dataset(tmp_path / "data", clips, RATE)
    write_config(tmp_path, tmp_path / "data")
    if "m.safetensors" in str(arguments):
        write_model(tmp_path / "m.safetensors", f"data.path={tmp_path / 'data'}")
    if arguments[0] == "sample" and "-o" not in arguments:
        arguments = [*arguments, "-o", "HERE/out"]
    line = fails(capsys, *(argument.replace("HERE", str(tmp_path)) for argument in arguments))
    assert message.replace("HERE", str(tmp_path)) in line
    assert not list(tmp_path.glob("out/*")), "nothing is written when nothing is made"


def test_bench_compares_implementations_and_keeps_the_figures(tmp_path, capsys):
    call = "bench --net shipped --implementation xla --precision float32 --batch 2 --steps 20 --rounds 2"
    main([*call.split(), "--json", str(tmp_path / "bench.json")])
    assert "xla float32 2" in " ".join(capsys.readouterr().out.split())
    written = json.loads((tmp_path / "bench.json").read_text())
    assert [(row["name"], row["batch"]) for row in written["rows"]] == [("xla", 2)]
    for row in written["rows"]:
        assert 0 < row["slowest"] <= row["per_stream"] < math.inf
        assert row["error"] < 1e-5
    assert written["machine"]["jax"] == jax.__version__


def test_a_run_finds_its_data_from_any_folder_and_may_be_made_longer(tmp_path, capsys, monkeypatch):
    clips = [Clip(f"{split}.wav", tone(200), split=split) for split in ("train", "valid", "test")]
    write_dataset(tmp_path / "data", clips, RATE)
    config = write_config(tmp_path, Path("data"), "data.cache=cache")
    monkeypatch.chdir(tmp_path)
    main(["train", str(config)])
    monkeypatch.chdir("/")
    run = tmp_path / "runs" / "run"
    assert load_config(run / "config.yaml").data.path == str(tmp_path / "data")
    main(["evaluate", str(run)])
    assert "test split, 200 tokens of 1 files" in capsys.readouterr().out

    monkeypatch.chdir(tmp_path)
    main(["train", str(config), "training.steps=4"])
    said = " ".join(capsys.readouterr().out.split())
    assert "resuming from step 2; the run was one of 2 steps, and its learning rate now falls over 4" in said
    assert [json.loads(row)["step"] for row in (run / "metrics.jsonl").read_text().splitlines()][-1] == 4
    main(["evaluate", str(run)])
    line = fails(capsys, "train", config, "training.steps=3")
    assert (
        "runs/run holds a run of 4 steps, training.steps is 3; a run can be made longer, not shorter" in line
    )


def test_a_wrong_argument_names_the_command(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["sample", "--secnds", "3"])
    assert caught.value.code == 2
    assert "--seconds" in capsys.readouterr().err


def test_a_checkpoint_of_another_model_is_one_line(tmp_path, capsys):
    clips = [Clip(f"{split}.wav", tone(200), split=split) for split in ("train", "valid")]
    write_dataset(tmp_path / "data", clips, RATE)
    config = write_config(tmp_path, tmp_path / "data")
    run = tmp_path / "runs" / "run"
    other = resolve(TREE, ["model.residual_channels=6"])
    with Checkpoints(run / "checkpoints") as checkpoints:
        checkpoints.save(1, first_state(other, {}, open_codecs(other))[1], {})
    (run / "config.yaml").write_text(config.read_text())
    line = fails(capsys, "train", config, "--runs", tmp_path / "runs")
    assert "checkpoint 1 of " in line
    assert "which is of another model; use the config it was trained with" in line
