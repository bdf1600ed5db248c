"""Notes in ticks, their tempo map, and MIDI files: exact both ways, and never broken by a broken file."""

import importlib.util
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wavegen.errors import WavegenError
from wavegen.losses import Losses, LossWarning
from wavegen.notes.arrange import concatenate, together
from wavegen.notes.midi import midi_bytes, parse_midi, read_midi, write_midi
from wavegen.notes.score import COLUMNS, END_OF_TIME, TICKS, Score, Track


def notes_of(*rows: tuple[int, int, int, int, int], **options) -> Score:
    """Rows of pitch, onset, duration, velocity, track."""
    columns = np.array(rows, int).reshape(-1, 5).T
    return Score(*columns, **options)


@st.composite
def scores(draw: st.DrawFn) -> dict:
    """Arguments of any `Score` that a MIDI file can say: none within another of the same track and pitch."""
    tracks = draw(
        st.lists(
            st.builds(Track, st.text("aé\x00音", max_size=3), st.integers(0, 127), st.booleans()),
            min_size=1,
            max_size=20,
        )
    )
    rows, free = [], {}
    for pitch, wait, duration, velocity, track in draw(
        st.lists(
            st.tuples(
                st.integers(0, 127),
                st.integers(0, 100_000),
                st.integers(1, 100_000),
                st.integers(1, 127),
                st.integers(0, len(tracks) - 1),
            ),
            max_size=12,
        )
    ):
        onset = free.get((pitch, track), 0) + wait
        free[pitch, track] = onset + duration
        rows.append((pitch, onset, duration, velocity, track))
    tick = st.integers(0, 10_000)
    tempos = draw(st.lists(st.tuples(tick, st.integers(1, (1 << 24) - 1)), max_size=4))
    metres = draw(
        st.lists(st.tuples(tick, st.integers(1, 255), st.sampled_from([1, 2, 4, 8, 128])), max_size=3)
    )
    columns = np.array(rows, int).reshape(-1, 5).T
    return dict(zip(COLUMNS, columns, strict=True)) | {
        "tracks": tuple(tracks),
        "ticks_per_quarter": draw(st.integers(1, 32767)),
        "tempos": np.array(tempos, int).reshape(-1, 2),
        "metres": np.array(metres, int).reshape(-1, 3),
    }


@given(scores())
@settings(deadline=None, max_examples=60)
def test_a_midi_file_gives_its_notes_again(score: dict) -> None:
    notes = Score(**score)
    assert parse_midi(midi_bytes(notes)) == notes


def test_files_are_written_whole_and_read_again(tmp_path) -> None:
    notes = notes_of((60, 0, 480, 90, 0), (38, 240, 1, 127, 1), tracks=(Track("piano"), Track("", 0, True)))
    write_midi(tmp_path / "new" / "a.mid", notes)
    assert read_midi(tmp_path / "new" / "a.mid") == notes
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.mid"]
    with pytest.raises(WavegenError, match=r"cannot write .*a\.mid/b\.mid"):
        write_midi(tmp_path / "new" / "a.mid" / "b.mid", notes)


def test_other_readers_find_the_same_notes() -> None:
    symusic = pytest.importorskip("symusic")
    rng = np.random.default_rng(0)
    for _ in range(20):
        notes = fuzz_midi().piece(rng)
        theirs = symusic.Score.from_midi(midi_bytes(notes))
        rows = sorted(
            (note.time, note.pitch, note.duration, note.velocity, track.name, track.program, track.is_drum)
            for track in theirs.tracks
            for note in track.notes
        )
        ours = parse_midi(midi_bytes(notes))
        tracks = [ours.tracks[number] for number in ours.track]
        columns = (ours.onset.tolist(), ours.pitch.tolist(), ours.duration.tolist(), ours.velocity.tolist())
        assert rows == sorted((*row, *track) for *row, track in zip(*columns, tracks, strict=True))
        assert theirs.tpq == notes.ticks_per_quarter
        tempos = {tempo.time: tempo.mspq for tempo in theirs.tempos}
        assert tempos == dict(notes.tempos.tolist())


