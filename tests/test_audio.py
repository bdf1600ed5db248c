import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wavegen.audio import Audio, AudioWriter
from wavegen.errors import WavegenError
from wavegen.losses import Losses, LossWarning


def tone(frequency=440.0, seconds=0.5, sample_rate=16000, channels=1):
    time = np.arange(int(seconds * sample_rate)) / sample_rate
    wave = 0.5 * np.sin(2 * np.pi * frequency * time)
    return Audio(np.stack([wave / (1 + channel) for channel in range(channels)], axis=1), sample_rate)


def loudest_frequency(audio):
    spectrum = np.abs(np.fft.rfft(audio.samples[:, 0] * np.hanning(len(audio.samples))))
    return np.argmax(spectrum) * audio.sample_rate / len(audio.samples)


@pytest.fixture
def small_disk():
    """Files end at 16 kB, which the operating system reports as it reports a full disk."""
    resource = pytest.importorskip("resource")
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16384, old[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, old)


@given(arrays(np.int16, st.tuples(st.integers(0, 50), st.integers(1, 3))))
def test_pcm16_round_trip_is_exact(pcm):
    np.testing.assert_array_equal(Audio.from_pcm16(pcm, 8000).to_pcm16(), pcm)


def test_to_pcm16_clips():
    assert Audio(np.array([1.5, -1.5, 1.0]), 8000).to_pcm16()[:, 0].tolist() == [32767, -32768, 32767]


@pytest.mark.parametrize(
    ("name", "encoding", "tolerance"),
    [
        ("a.wav", "pcm16", 2**-16),
        ("a.flac", "pcm16", 2**-16),
        ("a.wav", "pcm24", 2**-24),
        ("a.flac", "pcm24", 2**-24),
        ("a.wav", "float", 0.0),
    ],
)
def test_read_returns_what_write_wrote(tmp_path, name, encoding, tolerance):
    audio = tone(channels=2)
    audio.write(tmp_path / "new folder" / name, encoding)
    back = Audio.read(tmp_path / "new folder" / name)
    assert back.sample_rate == audio.sample_rate
    np.testing.assert_allclose(back.samples, audio.samples, rtol=0, atol=tolerance)
    assert [path.name for path in (tmp_path / "new folder").iterdir()] == [name]


@pytest.mark.parametrize("name", ["a.mp3", "a.ogg", "a.aiff", "a.au", "a.w64"])
def test_read_decodes_other_formats(tmp_path, name):
    audio = tone(seconds=1.0, channels=2)
    soundfile.write(tmp_path / name, audio.samples, audio.sample_rate)
    back = Audio.read(tmp_path / name)
    assert back.samples.shape == audio.samples.shape
    assert loudest_frequency(back) == pytest.approx(440, abs=1)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW"])
def test_read_decodes_wav_of_every_depth(tmp_path, subtype):
    audio = tone()
    soundfile.write(tmp_path / "a.wav", audio.samples, audio.sample_rate, subtype=subtype)
    np.testing.assert_allclose(Audio.read(tmp_path / "a.wav").samples, audio.samples, atol=0.02)


@pytest.mark.parametrize(("old", "new"), [(4000, 16000), (192000, 4000), (44100, 16000), (16000, 44100)])
def test_resample_keeps_pitch_loudness_and_length(old, new):
    audio = tone(seconds=1.0, sample_rate=old)
    resampled = audio.resample(new)
    assert resampled.sample_rate == new
    assert len(resampled.samples) == new
    assert loudest_frequency(resampled) == pytest.approx(440, abs=1)
    assert np.std(resampled.samples) == pytest.approx(np.std(audio.samples), rel=0.01)


def test_resample_to_the_same_rate_changes_nothing():
    audio = tone()
    np.testing.assert_array_equal(audio.resample(audio.sample_rate).samples, audio.samples)


def test_resample_removes_what_the_new_rate_cannot_hold():
    assert np.std(tone(frequency=3000, sample_rate=16000).resample(4000).samples) < 0.01


def test_mono_is_the_mean_of_the_channels():
    np.testing.assert_allclose(tone(channels=2).mono().samples, tone().samples * 0.75, rtol=1e-6)


