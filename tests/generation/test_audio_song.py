"""Songs of audio: sections in turn, varied where they come back, without clicks, and bytes from a seed."""

import json
from functools import cache

import numpy as np
import pytest

import wavegen
from wavegen.cli import main
from wavegen.codecs.samples import MuLaw
from wavegen.config import resolve
from wavegen.errors import WavegenError
from wavegen.generation.audio import AudioGenerator
from wavegen.generation.audio_song import FADE_SECONDS, compose_audio_song
from wavegen.models.bert import Bert
from wavegen.models.kinds import make_model
from wavegen.networks.base import parameters
from wavegen.runs.trained import Trained, open_codecs
from wavegen.stopping import Stopped

RATE = 1000
CONFIG = resolve(
    {"data": {"sample_rate": RATE, "crop": 512}, "model": {"kind": "lstm", "width": 8, "layers": 1}},
    ["sampling.masked.passes=[2]"],
)


@cache
def causal() -> wavegen.AudioGenerator:
    """An untrained LSTM of samples."""
    codecs = open_codecs(CONFIG)
    return AudioGenerator.open(Trained(CONFIG, {}, parameters(make_model(CONFIG, codecs, {}))[1], codecs))


@cache
def masked() -> wavegen.MaskedGenerator:
    """An untrained masked model of samples, which are the smallest tokens there are."""
    network = Bert(vocab_size=256, codebooks=1, width=8, layers=1, heads=1, random=np.random.default_rng(0))
    return wavegen.MaskedGenerator(CONFIG, {}, *parameters(network), MuLaw(256))


def test_sections_come_back_and_last_as_long_as_asked():
    song = compose_audio_song(causal(), seconds=0.3, form="ABA", seed=1)
    assert [(stage.name, stage.section) for stage in song.stages] == [
        ("generate", "A"),
        ("generate", "B"),
        ("arrange", ""),
    ]
    samples, fade = song.audio.samples[:, 0], round(FADE_SECONDS * RATE)
    assert len(samples) == 300
    # But for the crossfades the last section is the first one again.
    np.testing.assert_array_equal(samples[fade:100], samples[200 + fade :])
    assert not np.array_equal(samples[fade:100], samples[100 + fade : 200])
    again = compose_audio_song(causal(), seconds=0.3, form="ABA", seed=1)
    np.testing.assert_array_equal(again.audio.samples, song.audio.samples)


@pytest.mark.parametrize("model", [causal, masked])
def test_a_song_that_is_stopped_is_of_the_sections_that_are_whole(model):
    whole = compose_audio_song(model(), seconds=0.3, form="ABA", seed=1)
    calls = []

    def progress(what, done, total):
        calls.append((what, done, total))
        if calls.count(("section B", 1, 3)) >= 2:
            raise Stopped

    song = compose_audio_song(model(), seconds=0.3, form="ABA", seed=1, progress=progress)
    fade = round(FADE_SECONDS * RATE)
    assert len(song.audio.samples) == 100
    np.testing.assert_array_equal(song.audio.samples[: 100 - fade], whole.audio.samples[: 100 - fade])
    assert song.stages[-1].arguments == {"sections": ["A"]}
    with pytest.raises(Stopped):  # Now before the first section.
        compose_audio_song(model(), seconds=0.3, form="ABA", seed=1, progress=progress)


def test_a_masked_model_varies_what_comes_back():
    song = compose_audio_song(masked(), seconds=0.2, form="AA", seed=1, remix=0.5)
    assert [stage.name for stage in song.stages] == ["generate", "vary", "arrange"]
    samples, fade = song.audio.samples[:, 0], round(FADE_SECONDS * RATE)
    same = samples[fade:100] == samples[100 + fade :]
    assert 0.3 < same.mean() < 0.7


def test_the_first_section_goes_on_from_a_recording():
    heard = wavegen.Audio(0.5 * np.sin(np.arange(80, dtype=np.float32) / 5)[:, None], RATE)
    song = compose_audio_song(causal(), seconds=0.1, form="A", seed_piece=heard)
    assert len(song.audio.samples) == 100
    assert not np.array_equal(
        song.audio.samples, compose_audio_song(causal(), seconds=0.1, form="A").audio.samples
    )


def test_the_command_writes_audio_picture_and_log_the_same_twice(tmp_path, capsys):
    run = causal().save(tmp_path / "run.safetensors")
    for name in ("first", "second"):
        main(["song", str(run), "--seconds", "0.3", "--form", "ABA", "-o", str(tmp_path / name)])
    files = {path.name: path.read_bytes() for path in (tmp_path / "first").iterdir()}
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "second").iterdir()}
    assert set(files) == {"song.wav", "song.png", "song.json"}
    assert set(json.loads(files["song.json"])["files"]) == {"song.wav", "song.png"}
    with pytest.raises(SystemExit):
        main(["song", str(run), "--bars", "8"])
    assert "a model of audio takes no --bars; leave it out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"remix": 0.5}, "remix needs a masked model, got lstm"),
        ({"remix": -1.0}, r"expected a share to remix in \[0, 1\], got -1.0"),
        ({"seconds": 0.1}, "expected sections above 0.03 seconds, got 0.1 for 4 of them"),
        ({"form": "?"}, "expected a form of letters"),
        ({"labels": {"genre": "jazz"}}, "this model has no label field 'genre'"),
    ],
)
def test_what_cannot_be_is_one_line(options, message):
    with pytest.raises(WavegenError, match=message) as caught:
        compose_audio_song(causal(), **options)
    assert "\n" not in str(caught.value)