def chunk(events: bytes) -> bytes:
    return b"MTrk" + len(events).to_bytes(4) + events


def header(kind: int = 1, tracks: int = 1, division: int = 96) -> bytes:
    return b"MThd\0\0\0\6" + b"".join(number.to_bytes(2) for number in (kind, tracks, division))


def test_what_other_writers_write_is_read() -> None:
    events = bytes.fromhex(
        "00 ff 03 04 66 c3 bc 72"  # name "für", in UTF-8
        "00 c1 28"  # channel 1: violin
        "00 91 3c 40  00 40 50"  # running status
        "8100 3c 00"  # 128 ticks later the first ends, by velocity 0
        "00 f0 03 7e 7f f7"  # system exclusive
        "10 ff 7f 02 00 00"  # a meta event for one sequencer
        "00 81 40 7f"
        "00 d1 05  00 07  00 b1 40 7f  00 e1 00 40"  # pressure twice, pedal, bend
        "00 99 24 64  08 89 24 00"  # a drum
        "00 c1 49  00 91 48 01  20 91 48 00"  # the same channel takes the flute
        "00 91 30 7f  01 91 30 7e  01 81 30 00  02 81 30 00"  # two of one pitch: the first ends first
        "00 91 31 7d  00 81 31 00"  # no length
        "00 91 32 7c"  # never ended
        "05 ff 2f 00"
    )
    notes = parse_midi(pedal=False, data=header(kind=0) + b"junk\0\0\0\2??" + chunk(events) + b"trailing")
    assert notes.tracks == (Track("für", 40), Track("für", 0, True), Track("für", 73))
    rows = zip(notes.pitch, notes.onset, notes.duration, notes.velocity, notes.track, strict=True)
    assert sorted(tuple(map(int, row)) for row in rows) == sorted(
        [
            (0x3C, 0, 128, 0x40, 0),
            (0x40, 0, 144, 0x50, 0),
            (0x24, 144, 8, 0x64, 1),
            (0x48, 152, 32, 1, 2),
            (0x30, 184, 2, 0x7F, 2),
            (0x30, 185, 3, 0x7E, 2),
            (0x31, 188, 1, 0x7D, 2),
            (0x32, 188, 5, 0x7C, 2),
        ]
    )


def test_names_that_are_no_utf8_are_read_as_latin1() -> None:
    assert parse_midi(header() + chunk(b"\x00\xff\x03\x01\xe9\x00\x90\x3c\x40")).tracks == (Track("é"),)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "expected a MIDI file, which begins with 'MThd', got b''"),
        (b"RIFF....", "begins with 'MThd', got b'RIFF'"),
        (b"MThd\0\0\0\6\0", "cut short: a chunk of 6 bytes, 1 of them here"),
        (b"MThd\0\0\0\2\0\1", "expected a MIDI header of 6 bytes, got 2"),
        (header(kind=2), "expected MIDI format 0 or 1, got 2"),
        (header(division=0xE728), "expected ticks per quarter note, got division 0xe728"),
        (header(division=0), "got division 0x0000"),
        (header(tracks=2), "the header promises 2 tracks, the file holds none"),
        (header() + chunk(b"\x00\x90\x3c\x40")[:-1], "cut short: a chunk of 4 bytes, 3 of them here"),
        (header() + chunk(b"\x00\x90\x3c"), "track 0: the last event is cut short"),
        (header() + chunk(b"\x00\xff\x03\x09abc"), "track 0: the last event is cut short"),
        (header() + chunk(b"\x00\x3c\x40"), "track 0: expected an event, got values without one"),
        (header() + chunk(b"\x00\xf8\x40"), "track 0: the last event is cut short"),
        (
            header() + chunk(b"\x00\x9f\xc8\x40"),
            "track 0: expected values under 128 before byte 4, got 200, 64",
        ),
        (header() + chunk(b"\xff" * 9), "track 0: expected a number of at most 4 bytes, got more"),
        (
            header() + chunk(b"\xff\xff\xff\x7f\x90\x3c\x40" * 2),
            "track 0: expected a piece of under 268435456 ticks",
        ),
    ],
)
def test_damaged_files_are_refused_in_one_line(data: bytes, message: str, tmp_path) -> None:
    (tmp_path / "bad.mid").write_bytes(data)
    with pytest.raises(WavegenError, match=rf"cannot read .*bad\.mid: .*{message}") as caught:
        read_midi(tmp_path / "bad.mid")
    assert "\n" not in str(caught.value)


