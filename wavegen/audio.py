"""Recordings in and out: samples never travel without their rate."""

import base64
import io
import re
import wave
from dataclasses import dataclass
from math import gcd
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int16

from wavegen.atomic import atomic_write, cannot_write
from wavegen.errors import WavegenError

Encoding = Literal["pcm16", "pcm24", "float"]

# Decoders drop or add up to two MPEG frames at the end of a healthy MP3 that has no length header.
_MP3_SLACK = 2 * 1152
# Recorders that write to a pipe leave "until the end of the file" as the size of the data.
_UNKNOWN_SIZE = 0x7FFF0000


@dataclass(frozen=True, eq=False)
class Audio:
    """A recording.

    Args:
        samples: time first, one column a channel, nominally in [-1, 1]; kept as float32 [T, C], and samples
            of shape [T] as one channel.
        sample_rate: in Hz.

    Raises:
        WavegenError: the shape is not [T] or [T, C], a sample is NaN or infinite, or the rate is not above 0.

    Example:
        >>> tone = Audio(0.5 * np.sin(2 * np.pi * 440 / 16000 * np.arange(8000)), 16000)
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
    def read(cls, path: str | Path) -> "Audio":
        """Read a whole recording: WAV of any bit depth, FLAC, OGG, MP3, AIFF, whatever libsndfile decodes.

        Raises:
            WavegenError: the file is missing, empty, no recording, damaged, cut short, or holds NaN.
        """
        import soundfile

        path = Path(path)
        if not path.is_file():
            what = "a folder" if path.is_dir() else "nothing"
            raise WavegenError(f"cannot read {path}: expected a recording, got {what} at this path")
        if path.stat().st_size == 0:
            raise WavegenError(f"cannot read {path}: the file is empty (0 bytes); copy it again")
        try:
            with soundfile.SoundFile(path) as file:
                _refuse_cut_header(path, file.extra_info)
                promised = file.frames
                samples = file.read(dtype="float32", always_2d=True)
                slack = _MP3_SLACK if file.format == "MP3" else 0
                rate = file.samplerate
        except soundfile.SoundFileRuntimeError as error:
            reason = getattr(error, "error_string", str(error)).rstrip(".")
            if "does not exist" in reason:  # what libsndfile says of an MP3 without one MPEG frame
                reason = "no audio found in it"
            raise WavegenError(
                f"cannot read {path}: it is damaged or no recording that libsndfile decodes ({reason}); "
                "convert it to WAV or FLAC, or remove it"
            ) from error
        if len(samples) + slack < promised:
            raise _cut_short(path, f"{promised} samples", f"{len(samples)}")
        if len(samples) == 0:
            raise WavegenError(
                f"cannot read {path}: it holds 0 samples, cut short or never recorded; copy it again "
                "or remove it"
            )
        try:
            return cls(samples, rate)
        except WavegenError as error:
            raise WavegenError(f"cannot read {path}: {error}") from error

    @classmethod
    def from_pcm16(cls, pcm: Int16[np.ndarray, "T *C"], sample_rate: int) -> "Audio":
        """16-bit integers, [T] or [T, C], to float32 in [-1, 1): divided by 32768, exact."""
        return cls(np.asarray(pcm, np.float32) / 32768, sample_rate)

    def to_pcm16(self) -> Int16[np.ndarray, "T C"]:
        """Round to 16-bit integers; samples outside [-1, 1) are clipped. Inverse of `from_pcm16`."""
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
        """The mean of the channels, as one channel."""
        if self.channels == 1:
            return self
        return Audio(self.samples.mean(axis=1, keepdims=True), self.sample_rate)

    def with_channels(self, channels: int) -> "Audio":
        """The recording with so many channels: as it is if it has them, else each the mean of those that it has."""
        if self.channels == channels:
            return self
        return Audio(np.repeat(self.mono().samples, channels, axis=1), self.sample_rate)

    def resample(self, sample_rate: int) -> "Audio":
        """Convert to another rate by a polyphase filter; T samples become ceil(T * new / old).

        Args:
            sample_rate: the new rate in Hz.
        """
        from scipy.signal import resample_poly

        if sample_rate == self.sample_rate:
            return self
        if sample_rate <= 0:
            raise WavegenError(f"expected a sample rate in Hz above 0, got {sample_rate}")
        common = gcd(self.sample_rate, sample_rate)
        up, down = sample_rate // common, self.sample_rate // common
        return Audio(resample_poly(self.samples, up, down, axis=0), sample_rate)

    def trim_silence(self, db: float = 40.0) -> "Audio":
        """Cut the quiet ends: what lies `db` decibels or more below the loudest 10 ms.

        Args:
            db: above 0; 40 keeps soft attacks and releases. Digital silence leaves 0 samples.
        """
        if db <= 0:
            raise WavegenError(f"expected decibels below the loudest moment, above 0, got {db}")
        frame = max(1, self.sample_rate // 100)
        count = -(-len(self.samples) // frame)
        padded = np.zeros((count * frame, self.channels), np.float32)
        padded[: len(self.samples)] = self.samples
        power = np.square(padded, dtype=np.float64).reshape(count, -1).mean(axis=1)
        loud = np.flatnonzero(power > power.max(initial=0.0) * 10 ** (-db / 10))
        first, last = (loud[0], loud[-1] + 1) if len(loud) else (0, 0)
        return Audio(self.samples[first * frame : last * frame], self.sample_rate)

    def write(self, path: str | Path, encoding: Encoding = "pcm16") -> None:
        """Write a WAV or FLAC file, whole or not at all; missing folders are made.

        Args:
            path: ends in .wav or .flac.
            encoding: "pcm16", "pcm24" or, for WAV, "float" (32 bits). Integers clip outside [-1, 1).

        Raises:
            WavegenError: another ending, float in FLAC, a full disk, or a folder that cannot be written.
        """
        path = Path(path)
        data = self._encoded(path.suffix.lower(), encoding, str(path))
        with atomic_write(path) as file:
            file.write(data)

    def _encoded(self, suffix: str, encoding: Encoding, name: str) -> bytes:
        """The bytes of the file; made in memory, because libsndfile does not report every failed write."""
        import soundfile

        endings = {".wav": "WAV", ".flac": "FLAC"}
        if suffix not in endings:
            raise WavegenError(
                f"cannot write {name}: expected a name that ends in .wav or .flac, got {suffix!r}"
            )
        data: np.ndarray
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
        """A player, where a notebook shows the recording."""
        data = base64.b64encode(self._encoded(".wav", "pcm16", "notebook")).decode()
        return f'<audio controls src="data:audio/wav;base64,{data}"></audio>'

    def __repr__(self) -> str:
        return f"Audio({self.duration:.3f} s, {self.channels} channel(s), {self.sample_rate} Hz)"


class AudioWriter:
    """A 16-bit WAV file that grows block by block and is valid after every block.

    Whatever stops the program, the file plays up to the last block. Use it as a context manager.

    Args:
        path: ends in .wav; replaced if it exists, missing folders are made.
        sample_rate: in Hz.
        channels: C.

    Raises:
        WavegenError: another ending, a full disk, a folder that cannot be written, or a file above 4 GB.

    Example:
        >>> with AudioWriter("/tmp/wavegen-doctest.wav", 16000) as writer:
        ...     for _ in range(3):
        ...         writer.write(np.zeros(1600, np.float32))
        >>> Audio.read("/tmp/wavegen-doctest.wav").duration
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
        """Append a block, [T] or [T, C], in [-1, 1); outside it is clipped."""
        pcm = Audio(samples, self.sample_rate).to_pcm16()
        if pcm.shape[1] != self.channels:
            raise WavegenError(f"expected blocks of {self.channels} channel(s), got {pcm.shape[1]}")
        if (self._wave.tell() + len(pcm)) * self.channels * 2 >= 2**32 - 64:
            raise WavegenError(f"cannot write {self.path}: a WAV file ends at 4 GB; start a second file")
        try:
            self._wave.writeframes(pcm.astype("<i2").tobytes())
            self._file.flush()
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def close(self) -> None:
        """Close the file; it is complete already."""
        try:
            with self._file:
                self._wave.close()
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def __enter__(self) -> "AudioWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: Any, trace: TracebackType | None) -> None:
        self.close()


def _refuse_cut_header(path: Path, log: str) -> None:
    """Raise if libsndfile noted that a WAV or AIFF header promises more bytes than there are."""
    for promised, present in re.findall(r"(?:data|SSND) *: *(\d+) \(should be (\d+)\)", log):
        if int(present) < int(promised) < _UNKNOWN_SIZE:
            raise _cut_short(path, f"{promised} bytes of audio", present)


def _cut_short(path: Path, promised: str, present: str) -> WavegenError:
    return WavegenError(
        f"cannot read {path}: it is cut short (the header promises {promised}, the file holds {present}); "
        "copy it again"
    )
