"""Performance: the text format, features aligned to the sample, the piano, the composer and the corpus."""

import json
import re

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from wavegen.data import corpus
from wavegen.data.dataset import Dataset
from wavegen.errors import WavegenError
from wavegen.notes import melodies, piano_build
from wavegen.notes.composer import HIGH, LOW, compose
from wavegen.notes.performance import Performance, frequency, pitch_name
from wavegen.notes.piano import ASSETS, RELEASE, Piano

PIANO = Piano.load()


def one_note(pitch: int, *, onset: float = 0.0, duration: float = 0.5, velocity: float = 0.8) -> Performance:
    return Performance(np.array([pitch]), np.array([onset]), np.array([duration]), np.array([velocity]))


@st.composite
def monophonic(draw: st.DrawFn, shortest: float = 0.001) -> Performance:
    rows, now = [], 0.0
    seconds = st.floats(shortest, 3)
    for pitch, rest, duration, velocity in draw(
        st.lists(
            st.tuples(st.integers(0, 127), st.one_of(st.just(0.0), seconds), seconds, st.floats(0.01, 1)),
            max_size=9,
        )
    ):
        rows.append((pitch, now + rest, duration, velocity))
        now += rest + duration
    columns = np.array(rows).reshape(-1, 4)
    return Performance(columns[:, 0].astype(int), columns[:, 1], columns[:, 2], columns[:, 3])


def assert_same(left: Performance, right: Performance) -> None:
    assert left.pitch.tolist() == right.pitch.tolist()
    for name in ("onset", "duration", "velocity"):
        np.testing.assert_allclose(getattr(left, name), getattr(right, name), atol=1e-6)


def test_text_is_read_as_documented() -> None:
    notes = Performance.parse(
        "# title\ntempo 120\nC4 1, C#4 1/2 | R 1.5 # rest\n velocity 0.5\nBb-1 1, G9 0.25 1"
    )
    assert notes.pitch.tolist() == [60, 61, 10, 127]
    np.testing.assert_allclose(notes.onset, [0, 0.5, 1.5, 2.0])
    np.testing.assert_allclose(notes.duration, [0.5, 0.25, 0.5, 0.125])
    np.testing.assert_allclose(notes.velocity, [0.8, 0.8, 0.5, 1.0])
    assert notes.seconds == pytest.approx(2.125)


@given(monophonic(), st.floats(20, 400))
@settings(deadline=None, max_examples=30)
def test_text_round_trip(notes: Performance, tempo: float) -> None:
    assert_same(Performance.parse(notes.text(tempo)), notes)


def test_pitch_names_round_trip() -> None:
    text = ", ".join(f"{pitch_name(pitch)} 1" for pitch in range(128))
    assert Performance.parse(text).pitch.tolist() == list(range(128))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("C4 1\nH4 1", r"line 2: expected a note like 'C#4 1/2'.*got 'H4 1'"),
        ("C4", r"line 1: expected a note.*got 'C4'"),
        ("C4 1 0.5 3", r"line 1: expected a note"),
        ("C4 x", r"line 1: expected beats above 0 and at most 10000, got 'x'"),
        ("C4 1/0", r"line 1: expected beats.*got '1/0'"),
        ("C4 nan", r"line 1: expected beats.*got 'nan'"),
        ("C4 1e999", r"line 1: expected beats.*got '1e999'"),
        ("C4 -1", r"line 1: expected beats.*got '-1'"),
        ("\ntempo 0", r"line 2: expected tempo above 1 and at most 1000, got '0'"),
        ("C4 1 1.5", r"line 1: expected velocity above 0 and at most 1, got '1.5'"),
        ("G#9 1", r"line 1: expected a pitch from C-1 to G9, got G#9"),
        ("Cb-1 1", r"line 1: expected a pitch from C-1 to G9, got Cb-1"),
    ],
)
def test_bad_text_names_its_line(text: str, message: str) -> None:
    with pytest.raises(WavegenError, match=message) as caught:
        Performance.parse(text)
    assert "\n" not in str(caught.value)


