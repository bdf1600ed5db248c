"""Recordings in and out: samples never travel without their sample rate."""

import base64
import io
import wave
from dataclasses import dataclass
from math import gcd
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int16

from wavegen.atomic import atomic_write, cannot_write
from wavegen.audio_files import LARGEST, decode
from wavegen.bounded import expect_file
from wavegen.errors import WavegenError
from wavegen.losses import Losses, warn_of

Encoding = Literal["pcm16", "pcm24", "float"]

_FASTEST = 1 << 20  # Hz; a header can claim any rate, and the filter of a resampler is as long as the rate


@dataclass(frozen=True, eq=False)
class Audio:
    """A recording: samples and their sample rate.

    Args:
        samples: time first, one column per channel, nominally in [-1, 1]. They are kept as float32 [T, C]; samples of
            shape [T] become one channel.
        sample_rate: sample rate in Hz.

    Raises:
        WavegenError: if the shape is neither [T] nor [T, C], a sample is NaN or infinite, or the rate is not a whole
            number above 0.

    Example:
        >>> import numpy as np
        >>> from wavegen import Audio
        >>> tone = Audio(0.5 * np.sin(2 * np.pi * 440 / 16000 * np.arange(8000)), 16000)
        >>> tone
        Audio(0.500 s, 1 channel(s), 16000 Hz)
        >>> tone.duration, tone.channels, tone.resample(8000).samples.shape
        (0.5, 1, (4000, 1))
    """

    samples: Float[np.ndarray, "T *C"]
    sample_rate: int

    def __post_init__(self) -> None:
        samples = np.asarray(self.samples, np.float32)
        if samples.ndim == 1:
            samples = samples[:, None]
        if samples.ndim != 2 or samples.shape[1] == 0:
            raise WavegenError(
                f"expected samples of shape [T] or [T, C], got {list(samples.shape)}; time comes first"
            )
        if int(self.sample_rate) != self.sample_rate or self.sample_rate <= 0:
            raise WavegenError(f"expected a sample rate in Hz above 0, got {self.sample_rate}")
        if not np.isfinite(samples).all():
            where = int(np.argmin(np.isfinite(samples).all(axis=1)))
            raise WavegenError(
                f"expected finite samples, got {samples[where]} at sample {where}; repair the recording"
            )
        object.__setattr__(self, "samples", samples)
        object.__setattr__(self, "sample_rate", int(self.sample_rate))

    @classmethod
    def read(cls, path: str | Path, *, losses: Losses | None = None) -> "Audio":
        """Reads a whole recording in any format that libsndfile decodes: WAV, FLAC, OGG, MP3, AIFF and others.

        It is read to the end of its data, whatever length its header gives.

        Args:
            path: the file.
            losses: what may be missing is counted here; None warns of it.

        Raises:
            WavegenError: if the file is missing, no file, empty, not a recording, damaged or cut short, contains NaN,
                or decodes to more than 2**30 values.

        Example:
            >>> import tempfile
            >>> import numpy as np
            >>> from wavegen import Audio
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     Audio(np.zeros(800), 8000).write(f"{folder}/silence.flac")
            ...     Audio.read(f"{folder}/silence.flac")
            Audio(0.100 s, 1 channel(s), 8000 Hz)
        """
        if expect_file(path, "a recording") == 0:
            raise WavegenError(f"cannot read {path}: the file is empty (0 bytes); copy it again")
        path = Path(path)
        found = Losses() if losses is None else losses
        samples, rate = decode(path, found)
        if len(samples) == 0:
            raise WavegenError(
                f"cannot read {path}: it has 0 samples, because it was cut short or never recorded; copy it again "
                "or remove it"
            )
        try:
            audio = cls(samples, rate)
        except WavegenError as error:
            raise WavegenError(f"cannot read {path}: {error}") from error
        if losses is None:
            warn_of(path, found)
        return audio

    @classmethod
    def from_pcm16(cls, pcm: Int16[np.ndarray, "T *C"], sample_rate: int) -> "Audio":
        """Converts 16-bit integers, [T] or [T, C], to float32 in [-1, 1): an exact division by 32768."""
        return cls(np.asarray(pcm, np.float32) / 32768, sample_rate)

    def to_pcm16(self) -> Int16[np.ndarray, "T C"]:
        """Rounds to 16-bit integers, the inverse of ``from_pcm16``; samples outside [-1, 1) are clipped."""
        return np.clip(np.rint(self.samples * 32768), -32768, 32767).astype(np.int16)

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return len(self.samples) / self.sample_rate

    @property
    def channels(self) -> int:
        """Number of channels, C."""
        return self.samples.shape[1]

    def mono(self) -> "Audio":
        """Returns the mean of the channels as one channel."""
        if self.channels == 1:
            return self
        return Audio(self.samples.mean(axis=1, keepdims=True), self.sample_rate)

    def with_channels(self, channels: int) -> "Audio":
        """Returns the recording with this number of channels.

        A recording that already has it is returned unchanged; otherwise every channel is the mean of the existing
        ones.
        """
        if self.channels == channels:
            return self
        return Audio(np.repeat(self.mono().samples, channels, axis=1), self.sample_rate)

    def resample(self, sample_rate: int) -> "Audio":
        """Converts to another sample rate with a polyphase filter; T samples become ceil(T * new / old).

        Args:
            sample_rate: the new rate in Hz.

        Raises:
            WavegenError: if the rate is not above 0, a rate is above 2**20 Hz, or the result would have more than
                2**30 values.
        """
        from scipy.signal import resample_poly

        if sample_rate == self.sample_rate:
            return self
        if sample_rate <= 0:
            raise WavegenError(f"expected a sample rate in Hz above 0, got {sample_rate}")
        if max(sample_rate, self.sample_rate) > _FASTEST:
            raise WavegenError(
                f"expected sample rates up to {_FASTEST} Hz, got {self.sample_rate} and {sample_rate}; correct the "
                "header of the recording"
            )
        common = gcd(self.sample_rate, sample_rate)
        up, down = sample_rate // common, self.sample_rate // common
        if self.samples.size * up // down > LARGEST:
            raise WavegenError(
                f"expected at most {LARGEST} values, got {self.samples.size * up // down} at {sample_rate} Hz; the "
                f"recording claims {self.sample_rate} Hz: correct that, or split it"
            )
        return Audio(resample_poly(self.samples, up, down, axis=0), sample_rate)

    def trim_silence(self, db: float = 40.0) -> "Audio":
        """Cuts the quiet ends: everything at least ``db`` decibels below the loudest 10 ms.

        Args:
            db: above 0; 40 keeps soft attacks and releases. Digital silence leaves 0 samples.

        Raises:
            WavegenError: if ``db`` is not above 0.
        """
        if db <= 0:
            raise WavegenError(f"expected db above 0, decibels below the loudest moment, got {db}")
        frame = max(1, self.sample_rate // 100)
        count = -(-len(self.samples) // frame)
        padded = np.zeros((count * frame, self.channels), np.float32)
        padded[: len(self.samples)] = self.samples
        power = np.square(padded, dtype=np.float64).reshape(count, -1).mean(axis=1)
        loud = np.flatnonzero(power > power.max(initial=0.0) * 10 ** (-db / 10))
        first, last = (loud[0], loud[-1] + 1) if len(loud) else (0, 0)
        return Audio(self.samples[first * frame : last * frame], self.sample_rate)

    def write(self, path: str | Path, encoding: Encoding = "pcm16") -> None:
        """Writes a WAV or FLAC file, whole or not at all; missing folders are created.

        Args:
            path: path of the file, ending in .wav or .flac.
            encoding: "pcm16", "pcm24" or, for WAV, "float" (32 bits). Integers clip outside [-1, 1], and a warning
                says how many samples.

        Raises:
            WavegenError: if the name has another ending, the encoding is unknown or is "float" for FLAC, the disk is
                full, or the folder is not writable.
        """
        path = Path(path)
        data = self._encoded(path.suffix.lower(), encoding, str(path))
        with atomic_write(path) as file:
            file.write(data)

    def _encoded(self, suffix: str, encoding: Encoding, name: str) -> bytes:
        """Encodes the file in memory, because libsndfile does not report every failed write."""
        import soundfile

        endings = {".wav": "WAV", ".flac": "FLAC"}
        if suffix not in endings:
            raise WavegenError(
                f"cannot write {name}: expected a name that ends in .wav or .flac, got {suffix!r}"
            )
        data: np.ndarray
        if encoding != "float":
            warn_of(name, _clipped(self.samples))
        if encoding == "pcm16":
            data, subtype = self.to_pcm16(), "PCM_16"
        elif encoding == "pcm24":
            # libsndfile takes the high 24 bits of an int32.
            scaled = np.clip(np.rint(self.samples.astype(np.float64) * 2**23), -(2**23), 2**23 - 1)
            data, subtype = scaled.astype(np.int32) << 8, "PCM_24"
        elif encoding == "float" and suffix == ".wav":
            data, subtype = self.samples, "FLOAT"
        else:
            raise WavegenError(
                f"cannot write {name}: expected pcm16, pcm24 or (WAV only) float, got {encoding!r}"
            )
        buffer = io.BytesIO()
        soundfile.write(buffer, data, self.sample_rate, subtype=subtype, format=endings[suffix])
        return buffer.getvalue()

    def _repr_html_(self) -> str:
        """Returns an audio player, with which a notebook shows the recording."""
        data = base64.b64encode(self._encoded(".wav", "pcm16", "notebook")).decode()
        return f'<audio controls src="data:audio/wav;base64,{data}"></audio>'

    def __repr__(self) -> str:
        return f"Audio({self.duration:.3f} s, {self.channels} channel(s), {self.sample_rate} Hz)"


class AudioWriter:
    """A 16-bit WAV file that grows block by block and is valid after every block.

    Whatever stops the program, the file plays up to the last block. It is a context manager.

    Args:
        path: path of the file, ending in .wav; an existing file is replaced, and missing folders are created.
        sample_rate: sample rate in Hz.
        channels: number of channels, C.

    Raises:
        WavegenError: if the name has another ending, the disk is full, the folder is not writable, or the file would
            exceed 4 GB.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from wavegen.audio import Audio, AudioWriter
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with AudioWriter(f"{folder}/silence.wav", 16000) as writer:
        ...         for _ in range(3):
        ...             writer.write(np.zeros(1600, np.float32))
        ...     Audio.read(f"{folder}/silence.wav").duration
        0.3
    """

    def __init__(self, path: str | Path, sample_rate: int, channels: int = 1):
        self.path = Path(path)
        self.sample_rate = sample_rate
        self.channels = channels
        if self.path.suffix.lower() != ".wav":
            raise WavegenError(
                f"cannot write {path}: expected a name that ends in .wav, got {self.path.suffix!r}"
            )
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self.path, "wb")  # noqa: SIM115 (until close)
        except OSError as error:
            raise cannot_write(path, error) from error
        self._clipped = Losses()
        self._wave = wave.open(self._file, "wb")  # noqa: SIM115
        self._wave.setnchannels(channels)
        self._wave.setsampwidth(2)
        self._wave.setframerate(sample_rate)
        self.write(np.zeros((0, channels), np.float32))

    @property
    def duration(self) -> float:
        """Seconds written so far."""
        return self._wave.tell() / self.sample_rate

    def write(self, samples: Float[np.ndarray, "T *C"]) -> None:
        """Appends a block, [T] or [T, C], in [-1, 1); samples outside are clipped.

        Raises:
            WavegenError: if the block has another number of channels, the disk is full, or the file would exceed 4
                GB.
        """
        pcm = Audio(samples, self.sample_rate).to_pcm16()
        if pcm.shape[1] != self.channels:
            raise WavegenError(f"expected blocks of {self.channels} channel(s), got {pcm.shape[1]}")
        if (self._wave.tell() + len(pcm)) * self.channels * 2 >= 2**32 - 64:
            raise WavegenError(f"cannot write {self.path}: a WAV file ends at 4 GB; start a second file")
        try:
            self._wave.writeframes(pcm.astype("<i2").tobytes())
            self._file.flush()
            self._clipped.update(_clipped(samples))
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def close(self) -> None:
        """Closes the file, which is already complete; warns of samples that were clipped."""
        warn_of(self.path, self._clipped)
        self._clipped = Losses()
        try:
            with self._file:
                self._wave.close()
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def __enter__(self) -> "AudioWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: Any, trace: TracebackType | None) -> None:
        self.close()


def _clipped(samples: Float[np.ndarray, "T *C"]) -> Losses:
    """Returns how many samples integers cannot hold; 1 itself, which becomes the largest integer, is none of them."""
    count = int(np.count_nonzero(np.abs(samples) > 1))
    return Losses({"samples beyond [-1, 1] clipped": count}) if count else Losses()
