"""What a person gives, checked and turned into what models read: recordings, labels, times."""

import math
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from wavegen.audio import Audio
from wavegen.codecs.base import AudioCodec
from wavegen.errors import WavegenError
from wavegen.types import AnyWaveform, Labels, Tokens

_encode = jax.jit(lambda codec, waveform: codec.encode(waveform))


@jax.jit
def decode(codec: AudioCodec, tokens: Tokens) -> AnyWaveform:
    """``codec.decode``, compiled once per shape."""
    return codec.decode(tokens)


_PIECE = 8192
"""Codecs of single samples see clips padded to a multiple of this: all lengths share few shapes, and compilations."""


def waveform_of(audio: Audio, sample_rate: int, channels: int = 1) -> Float[np.ndarray, "1 T *C"]:
    """A recording as one row at this rate: mono, ``[1, T]``, or with two channels ``[1, T, 2]``.

    It is mixed to mono, or a mono one duplicated, as needed.

    Raises:
        WavegenError: it holds no samples.
    """
    samples = audio.with_channels(channels).resample(sample_rate).samples
    if not len(samples):
        raise WavegenError("the recording holds no samples; give one that does")
    return (samples[:, 0] if channels == 1 else samples)[None]


def to_tokens(codec: AudioCodec, audio: Audio, sample_rate: int) -> Tokens:
    """A recording as tokens, ``[1, ceil(T / hop_length), K]``.

    Raises:
        WavegenError: it holds no samples.
    """
    waveform = waveform_of(audio, sample_rate, codec.audio_channels)
    length = waveform.shape[1]
    if codec.hop_length == 1:
        # Repeating the last sample moves no extremes, on which some codecs depend.
        waveform = np.pad(waveform, ((0, 0), (0, -length % _PIECE)), mode="edge")
    # Cut by numpy and put by `device_put`: other ways compile each length.
    tokens = np.asarray(_encode(codec, jax.device_put(waveform)))
    return jax.device_put(tokens[:, : -(-length // codec.hop_length)])


def from_tokens(codec: AudioCodec, tokens: Tokens | Int[np.ndarray, "B N K"]) -> Float[np.ndarray, "B T *C"]:
    """The audio of clips of tokens; the opposite of ``to_tokens``."""
    if codec.hop_length > 1:
        return np.asarray(decode(codec, jax.device_put(tokens)))
    length = tokens.shape[1]
    padded = jax.device_put(np.pad(np.asarray(tokens), ((0, 0), (0, -length % _PIECE), (0, 0))))
    return np.asarray(decode(codec, padded))[:, :length]


def to_labels(
    fields: Sequence[str],
    vocabulary: Mapping[str, Sequence[str]],
    labels: Mapping[str, str] | None,
    count: int,
) -> Labels | None:
    """The same labels for ``count`` clips; a field that is not given is unknown.

    Args:
        fields: that the model takes.
        vocabulary: the values of each field, in the order of their numbers.
        labels: the values that are asked for.
        count: rows.

    Returns:
        Numbers, -1 for unknown ones; None for a model without fields.

    Raises:
        WavegenError: a field or a value that the model does not know.
    """
    unknown = [field for field in labels or {} if field not in fields]
    if unknown:
        raise WavegenError(
            f"this model has no label field '{unknown[0]}'; it has {', '.join(fields) or 'none'}"
        )
    if not fields:
        return None
    row = []
    for field in fields:
        values = vocabulary[field]
        value = str((labels or {}).get(field, ""))
        if value and value not in values:
            raise WavegenError(
                f"label {field}={value} was not in the training data; it had {', '.join(values)}"
            )
        row.append(values.index(value) if value else -1)
    return jnp.tile(jnp.asarray(row, jnp.int32)[None], (count, 1))


def to_samples(seconds: float, sample_rate: int) -> int:
    """A length in samples.

    Raises:
        WavegenError: under one sample, 2^31 samples or more, or not a number.
    """
    if not (math.isfinite(seconds) and seconds * sample_rate >= 1):
        raise WavegenError(f"seconds must be at least one sample, got {seconds}")
    if seconds * sample_rate >= 2**31:
        raise WavegenError(
            f"seconds must be at most {2**31 / sample_rate:,.0f}, which are 2^31 samples at {sample_rate} Hz, got "
            f"{seconds}; generate a part, and continue it"
        )
    return round(seconds * sample_rate)


def to_spans(spans: Sequence[tuple[float, float]], sample_rate: int, length: int) -> list[tuple[int, int]]:
    """Spans of seconds as spans of samples, in order.

    Args:
        spans: first and last second of each.
        sample_rate: Hz.
        length: of the recording, in samples.

    Raises:
        WavegenError: no spans, one that is empty or outside the recording, or two that overlap.
    """
    if not spans:
        raise WavegenError(
            "expected at least one span to fill, got none; give first and last second, as in 2.0:3.5"
        )
    inside: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        begin, end = (
            round(second * sample_rate) if math.isfinite(second) else -1 for second in (first, last)
        )
        if not 0 <= begin < end <= length:
            raise WavegenError(
                f"expected spans inside the recording of {length / sample_rate:.3f} s, got {first}:{last}; "
                "give first < last, in seconds"
            )
        if inside and begin < inside[-1][1]:
            raise WavegenError(f"the span {first}:{last} overlaps the one before it; join them")
        inside.append((begin, end))
    return inside


def pad_frames(array: Float[Array, "B F D"], frames: int) -> Float[np.ndarray, "B F D"]:
    """The first ``frames`` of [B, F, D], the last one repeated where there are fewer."""
    missing = max(frames - array.shape[1], 0)
    return np.pad(np.asarray(array)[:, :frames], ((0, 0), (0, missing), (0, 0)), mode="edge")
