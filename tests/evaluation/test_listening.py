"""The page of a listening test: pairs, loudness, and one file that needs nothing else."""

import base64
import io
import json
import re
from collections import Counter
from html.parser import HTMLParser

import numpy as np
import pytest

from wavegen.audio import Audio
from wavegen.cli import main
from wavegen.errors import WavegenError
from wavegen.evaluation.listening import loudness, write_page

RATE = 8000


def clip(level: float, seed: int = 0) -> Audio:
    return Audio(level * np.random.default_rng(seed).normal(size=RATE // 4), RATE)


def content(page: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="test">(.*?)</script>', page, re.S)[1])


def test_clips_of_one_name_are_paired_and_all_pairs_of_systems_occur(tmp_path):
    systems = {name: {f"{i}.wav": clip(0.1, i) for i in range(3)} for name in ("a", "b", "c")}
    pairs = write_page(tmp_path / "page.html", systems, questions=9)
    assert all(one[1] == other[1] for one, other in pairs)
    assert set(Counter((one[0], other[0]) for one, other in pairs).values()) == {3}
    assert set(Counter(pairs).values()) == {1}, "no question comes twice while there are others"
    assert pairs == write_page(tmp_path / "again.html", systems, questions=9)


def test_clips_of_other_names_are_paired_at_random(tmp_path):
    pairs = write_page(tmp_path / "p.html", {"a": {"x": clip(0.1)}, "b": {"y": clip(0.1)}}, questions=2)
    assert pairs == [(("a", "x"), ("b", "y"))] * 2


def test_the_page_holds_the_clips_at_one_loudness_and_asks_for_nothing_else(tmp_path):
    path = tmp_path / "page.html"
    systems = {"loud": {"1": clip(0.3)}, "</script>faint": {"1": clip(0.001, 1)}}
    write_page(path, systems, questions=1)
    page = path.read_text()
    test = content(page)
    assert {each["system"] for each in test["clips"]} == systems.keys()
    import soundfile

    embedded = [soundfile.read(io.BytesIO(base64.b64decode(each["wav"]))) for each in test["clips"]]
    heard = [loudness(Audio(samples, rate)) for samples, rate in embedded]
    assert heard[0] == pytest.approx(heard[1], abs=0.05)
    assert not re.search(r"(src|href)=|https?:|//[a-z]", page.split('id="test"')[0])
    tags: Counter[str] = Counter()

    class Tags(HTMLParser):
        def handle_starttag(self, tag, attributes):
            tags[tag] += 1

    Tags().feed(page)
    assert (tags["audio"], tags["fieldset"], tags["legend"], tags["main"], tags["script"]) == (2, 1, 1, 1, 2)


def test_a_peaky_clip_lowers_all_of_them_instead_of_clipping(tmp_path):
    peaky = np.zeros(RATE)
    peaky[::400] = 1.0
    write_page(tmp_path / "p.html", {"a": {"1": Audio(peaky, RATE)}, "b": {"1": clip(0.3)}}, questions=1)
    import soundfile

    clips = content((tmp_path / "p.html").read_text())["clips"]
    waves = [soundfile.read(io.BytesIO(base64.b64decode(each["wav"])))[0] for each in clips]
    assert max(np.abs(wave).max() for wave in waves) == pytest.approx(0.98, abs=0.001)


def test_the_command_writes_the_page_of_two_folders(tmp_path, capsys):
    for name in ("ours", "theirs"):
        clip(0.1).write(tmp_path / name / "1.wav")
    out = tmp_path / "page.html"
    main(
        [
            "listen-test",
            str(tmp_path / "ours"),
            "--out",
            str(out),
            str(tmp_path / "theirs"),
            "--questions",
            "2",
        ]
    )
    assert "2 questions about ours, theirs" in capsys.readouterr().out
    assert len(content(out.read_text())["pairs"]) == 2


def test_what_is_no_test_is_one_line(tmp_path):
    with pytest.raises(WavegenError, match="expected at least two systems, each with clips, got a"):
        write_page(tmp_path / "p.html", {"a": {"1": clip(0.1)}})
    with pytest.raises(WavegenError, match=r"expected a page named NAME\.html, got p\.txt"):
        write_page(tmp_path / "p.txt", {"a": {"1": clip(0.1)}, "b": {"1": clip(0.1)}})
