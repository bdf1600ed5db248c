"""Rules of splits that depend on which files there are."""

from pathlib import Path

import pytest

from wavegen.config.splits import SplitRule, resolved_splits
from wavegen.errors import WavegenError

RULES = {"test": "test/* | 0.25", "valid": "valid/*|0.5"}


def splits_of(names):
    rule = SplitRule(resolved_splits(RULES, names, Path()))
    return {name: rule.split(name, {}) for name in names}


def test_folders_of_these_names_are_the_splits():
    names = ["a.mid", "test/b.mid", "valid/deep/c.mid", "train/d.mid"]
    assert list(splits_of(names).values()) == ["train", "test", "valid", "train"]


def test_without_such_folders_the_fractions_hold():
    found = list(splits_of([f"{i}.mid" for i in range(400)]).values())
    assert found.count("test") == pytest.approx(100, abs=30)
    assert found.count("valid") == pytest.approx(200, abs=35)


def test_a_missing_folder_gets_its_fraction_of_the_others():
    found = splits_of(["test/a.mid", *(f"{i}.mid" for i in range(400))])
    assert [name for name, split in found.items() if split == "test"] == ["test/a.mid"]
    assert list(found.values()).count("valid") == pytest.approx(200, abs=35)


@pytest.mark.parametrize(
    "rule", ["test/* | take=3", "test | 0.1", "test/* | 1.5", "a/* | b/* | 0.1", "test/* |"]
)
def test_other_alternatives_are_refused(rule):
    with pytest.raises(
        WavegenError, match=r"expected a path pattern and a fraction, as in 'test/\* \| 0.05', got"
    ):
        SplitRule({"test": rule})


def test_unresolved_alternatives_are_no_answer():
    with pytest.raises(WavegenError, match="depends on other files"):
        SplitRule(RULES).split("a.mid", {})