def test_trim_silence_cuts_the_quiet_ends_and_nothing_between():
    loud = tone(seconds=0.2).samples
    quiet = 0.001 * loud
    audio = Audio(np.concatenate([quiet, loud, quiet, loud, quiet]), 16000)
    trimmed = audio.trim_silence(db=40)
    np.testing.assert_array_equal(trimmed.samples, np.concatenate([loud, quiet, loud]))
    assert len(audio.trim_silence(db=80).samples) == len(audio.samples)


def test_trim_silence_leaves_nothing_of_digital_silence():
    assert len(Audio(np.zeros(1000), 16000).trim_silence().samples) == 0


def test_notebook_shows_a_player():
    assert tone()._repr_html_().startswith("<audio controls")


def cut(path, share=0.6):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def bad_file(folder, kind):
    """A file that cannot be read, and its path."""
    path = folder / {"truncated mp3": "a.mp3", "truncated flac": "a.flac", "text mp3": "a.mp3"}.get(
        kind, "a.wav"
    )
    audio = tone(seconds=2.0)
    if kind == "folder":
        path.mkdir()
    elif kind == "empty":
        path.touch()
    elif kind.startswith("text"):
        path.write_text("this is no recording\n" * 20)
    elif kind == "no samples":
        Audio(np.zeros((0, 1)), 16000).write(path)
    elif kind == "nan":
        samples = audio.samples.copy()
        samples[7] = np.nan
        soundfile.write(path, samples, 16000, subtype="FLOAT")
    elif kind == "corrupt header":
        audio.write(path)
        data = path.read_bytes()
        path.write_bytes(data[:12] + bytes(64) + data[76:])
    elif kind.startswith("truncated"):
        soundfile.write(path, audio.samples, 16000)
        cut(path)
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", r"No such file or directory \(expected a recording, got nothing\)"),
        ("folder", "expected a recording, got a folder at this path"),
        ("empty", r"the file is empty \(0 bytes\); copy it again"),
        ("text", r"damaged or not a recording that libsndfile decodes \(Format not recognised\); convert it"),
        (
            "text mp3",
            r"damaged or not a recording that libsndfile decodes \(no audio found in it\); convert it",
        ),
        ("corrupt header", r"damaged or not a recording that libsndfile decodes \(.*\); convert it"),
        ("no samples", "it has 0 samples"),
        ("nan", r"expected finite samples, got \[nan\] at sample 7; repair the recording"),
        (
            "truncated wav",
            r"cut short \(the header promises 64000 bytes of audio, the file holds 38\d+\); copy",
        ),
        (
            "truncated mp3",
            r"cut short \(the header promises 32000 samples, the file holds \d+\); copy it again",
        ),
        ("truncated flac", "damaged or not a recording that libsndfile decodes"),
    ],
)
def test_unreadable_files_are_named_with_the_reason(tmp_path, kind, message):
    path = bad_file(tmp_path, kind)
    with pytest.raises(WavegenError, match=message) as error:
        Audio.read(path)
    assert str(error.value).startswith(f"cannot read {path}: ")
    assert "\n" not in str(error.value)


