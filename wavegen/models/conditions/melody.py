"""Local conditioning on one melody, with a sine excitation at its pitch."""

from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from wavegen.config.conditions import NoteConditionConfig
from wavegen.models.conditions.base import LocalCondition, within
from wavegen.networks.base import Given
from wavegen.networks.initial import layer_options, normal
from wavegen.notes.performance import Performance
from wavegen.types import Features

DECAYS = (0.02, 0.1, 0.4, 1.6)
"""Time constants, in seconds, of the exponentials from which a network reads how old a note is."""


class NoteCondition(LocalCondition):
    """Conditioning on one melody, with a sine excitation at its pitch.

    The excitation is the source of the neural source-filter models (Wang et al. 2019, arXiv:1810.11946): sines and
    cosines of the note's first harmonics, whose phase starts at the onset, so that a frame determines it.

    Args:
        channels: width C of the frames.
        hop_length: samples per frame.
        harmonics: sine and cosine pairs in the excitation.
        sample_rate: Hz.
        random: draws the initial weights.
    """

    takes: ClassVar[Any] = "melody"

    def __init__(
        self, channels: int, hop_length: int, harmonics: int, sample_rate: int, *, random: np.random.Generator
    ) -> None:
        options = layer_options(random)
        self.pitches = normal(random, 128, channels, scale=0.5)
        self.shape = nnx.Linear(2 * len(DECAYS) + 2, channels, **options)
        self.mix = nnx.Conv(channels, channels, 3, padding="SAME", **options)
        self.input_hop = self.hop_length = hop_length
        self.harmonics, self.sample_rate, self.waves = harmonics, sample_rate, 2 * harmonics

    @classmethod
    def make(cls, config: NoteConditionConfig, given: Given, random: np.random.Generator) -> "NoteCondition":
        """See ``LocalCondition``."""
        rate = given.data.sample_rate
        return cls(config.channels, config.hop_length, config.harmonics, rate, random=random)

    def __call__(self, features: Features, valid: Bool[Array, "F"] | None = None) -> Float[Array, "B F C"]:
        """Frames from (pitch, age, remaining, velocity), see ``wavegen.notes.performance``."""
        pitch, age, remaining, velocity = jnp.split(features, 4, axis=-1)
        sounding = (pitch > 0).astype(features.dtype)
        decays = jnp.asarray(DECAYS, features.dtype)[None, None] * self.sample_rate
        shape = [jnp.exp(-age / decays), jnp.exp(-remaining / decays), jnp.ones_like(velocity), velocity]
        frames = self.shape(jnp.concatenate(shape, -1) * sounding)
        frames = frames + self.pitches[...][pitch[..., 0].astype(jnp.int32)]
        return frames + self.mix(within(jax.nn.gelu(frames), valid))

    def of_notes(self, played: Sequence[Performance], samples: int) -> Features:
        """See ``LocalCondition``; notes are played one at a time."""
        frames = [melody.frames(self.sample_rate, self.hop_length, samples) for melody in played]
        return jax.device_put(np.stack(frames))

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