def test_bad_files_are_named(tmp_path) -> None:
    with pytest.raises(
        WavegenError,
        match=r"cannot read .*absent\.txt: No such file or directory \(expected a melody as text",
    ):
        Performance.read(tmp_path / "absent.txt")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(WavegenError, match=r"cannot read .*binary\.txt: expected a melody as text in UTF-8"):
        Performance.read(tmp_path / "binary.txt")
    (tmp_path / "long.txt").write_text("#" * (1 << 20) + "\n")
    with pytest.raises(WavegenError, match=r"long\.txt: expected at most 1048576 bytes, got 1048577"):
        Performance.read(tmp_path / "long.txt")
    with pytest.raises(WavegenError, match="expected a melody as text, got a device"):
        Performance.read("/dev/zero")
    (tmp_path / "wrong.txt").write_text("X 1")
    with pytest.raises(WavegenError, match=r"wrong\.txt, line 1"):
        Performance.read(tmp_path / "wrong.txt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pitch": np.array([128])}, "expected pitch in 0..127, got 128 at note 0"),
        ({"onset": np.array([-0.1])}, "expected onset of at least 0 s, got -0.1"),
        ({"onset": np.array([np.nan])}, "expected onset of at least 0 s, got nan"),
        ({"duration": np.array([0.0])}, "expected duration above 0 s, got 0.0"),
        ({"velocity": np.array([1.1])}, r"expected velocity in \(0, 1\], got 1.1"),
    ],
)
def test_values_out_of_range_are_named(change: dict, message: str) -> None:
    good = {"pitch": np.array([60]), "onset": np.zeros(1), "duration": np.ones(1), "velocity": np.ones(1)}
    with pytest.raises(WavegenError, match=message):
        Performance(**(good | change))


def test_notes_are_sorted_moved_stretched_and_cut() -> None:
    notes = Performance(np.array([62, 60]), np.array([1.0, 0.0]), np.array([2.0, 1.0]), np.array([0.5, 1.0]))
    assert notes.pitch.tolist() == [60, 62]
    assert notes.velocity.tolist() == [1.0, 0.5]
    assert notes.transpose(-5).pitch.tolist() == [55, 57]
    assert notes.stretch(2).seconds == 6.0
    cut = notes.between(0.5, 2.0)
    assert (cut.pitch.tolist(), cut.onset.tolist(), cut.duration.tolist()) == ([62], [0.5], [1.0])
    with pytest.raises(WavegenError, match=r"expected pitch in 0\.\.127, got 128"):
        notes.transpose(66)


def test_monophonic_keeps_the_highest_and_ends_notes_where_the_next_begins() -> None:
    chords = Performance(
        np.array([60, 67, 64, 72]), np.array([0, 0, 0, 0.5]), np.full(4, 1.0), np.full(4, 0.5)
    )
    melody = chords.monophonic()
    assert melody.pitch.tolist() == [67, 72]
    assert melody.duration.tolist() == [0.5, 1.0]
    with pytest.raises(WavegenError, match=r"expected one note at a time.*\.monophonic\(\)"):
        chords.text()
    with pytest.raises(
        WavegenError, match=r"expected one note at a time, got notes 0 and 1 together at 0\.000 s"
    ):
        chords.frames(8000, 80, 8000)
    with pytest.raises(WavegenError, match=r"notes 0 and 1 together at 0\.500 s"):
        Performance(np.array([60, 62]), np.array([0, 0.5]), np.array([1.0, 1.0]), np.full(2, 0.5)).frames(
            8000, 80, 8000
        )


