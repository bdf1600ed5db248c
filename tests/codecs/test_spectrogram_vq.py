"""What the frames of a codebook mean, and codebooks and codes as files. The laws are in tests/laws."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wavegen.codecs.spectrogram.codebook import SpectrogramCodebook
from wavegen.codecs.spectrogram.files import read_codebook_csv, write_codebook, write_codebook_csv
from wavegen.codecs.spectrogram.frames import MelFrames
from wavegen.errors import WavegenError

RATE, HOP, BANDS = 8000, 32, 16
FRAMES = MelFrames(RATE, n_fft=128, hop_length=HOP, bands=BANDS)
CLIP = 40 * HOP + 5
encode = jax.jit(lambda codec, audio: codec.encode(audio))
decode = jax.jit(lambda codec, tokens: codec.decode(tokens))


def notes(seed: int, batch: int, length: int) -> jax.Array:
    """Decaying tones, one after another, over a little noise."""
    random = np.random.default_rng(seed)
    t = np.arange(length) / RATE
    audio = 0.003 * random.standard_normal((batch, length))
    for row in range(batch):
        for begin in np.arange(0, length, 800) / RATE:
            pitch = random.uniform(150, 2000)
            audio[row] += (t >= begin) * np.exp(-20 * np.abs(t - begin)) * 0.3 * np.sin(2 * np.pi * pitch * t)
    return jnp.asarray(audio, jnp.float32)


@pytest.fixture(scope="module")
def codec() -> SpectrogramCodebook:
    """A codebook of frames of other notes, and of silence."""
    rows = np.asarray(jax.jit(FRAMES.from_audio)(notes(9, 1, 200 * HOP)))[0]
    return SpectrogramCodebook(
        np.concatenate([rows[::4], np.full((1, BANDS), FRAMES.silence)]), frames=FRAMES
    )


def test_codes_are_those_of_the_nearest_rows(codec: SpectrogramCodebook) -> None:
    audio = notes(2, 1, CLIP)
    rows, entries = (np.asarray(x, np.float64) for x in (FRAMES.from_audio(audio)[0], codec.codebook[...]))
    expected = ((rows[:, None] - entries[None]) ** 2).sum(axis=-1).argmin(axis=1)
    np.testing.assert_array_equal(encode(codec, audio)[0, :, 0], expected)
    np.testing.assert_array_equal(codec.rows(encode(codec, audio))[0], codec.codebook[...][expected])


def test_silence_is_the_start_token_and_sounds_silent(codec: SpectrogramCodebook) -> None:
    tokens = encode(codec, jnp.zeros((1, CLIP)))
    assert (tokens == codec.start_token).all()
    assert not decode(codec, tokens).any()


def test_decoded_notes_have_the_spectrum_of_their_codes(codec: SpectrogramCodebook) -> None:
    audio = notes(9, 1, 200 * HOP)[:, :CLIP]  # those that the codebook was made of
    back = decode(codec, encode(codec, audio))
    ours, theirs = (np.maximum(np.asarray(FRAMES.from_audio(x[:, :CLIP])), -40) for x in (back, audio))
    assert np.abs(ours - theirs).mean() < 0.25 * np.abs(theirs - theirs.mean()).mean()


@pytest.mark.parametrize(
    "frames", [FRAMES, MelFrames(), MelFrames(16000, 512, 160, 40, 50.0, 7000.0, floor=1e-6, reference=20.0)]
)
def test_rows_are_those_of_librosa(frames: MelFrames) -> None:
    librosa = pytest.importorskip("librosa")
    audio = np.asarray(notes(3, 2, 10 * frames.hop_length))
    mel = librosa.feature.melspectrogram(
        y=audio,
        sr=frames.sample_rate,
        n_fft=frames.n_fft,
        hop_length=frames.hop_length,
        n_mels=frames.bands,
        fmin=frames.f_min,
        fmax=frames.f_max,
    )
    expected = librosa.power_to_db(mel, ref=frames.reference, amin=frames.floor, top_db=None)
    np.testing.assert_allclose(
        jax.jit(frames.from_audio)(jnp.asarray(audio)), expected.swapaxes(1, 2)[:, :10], atol=2e-3
    )


float32s = st.floats(-300, 300, width=32, allow_subnormal=False)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(rows=st.lists(st.lists(float32s, min_size=3, max_size=3), min_size=1, max_size=4))
def test_codebooks_come_back_from_csv_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, rows: list
) -> None:
    path = tmp_path_factory.mktemp("csv") / "codebook.csv"
    codebook = np.asarray(rows, np.float32)
    write_codebook_csv(path, codebook)
    np.testing.assert_array_equal(read_codebook_csv(path, 3).view(np.uint32), codebook.view(np.uint32))
    text = path.read_bytes()
    write_codebook_csv(path, read_codebook_csv(path, 3))
    assert path.read_bytes() == text


def test_an_earlier_pair_of_files_loads_and_sounds(tmp_path: Path) -> None:
    """128 log-mel values a row, one integer a line, as numpy and spreadsheets write them."""
    codebook = np.random.default_rng(0).uniform(-80, 0, (6, 128)).astype(np.float32)
    np.savetxt(tmp_path / "codebook.csv", codebook, delimiter=",")
    (tmp_path / "vq_flat.csv").write_bytes(b"\xef\xbb\xbf0\r\n5\r\n3\r\n3\r\n")
    codec = SpectrogramCodebook.from_csv(tmp_path / "codebook.csv")
    np.testing.assert_array_equal(np.asarray(codec.codebook[...]).view(np.uint32), codebook.view(np.uint32))
    tokens = codec.read_codes(tmp_path / "vq_flat.csv")
    np.testing.assert_array_equal(tokens, [[[0], [5], [3], [3]]])
    assert decode(codec, tokens).shape == (1, 4 * 512)
    codec.write_codes(tmp_path / "again.csv", tokens)
    assert (tmp_path / "again.csv").read_bytes() == b"0\n5\n3\n3\n"


def test_a_saved_codec_is_the_same_codec(codec: SpectrogramCodebook, tmp_path: Path) -> None:
    codec.save(tmp_path / "codec.safetensors")
    again = SpectrogramCodebook.from_file(tmp_path / "codec.safetensors")
    assert again.frames == codec.frames
    np.testing.assert_array_equal(again.codebook[...], codec.codebook[...])
    codec.to_csv(tmp_path / "codebook.csv")
    again = SpectrogramCodebook.from_csv(tmp_path / "codebook.csv", FRAMES)
    np.testing.assert_array_equal(again.codebook[...], codec.codebook[...])
    assert again.start_token == codec.start_token == codec.vocab_size - 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "at least one line in .*, got an empty file"),
        ("\n\n", "at least one line in .*, got an empty file"),
        ("1,2\n", r"expected 3 values, one per band, in line 1 of .*, got 2"),
        ("1,2,3\n1,2,3,4\n", "expected 3 values, one per band, in line 2 of .*, got 4"),
        ("1,2,3\n\n1,2,3\n", "expected 3 values, one per band, in line 2 of .*, got 1"),
        ("a,b,c\n1,2,3\n", "expected numbers in line 1 of .*, got 'a'; remove headers"),
        ("1,2,\n", "expected numbers in line 1 of .*, got ''"),
        ("1,2,3\n1,nan,3\n", "finite float32 numbers in line 2 of .*, got NaN"),
        ("1,2,1e39\n", "finite float32 numbers in line 1"),
        (b"\xff\xfe\x00\x01", "it is not text"),
        (None, "No such file"),
        ("1,2,999\n", "in dB, within 300 of 0, got one of 999"),
    ],
)
def test_bad_codebooks_are_named_in_one_line(tmp_path: Path, text: str | bytes | None, message: str) -> None:
    path = tmp_path / "codebook.csv"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(WavegenError, match=message) as error:
        SpectrogramCodebook.from_csv(path, MelFrames(RATE, 128, 32, bands=3))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "got an empty file"),
        ("1\n2.5\n", "one integer in line 2 of .*, got '2.5'"),
        ("1\n\n2\n", "one integer in line 2 of .*, got ''"),
        ("1,2\n", "one integer in line 1"),
        ("1\n51\n", "codes from 0 to 50 in .*, got 51 in line 2; use the codebook"),
        ("-1\n", "codes from 0 to 50 in .*, got -1 in line 1"),
    ],
)
def test_bad_codes_are_named_in_one_line(
    codec: SpectrogramCodebook, tmp_path: Path, text: str, message: str
) -> None:
    assert codec.vocab_size == 51
    (tmp_path / "vq_flat.csv").write_text(text)
    with pytest.raises(WavegenError, match=message) as error:
        codec.read_codes(tmp_path / "vq_flat.csv")
    assert "\n" not in str(error.value)


def test_a_damaged_card_is_named(tmp_path: Path) -> None:
    path = tmp_path / "codec.safetensors"
    for card in ({}, {"frames": {"window": 3}}):
        write_codebook(path, {"codebook": np.zeros((2, 128), np.float32)}, card)
        with pytest.raises(WavegenError, match="damaged card"):
            SpectrogramCodebook.from_file(path)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda c, p: SpectrogramCodebook(np.zeros((4, 5), np.float32)),
            r"rows of 128 values.* got \[4, 5\]",
        ),
        (
            lambda c, p: SpectrogramCodebook(np.full((4, 128), np.nan, np.float32)),
            "within 300 of 0, got one of nan",
        ),
        (lambda c, p: MelFrames(n_fft=255), "even n_fft"),
        (lambda c, p: MelFrames(hop_length=1025), "hop_length=1025"),
        (lambda c, p: MelFrames(floor=0.0), "floor and reference above 0, got 0"),
        (lambda c, p: MelFrames(8000, f_max=5000.0), "f_max=5000"),
        (lambda c, p: c.save(p / "codec.npz"), "NAME.safetensors, got codec.npz"),
        (
            lambda c, p: SpectrogramCodebook.from_file(p / "none.safetensors"),
            "expected a safetensors file at",
        ),
        (lambda c, p: c.write_codes(p / "a.csv", jnp.zeros((2, 3, 1), jnp.int32)), r"got \[2, 3, 1\]"),
    ],
)
def test_bad_arguments_are_named(codec: SpectrogramCodebook, tmp_path: Path, call, message: str) -> None:
    with pytest.raises(WavegenError, match=message) as error:
        call(codec, tmp_path)
    assert "\n" not in str(error.value)
