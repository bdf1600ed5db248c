"""Clips that live, die, stand still, repeat themselves and burst into noise."""

import numpy as np
import pytest

from wavegen.audio import Audio
from wavegen.evaluation.controls import coded, noise, shuffled, sine
from wavegen.evaluation.life import life
from wavegen.evaluation.noise import noise_share
from wavegen.evaluation.repetition import repetition

RATE = 8000


def notes(pitches: list[float], seconds: float = 0.4) -> Audio:
    """Plucked strings, one after another."""
    time = np.arange(round(seconds * RATE)) / RATE
    waves = [
        sum(np.sin(2 * np.pi * f * h * time) * np.exp(-3 * h * time) / h for h in range(1, 6))
        for f in pitches
    ]
    return Audio(0.2 * np.concatenate(waves), RATE)


@pytest.fixture(scope="module")
def music() -> Audio:
    return notes([220 * 2 ** (n / 12) for n in (0, 7, 3, 10, 2, 12, 5, 8, 1, 11, 4, 9, 6, 14, 13, 16)])


def test_music_lives_and_neither_stands_still_nor_repeats(music: Audio):
    measured = life(music)
    assert measured.alive > 0.95
    assert measured.stuck == 0
    assert measured.noise == 0
    assert abs(measured.level_change_db) < 3
    assert repetition(music) < 0.1


def test_a_clip_that_dies_is_alive_as_long_as_it_sounds(music: Audio):
    samples = music.samples.copy()
    samples[len(samples) // 4 :] *= 1e-4
    dead = life(Audio(samples, RATE))
    assert dead.alive == pytest.approx(0.25, abs=0.02)
    assert dead.level_change_db < -50
    assert dead.course[0] - dead.course[-1] > 40


def test_a_burst_is_noise_for_as_long_as_it_lasts(music: Audio):
    samples = music.samples.copy()
    samples[len(samples) // 2 :] = noise(Audio(0.5 + 0 * samples, RATE)).samples[len(samples) // 2 :]
    assert noise_share(Audio(samples, RATE)) == pytest.approx(0.5, abs=0.02)
    assert noise_share(Audio(0.01 * samples, RATE)) == 0, "faint noise is hiss, and no burst"


def test_a_tone_stands_still_and_noise_does_not(music: Audio):
    assert life(sine(music)).stuck > 0.9
    assert life(noise(music)).stuck == 0
    held = np.concatenate([music.samples, sine(music).samples])
    assert life(Audio(held, RATE)).stuck == pytest.approx(0.5, abs=0.05)


def test_what_came_before_is_repetition_wherever_the_frames_fall(music: Audio):
    phrase = music.samples[: 2 * RATE]
    for gap in (0, 37):  # no multiple of the hop
        looped = np.concatenate([phrase, np.zeros((gap, 1), np.float32), phrase])
        assert repetition(Audio(looped, RATE)) == pytest.approx(0.5, abs=0.12)
    assert repetition(sine(music)) > 0.8
    assert repetition(noise(music)) == 0


def test_silence_and_short_clips_have_figures_or_none():
    silence = Audio(np.zeros(2 * RATE), RATE)
    assert (life(silence).alive, life(silence).stuck, repetition(silence)) == (0, 0, 0)
    for length in (1, 100, 2000):
        short = Audio(np.full(length, 0.1), RATE)
        assert life(short).stuck is None
        assert repetition(short) is None
        assert life(short).alive == 1


def test_controls_keep_what_they_promise(music: Audio):
    level = np.sqrt(np.mean(music.samples**2))
    for control in (coded, sine, noise, shuffled):
        result = control(music)
        assert result.samples.shape == music.samples.shape
        assert np.sqrt(np.mean(result.samples**2)) == pytest.approx(level, rel=0.02)
    assert np.array_equal(np.sort(shuffled(music).samples, axis=0), np.sort(music.samples, axis=0))
    assert not np.array_equal(shuffled(music).samples, music.samples)
    error = coded(music).samples - music.samples
    assert 20 * np.log10(np.sqrt(np.mean(error**2)) / level) < -30