def test_files_that_are_missing_or_huge_are_refused(tmp_path) -> None:
    with pytest.raises(WavegenError, match=r"cannot read .*absent\.mid: No such file"):
        read_midi(tmp_path / "absent.mid")
    with open(tmp_path / "huge.mid", "wb") as file:
        file.truncate(1 << 40)  # a terabyte of nothing
    with pytest.raises(
        WavegenError, match="expected at most 2097152 bytes, got 1099511627776: split the piece"
    ):
        read_midi(tmp_path / "huge.mid")


NOTE = b"\x00\x90\x3c\x40\x60\x80\x3c\x00"
END = b"\x00\xff\x2f\x00"


@pytest.mark.parametrize(
    ("data", "loss"),
    [
        (header() + chunk(b"\x00\xff\x58\x04\x00\x02\x18\x08" + NOTE + END), "damaged metres skipped"),
        (header() + chunk(b"\x00\xff\x58\x04\x03\x20\x18\x08" + NOTE + END), "damaged metres skipped"),
        (header() + chunk(b"\x00\xff\x51\x03\0\0\0" + NOTE + END), "damaged tempos skipped"),
        (header() + chunk(b"\x00\xff\x51\x02\1\1" + NOTE + END), "damaged tempos skipped"),
        (header() + chunk(NOTE[:-1] + b"\x80" + END), "unused values above 127"),
        (header() + chunk(b"\x00\xb0\x07\xff" + NOTE + END), "unused values above 127"),
        (header() + chunk(b"\x00\xe0\xff\xff" + NOTE + END), "unused values above 127"),
        (
            header() + chunk(NOTE[:4] + b"\x00\xf8" + NOTE[4:] + END),
            "messages that belong on a cable skipped",
        ),
        (header() + chunk(b"\x00\xf2\1\1" + NOTE + END), "messages that belong on a cable skipped"),
        (header(tracks=5) + chunk(NOTE + END), "tracks that the header promises and the file lacks"),
        (header() + b"MTrk\0\0\0\x10" + NOTE + END, "wrong lengths of tracks"),
        (
            header(tracks=2) + b"MTrk\0\0\0\x10" + NOTE + END + chunk(b"\x00\xc0\1" + END),
            "wrong lengths of tracks",
        ),
        (
            header(tracks=2) + chunk(NOTE + END) + b"\0\0" + chunk(b"\x00\xc0\1" + END),
            None,
        ),
        (header() + chunk(NOTE[:4] + b"\x60\xff\x2f\x00"), "notes without an end"),
    ],
)
def test_damage_in_what_is_not_used_costs_that_alone_and_is_counted(data, loss, tmp_path) -> None:
    losses = Losses()
    notes = parse_midi(data, losses=losses)
    assert (notes.pitch.tolist(), notes.onset.tolist(), notes.duration.tolist()) == ([60], [0], [96])
    assert list(losses) == ([] if loss is None else [loss])
    (tmp_path / "a.mid").write_bytes(data)
    if loss is not None:
        with pytest.warns(LossWarning, match=rf"a\.mid: {loss}: "):
            assert read_midi(tmp_path / "a.mid") == notes