def without_length(data):
    """An MP3 (MPEG-1, layer III) without the frame that gives its length."""
    bitrate = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)[data[2] >> 4]
    rate = (44100, 48000, 32000)[data[2] >> 2 & 3]
    assert b"Xing" in data[:200] or b"Info" in data[:200]
    return data[144_000 * bitrate // rate + (data[2] >> 1 & 1) :]


@pytest.mark.parametrize("quiet_first", [True, False])
def test_an_mp3_whose_length_is_an_estimate_is_read_to_its_end(tmp_path, quiet_first):
    loud = np.random.default_rng(0).uniform(-0.5, 0.5, 44100)
    parts = [np.zeros(88200), loud] if quiet_first else [loud, np.zeros(88200)]
    soundfile.write(tmp_path / "a.mp3", np.concatenate(parts), 44100, bitrate_mode="VARIABLE")
    (tmp_path / "b.mp3").write_bytes(without_length((tmp_path / "a.mp3").read_bytes()))
    assert abs(soundfile.info(tmp_path / "b.mp3").frames - 132300) > 10_000  # the estimate
    losses = Losses()
    audio = Audio.read(tmp_path / "b.mp3", losses=losses)
    assert abs(len(audio.samples) - 132300) < 4 * 1152
    half = len(audio.samples) // 2
    first, second = np.abs(audio.samples[:half]).mean(), np.abs(audio.samples[half:]).mean()
    assert (first < second) == quiet_first
    assert list(losses) == ["recordings without a length, whose end may be missing"]
    with pytest.warns(LossWarning, match=r"b\.mp3: recordings without a length"):
        Audio.read(tmp_path / "b.mp3")
    assert Audio.read(tmp_path / "a.mp3", losses=losses).duration == 3
    assert losses.total() == 1


@pytest.mark.parametrize("ending", ["mp3", "ogg"])
def test_joined_recordings_are_read_with_all_their_parts(tmp_path, ending):
    part = 0.5 * np.sin(np.arange(22050) / 10)
    soundfile.write(tmp_path / f"a.{ending}", part, 22050)
    soundfile.write(tmp_path / f"b.{ending}", -part[:11025], 22050)
    data = [(tmp_path / f"{name}.{ending}").read_bytes() for name in "ab"]
    (tmp_path / f"c.{ending}").write_bytes(data[0] + data[1] + data[0])
    whole = Audio.read(tmp_path / f"c.{ending}")
    assert len(whole.samples) == 2 * 22050 + 11025
    np.testing.assert_allclose(
        whole.samples[22050 : 22050 + 11025], Audio.read(tmp_path / f"b.{ending}").samples, atol=1e-4
    )


def test_a_flac_of_unknown_length_is_read_to_its_end(tmp_path):
    tone().write(tmp_path / "a.flac")
    data = bytearray((tmp_path / "a.flac").read_bytes())
    data[21] &= 0xF0  # the 36 bits of the count of samples in STREAMINFO
    data[22:26] = bytes(4)
    (tmp_path / "b.flac").write_bytes(data)
    np.testing.assert_array_equal(
        Audio.read(tmp_path / "b.flac").samples, Audio.read(tmp_path / "a.flac").samples
    )


def test_a_header_cannot_ask_for_memory(tmp_path):
    tone().write(tmp_path / "a.wav")
    data = bytearray((tmp_path / "a.wav").read_bytes())
    data[24:28] = (0x7FFFFFFF).to_bytes(4, "little")
    (tmp_path / "a.wav").write_bytes(data)
    with pytest.raises(WavegenError, match="sample rates up to 1048576 Hz, got 2147483647"):
        Audio.read(tmp_path / "a.wav").resample(16000)
    with pytest.raises(WavegenError, match=r"values, got .* the recording claims 1 Hz"):
        Audio(np.zeros(1 << 20), 1).resample(16000)


def test_what_does_not_end_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "link.wav").symlink_to(tmp_path / "nowhere")
    for path, got in ((tmp_path / "pipe.wav", "a pipe"), ("/dev/zero", "a device")):
        with pytest.raises(WavegenError, match=f"expected a recording, got {got} at this path"):
            Audio.read(path)
    with pytest.raises(WavegenError, match="got a link to nothing"):
        Audio.read(tmp_path / "link.wav")


def test_read_accepts_the_unknown_length_of_a_stream(tmp_path):
    tone().write(tmp_path / "a.wav")
    data = bytearray((tmp_path / "a.wav").read_bytes())
    data[4:8] = data[40:44] = b"\xff" * 4
    (tmp_path / "a.wav").write_bytes(data)
    assert Audio.read(tmp_path / "a.wav").duration == 0.5


@pytest.mark.parametrize(
    ("samples", "rate", "message"),
    [
        (np.zeros((2, 3, 4)), 8000, r"expected samples of shape \[T\] or \[T, C\], got \[2, 3, 4\]"),
        (np.zeros(4), 0, "expected a sample rate in Hz above 0, got 0"),
        (np.array([0.0, np.inf]), 8000, r"expected finite samples, got \[inf\] at sample 1"),
    ],
)
def test_audio_refuses_what_is_no_recording(samples, rate, message):
    with pytest.raises(WavegenError, match=message):
        Audio(samples, rate)