@given(monophonic(shortest=0.05), st.sampled_from([(1000, 10), (1100, 16)]))
@settings(deadline=None, max_examples=30)
def test_features_say_what_sounds_at_the_first_sample_of_a_frame(
    notes: Performance, grid: tuple[int, int]
) -> None:
    rate, hop = grid
    length = round(notes.seconds * rate) + 2 * hop + 1
    frames = notes.frames(rate, hop, length)
    quantized = notes.quantize(rate, hop)
    onset = np.rint(quantized.onset * rate).astype(int)
    end = np.rint((quantized.onset + quantized.duration) * rate).astype(int)
    end[:-1] = np.minimum(end[:-1], onset[1:])
    assert (onset % hop == 0).all()
    assert (np.abs(onset / rate - notes.onset) <= 0.5001 * hop / rate).all()
    expected = np.zeros((-(-length // hop), 4))
    for pitch, first, last, velocity in zip(notes.pitch, onset, end, notes.velocity, strict=True):
        for sample in range(first, last, hop):
            expected[sample // hop] = pitch, sample - first, last - sample, velocity
    np.testing.assert_allclose(frames, expected, rtol=1e-6)
    np.testing.assert_array_equal(quantized.frames(rate, hop, length), frames)


def beats(note: str) -> float:
    numerator, _, denominator = note.split()[1].partition("/")
    return float(numerator) / float(denominator or 1)


@pytest.mark.parametrize("name", melodies.names())
def test_melodies_have_whole_bars(name: str) -> None:
    title, _, body = (melodies.FOLDER / f"{name}.txt").read_text(encoding="utf-8").split("\n", 2)
    above, below = map(int, re.search(r"(\d)/(\d)$", title).groups())
    measure = 4 * above / below
    bars = [sum(map(beats, bar.split(","))) for bar in body.split("|") if bar.strip()]
    if (
        bars[0] < measure
    ):  # a pickup takes its beats from the last bar, except in those that end with a whole one
        bars = [*bars[1:-1], bars[-1] + bars[0] if (bars[-1] + bars[0]) % measure == 0 else bars[-1]]
    assert all(bar % measure == 0 for bar in bars), bars
    notes = melodies.melody(name)
    assert 48 <= notes.pitch.min() <= notes.pitch.max() <= 84
    assert 8 < notes.seconds < 60


def test_there_are_enough_melodies() -> None:
    assert len(melodies.names()) >= 20


def test_an_unknown_melody_is_an_error_that_lists_the_known() -> None:
    with pytest.raises(WavegenError, match=r"expected one of the melodies amazing_grace, .*, got 'thriller'"):
        melodies.melody("thriller")


def test_composed_pieces_depend_on_the_seed_alone_and_grow_at_the_end() -> None:
    long, short = compose(3, 20), compose(3, 7)
    assert short.pitch.tolist() == long.between(0, 7).pitch.tolist()
    assert compose(3, 20).text() == long.text()
    assert compose(4, 20).text() != long.text()
    with pytest.raises(WavegenError, match="expected a length above 0 seconds, got 0"):
        compose(0, 0)


def test_composed_pieces_are_varied_melodies() -> None:
    pieces = [compose(seed, 30) for seed in range(40)]
    for piece in pieces:
        assert LOW <= piece.pitch.min() <= piece.pitch.max() <= HIGH
        assert 25 < piece.seconds <= 30.000001
        assert (np.diff(piece.onset) >= piece.duration[:-1]).all()
        assert len(np.unique(piece.pitch)) >= 4
    pitches = np.concatenate([piece.pitch for piece in pieces])
    durations = np.concatenate([piece.duration for piece in pieces])
    assert len(np.unique(pitches)) > 25
    assert durations.min() < 0.2
    assert 2.5 < durations.max() <= 3.0
    assert np.mean(durations > 1.5) > 0.05


@pytest.mark.parametrize("rate", [8000, 16000, 22050])
@pytest.mark.parametrize("velocity", [0.4, 1.0])
def test_strokes_are_heard_where_the_notes_begin(rate: int, velocity: float) -> None:
    for pitch in range(40, 90, 7):
        wave = PIANO.render(one_note(pitch, onset=0.1, velocity=velocity), rate).samples[:, 0]
        stroke = np.argmax(np.abs(wave) > 0.05 * np.abs(wave).max()) / rate
        assert abs(stroke - 0.1 - PIANO.attack_seconds) < 0.002, pitch
        assert not wave[: round((0.1 - 0.001) * rate)].any()


@pytest.mark.parametrize("rate", [8000, 16000])
def test_rendered_pitch_is_the_notes(rate: int) -> None:
    for pitch in range(45, 85, 3):
        wave = PIANO.render(one_note(pitch, duration=0.6), rate).samples[round(0.05 * rate) :, 0]
        spectrum = np.fft.rfft(wave * np.hanning(len(wave)), 1 << 17)
        correlation = np.fft.irfft(np.abs(spectrum) ** 2)
        period = rate / float(frequency(pitch))
        lags = np.arange(round(period / 1.9), round(period * 1.9))
        best = lags[np.argmax(correlation[lags])]
        left, middle, right = correlation[best - 1 : best + 2]
        best = best + 0.5 * (left - right) / (left - 2 * middle + right)
        assert abs(1200 * np.log2(period / best)) < 15, pitch


def test_notes_fade_within_the_release_and_then_are_silent() -> None:
    audio = PIANO.render(one_note(60, duration=0.5), 8000, length=8000)
    end = round((0.5 + RELEASE) * 8000)
    assert np.abs(audio.samples[3900:4000]).max() > 0.01
    assert not audio.samples[end:].any()
    # no click: the last millisecond before silence is far below the note
    assert np.abs(audio.samples[end - 8 : end]).max() < 0.02 * np.abs(audio.samples[3900:4000]).max()
    longer = PIANO.render(one_note(60, duration=0.5), 8000, release=0.3, length=8000)
    assert np.abs(longer.samples[end : end + 800]).max() > 0.005
    with pytest.raises(WavegenError, match="expected a release of at least 0 seconds, got -1"):
        PIANO.render(one_note(60), 8000, release=-1)


def test_chords_are_sums_and_loud_ones_are_scaled() -> None:
    both = Performance(np.array([60, 64]), np.array([0.0, 0.25]), np.array([0.5, 0.5]), np.array([0.5, 0.5]))
    apart = [
        PIANO.render(one_note(p, onset=o, velocity=0.5), 8000, length=8000).samples
        for p, o in ((60, 0.0), (64, 0.25))
    ]
    np.testing.assert_allclose(PIANO.render(both, 8000, length=8000).samples, sum(apart), atol=1e-6)
    cluster = Performance(np.arange(50, 80), np.zeros(30), np.ones(30), np.ones(30))
    assert np.abs(PIANO.render(cluster, 8000).samples).max() == 1.0


def test_louder_strokes_are_louder() -> None:
    levels = [
        np.abs(PIANO.render(one_note(60, velocity=v), 8000).samples).max() for v in (0.3, 0.6, 0.8, 1.0)
    ]
    assert (np.diff(levels) > 0).all()
    assert levels[1] / levels[0] == pytest.approx(4, rel=1e-3)  # one layer: the square of the velocity


def test_the_shipped_piano_is_small_whole_and_levelled() -> None:
    assert (ASSETS / "piano.flac").stat().st_size < 4e6
    assert len(PIANO.pcm) == sum(row["length"] for row in PIANO.recordings)
    assert json.loads((ASSETS / "piano.json").read_text())["licence"] == "CC0-1.0"
    assert len(PIANO.recordings) == 66
    loudness = [
        np.sqrt(np.mean(PIANO.key(pitch, layer, 16000)[:4800] ** 2))
        for pitch in range(45, 80)
        for layer in "LH"
    ]
    assert max(loudness) / min(loudness) < 1.5


def test_the_build_command_cuts_tunes_and_indexes(tmp_path) -> None:
    (tmp_path / "samples").mkdir()
    time = np.arange(44100) / 44100
    for name, pitch, lead in (("A4vL", 69, 400), ("C5vH", 72, 0)):
        tone = 0.5 * np.sin(2 * np.pi * float(frequency(pitch + 0.1)) * time) * np.exp(-3 * time)
        stereo = np.stack([np.zeros(44100 + lead), np.pad(tone, (lead, 0))], axis=1)
        soundfile.write(tmp_path / "samples" / f"{name}.flac", stereo, 44100)
    piano_build.build(tmp_path, tmp_path)
    index = json.loads((tmp_path / "piano.json").read_text())
    assert [(row["pitch"], row["layer"]) for row in index["recordings"]] == [(69, "L"), (72, "H")]
    assert [row["cents"] for row in index["recordings"]] == pytest.approx([10, 10], abs=1)
    pcm, rate = soundfile.read(tmp_path / "piano.flac")
    for row in index["recordings"]:
        wave = pcm[row["offset"] : row["offset"] + row["length"]]
        stroke = np.argmax(np.abs(wave) > 0.05 * np.abs(wave).max()) / rate
        assert stroke == pytest.approx(index["attack_seconds"], abs=2 / rate)
    with pytest.raises(WavegenError, match=r"expected recordings such as samples/A4vL\.flac in .*, got none"):
        piano_build.build(tmp_path / "samples", tmp_path)


def read_corpus(path) -> dict[str, tuple[np.ndarray, np.ndarray, str]]:
    dataset, clips = Dataset.open(path), {}
    for split in ("train", "valid", "test"):
        files = dataset.split(split)
        for row, (name, length) in enumerate(zip(files.names, files.length, strict=True)):
            features = dataset.read_features(files, row, 0, -(-int(length) // dataset.feature_hop))
            clips[name] = (dataset.read(files, row, 0, int(length))[:, 0], features, split)
    return clips


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "small"
    corpus.build_corpus(path, sample_rate=8000, minutes=3, seed=1, hop=80)
    return read_corpus(path)


def test_the_corpus_is_a_function_of_its_arguments(small, tmp_path) -> None:
    corpus.build_corpus(tmp_path, sample_rate=8000, minutes=3, seed=1, hop=80)
    again = read_corpus(tmp_path)
    assert again.keys() == small.keys()
    for name, (pcm, features, split) in small.items():
        np.testing.assert_array_equal(pcm, again[name][0])
        np.testing.assert_array_equal(features, again[name][1])
        assert split == again[name][2]
    seconds = sum(len(pcm) for pcm, *_ in small.values()) / 8000
    assert 175 < seconds < 190


def test_no_melody_is_in_two_splits(small) -> None:
    for seed in range(5):
        parts = [set(corpus.melodies_of(split, seed)) for split in ("train", "valid", "test")]
        assert set.union(*parts) == set(melodies.names())
        assert sum(map(len, parts)) == len(melodies.names())
    assert corpus.melodies_of("test", 0) != corpus.melodies_of("test", 1)
    scores: dict[tuple[float, ...], str] = {}
    for _, features, split in small.values():
        pitches = features[features[:, 1] == 0, 0]
        intervals = tuple(np.diff(pitches[pitches > 0])[:12].tolist())
        assert scores.setdefault(intervals, split) == split


def test_corpus_audio_and_features_agree(small) -> None:
    for name, (pcm, features, _) in small.items():
        wave = pcm / 32768
        assert np.abs(pcm.astype(int)).max() < 32767, name
        assert 0.02 < np.sqrt(np.mean(wave**2)) < 0.2, name
        assert np.abs(wave[-8:]).max() < 1e-3, name
        strokes = np.flatnonzero((features[:, 0] > 0) & (features[:, 1] == 0))
        assert len(strokes) > 0
        for frame in strokes:
            before = wave[max(frame * 80 - 80, 0) : frame * 80]
            after = wave[frame * 80 : frame * 80 + 160]
            rested = frame >= 4 and not features[frame - 4 : frame, 0].any()  # 40 ms: past the release
            assert np.abs(after).max() > 0.02, name
            assert not rested or not before.any(), name


def test_the_corpus_is_cached_by_what_makes_it(tmp_path, monkeypatch) -> None:
    settings_ = {"sample_rate": 8000, "minutes": 0.2, "seed": 0, "hop": 80}
    path = corpus.cached_corpus(tmp_path, **settings_)
    built = []
    monkeypatch.setattr(corpus, "build_corpus", lambda out, **_: built.append(out))
    assert corpus.cached_corpus(tmp_path, **settings_) == path
    assert not built
    assert corpus.cached_corpus(tmp_path, **(settings_ | {"hop": 160})) == built[0] != path
    monkeypatch.undo()
    with pytest.raises(WavegenError, match="expected a corpus of more than 0 minutes, got 0"):
        corpus.build_corpus(tmp_path, **(settings_ | {"minutes": 0}))