def test_midi_within_riff_is_read(tmp_path) -> None:
    inner = header() + chunk(NOTE + END)
    body = b"RMIDinfo\1\0\0\0x\0data" + len(inner).to_bytes(4, "little") + inner
    (tmp_path / "a.rmi").write_bytes(b"RIFF" + len(body).to_bytes(4, "little") + body)
    assert read_midi(tmp_path / "a.rmi") == parse_midi(inner)
    with pytest.raises(WavegenError, match="expected MIDI in a chunk 'data' of the RIFF file"):
        parse_midi(b"RIFF\4\0\0\0RMID")


def test_what_does_not_end_is_not_read(tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe.mid")
    for path, got in ((tmp_path / "pipe.mid", "a pipe"), ("/dev/zero", "a device"), (tmp_path, "a folder")):
        with pytest.raises(WavegenError, match=f"expected a MIDI file, got {got} at this path"):
            read_midi(path)


@pytest.mark.parametrize(
    ("events", "ends"),
    [
        # The damper pedal holds a key that is released until it rises, or the key is struck again.
        ("00 b0 40 7f  00 90 3c 40  10 80 3c 00  20 b0 40 00", [0x30]),
        ("00 90 3c 40  08 b0 40 40  08 80 3c 00  20 b0 40 3f", [0x30]),
        ("00 b0 40 7f  00 90 3c 40  10 80 3c 00  10 90 3c 40  10 80 3c 00  20 b0 40 00", [0x20, 0x50]),
        ("00 b0 40 3f  00 90 3c 40  10 80 3c 00  20 b0 40 00", [0x10]),  # not down
        ("00 b0 40 7f  00 90 3c 40  10 80 3c 00  20 b0 79 00", [0x30]),  # reset of all controllers
        ("00 b0 40 7f  00 90 3c 40  10 80 3c 00  20 ff 2f 00", [0x30]),  # never raised
        ("00 b1 40 7f  00 90 3c 40  10 80 3c 00  20 b1 40 00", [0x10]),  # of another channel
        ("00 90 3c 40  10 b0 40 7f  00 80 3c 00  20 b0 40 00", [0x10]),  # pressed as the key is released
        ("00 b0 40 7f  00 90 3c 40  10 b0 40 00  00 80 3c 00  00 b0 40 7f  20 b0 40 00", [0x10]),  # changed
        ("00 b9 40 7f  00 99 3c 40  10 89 3c 00  20 b9 40 00", [0x10]),  # drums
        # The sostenuto pedal holds what is down when it is pressed.
        ("00 90 3c 40  08 b0 42 7f  08 80 3c 00  00 90 40 40  10 80 40 00  20 b0 42 00", [0x40, 0x20]),
        # All notes off, and omni and mono modes, release keys; all sound off silences.
        ("00 90 3c 40  10 b0 7b 00  10 80 3c 00", [0x10]),
        ("00 90 3c 40  10 b0 7e 00  10 80 3c 00", [0x10]),
        ("00 90 3c 40  10 b0 7b 00  10 90 3c 40  10 80 3c 00", [0x10, 0x30]),
        ("00 b0 40 7f  00 90 3c 40  10 b0 7b 00  10 b0 40 00", [0x20]),
        ("00 b0 40 7f  00 90 3c 40  10 80 3c 00  08 b0 78 00  10 b0 40 00", [0x18]),
        ("00 90 3c 40  10 b0 78 00  10 80 3c 00", [0x10]),
    ],
)
def test_pedals_and_ends_of_all_notes_decide_how_long_notes_sound(events: str, ends: list[int]) -> None:
    data = header() + chunk(bytes.fromhex(events))
    notes = parse_midi(data)
    assert (notes.onset + notes.duration).tolist() == ends
    keys = parse_midi(data, pedal=False)
    assert (keys.onset == notes.onset).all()
    assert (keys.duration <= notes.duration).all() or "78" in events


def test_a_pedal_in_another_track_holds_notes_too() -> None:
    keys, pedal = (chunk(bytes.fromhex(text)) for text in (
        "00 90 3c 40 10 80 3c 00", "00 b0 40 7f 40 b0 40 00",
    ))  # fmt: skip
    assert parse_midi(header(tracks=2) + keys + pedal).duration.tolist() == [0x40]
    assert parse_midi(header(tracks=2) + keys + pedal, pedal=False).duration.tolist() == [0x10]


def fuzz_midi():
    path = Path(__file__).parents[1] / "fuzz" / "midi.py"
    spec = importlib.util.spec_from_file_location("fuzz_midi", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_sixty_damaged_files_are_parsed_or_refused(tmp_path) -> None:
    rows = fuzz_midi().fuzz(60, 1, tmp_path, seconds=20)
    assert len(rows) == 18
    assert sum(sum(row.outcomes.values()) for row in rows.values()) == 60
    assert {"parsed", "refused"} == set().union(*(row.outcomes for row in rows.values()))


def test_notes_are_equal_in_any_order_and_cannot_be_changed() -> None:
    rows = [(60, 0, 1, 1, 0), (60, 0, 2, 1, 0), (59, 0, 9, 9, 1), (50, 3, 1, 1, 0)]
    tracks = (Track("a"), Track("b"))
    notes = notes_of(*rows, tracks=tracks)
    assert notes == notes_of(*rows[::-1], tracks=tracks)
    assert notes.pitch.tolist() == [60, 60, 59, 50]
    assert notes != notes_of(*rows[:3], tracks=tracks)
    assert notes != replace(notes, tracks=(Track("a"), Track("c")))
    assert notes != replace(notes, tempos=np.array([[0, 1]]))
    assert notes != 3
    with pytest.raises(ValueError, match="read-only"):
        notes.pitch[0] = 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pitch": np.array([128])}, r"expected pitch of a note in 0\.\.127, got 128 \(number 0\)"),
        ({"onset": np.array([-1])}, "expected onset of a note in 0"),
        ({"duration": np.array([0])}, "expected duration of a note in 1"),
        ({"onset": np.array([END_OF_TIME - 2])}, "expected end of a note in 1"),
        ({"velocity": np.array([0])}, r"expected velocity of a note in 1\.\.127, got 0"),
        ({"track": np.array([1])}, r"expected track of a note in 0\.\.0, got 1"),
        ({"tracks": (Track("", 128),)}, "expected program of a track in 0"),
        ({"ticks_per_quarter": 0}, r"expected ticks per quarter note in 1\.\.32767, got 0"),
        ({"tempos": np.array([[END_OF_TIME, 1]])}, "expected tick of a tempo in 0"),
        ({"tempos": np.array([[0, 0]])}, "expected microseconds per quarter note in 1"),
        ({"metres": np.array([[0, 4, 3]])}, r"expected metres over 1, 2, 4, \.\.\. 128, got \[3\]"),
        ({"tracks": (Track(),) * 65535}, r"expected count of tracks in 0\.\.65534, got 65535"),
    ],
)
def test_values_out_of_range_are_named(change: dict, message: str) -> None:
    with pytest.raises(WavegenError, match=message):
        replace(notes_of((60, 0, 2, 90, 0)), **change)


