"""Rendering: on time to the sample, in tune, as loud as asked; piano rolls that agree with it; pictures."""

import struct
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wavegen.errors import WavegenError
from wavegen.notes import roll as rolls
from wavegen.notes import score
from wavegen.notes.piano import Piano
from wavegen.notes.render import LOUDNESS, PEAK, render
from wavegen.notes.roll import from_piano_roll, piano_roll, roll_features
from wavegen.notes.score import Score, Track, from_performance
from wavegen.pictures.audio import read_picture
from wavegen.pictures.notes import plot_notes

RATE = 16_000


def notes_of(*rows: tuple[int, int, int, int, int], **options) -> Score:
    """Rows of pitch, onset, duration, velocity, track."""
    return Score(*np.array(rows, int).reshape(-1, 5).T, **options)


def loudest(wave: np.ndarray) -> float:
    power = np.convolve(np.square(wave, dtype=np.float64), np.ones(2 * RATE // 5), "valid") / (2 * RATE // 5)
    return 10 * np.log10(power.max())


def frequency(wave: np.ndarray, near: float) -> float:
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave)), 1 << 20))
    low, high = (round(near * factor * (1 << 20) / RATE) for factor in (0.97, 1.03))
    return (low + int(np.argmax(spectrum[low:high]))) * RATE / (1 << 20)


def test_notes_begin_at_the_sample_of_their_seconds() -> None:
    tempos = np.array([[0, 654_321], [1000, 411_003]])
    notes = notes_of((60, 777, 300, 100, 0), (64, 1234, 300, 100, 0), tempos=tempos)
    alone = render(notes_of((64, 0, 300, 100, 0), tempos=tempos[1:] * [0, 1]), loudness=None).samples[:, 0]
    wave = render(notes, loudness=None).samples[:, 0]
    start = round((1000 / 480 * 0.654321 + 234 / 480 * 0.411003) * RATE)
    assert start == round(float(notes.seconds(np.array(1234))) * RATE)
    first = render(notes.between(0, 1200), loudness=None, length=len(wave)).samples[:, 0]
    np.testing.assert_allclose((wave - first)[start : start + 5000], alone[:5000], atol=1e-6)
    assert not (wave - first)[:start].any()


def test_the_strongest_partial_of_a4_is_in_tune() -> None:
    # a real piano: the three strings of its A4 beat, and its strongest partial is the second
    for velocity in (60, 110):
        wave = render(notes_of((69, 0, 960, velocity, 0))).samples[RATE // 20 :, 0]
        spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave)), 1 << 20))
        peak = float(np.argmax(spectrum)) * RATE / (1 << 20)
        assert abs(1200 * np.log2(peak / (440 * round(peak / 440)))) < 5


def test_the_loudest_moment_is_as_loud_as_asked_and_nothing_clips() -> None:
    soft = notes_of((50, 0, 960, 20, 0), (72, 960, 480, 30, 0))
    thick = notes_of(*((pitch, 0, 1920, 127, 0) for pitch in range(30, 90)))
    for notes in (soft, thick):
        for target in (LOUDNESS, -30.0):
            wave = render(notes, loudness=target).samples[:, 0]
            assert np.abs(wave).max() <= PEAK + 1e-6
            assert loudest(wave) == pytest.approx(target, abs=1.0) or np.abs(wave).max() > PEAK - 1e-3
    assert np.abs(render(thick, loudness=0.0).samples).max() == pytest.approx(PEAK)
    played = Piano.load().render(soft.performance(), RATE)
    np.testing.assert_array_equal(render(soft, loudness=None).samples, played.samples)


def test_drums_are_left_out_with_a_warning() -> None:
    tracks = (Track("piano", 0), Track("flute", 73), Track("kit", 0, True))
    notes = notes_of((60, 0, 480, 90, 0), (67, 0, 480, 90, 1), (36, 0, 480, 90, 2), tracks=tracks)
    with pytest.warns(UserWarning, match="the piano leaves out 1 drum notes; a soundfont plays them"):
        audio = render(notes)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pitched = render(notes.select(lambda track: not track.drum))
    np.testing.assert_array_equal(audio.samples, pitched.samples)


def test_nothing_and_too_much_are_rendered_or_refused() -> None:
    assert render(notes_of()).duration == pytest.approx(0.03)
    assert not render(notes_of(), length=1000).samples.any()
    with pytest.raises(
        WavegenError, match=r"expected at most 7200 seconds of notes, got 8947: cut the piece"
    ):
        render(notes_of((60, 0, 8_589_000, 90, 0)))


def chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)


