"""Figures that order good and bad audio rightly, the report beside controls, and the pictures."""

import json
import sys

import numpy as np
import pytest

from wavegen.audio import Audio
from wavegen.errors import WavegenError
from wavegen.evaluation.report import ControlledReport, compare, controls, write
from wavegen.notes.performance import Performance
from wavegen.notes.piano import Piano
from wavegen.pictures.audio import read_picture, spectrograms
from wavegen.pictures.runs import loss_curve

RATE = 8000
MELODY = Performance.parse("tempo 110, C4 1, E4 1/2, G4 1/2, C5 2, A4 1")


@pytest.fixture(scope="module")
def recording() -> Audio:
    return Piano.load().render(MELODY, RATE)


@pytest.fixture(scope="module")
def table(recording: Audio) -> ControlledReport:
    """A fair imitation of the recording, 20 dB of hiss below it, and the controls."""
    pytest.importorskip("librosa")
    hiss = np.random.default_rng(0).normal(
        0, 0.1 * np.sqrt(np.mean(recording.samples**2)), recording.samples.shape
    )
    return compare([Audio((recording.samples + hiss).astype(np.float32), RATE)], [recording], [MELODY])


def order(table: ControlledReport, figure: str) -> list[str]:
    return sorted(table.rows, key=lambda name: getattr(table.rows[name], figure))


def test_distance_from_the_recording_grows_from_mulaw_to_noise(table: ControlledReport) -> None:
    assert order(table, "mel_distance_db")[:2] == ["recording", "mu-law"]
    assert order(table, "mel_distance_db")[-1] == "noise"
    assert table.rows["recording"].mel_distance_db == 0
    assert 0 < table.rows["mu-law"].mel_distance_db < 1
    assert table.rows["noise"].mel_distance_db > 2 * table.rows["sine"].mel_distance_db


def test_pitch_is_right_in_the_recording_and_the_sine_and_wrong_in_noise(table: ControlledReport) -> None:
    for name in ("recording", "mu-law", "sine"):
        assert table.rows[name].pitch_accuracy > 0.85, name
    assert table.rows["generated"].pitch_accuracy < table.rows["recording"].pitch_accuracy
    assert table.rows["noise"].pitch_accuracy < 0.1


def test_transposed_audio_has_the_wrong_pitch(recording: Audio) -> None:
    figures = pytest.importorskip("wavegen.evaluation.figures")
    pytest.importorskip("librosa")
    assert figures.measure(recording, notes=MELODY.transpose(1)).pitch_accuracy < 0.1


def test_hiss_lowers_voicing_and_raises_flatness(table: ControlledReport) -> None:
    assert order(table, "flatness_db") == ["sine", "recording", "mu-law", "generated", "noise"]
    assert table.rows["noise"].flatness_db == pytest.approx(-2.5, abs=0.2)
    assert order(table, "voiced_probability")[:2] == ["noise", "generated"]
    assert order(table, "chroma_entropy")[-1] == "noise"
    assert table.rows["noise"].chroma_entropy == pytest.approx(np.log2(12), abs=0.1)


def test_only_the_recording_follows_its_own_loudness(table: ControlledReport) -> None:
    assert table.rows["recording"].envelope_correlation == pytest.approx(1)
    assert table.rows["mu-law"].envelope_correlation > 0.99
    assert table.rows["sine"].envelope_correlation < 0.7
    assert abs(table.rows["noise"].envelope_correlation) < 0.2


def test_dying_audio_shows_in_the_last_half_second(recording: Audio) -> None:
    figures = pytest.importorskip("wavegen.evaluation.figures")
    pytest.importorskip("librosa")
    fade = np.linspace(1, 0, len(recording.samples), dtype=np.float32)[:, None]
    whole, dying = (figures.measure(Audio(x, RATE)) for x in (recording.samples, recording.samples * fade))
    assert dying.rms_first > 0.9 * whole.rms_first
    assert dying.rms_last < 0.2 * whole.rms_last
    assert dying.pitch_accuracy is dying.mel_distance_db is dying.envelope_correlation is None


def test_silence_is_measured_without_a_warning() -> None:
    figures = pytest.importorskip("wavegen.evaluation.figures")
    pytest.importorskip("librosa")
    silence = Audio(np.zeros((RATE, 1), np.float32), RATE)
    measured = figures.measure(silence, silence, MELODY)
    assert all(np.isfinite(value) for value in vars(measured).values())
    assert measured.pitch_accuracy == 0
    assert measured.rms_last == 0


def test_controls_are_as_long_and_as_loud_as_the_recording(recording: Audio) -> None:
    level = np.sqrt(np.mean(recording.samples**2))
    for name, audio in controls(recording, MELODY).items():
        assert audio.samples.shape == recording.samples.shape, name
        assert np.sqrt(np.mean(audio.samples**2)) == pytest.approx(level, rel=0.03), name


def test_what_cannot_be_measured_is_one_line(recording: Audio, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = pytest.importorskip("wavegen.evaluation.figures")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "librosa", None)
        with pytest.raises(WavegenError, match=r"expected librosa.*pip install 'wavegen\[evaluate\]'"):
            figures.measure(recording)
    pytest.importorskip("librosa")
    with pytest.raises(WavegenError, match=r"expected at least 0\.5 s of audio to measure, got 0\.100 s"):
        figures.measure(Audio(recording.samples[:800], RATE))
    with pytest.raises(WavegenError, match="expected a recording at 8000 Hz like the clip, got 4000 Hz"):
        figures.measure(recording, recording.resample(4000))


