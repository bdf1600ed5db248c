"""Comparisons of sets: the controls come out in the order in which an ear puts them."""

import json

import numpy as np
import pytest

from wavegen.audio import Audio
from wavegen.cli import main
from wavegen.errors import WavegenError
from wavegen.evaluation.comparison import FIGURES, Comparison, compare
from wavegen.evaluation.embeddings.log_mel import LogMelStatistics
from wavegen.evaluation.sets import cut, halves, read_folder

RATE = 8000


def phrase(seed: int, seconds: float = 1.5) -> Audio:
    """Plucked strings of random pitches and levels, as a player might repeat an exercise."""
    random = np.random.default_rng(seed)
    time = np.arange(round(0.25 * RATE)) / RATE
    waves = []
    for _ in range(round(seconds / 0.25)):
        f = 150 * 2 ** random.uniform(0, 1.5)
        loud = 0.1 * random.uniform(0.5, 1.5)
        waves.append(
            loud * sum(np.sin(2 * np.pi * f * h * time) * np.exp(-2 * h * time) / h for h in range(1, 8))
        )
    return Audio(np.concatenate(waves), RATE)


@pytest.fixture(scope="module")
def result() -> Comparison:
    """Clips of the same player with a hiss, beside recordings."""
    hissing = [
        Audio(clip.samples + 0.003 * np.random.default_rng(i).normal(size=clip.samples.shape), RATE)
        for i, clip in enumerate(map(phrase, range(100, 124)))
    ]
    return compare(hissing, [phrase(i) for i in range(48)], LogMelStatistics(RATE))


@pytest.mark.parametrize("figure", ["kernel", "frechet"])
def test_distances_put_the_controls_in_order(result: Comparison, figure: str):
    distance = {name: getattr(row, figure) for name, row in result.rows.items()}
    assert distance["other half"] < distance["shuffled"] < min(distance["sine"], distance["noise"])
    assert distance["other half"] <= distance["mu-law"] < min(distance["sine"], distance["noise"])
    assert distance["other half"] < distance["generated"] < distance["noise"]


def test_the_other_half_is_as_near_as_its_error_and_noise_is_not(result: Comparison):
    half, noise = result.rows["other half"], result.rows["noise"]
    assert abs(half.kernel) < 4 * half.kernel_error + 1
    assert noise.kernel > 10 * noise.kernel_error


def test_kinds_of_sound_are_those_of_the_recordings_or_others(result: Comparison):
    half, noise = result.rows["other half"], result.rows["noise"]
    assert half.different_bins < noise.different_bins
    assert half.bin_divergence < 0.1 < 0.3 < noise.bin_divergence


def test_life_names_what_is_wrong_with_each_control(result: Comparison):
    rows = result.rows
    assert rows["noise"].noise > 0.9 > 0.1 > rows["other half"].noise
    assert rows["sine"].stuck > 0.9 > 0.1 > rows["other half"].stuck
    # Of 1.5 s, the first half second repeats nothing.
    assert rows["sine"].repetition > 0.6 > 0.2 > rows["other half"].repetition
    assert all(row.alive > 0.9 for row in rows.values())
    assert len(rows["noise"].course) == 10


def test_the_table_says_what_it_stands_on(result: Comparison):
    text = result.text()
    assert text.startswith("24 clips (36.0 s) in the first row, against 24 clips (36.0 s) of recordings")
    assert "warning: 24 clips of 36.0 s against 24 are few" in text
    assert "warning: fewer clips than the 96 numbers of log-mel statistics" in text
    for figure in FIGURES.values():
        assert figure.meaning in text
    tree = json.loads(result.json())
    assert tree["rows"].keys() == {"generated", "other half", "mu-law", "shuffled", "sine", "noise"}
    assert tree["rows"]["sine"]["kernel"] == result.rows["sine"].kernel
    assert result.examples.keys() == tree["rows"].keys() | {"reference"}


def test_clips_of_one_recording_stay_in_one_half():
    marked = [Audio(np.full(4 * RATE, level), RATE) for level in (0.1, 0.2, 0.3, 0.4)]
    first, last = ({float(clip.samples[0, 0]) for clip in half} for half in halves(marked, 1.0, 100))
    assert len(first) == len(last) == 2
    assert not first & last
    one = Audio(np.linspace(0, 1, 8 * RATE), RATE)
    first, last = ([clip.samples.mean() for clip in half] for half in halves([one], 1.0, 100))
    assert len(first) == len(last) == 4
    assert max(first) < min(last) or max(last) < min(first)
    with pytest.raises(WavegenError, match="expected recordings for two sets of at least two clips"):
        halves([phrase(0)], 1.0, 100)


def test_a_recording_is_cut_end_to_end():
    assert [clip.duration for clip in cut(phrase(0, 2.5), 1.0)] == [1.0, 1.0]
    assert [clip.duration for clip in cut(phrase(0, 1.0), 3.0)] == [1.0]


def test_clips_that_cannot_be_compared_are_one_line():
    recordings = [phrase(i) for i in range(8)]
    with pytest.raises(
        WavegenError, match="expected at least two generated clips of one sample rate, got 1 of"
    ):
        compare([phrase(0)], recordings, LogMelStatistics())
    with pytest.raises(WavegenError, match=r"got 2 of \[4000, 8000\] Hz"):
        compare([phrase(0), phrase(1).resample(4000)], recordings, LogMelStatistics())


def test_the_command_compares_folders_and_writes_figures_and_pictures(tmp_path, capsys):
    for i in range(6):
        phrase(i, 0.5).write(tmp_path / "recorded" / f"{i}.wav")
        phrase(50 + i, 0.5).write(tmp_path / "made" / f"{i}.wav")
    assert len(read_folder(tmp_path / "made", 4)) == 4
    out = tmp_path / "out"
    main(["compare", str(tmp_path / "made"), str(tmp_path / "recorded"), "--out", str(out)])
    printed = capsys.readouterr().out
    assert printed.startswith("3 clips (1.5 s) in the first row, against 3 clips (1.5 s) of recordings")
    noise = json.loads((out / "comparison.json").read_text())["rows"]["noise"]
    assert noise["repetition"] is noise["different_bins"] is None, "too short, and too few"
    assert {path.name for path in out.iterdir()} == {"comparison.json", "comparison.png", "spectrograms.png"}
    with pytest.raises(SystemExit):
        main(["compare", str(tmp_path / "made"), str(tmp_path / "absent")])
    assert "expected a folder of recordings" in capsys.readouterr().err
