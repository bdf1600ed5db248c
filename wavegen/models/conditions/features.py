"""What steers a model: labels for the whole clip, features at frame rate, and the notes of a melody.

A conditioner returns frames ``[B, F, C]`` that are added to every layer's gate, and may add an excitation
``[B, T, X]`` at sample rate to the first layer's input. Frame f belongs to samples ``[f hop, (f + 1) hop)``.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from wavegen.codecs.base import AudioCodec
from wavegen.config.models import CodeConditionConfig, MelConditionConfig
from wavegen.networks.initial import layer_options, normal
from wavegen.spectral import log_mel, mel_spectrogram
from wavegen.types import Features, Labels, Waveform

DECAYS = (0.02, 0.1, 0.4, 1.6)
"""Time constants, in seconds, of the exponentials that tell a network how old a note is."""


class LabelCondition(nnx.Module):
    """Global conditioning: the sum of one learned vector per label field (van den Oord et al. 2016, section 2.5).

    Args:
        sizes: values that each field can take.
        channels: width C of the vectors.
        random: draws the initial vectors.
    """

    def __init__(self, sizes: tuple[int, ...], channels: int, *, random: np.random.Generator) -> None:
        self.tables = nnx.List([normal(random, size, channels, scale=0.5) for size in sizes])

    def __call__(self, labels: Labels) -> Float[Array, "B 1 C"]:
        """Sums the fields' vectors; a label of -1 (unknown) adds nothing."""
        columns = [
            jnp.where((labels[:, i] >= 0)[:, None], table[...][labels[:, i]], 0.0)
            for i, table in enumerate(self.tables)
        ]
        return sum(columns[1:], columns[0])[:, None, :]


class FeatureCondition(nnx.Module):
    """Local conditioning on features at frame rate, upsampled by learned sub-pixel convolutions.

    Each stage mixes three neighbouring frames and splits every one into ``factor`` finer ones, so that frame f of
    the input becomes exactly the frames ``[f factor, (f + 1) factor)`` of the output. What the factors leave of the
    hop is held constant by the network that reads the condition.

    Args:
        width: values per input frame.
        channels: width C of the output.
        hop_length: samples per input frame.
        upsample: factors, the first one first; their product divides ``hop_length``.
        random: draws the initial weights.
    """

    def __init__(
        self,
        width: int,
        channels: int,
        hop_length: int,
        upsample: tuple[int, ...],
        *,
        random: np.random.Generator,
    ) -> None:
        options = layer_options(random)
        self.first = nnx.Conv(width, channels, 3, padding="SAME", **options)
        self.stages = nnx.List(
            [nnx.Conv(channels, channels * factor, 3, padding="SAME", **options) for factor in upsample]
        )
        self.hop_length = hop_length
        for factor in upsample:
            self.hop_length //= factor
        self.channels = channels

    def __call__(self, features: Features) -> Float[Array, "B finer C"]:
        """Returns frames of ``self.hop_length`` samples."""
        frames = self.first(features)
        for stage in self.stages:
            frames = stage(jax.nn.gelu(frames))
            frames = frames.reshape(frames.shape[0], -1, self.channels)
        return frames


class CodeCondition(nnx.Module):
    """Local conditioning on the tokens of a codec: the sum of one learned vector per codebook, then as features.

    Args:
        codebooks: tokens per frame.
        vocab_size: values that a token can take.
        channels: width C of the output.
        hop_length: samples per frame of tokens.
        upsample: see ``FeatureCondition``.
        random: draws the initial weights.
    """

    def __init__(
        self,
        codebooks: int,
        vocab_size: int,
        channels: int,
        hop_length: int,
        upsample: tuple[int, ...],
        *,
        random: np.random.Generator,
    ) -> None:
        self.tables = normal(random, codebooks, vocab_size, channels, scale=codebooks**-0.5)
        self.frames = FeatureCondition(channels, channels, hop_length, upsample, random=random)
        self.hop_length = self.frames.hop_length

    def __call__(self, features: Features) -> Float[Array, "B finer C"]:
        """Returns frames of ``self.hop_length`` samples; the features are tokens, as numbers."""
        codebooks = jnp.arange(self.tables.shape[0])[None, None]
        return self.frames(jnp.sum(self.tables[...][codebooks, features.astype(jnp.int32)], axis=2))