def test_the_report_is_written_as_text_json_and_picture(
    table: ControlledReport, recording: Audio, tmp_path
) -> None:
    write(table, tmp_path / "report", recording, recording)
    text = (tmp_path / "report" / "figures.txt").read_text()
    assert [line.split()[0] for line in text.splitlines()[1:6]] == [
        "generated",
        "recording",
        "mu-law",
        "sine",
        "noise",
    ]
    rows = json.loads((tmp_path / "report" / "figures.json").read_text())["rows"]
    assert rows["noise"]["flatness_db"] == table.rows["noise"].flatness_db
    assert (tmp_path / "report" / "spectrogram.png").stat().st_size > 10_000


def test_spectrograms_show_a_tone_at_its_frequency(tmp_path) -> None:
    time = np.arange(2 * RATE) / RATE
    tone = Audio(np.sin(2 * np.pi * 2000 * time).astype(np.float32)[:, None], RATE)
    silence = Audio(np.zeros((RATE, 1), np.float32), RATE)
    pixels = read_picture(spectrograms(tmp_path / "tone.png", {"tone": tone, "silence": silence}))
    height, width, _ = pixels.shape
    column = pixels[: height // 2, width // 2].sum(axis=1).astype(int)
    inside = np.flatnonzero(column < 60)  # the black of silence, above and below the tone
    bright = inside[0] + int(np.argmax(column[inside[0] : inside[-1]]))
    assert bright == pytest.approx(inside[[0, -1]].mean(), abs=5)  # 2 of 4 kHz: half way up
    with pytest.raises(WavegenError, match="expected at least one clip to draw, got none"):
        spectrograms(tmp_path / "none.png", {})


def test_loss_curves_are_drawn_from_metrics(tmp_path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    rows = [{"step": step, "bits_per_sample": 8 - step / 50, "loss": None} for step in range(0, 100, 2)]
    rows += [{"step": 98, "valid/bits_per_sample": 6.5}]
    metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_picture(loss_curve(metrics, tmp_path / "loss.png")).shape[2] == 3
    metrics.write_text('{"step": 1, "speed": 3}\n')
    with pytest.raises(WavegenError, match=r"expected a loss in .*, got only step, speed"):
        loss_curve(metrics, tmp_path / "loss.png")
    metrics.write_text('{"step": 1, "sp')
    with pytest.raises(WavegenError, match="expected a row like"):
        loss_curve(metrics, tmp_path / "loss.png")
    with pytest.raises(WavegenError, match=r"cannot read .*absent"):
        loss_curve(tmp_path / "absent.jsonl", tmp_path / "loss.png")


def test_an_untrained_model_is_reported_as_what_it_is(tmp_path) -> None:
    pytest.importorskip("librosa")
    from wavegen.codecs.base import Codecs
    from wavegen.codecs.make import make_codec
    from wavegen.config import resolve
    from wavegen.evaluation.instrument import write_report
    from wavegen.generation.audio import AudioGenerator
    from wavegen.models.kinds import make_model
    from wavegen.networks.base import parameters

    sizes = dict.fromkeys(("residual_channels", "gate_channels", "skip_channels", "head_channels"), 4)
    model = {"dilations": [1], "cycles": 1, **sizes}
    notes = {"kind": "notes", "channels": 4, "hop_length": 64}
    plain, config = (
        resolve({"data": {"sample_rate": 4000}, "model": model | {"local": local}}) for local in (None, notes)
    )
    codec = make_codec(config.codec)
    generator, unconditioned = (
        AudioGenerator(each, {}, *parameters(make_model(each, Codecs(codec), {})), codec)
        for each in (config, plain)
    )

    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 1, "bits_per_sample": 8}\n')
    said = write_report(generator, tmp_path / "report", clips=2, seconds=0.7, run=tmp_path / "run")
    rows = json.loads((tmp_path / "report" / "figures.json").read_text())["rows"]
    assert rows["generated"]["mel_distance_db"] > 3 * rows["mu-law"]["mel_distance_db"]
    assert said.startswith("mean of 2")
    written = {path.suffix: path for path in (tmp_path / "report").iterdir()}
    assert written.keys() == {".wav", ".txt", ".json", ".png"}
    assert len(list((tmp_path / "report").glob("*.wav"))) == 2 * (2 + 5)
    assert list(rows)[5:] == ["loud", "low", "high", "long", "repeated"]
    # An untrained model bursts into noise, and its recording does not.
    assert min(rows[name]["noise_share"] for name in ("generated", "loud", "long", "noise")) > 0.5
    assert rows["recording"]["noise_share"] == rows["mu-law"]["noise_share"] == 0
    assert (tmp_path / "report" / "loss.png").is_file()
    with pytest.raises(WavegenError, match="expected at least one clip, got 0"):
        write_report(generator, tmp_path, clips=0)
    with pytest.raises(WavegenError, match=r"a model with model\.local\.kind=notes"):
        write_report(unconditioned, tmp_path)