def test_seconds_follow_the_tempo_map() -> None:
    tempos = np.array(
        [[960, 1_000_000], [480, 250_000], [960, 2_000_000]]
    )  # of two at a tick the last is in force
    notes = notes_of((60, 0, 1440, 90, 0), tempos=tempos)
    ticks = np.array([0, 240, 480, 720, 960, 1440])
    np.testing.assert_allclose(notes.seconds(ticks), [0, 0.25, 0.5, 0.625, 0.75, 2.75], rtol=1e-15)
    played = notes.performance()
    assert (played.onset[0], played.duration[0], played.velocity[0]) == (0, 2.75, 90 / 127)
    # a rate without end: 1 microsecond a quarter note, then 16.7 s
    notes = notes_of(
        (60, 0, 1, 1, 0), ticks_per_quarter=1, tempos=np.array([[0, 1], [1_000_000, (1 << 24) - 1]])
    )
    np.testing.assert_allclose(notes.seconds(np.array([1_000_000, 1_000_001])), [1, 17.777215])


@given(scores(), st.integers(1, 100))
@settings(deadline=None, max_examples=30)
def test_a_finer_resolution_and_back_changes_nothing(score: dict, factor: int) -> None:
    coarse = Score(**score | {"ticks_per_quarter": min(score["ticks_per_quarter"], 32767 // factor)})
    fine = coarse.at_resolution(coarse.ticks_per_quarter * factor)
    np.testing.assert_array_equal(fine.onset, coarse.onset * factor)
    np.testing.assert_allclose(fine.seconds(fine.onset), coarse.seconds(coarse.onset), rtol=1e-12)
    assert fine.at_resolution(coarse.ticks_per_quarter) == coarse


def test_a_coarser_resolution_rounds_to_the_nearest_tick() -> None:
    notes = notes_of((60, 59, 1, 90, 0), (61, 60, 119, 90, 0), (62, 180, 500, 90, 0)).at_resolution(4)
    assert notes.onset.tolist() == [0, 1, 2]  # 0.49, 0.5 and 1.5 steps
    assert notes.duration.tolist() == [1, 1, 4]


def test_parts_are_selected_cut_moved_and_joined() -> None:
    tracks = (Track("drums", 0, True), Track("bass", 32), Track("flute", 73))
    notes = notes_of((36, 0, 100, 90, 0), (40, 480, 480, 80, 1), (72, 960, 960, 70, 2), tracks=tracks)
    notes = replace(notes, tempos=np.array([[0, 400_000], [960, 300_000]]), metres=np.array([[0, 3, 4]]))
    pitched = notes.select(lambda track: not track.drum)
    assert pitched.tracks == tracks[1:]
    assert (pitched.pitch.tolist(), pitched.track.tolist(), pitched.program.tolist()) == (
        [40, 72],
        [0, 1],
        [32, 73],
    )
    assert together([notes.select(lambda track: track.drum), pitched]) == notes
    assert notes.transpose(2).pitch.tolist() == [36, 42, 74]
    with pytest.raises(WavegenError, match=r"expected pitch of a note in 0\.\.127"):
        notes.transpose(60)
    first, second = notes.between(0, 960), notes.between(960, 1440)
    assert second.duration.tolist() == [480]
    assert second.tempos.tolist() == [[0, 300_000]]
    assert second.metres.tolist() == [[0, 3, 4]]
    whole = concatenate([first, second])
    assert whole.end == 1440
    np.testing.assert_array_equal(whole.seconds(whole.onset), notes.seconds(notes.onset))
    assert concatenate([first, second], length=4800).onset.tolist() == [0, 480, 4800]
    late = replace(
        first, tempos=np.array([[0, 400_000], [5000, 1]])
    )  # a tempo after the part's end is not the next's
    for length, start in ((None, 960), (4800, 4800)):
        assert concatenate([late, second], length).tempos.tolist() == [[0, 400_000], [start, 300_000]]
    plain = replace(first, tempos=notes_of().tempos)
    assert concatenate([first, plain]).tempos.tolist() == [[0, 400_000], [960, 500_000]]
    for join in (together, concatenate):
        with pytest.raises(WavegenError, match="expected parts of one resolution, got no parts"):
            join([])
        with pytest.raises(WavegenError, match=r"got \[4, 480\]: use \.at_resolution\(\)"):
            join([notes, notes.at_resolution(4)])
    with pytest.raises(WavegenError, match="expected parts with the same tracks"):
        concatenate([notes, pitched])


def test_no_notes_are_notes() -> None:
    nothing = notes_of(ticks_per_quarter=TICKS)
    assert (len(nothing), nothing.end, len(nothing.performance())) == (0, 0, 0)
    assert parse_midi(midi_bytes(nothing)) == nothing
    assert concatenate([nothing, nothing]) == nothing.between(0, 100) == nothing
