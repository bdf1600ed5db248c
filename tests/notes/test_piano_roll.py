"""From MIDI files to a WaveNet that plays chords, and back to audio."""

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import wavegen
from wavegen.audio import Audio
from wavegen.cli import main
from wavegen.config import Config, resolve
from wavegen.data.batches import BatchSource
from wavegen.data.open import open_dataset
from wavegen.errors import WavegenError
from wavegen.generation.audio import AudioGenerator
from wavegen.models.conditions.melody import DECAYS
from wavegen.models.conditions.piano_roll import PianoRollCondition
from wavegen.notes.midi import read_midi, write_midi
from wavegen.notes.performance import Performance
from wavegen.notes.piano import Piano
from wavegen.notes.roll import roll_features
from wavegen.notes.score import Score, Track
from wavegen.training import loop

RATE, HOP, LOW, HIGH = 8000, 40, 57, 74
LOCAL = {"kind": "piano_roll", "channels": 4, "hop_length": HOP, "low": LOW, "high": HIGH, "harmonics": 2}
KIT = (Track("kit", drum=True),)


def chords(seed: int) -> Score:
    """Three voices that move at times of their own, a beat of drums, half a second in all."""
    rng = np.random.default_rng(seed)
    onset = rng.integers(0, 200, 12)
    track = np.append(np.zeros(11, int), 1)
    pitch = np.append(rng.permutation(np.arange(LOW, HIGH + 1))[:11], 38)
    return Score(
        pitch,
        onset,
        rng.integers(20, 240, 12),
        rng.integers(40, 128, 12),
        track,
        tracks=(Track("piano"), *KIT),
    )


def experiment(folder: Path, *overrides: str) -> Config:
    small = {"residual_channels": 8, "gate_channels": 8, "skip_channels": 8, "head_channels": 8}
    data = {"path": str(folder / "midi"), "cache": str(folder / "cache"), "crop": 400, "batch_size": 2}
    tree = {
        "data": {**data, "sample_rate": RATE},
        "model": {"dilations": [1, 2, 4], "cycles": 1, **small, "local": LOCAL},
        "optimizer": {"learning_rate": 1e-2, "warmup_steps": 1},
        "training": {"steps": 3, "evaluate_every": 3, "evaluate_batches": 1, "checkpoint_every": 3},
    }
    splits = [
        "data.label_pattern='{split}_{n}'",
        "data.split.test=split=test",
        "data.split.valid=split=valid",
    ]
    return resolve(tree, [*splits, "training.sample_count=1", "training.sample_seconds=0.05", *overrides])


@pytest.fixture(scope="module")
def folder(tmp_path_factory, one_device) -> Path:
    """MIDI files, some of which cannot be used, and a run."""
    here = tmp_path_factory.mktemp("roll")
    (here / "midi").mkdir()
    for number, split in enumerate(("train", "valid", "test")):
        write_midi(here / "midi" / f"{split}_0.mid", chords(number))
    write_midi(here / "midi" / "train_1.mid", chords(3).select(lambda track: track.drum))
    write_midi(here / "midi" / "train_2.mid", replace(chords(3), pitch=chords(3).pitch + 40))
    (here / "midi" / "train_3.mid").write_text("no MIDI file")
    loop.train(experiment(here), here / "run")
    return here


@pytest.fixture(scope="module")
def player(folder) -> AudioGenerator:
    """What the run has learned."""
    return wavegen.load(folder / "run")