class NoteCondition(nnx.Module):
    """Conditioning on one melody, with a sine excitation at its pitch.

    The excitation is the source of the neural source-filter models (Wang et al. 2019, arXiv:1810.11946): sines and
    cosines of the note's first harmonics, whose phase starts at the onset, so that a frame says all about it.

    Args:
        channels: width C of the frames.
        hop_length: samples per frame.
        harmonics: sine and cosine pairs in the excitation.
        sample_rate: Hz.
        random: draws the initial weights.
    """

    def __init__(
        self, channels: int, hop_length: int, harmonics: int, sample_rate: int, *, random: np.random.Generator
    ) -> None:
        options = layer_options(random)
        self.pitches = normal(random, 128, channels, scale=0.5)
        self.shape = nnx.Linear(2 * len(DECAYS) + 2, channels, **options)
        self.mix = nnx.Conv(channels, channels, 3, padding="SAME", **options)
        self.hop_length, self.harmonics, self.sample_rate = hop_length, harmonics, sample_rate

    def __call__(self, features: Features) -> Float[Array, "B F C"]:
        """Frames from (pitch, age, remaining, velocity), see ``wavegen.notes.performance``."""
        pitch, age, remaining, velocity = jnp.split(features, 4, axis=-1)
        sounding = (pitch > 0).astype(features.dtype)
        decays = jnp.asarray(DECAYS, features.dtype)[None, None] * self.sample_rate
        shape = [jnp.exp(-age / decays), jnp.exp(-remaining / decays), jnp.ones_like(velocity), velocity]
        frames = self.shape(jnp.concatenate(shape, -1) * sounding)
        frames = frames + self.pitches[...][pitch[..., 0].astype(jnp.int32)]
        return frames + self.mix(jax.nn.gelu(frames))

    def excitation(
        self, features: Features, offset: Int[Array, ""] | int, samples: int
    ) -> Float[Array, "B T X"]:
        """Sines and cosines of the sounding note for the samples from ``offset`` on; zero in rests."""
        place = offset + jnp.arange(samples)
        frame, within = place // self.hop_length, place % self.hop_length
        pitch, age = features[:, frame, 0], features[:, frame, 1] + within[None]
        waves = harmonic_waves(pitch, age, self.harmonics, self.sample_rate)
        return jnp.where((pitch > 0)[..., None], waves, 0.0)


def harmonic_waves(
    pitch: Float[Array, "*axes"], age: Float[Array, "*axes"], harmonics: int, sample_rate: int
) -> Float[Array, "*axes X"]:
    """Sine and cosine of each harmonic in turn, ``age`` samples after the onset of a note."""
    cycles = age * (440.0 / sample_rate) * 2.0 ** ((pitch - 69.0) / 12.0)
    # A float32 loses the phase of a large angle: only the fraction of a cycle is multiplied by 2 pi.
    waves = [
        wave(2 * jnp.pi * jnp.mod(cycles * harmonic, 1.0))
        for harmonic in range(1, harmonics + 1)
        for wave in (jnp.sin, jnp.cos)
    ]
    return jnp.stack(waves, -1)


def own_features(
    waveform: Waveform,
    local: MelConditionConfig | CodeConditionConfig,
    codec: AudioCodec | None,
    sample_rate: int,
) -> Features:
    """The condition of a vocoder, made from the clip itself: frame f belongs to samples [f hop, (f + 1) hop).

    Args:
        waveform: [B, T].
        local: which condition.
        codec: whose tokens are the condition, if they are it.
        sample_rate: Hz.

    Returns:
        The common logarithm of mel magnitudes, or tokens as numbers; `ceil(T / hop_length)` frames.
    """
    frames = -(-waveform.shape[1] // local.hop_length)
    if isinstance(local, MelConditionConfig):
        mel = mel_spectrogram(
            waveform,
            sample_rate=sample_rate,
            n_fft=local.n_fft,
            hop_length=local.hop_length,
            n_mels=local.bands,
            squared=False,
        )
        return log_mel(mel)[:, :frames]
    assert codec is not None
    return codec.encode(waveform).astype(jnp.float32)