def soundfont(pcm: np.ndarray, root: int) -> bytes:
    """The least SoundFont 2 there is: one preset of one instrument of one sample."""

    def name(text: str) -> bytes:
        return text.encode().ljust(20, b"\0")

    info = chunk(b"ifil", struct.pack("<HH", 2, 1)) + chunk(b"isng", b"EMU8000\0") + chunk(b"INAM", b"tone")
    smpl = chunk(b"smpl", pcm.astype("<i2").tobytes() + bytes(92))
    tables = (
        (b"phdr", name("p") + bytes(18) + name("EOP") + struct.pack("<HHHIII", 0, 0, 1, 0, 0, 0)),
        (b"pbag", struct.pack("<HHHH", 0, 0, 1, 0)),
        (b"pmod", bytes(10)),
        (b"pgen", struct.pack("<HH", 41, 0) + bytes(4)),  # instrument 0
        (b"inst", name("i") + bytes(2) + name("EOI") + struct.pack("<H", 1)),
        (b"ibag", struct.pack("<HHHH", 0, 0, 2, 0)),
        (b"imod", bytes(10)),
        (b"igen", struct.pack("<HHHH", 54, 1, 53, 0) + bytes(4)),  # sample 0, in a loop
        (b"shdr", name("s") + struct.pack("<IIIIIBbHH", 0, len(pcm), 0, len(pcm), RATE, root, 0, 0, 1)
            + name("EOS") + bytes(26)),
    )  # fmt: skip
    pdta = b"".join(chunk(*table) for table in tables)
    lists = (
        chunk(b"LIST", kind + body) for kind, body in ((b"INFO", info), (b"sdta", smpl), (b"pdta", pdta))
    )
    return chunk(b"RIFF", b"sfbk" + b"".join(lists))


def test_a_soundfont_plays_on_time_and_in_tune(tmp_path) -> None:
    pytest.importorskip("symusic")
    tone = 12_000 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    (tmp_path / "tone.sf2").write_bytes(soundfont(tone, 69))
    notes = notes_of((69, 480, 480, 100, 0), (81, 960, 480, 100, 0))
    wave = render(notes, soundfont=tmp_path / "tone.sf2").samples[:, 0]
    assert abs(np.flatnonzero(np.abs(wave) > 1e-4)[0] - RATE // 2) < 0.002 * RATE
    assert frequency(wave[8800:15000], 440) == pytest.approx(440, rel=1e-3)
    assert frequency(wave[16800:23000], 880) == pytest.approx(880, rel=1e-3)
    assert loudest(wave) == pytest.approx(LOUDNESS, abs=1.0)
    assert len(render(notes, soundfont=tmp_path / "tone.sf2", length=40_000).samples) == 40_000
    assert len(render(notes, soundfont=tmp_path / "tone.sf2", length=400).samples) == 400
    assert not render(notes_of(), soundfont=tmp_path / "tone.sf2").samples.any()
    (tmp_path / "cut.sf2").write_bytes(soundfont(tone, 69)[:3000])
    with pytest.raises(WavegenError, match=r"cannot read .*cut\.sf2: expected a SoundFont") as caught:
        render(notes, soundfont=tmp_path / "cut.sf2")
    assert "\n" not in str(caught.value)
    with pytest.raises(WavegenError, match=r"cannot read .*absent\.sf2: expected a SoundFont"):
        render(notes, soundfont=tmp_path / "absent.sf2")


def test_soundfonts_without_their_library_say_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "symusic", None)
    with pytest.raises(WavegenError, match=r"SoundFonts need symusic: pip install 'wavegen\[soundfont\]'"):
        render(notes_of(), soundfont="any.sf2")


def test_performances_keep_their_seconds() -> None:
    played = score.Performance.parse("tempo 97, C4 1, R 1/3, E4 2/3 0.5, F#4 1/7")
    notes = from_performance(played, 97)
    assert notes.onset.tolist() == [0, 640, 960]
    again = notes.performance()
    np.testing.assert_allclose(again.onset, played.onset, atol=0.002)
    np.testing.assert_allclose(again.duration, played.duration, atol=0.003)
    np.testing.assert_allclose(again.velocity, played.velocity, atol=1 / 254)
    with pytest.raises(WavegenError, match="expected more than 0 quarter notes per minute, got 0"):
        from_performance(played, 0)
    with pytest.raises(WavegenError, match="expected onset of a note in"):
        from_performance(played.stretch(1e6))