@pytest.mark.parametrize(
    ("name", "encoding", "message"),
    [
        ("a.mp3", "pcm16", r"expected a name that ends in \.wav or \.flac, got '\.mp3'"),
        ("a.flac", "float", r"expected pcm16, pcm24 or \(WAV only\) float, got 'float'"),
    ],
)
def test_write_refuses_what_it_cannot_encode(tmp_path, name, encoding, message):
    with pytest.raises(WavegenError, match=message):
        tone().write(tmp_path / name, encoding)
    assert not list(tmp_path.iterdir())


def test_full_disk_is_reported_and_leaves_the_old_file(tmp_path, small_disk):
    path = tmp_path / "a.wav"
    short = tone(seconds=0.1)
    short.write(path)
    with pytest.raises(WavegenError, match=r"cannot write .*a\.wav: File too large; free some space"):
        tone(seconds=5).write(path)
    assert Audio.read(path).duration == short.duration
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.wav"]


def test_folder_that_cannot_be_written_is_reported(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WavegenError, match=r"cannot write .*a\.wav: .*choose a folder you can write to"):
        tone().write(tmp_path / "file" / "a.wav")
    with pytest.raises(WavegenError, match=r"cannot write .*a\.wav: .*choose a folder you can write to"):
        AudioWriter(tmp_path / "file" / "a.wav", 16000)


def test_writer_keeps_a_valid_file_after_every_block(tmp_path):
    blocks = [tone(frequency, seconds=0.1).samples for frequency in (200, 300, 400)]
    with AudioWriter(tmp_path / "a.wav", 16000) as writer:
        for count, block in enumerate(blocks, start=1):
            writer.write(block)
            # What another process sees now is what a killed one would leave.
            seen = Audio.read(tmp_path / "a.wav")
            np.testing.assert_allclose(seen.samples, np.concatenate(blocks[:count]), atol=2**-16)
            assert writer.duration == pytest.approx(0.1 * count)
    assert Audio.read(tmp_path / "a.wav").duration == pytest.approx(0.3)


def test_writer_keeps_the_blocks_before_an_interruption(tmp_path):
    def interrupted(writer):
        writer.write(tone(seconds=0.1).samples)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), AudioWriter(tmp_path / "a.wav", 16000) as writer:
        interrupted(writer)
    assert Audio.read(tmp_path / "a.wav").duration == pytest.approx(0.1)


def test_writer_keeps_the_blocks_before_the_disk_was_full(tmp_path, small_disk):
    def fill(writer):
        while True:
            writer.write(tone(seconds=0.1).samples)

    with (
        pytest.raises(WavegenError, match=r"cannot write .*a\.wav: File too large; free some space"),
        AudioWriter(tmp_path / "a.wav", 16000) as writer,
    ):
        fill(writer)
    assert Audio.read(tmp_path / "a.wav").duration >= 0.5


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (np.zeros((4, 2), np.float32), r"expected blocks of 1 channel\(s\), got 2"),
        (np.full(4, np.nan), "finite"),
    ],
)
def test_writer_refuses_blocks_that_do_not_fit(tmp_path, block, message):
    with AudioWriter(tmp_path / "a.wav", 16000) as writer, pytest.raises(WavegenError, match=message):
        writer.write(np.asarray(block, np.float32))


def test_audio_and_preparation_do_not_start_jax():
    code = "import sys, wavegen.audio, wavegen.data.prepare; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("streamed", [False, True])
def test_clipped_samples_are_counted_once_and_the_normal_path_is_quiet(tmp_path, streamed):
    def write(samples):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            if streamed:
                with AudioWriter(tmp_path / "a.wav", 8000) as writer:
                    for block in np.split(samples, 4):
                        writer.write(block)
            else:
                Audio(samples, 8000).write(tmp_path / "a.wav")
        return [str(warning.message) for warning in caught]

    loud = np.linspace(-1.25, 1, 1000, dtype=np.float32)
    assert write(loud) == [f"{tmp_path / 'a.wav'}: samples beyond [-1, 1] clipped: 111"]
    assert write(loud.clip(-1, 1)) == []


def test_floats_are_written_unclipped_and_without_a_word(tmp_path, recwarn):
    Audio(np.full(8, 1.5), 8000).write(tmp_path / "a.wav", "float")
    assert Audio.read(tmp_path / "a.wav").samples.max() == 1.5
    assert not recwarn.list
