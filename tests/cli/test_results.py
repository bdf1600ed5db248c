"""Where commands write: names say what a result is, nothing is overwritten, and an output may be full or closed."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cli.test_cli import RATE, ROOT, write_model

from wavegen.audio import Audio
from wavegen.cli import main
from wavegen.cli.show import write_scores
from wavegen.notes.midi import write_midi
from wavegen.notes.performance import Performance
from wavegen.notes.score import from_performance


def test_results_say_task_and_input_and_none_is_overwritten(tmp_path, capsys):
    model, out = write_model(tmp_path / "m.safetensors"), tmp_path / "out"
    prompt = tmp_path / "door.wav"
    Audio(np.sin(0.3 * np.arange(400))[:, None].astype(np.float32) / 2, RATE).write(prompt)
    command = ["sample", str(model), "--seconds", "0.02", "-o", str(out)]
    for arguments in ([], [], ["--temperature", "0.5"], ["--prompt", str(prompt)], ["--like", str(prompt)]):
        main([*command, *arguments])
    names = {path.name for path in out.glob("*.wav")}
    # The second command makes what the first one made; the third one other clips under that name.
    assert names == {
        "m-seed0-0.wav",
        "m-seed0-2-0.wav",
        "m-continue-door-seed0-0.wav",
        "m-like-door-seed0-0.wav",
    }


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no device that is always full")
@pytest.mark.parametrize(
    ("output", "status", "said"),
    [
        (
            ">/dev/full",
            2,
            "wavegen: cannot use the output: No space left on device; correct the path, or free space\n",
        ),
        (">&-", 0, ""),
    ],
)
def test_an_output_that_is_full_or_closed_is_one_line_at_most(tmp_path, output, status, said):
    write_midi(tmp_path / "song.mid", from_performance(Performance.parse("tempo 600, C4 1")))
    command = [sys.executable, "-m", "wavegen", "render", "song.mid", "-o", "out"]
    run = subprocess.run(
        ["sh", "-c", f'"$@" {output}', "sh", *command],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert (run.returncode, run.stderr) == (status, said)
    assert Audio.read(tmp_path / "out" / "song.wav").duration > 0


def test_results_of_equal_names_do_not_overwrite_each_other(tmp_path, capsys):
    """Nor anything else that lies where they would."""
    for n, folder in enumerate("ab"):
        score = from_performance(Performance.parse(f"tempo 600, C{4 + n} 1"))
        write_midi(tmp_path / folder / "song.mid", score)
    out = tmp_path / "out"
    for folder in "aba":
        main(["render", str(tmp_path / folder / "song.mid"), "-o", str(out)])
    assert sorted(path.name for path in out.iterdir()) == ["song-2.wav", "song.wav"]
    printed = capsys.readouterr().out.split()[1::2]
    assert printed == [str(out / name) for name in ("song.wav", "song-2.wav", "song.wav")]
    recorded = tmp_path / "a" / "song.wav"
    recorded.write_bytes(b"a recording that cannot be read")
    main(["render", str(tmp_path / "a" / "song.mid"), "-o", str(tmp_path / "a")])
    assert recorded.read_bytes() == b"a recording that cannot be read"
    write_scores([score], tmp_path / "a" / "song")
    (tmp_path / "a" / "other-0.wav").write_bytes(b"mine")
    write_scores([score], tmp_path / "a" / "other")
    assert sorted(path.name for path in (tmp_path / "a").glob("other*.mid")) == ["other-2-0.mid"]
