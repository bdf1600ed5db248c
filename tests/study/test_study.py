"""Studies: what their files say, that they go on where they stopped, and what their tables hold."""

import csv
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from wavegen.cli import main
from wavegen.codecs.notes.grid import NoteGrid
from wavegen.config.study import load_study
from wavegen.errors import WavegenError
from wavegen.notes.midi import read_midi, write_midi
from wavegen.study import run as study_run
from wavegen.study.curves import write_curves
from wavegen.study.measure import Figures, read_figures
from wavegen.study.run import run_study
from wavegen.study.table import Row, spread, write_tables
from wavegen.training import loop

STUDY = """
name: tiny
base:
  data: {crop: 32, batch_size: 2, label_pattern: "{split}_{n}", split: {test: split=test, valid: split=valid}}
  codec: {kind: note_grid, voices: 2, low: 60, high: 72, bar: 4}
  optimizer: {learning_rate: 1e-2, warmup_steps: 1}
  training: {steps: 4, log_every: 1, evaluate_every: 2, evaluate_batches: 1, checkpoint_every: 100, sample_count: 1}
datasets:
  one: {data.path: MIDI/one}
  broken: {data.path: MIDI/nowhere}
  two: {data: {path: MIDI/two}}
models:
  lstm: {model: {kind: lstm, width: 8, layers: 1}}
settings:
  plain: {model.dropout: 0}
seeds: [3]
samples: {length: 8, count: 2}
"""
SPEEDS = {"steps_per_second", "tokens_per_second"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A study, two datasets of MIDI files, and one that is not there."""
    here = tmp_path_factory.mktemp("study")
    rng = np.random.default_rng(0)
    for dataset in ("one", "two"):
        (here / dataset).mkdir()
        for name in ("train_0", "train_1", "valid_0", "test_0"):
            piece = NoteGrid(2, 60, 72, bar=4).decode(rng.integers(1, 14, (22, 2)).repeat(2, axis=0))
            write_midi(here / dataset / f"{name}.mid", piece)
    (here / "study.yaml").write_text(STUDY.replace("MIDI", str(here)))
    return here


@pytest.fixture(scope="module")
def load(folder):
    """Reads the study, with overrides."""

    def load(*overrides: str):
        return load_study(folder / "study.yaml", [f"data.cache={folder / 'cache'}", *overrides])

    return load


@pytest.fixture(scope="module")
def finished(folder, load, one_device) -> list[Row]:
    """The study, run without interruption."""
    return run_study(load(), folder / "runs", folder / "out", print)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_cells_are_the_base_with_changes_in_order_seed_by_seed(load):
    study = load(
        "seeds=[0, 1]",
        "models.net.model={kind: wavenet, cycles: 1}",
        "training.steps=9",
        "datasets.two.seed=5",
    )
    names = [cell.config.name for cell in study.cells]
    assert names[:3] == ["one-lstm-plain-0", "one-net-plain-0", "broken-lstm-plain-0"]
    assert len(names) == 12
    assert names[6] == "one-lstm-plain-1"
    wave = study.cells[7].config
    assert (wave.model.kind, wave.model.cycles, wave.model.dropout) == ("wavenet", 1, 0)
    assert {cell.config.training.steps for cell in study.cells} == {9}
    assert {(cell.seed, cell.config.seed) for cell in study.cells} == {(0, 0), (1, 1)}


def test_a_kind_replaces_the_section_of_the_base(folder, tmp_path):
    (tmp_path / "base.yaml").write_text("model: {kind: wavenet, cycles: 1}\ntraining: {steps: 200}")
    text = "name: x\nbase: base.yaml\ndatasets: {d: {}}\nmodels: {m: {model: {kind: lstm}}, w: {model: {cycles: 3}}}"
    (tmp_path / "x.yaml").write_text(text)
    one, other = load_study(tmp_path / "x.yaml").cells
    assert (one.config.model.kind, other.config.model.cycles) == ("lstm", 3)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed=3", r"the experiments of a study have seeds, got seed=3; set seeds=\[0, 1, 2\]"),
        ("sedes=[1]", "unknown configuration key 'sedes'; did you mean seeds"),
        ("optimzer.learning_rate=1", "did you mean optimizer.learning_rate"),
        (
            "datasets.one.data.pth=x",
            "one-lstm-plain-3: unknown configuration key 'data.pth'; did you mean data.path",
        ),
        ("samples.lenght=3", "unknown configuration key 'samples.lenght'; did you mean samples.length"),
        ("seeds=[1, 1]", r"configuration error at study: seeds must differ, got \[1, 1\]"),
        ("models.lstm.model={kind: spectrogram_vq}", "one-lstm-plain-3: "),
        ("base=nowhere.yaml", "no configuration file"),
    ],
)
def test_mistakes_in_a_study_are_one_line_before_anything_runs(load, override, message):
    with pytest.raises(WavegenError, match=message) as caught:
        load(override)
    assert "\n" not in str(caught.value)


def test_models_of_unequal_size_are_refused(load, folder):
    study = load("models.wide.model={kind: lstm, width: 9, layers: 1}", "equal_parameters=0.02")
    message = (
        r"expected models within 2.0% of each other \(equal_parameters\), got lstm 840, wide 1,017 parameters"
    )
    with pytest.raises(WavegenError, match=message):
        run_study(study, folder / "unequal", folder / "unequal", print)
    assert not (folder / "unequal").exists()
    study_run.expect_equal(load("equal_parameters=0.02"), study_run.count_cells(load()))


def test_a_dry_run_lists_the_cells_and_trains_nothing(folder, capsys):
    main(["study", str(folder / "study.yaml"), "--runs", str(folder / "dry"), "--dry-run"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [
        "one-lstm-plain-3",
        "broken-lstm-plain-3",
        "two-lstm-plain-3",
    ]
    assert all("840 parameters  4 steps" in line for line in lines)
    assert not (folder / "dry").exists()


def test_the_table_has_every_figure_and_tells_what_failed(folder, finished):
    one, broken, two = table(folder / "out" / "table.csv")
    assert broken["error"].startswith("expected a folder of recordings")
    assert not broken["test"]
    for row in (one, two):
        assert (row["parameters"], row["unit"], row["error"]) == ("840", "nats per token", "")
        # A model that has learned nothing yet is about as good as drawing lots among 14 tokens.
        assert all(abs(float(row[split]) - np.log(14)) < 0.5 for split in ("train", "valid", "test"))
        assert 0 <= float(row["accuracy"]) < 0.5
        assert row["best_step"] in ("2", "4")
        assert all(float(row[name]) > 0 for name in SPEEDS)
        assert 0 <= float(row["test_repetition"]) <= float(row["repetition"]) + 1
    text = (folder / "out" / "summary.md").read_text()
    assert "- broken-lstm-plain-3: expected a folder of recordings" in text
    assert "| one | lstm | plain | 1 | 840 | nats per token |" in text


def test_models_are_measured_on_every_dataset(folder, finished):
    one, two = table(folder / "out" / "across.csv")
    own = {row["dataset"]: row["test"] for row in table(folder / "out" / "table.csv")}
    assert (one["one"], two["two"]) == (own["one"], own["two"])
    assert len({one["one"], one["two"], two["one"], two["two"]}) == 4
    assert "broken" not in one


def test_clips_and_curves_are_written(folder, finished):
    out = folder / "out"
    assert sorted(file.name for file in (out / "samples").iterdir()) == [
        f"{name}-lstm-plain-3.{kind}" for name in ("one", "two") for kind in ("mid", "wav")
    ]
    assert read_midi(out / "samples" / "one-lstm-plain-3.mid").end <= 8 * 120
    rows = [row for row in table(out / "curves.csv") if row["dataset"] == "one"]
    steps = {
        split: [int(row["step"]) for row in rows if row["split"] == split] for split in ("train", "valid")
    }
    assert steps == {"train": [1, 2, 3, 4], "valid": [2, 4]}
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    # As step 4 or step 2 was measured whole at the end: one batch holds this validation split.
    best = {row["dataset"]: row for row in table(out / "table.csv")}["one"]
    told = {row["step"]: float(row["value"]) for row in rows if row["split"] == "valid"}
    assert told[best["best_step"]] == min(told.values()) == pytest.approx(float(best["valid"]), rel=1e-4)


def test_a_finished_study_trains_nothing_and_says_the_same(folder, load, finished, monkeypatch, tmp_path):
    before = (folder / "out" / "table.csv").read_text()
    trained = []

    def train(config, run):
        trained.append(config.name)
        return loop.train(config, run)

    monkeypatch.setattr(study_run, "train", train)
    rows = run_study(load(), folder / "runs", folder / "out", print)
    assert (rows, trained) == (finished, ["broken-lstm-plain-3"])
    assert (folder / "out" / "table.csv").read_text() == before
    # Other samples are asked for: measured anew, and not one step more is trained.
    shutil.copytree(folder / "runs", tmp_path / "runs")
    run = tmp_path / "runs" / "tiny" / "one-lstm-plain-3"
    metrics = (run / "metrics.jsonl").read_text()
    study = load("samples.length=4", 'datasets={one: {data.path: "%s"}}' % (folder / "one"))
    [row] = run_study(study, tmp_path / "runs", tmp_path, print)
    assert (row.figures.test, row.figures.best_step) == (rows[0].figures.test, rows[0].figures.best_step)
    assert (run / "metrics.jsonl").read_text() == metrics


def test_damaged_figures_are_named(tmp_path):
    assert read_figures(tmp_path, "") is None
    (tmp_path / "figures.json").write_text("{")
    with pytest.raises(WavegenError, match=r"figures\.json is damaged .* delete it to measure the run again"):
        read_figures(tmp_path, "")


def test_a_study_stopped_in_its_middle_ends_with_the_same_table(folder, load, finished, monkeypatch, capsys):
    runs, out = folder / "again", folder / "again-out"
    name = Path("tiny") / "one-lstm-plain-3"
    shutil.copytree(folder / "runs" / name, runs / name)
    whole, evaluate = {row["dataset"]: row for row in table(folder / "out" / "table.csv")}, loop.evaluate

    def stop_in_the_second(config, *arguments):
        if config.name.startswith("two"):
            os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(config, *arguments)

    monkeypatch.setattr(loop, "evaluate", stop_in_the_second)
    arguments = ["study", str(folder / "study.yaml"), f"data.cache={folder / 'cache'}"]
    arguments += ["--runs", str(runs), "--out", str(out)]
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 143
    assert "run the same command to resume the study" in capsys.readouterr().out
    assert [row["dataset"] for row in table(out / "table.csv")] == ["one", "broken"]
    assert not (runs / "tiny" / "two-lstm-plain-3" / "checkpoints" / "4").exists()
    monkeypatch.setattr(loop, "evaluate", evaluate)
    with pytest.raises(SystemExit):
        main(arguments)
    for row in table(out / "table.csv"):
        assert {k: v for k, v in row.items() if k not in SPEEDS} == {
            k: v for k, v in whole[row["dataset"]].items() if k not in SPEEDS
        }


def figures(**changes) -> Figures:
    usual = {
        "parameters": 10,
        "unit": "bits per sample",
        "train": 1.0,
        "valid": 2.0,
        "test": 3.0,
        "accuracy": 0.5,
    }
    speeds = {"best_step": 4, "steps_per_second": 1.0, "tokens_per_second": None}
    return Figures(**usual | speeds | {"repetition": None, "test_repetition": 0.1, "across": {}} | changes)


def test_spread_is_mean_and_sample_deviation_over_seeds(load, tmp_path):
    cells = [cell for cell in load("seeds=[0, 1, 2]").cells if cell.dataset == "one"]
    told = [figures(test=1.0), figures(test=2.0, repetition=0.25), figures(test=6.0)]
    write_tables([Row(c, f) for c, f in zip(cells, told, strict=True)], tmp_path)
    [row] = table(tmp_path / "summary.csv")
    # Mean 3; squares of -2, -1 and 3 sum to 14, over 2 it is 7.
    assert (row["seeds"], row["test"], row["test_sd"]) == ("3", "3", f"{7**0.5:.6g}")
    assert (row["train"], row["train_sd"]) == ("1", "0")
    assert (row["repetition"], row["repetition_sd"]) == ("0.25", "")
    assert (row["tokens_per_second"], row["tokens_per_second_sd"]) == ("", "")
    assert "| 3 ± 2.6 |" in (tmp_path / "summary.md").read_text()
    assert spread([]) is None


def test_curves_leave_out_the_loss_that_compression_learns_from(load, tmp_path):
    study = load("models={xl: {model: {kind: decoder, reconstruction: 2}}}")
    cell = study.cells[0]
    run = tmp_path / "runs" / cell.config.name
    run.mkdir(parents=True)
    (run / "metrics.jsonl").write_text('{"step": 1, "bits_per_token": 4.0, "reconstruction": 0.5}\n')
    write_curves([cell], tmp_path / "runs", tmp_path)
    [row] = table(tmp_path / "curves.csv")
    assert float(row["value"]) == pytest.approx(4 * np.log(2) - 2 * 0.5, rel=1e-5)
