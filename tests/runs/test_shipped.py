"""Trained models that come with the package open by their names, and each has a complete card."""

from pathlib import Path

import pytest

import wavegen
from wavegen.cli import main
from wavegen.errors import WavegenError
from wavegen.runs.shipped import INSTRUMENT, find, read_card, shipped


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_model_opens_by_its_name_and_its_card_says_what_it_is(name):
    model = wavegen.load(name)
    assert model.config.name
    card = read_card(shipped()[name])
    assert all(card)
    assert "wavegen" in card.made_by


def test_a_path_goes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find(INSTRUMENT) == find(None) == shipped()[INSTRUMENT]
    Path(INSTRUMENT).mkdir()
    assert find(INSTRUMENT) == Path(INSTRUMENT)
    assert find(None) == shipped()[INSTRUMENT]


def test_an_unknown_name_says_what_there_is():
    with pytest.raises(WavegenError, match=rf"no run folder .* at tuba.*there are .*{INSTRUMENT}"):
        wavegen.load("tuba")


def test_models_are_listed_and_their_cards_printed(capsys):
    main(["models"])
    assert f"{INSTRUMENT}  (" in capsys.readouterr().out
    main(["models", INSTRUMENT])
    assert capsys.readouterr().out.startswith(f"# Model card: {INSTRUMENT}")
    with pytest.raises(SystemExit):
        main(["models", "tuba"])
    assert "expected the name of a shipped model, got 'tuba'" in capsys.readouterr().err