def test_a_roll_shows_what_sounds() -> None:
    played = score.Performance(
        np.array([60, 64, 60]),
        np.array([0.0, 0.104, 0.2]),
        np.array([0.3, 0.001, 0.2]),
        np.array([0.5, 1.0, 0.25]),
    )
    roll = piano_roll(played, 100)
    assert roll.shape == (40, 128)
    expected = np.zeros((40, 128), np.float32)
    expected[:20, 60], expected[20:40, 60], expected[10, 64] = (
        0.5,
        0.25,
        1.0,
    )  # the later note of a pitch is seen
    np.testing.assert_array_equal(roll, expected)
    np.testing.assert_array_equal(piano_roll(played, 100, 50)[:40], roll)
    np.testing.assert_array_equal(piano_roll(played, 100, 15), roll[:15])
    with pytest.raises(WavegenError, match="expected more than 0 frames per second, got 0"):
        piano_roll(played, 0)
    with pytest.raises(WavegenError, match="expected at most 4194304 frames, got 400000000"):
        piano_roll(played, 1e9)


@given(
    arrays(np.float32, (7, 128), elements=st.sampled_from([0.0, 0.25, 1.0]), fill=st.just(0.0)),
    st.sampled_from([50.0, 86.1328125, 100.0]),
)
@settings(deadline=None, max_examples=40)
def test_rolls_round_trip(roll: np.ndarray, frame_rate: float) -> None:
    np.testing.assert_array_equal(piano_roll(from_piano_roll(roll, frame_rate), frame_rate, len(roll)), roll)


def test_rolls_of_no_velocity_are_refused() -> None:
    roll = np.zeros((3, 128), np.float32)
    roll[1, 2] = np.nan
    with pytest.raises(WavegenError, match="expected velocities from 0 to 1, got nan at frame 1, pitch 2"):
        from_piano_roll(roll, 100)


@pytest.mark.parametrize(("rate", "hop"), [(8000, 80), (11025, 128)])
def test_features_agree_with_the_audio_to_the_sample(rate: int, hop: int, rng: np.random.Generator) -> None:
    count = 30
    played = score.Performance(
        rng.permutation(np.arange(40, 40 + count)), rng.uniform(0, 2, count), rng.uniform(0.001, 0.5, count),
        rng.uniform(0.1, 1, count),
    )  # fmt: skip
    length = round(2.6 * rate) + 1
    features = roll_features(played, rate, hop, length)
    assert features.shape == (-(-length // hop), 256)
    velocities, ages = features[:, :128], features[:, 128:]
    quantized = played.quantize(rate, hop)
    sounding, begun = np.zeros_like(velocities), np.zeros_like(ages)
    for pitch, onset, duration, velocity in zip(
        quantized.pitch, quantized.onset, quantized.duration, quantized.velocity, strict=True
    ):
        first, end = round(onset * rate), round((onset + duration) * rate)
        assert first % hop == 0
        frames = np.arange(first // hop, -(-end // hop))
        sounding[frames, pitch] = velocity
        begun[frames, pitch] = hop * frames - first
    np.testing.assert_array_equal(velocities, sounding)
    np.testing.assert_array_equal(ages, begun)
    # the audio of the quantized notes is silent until the very sample of the first frame that has an onset
    wave = Piano.load().render(quantized, rate, length=length).samples[:, 0]
    start = np.flatnonzero(velocities.any(axis=1))[0] * hop
    assert not wave[:start].any()
    assert np.abs(wave[start : start + hop]).max() > 0


def test_long_rolls_are_refused(monkeypatch) -> None:
    monkeypatch.setattr(rolls, "LARGEST", 10)
    with pytest.raises(WavegenError, match="expected at most 10 frames, got 11"):
        roll_features(score.Performance.parse("C4 1"), 8000, 80, 801)


def test_pictures_show_every_pitched_track(tmp_path) -> None:
    tracks = (Track("melody"), Track("bass", 32), Track("kit", 0, True))
    notes = notes_of((72, 0, 960, 127, 0), (40, 0, 960, 127, 1), (38, 0, 960, 127, 2), tracks=tracks)
    empty = notes.select(lambda track: False)
    pixels = read_picture(plot_notes(tmp_path / "a.png", {"both": notes, "nothing": empty})).reshape(-1, 3)
    for colour in ((31, 119, 180), (255, 127, 14)):  # the first two of matplotlib's tab10
        assert (np.abs(pixels.astype(int) - colour).max(axis=1) < 3).sum() > 100
    assert not (np.abs(pixels.astype(int) - (44, 160, 44)).max(axis=1) < 3).any()
    with pytest.raises(WavegenError, match="expected at least one piece to draw, got none"):
        plot_notes(tmp_path / "b.png", {})