def test_datasets_hold_audio_and_rolls_that_agree_to_the_sample(folder):
    dataset = open_dataset(experiment(folder))
    assert dataset.splits == ("test", "train", "valid")
    files = dataset.split("train")
    assert files.names == ("train_0.mid",)
    length = int(files.length[0])
    wave = dataset.read(files, 0, 0, length)[:, 0]
    features = dataset.read_features(files, 0, 0, length // HOP)
    played = chords(0).pitched().quantize(RATE, HOP)
    assert length % HOP == 0
    assert length >= (played.seconds + 0.03) * RATE
    np.testing.assert_array_equal(wave, Piano.load().render(played, RATE, length=length).to_pcm16()[:, 0])
    np.testing.assert_array_equal(features, roll_features(played, RATE, HOP, length, LOW, HIGH))
    # Without the last note the audio is another from the first frame of that note on, and not before.
    columns = (played.pitch, played.onset, played.duration, played.velocity)
    others = Performance(*(column[:-1] for column in columns))
    without = Piano.load().render(others, RATE, length=length).to_pcm16()[:, 0]
    first = int(np.flatnonzero(features[:, played.pitch[-1] - LOW])[0])
    assert 0 <= int(np.flatnonzero(wave != without)[0]) - first * HOP < HOP


def test_what_cannot_be_played_is_skipped_with_the_reason(folder):
    dataset = open_dataset(experiment(folder))
    reasons = {row.name: row.reason for row in dataset.manifest.skipped}
    assert list(reasons) == ["train_1.mid", "train_2.mid", "train_3.mid"]
    assert reasons["train_1.mid"].startswith("expected notes with a pitch, got none and 1 of drums")
    assert reasons["train_2.mid"].startswith("expected pitches from A3 (57) to D5 (74), got ")


def test_rows_of_a_part_are_those_of_the_whole(folder):
    dataset = open_dataset(experiment(folder))
    files = dataset.split("train")
    whole = dataset.read_features(files, 0, 0, int(files.length[0]) // HOP)
    batch = BatchSource(dataset, "train", batch_size=8, crop=10 * HOP, seed=0).batch(0)
    for start, rows in zip(batch["start"] // HOP, batch["features"], strict=True):
        np.testing.assert_array_equal(rows, whole[start : start + 10])


@pytest.fixture(scope="module")
def bank():
    """A bank of two sines for two notes at a time, its strengths random, and its excitation compiled."""
    condition = PianoRollCondition(4, HOP, 60, 100, 2, 2, RATE, random=np.random.default_rng(0))
    return condition, jax.jit(condition.excitation, static_argnums=2)


def test_the_excitation_is_the_sum_of_the_notes_sines_with_their_phase_from_the_onset(bank):
    condition, excite = bank
    notes = Performance(
        np.array([60, 76]),
        np.array([3, 7]) * HOP / RATE,
        np.array([8, 10]) * HOP / RATE,
        np.array([0.5, 0.8]),
    )
    features = jnp.asarray(roll_features(notes, RATE, HOP, 20 * HOP, 60, 100))[None]
    strengths = np.asarray(condition.strengths[...], np.float64)
    expected = np.zeros((20 * HOP, 4))
    for pitch, first, last, velocity in ((60, 3, 11, 0.5), (76, 7, 17, 0.8)):
        age = np.arange((last - first) * HOP)
        fading = [np.exp(-(age // HOP * HOP) / (decay * RATE)) for decay in DECAYS] + [np.ones(len(age))]
        strength = velocity * np.stack(fading, 1) @ strengths[pitch - 60]
        hertz = 440 * 2 ** ((pitch - 69) / 12)
        waves = [wave(2 * np.pi * hertz * h * age / RATE) for h in (1, 2) for wave in (np.sin, np.cos)]
        expected[first * HOP : last * HOP] += strength * np.stack(waves, 1)
    whole = np.asarray(excite(features, 0, 20 * HOP))[0]
    np.testing.assert_allclose(whole, expected, atol=2e-3)


def test_the_loudest_notes_are_in_the_excitation_and_nothing_above_half_the_rate(bank):
    _, excite = bank
    features = np.zeros((1, 20, 82), np.float32)
    features[0, :, [0, 7, 9]] = np.array([[0.3], [0.9], [0.5]])
    loud = features.copy()
    loud[0, :, 0] = 0
    np.testing.assert_array_equal(
        excite(jnp.asarray(features), 333, 250), excite(jnp.asarray(loud), 333, 250)
    )
    high = np.zeros_like(features)
    high[0, :, 100 - 60] = 1  # 2637 Hz: its octave lies above 4000 Hz
    waves = np.asarray(excite(jnp.asarray(high), 333, 250))[0]
    assert np.abs(waves[:, :2]).max() > 0.01
    assert not waves[:, 2:].any()


def test_a_model_plays_the_same_however_it_is_cut_and_other_notes_otherwise(player):
    options = {"seconds": 0.05, "count": 2, "seed": 1}
    clips = [clip.samples[:, 0] for clip in player.generate(notes=chords(5), **options)]
    assert len(clips[0]) == 0.05 * RATE
    blocks = list(player.stream(notes=chords(5), chunk=150, **options))
    assert [block.shape[1] for block in blocks] == [150, 150, 100]
    np.testing.assert_array_equal(np.concatenate(blocks, axis=1), clips)
    others = player.generate(notes=[chords(6), chords(5).pitched()], **options)
    assert (others[0].samples[:, 0] != clips[0]).any()
    np.testing.assert_array_equal(others[1].samples[:, 0], clips[1])


def test_likelihoods_know_the_notes(player, rng):
    audio = Audio(rng.uniform(-0.3, 0.3, (400, 1)).astype(np.float32), RATE)
    whole = player.log_likelihood(audio, notes=chords(5), window=400)
    assert whole.shape == (400,)
    np.testing.assert_allclose(player.log_likelihood(audio, notes=chords(5), window=170), whole, atol=1e-4)
    assert (player.log_likelihood(audio, notes=chords(6), window=400) != whole).any()


def test_commands_play_scores(folder, tmp_path, capsys):
    score, out = chords(5), tmp_path / "out"
    write_midi(tmp_path / "piece.mid", score)
    main(["sample", str(folder / "run"), "--notes", str(tmp_path / "piece.mid"), "-o", str(out)])
    main(["render", str(tmp_path / "piece.mid"), "--run", str(folder / "run"), "-o", str(out)])
    assert str(out / "piece.wav") in capsys.readouterr().out
    for name in ("run-notes-piece-seed0-0.wav", "piece.wav"):
        audio = Audio.read(out / name)
        assert audio.sample_rate == RATE
        assert len(audio.samples) == round(score.pitched().seconds * RATE)
    with pytest.raises(SystemExit):
        main(["render", str(tmp_path / "piece.mid"), "--run", str(folder / "run"), "--sample-rate", "8000"])
    message = (
        "wavegen: --run plays with its own sound at its own rate; leave --soundfont and --sample-rate out\n"
    )
    assert capsys.readouterr().err == message
    played = read_midi(out / "run-notes-piece-seed0.mid").performance()
    np.testing.assert_array_equal(played.pitch, score.pitched().pitch)
    np.testing.assert_allclose(played.onset, score.pitched().onset, atol=1e-3)


def test_what_does_not_fit_is_one_line(folder, player, tmp_path):
    high = replace(chords(5), pitch=chords(5).pitch + 40)
    drums = chords(5).select(lambda track: track.drum)
    refused = {
        "expected pitches from A3 (57) to D5 (74), got ": lambda: player.generate(notes=high),
        "expected notes with a pitch, got none and 1 of drums": lambda: player.generate(notes=drums),
        "this model plays notes: give some": lambda: player.generate(1.0),
        "give one melody for all 2 clips, or one for each; got 1": lambda: player.generate(
            notes=[chords(5)], count=2
        ),
        "expected data.path, a folder of MIDI files to play": lambda: open_dataset(
            experiment(folder, "data.path=null")
        ),
        "expected MIDI files in ": lambda: open_dataset(experiment(folder, f"data.path={tmp_path / 'run'}")),
        "does not hold the piano roll of pitches 58 to 75 every 40 samples at 8000 Hz": lambda: open_dataset(
            experiment(
                folder,
                f"data.path={open_dataset(experiment(folder)).path}",
                "model.local.low=58",
                "model.local.high=75",
            )
        ),
        "low 80 must be at most high 74": lambda: experiment(folder, "model.local.low=80"),
    }
    (tmp_path / "run").mkdir()
    for message, ask in refused.items():
        with pytest.raises(WavegenError) as caught:
            ask()
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_model_without_notes_learns_from_the_same_audio(folder):
    prepared = open_dataset(experiment(folder)).path
    deaf = experiment(folder, "model.local=null", f"data.path={prepared}")
    assert open_dataset(deaf).path == prepared
