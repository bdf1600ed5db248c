"""Options may stand anywhere among the arguments of a command."""

import pytest

from wavegen import __version__
from wavegen.cli import COMMANDS, main
from wavegen.cli.arguments import arranged


@pytest.mark.parametrize(
    ("command", "given", "expected"),
    [
        ("train", "c a=b --runs r c=d", "c a=b c=d --runs r"),
        ("train", "--runs r c a=b", "c a=b --runs r"),
        ("train", "c --runs=r a=b", "c a=b --runs=r"),
        ("study", "s --dry-run seeds=[0] --no-dry-run a.b=c", "s seeds=[0] a.b=c --dry-run --no-dry-run"),
        ("study", "s --out x=y -h a=b", "s a=b --out x=y -h"),
        # Commands whose positional arguments are single values are left as they are.
        ("sample", "run --labels digit=3 speaker=x", "run --labels digit=3 speaker=x"),
    ],
)
def test_positional_arguments_come_first(command, given, expected):
    assert arranged(COMMANDS[command], given.split()) == expected.split()


def test_overrides_on_both_sides_of_an_option_count(tmp_path, capsys):
    main(["study", "wavenet-lstm", "seeds=[3]", "--dry-run", "training.steps=7", f"data.path={tmp_path}"])
    out = capsys.readouterr().out
    assert "chorales-lstm-plain-3" in out
    assert "7 steps" in out
    assert "plain-0" not in out


def test_the_version_is_printed(capsys):
    main(["--version"])
    assert capsys.readouterr().out == f"{__version__}\n"


def test_configurations_are_listed_and_printed(capsys):
    main(["configs"])
    assert "0.42 M parameters, 25 minutes on one core." in capsys.readouterr().out
    main(["configs", "quickstart"])
    assert "\nname: quickstart\n" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["configs", "quick"])
    assert "there are beethoven" in capsys.readouterr().err
