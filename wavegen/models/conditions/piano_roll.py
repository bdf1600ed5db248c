"""Local conditioning on a piano roll, chords included, with a bank of sines at the pitches that sound."""

from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from wavegen.config.conditions import PianoRollConditionConfig
from wavegen.models.conditions.base import LocalCondition, within
from wavegen.models.conditions.melody import DECAYS, harmonic_waves
from wavegen.networks.base import Given
from wavegen.networks.initial import layer_options, normal
from wavegen.notes.performance import Performance
from wavegen.notes.roll import roll_features
from wavegen.types import Features


class PianoRollCondition(LocalCondition):
    """Conditioning on a piano roll (Hawthorne et al. 2019, arXiv:1810.12247), with an excitation of many sines.

    The excitation carries the source of the neural source-filter models (Wang et al. 2019, arXiv:1810.11946) over to
    many notes: each of the loudest notes brings sines and cosines of its first harmonics, whose phase starts at its
    onset. Their strengths are learned for every pitch: a sum of decaying exponentials of the note's age, times its
    velocity. All notes are summed into one channel a wave.

    Args:
        channels: width C of the frames.
        hop_length: samples per frame.
        low: the lowest pitch of the roll.
        high: the highest pitch.
        harmonics: sine and cosine pairs of a note.
        voices: notes at once in the excitation.
        sample_rate: Hz.
        random: draws the initial weights.
    """

    takes: ClassVar[Any] = "chords"

    def __init__(
        self,
        channels: int,
        hop_length: int,
        low: int,
        high: int,
        harmonics: int,
        voices: int,
        sample_rate: int,
        *,
        random: np.random.Generator,
    ) -> None:
        pitches, options = high - low + 1, layer_options(random)
        self.roll = nnx.Linear(pitches * (len(DECAYS) + 1), channels, **options)
        self.mix = nnx.Conv(channels, channels, 3, padding="SAME", **options)
        self.strengths = normal(random, pitches, len(DECAYS) + 1, 2 * harmonics, scale=0.5)
        self.input_hop = self.hop_length = hop_length
        self.low, self.high, self.harmonics, self.sample_rate = low, high, harmonics, sample_rate
        self.voices, self.waves = min(voices, pitches), 2 * harmonics

    @classmethod
    def make(
        cls, config: PianoRollConditionConfig, given: Given, random: np.random.Generator
    ) -> "PianoRollCondition":
        """See ``LocalCondition``."""
        sizes = config.model_dump(exclude={"kind"})
        return cls(**sizes, sample_rate=given.data.sample_rate, random=random)

    def of_notes(self, played: Sequence[Performance], samples: int) -> Features:
        """See ``LocalCondition``; notes outside the roll are left out."""
        grid = (self.sample_rate, self.hop_length, samples, self.low, self.high)
        return jax.device_put(np.stack([roll_features(piece, *grid) for piece in played]))

    def __call__(self, features: Features, valid: Bool[Array, "F"] | None = None) -> Float[Array, "B F C"]:
        """Frames from velocities and ages, see ``wavegen.notes.roll.roll_features``."""
        velocity, age = jnp.split(features, 2, axis=-1)
        frames = self.roll(self._fading(velocity, age).reshape(*features.shape[:2], -1))
        return frames + self.mix(within(jax.nn.gelu(frames), valid))

    def excitation(
        self, features: Features, offset: Int[Array, ""] | int, samples: int
    ) -> Float[Array, "B T X"]:
        """The sines of what sounds, for the samples from ``offset`` on; zero in silence."""
        # Only the frames that are asked for: a long piece is played in many short calls.
        hop = self.hop_length
        frames = min(features.shape[1], (samples - 2) // hop + 2 if samples > 1 else 1)
        first = jnp.clip(offset // hop, 0, features.shape[1] - frames)
        velocity, age = jnp.split(jax.lax.dynamic_slice_in_dim(features, first, frames, axis=1), 2, axis=-1)
        velocity, loudest = jax.lax.top_k(velocity, self.voices)
        age = jnp.take_along_axis(age, loudest, axis=-1)
        strength = jnp.einsum("bfvd,bfvdx->bfvx", self._fading(velocity, age), self.strengths[...][loudest])
        pitch = (self.low + loudest).astype(features.dtype)
        # What lies above half the sample rate would alias to another pitch.
        highest = self.sample_rate / 880 * 2.0 ** ((69.0 - pitch) / 12.0)
        harmonic = jnp.repeat(1.0 + jnp.arange(self.harmonics), 2)
        strength = jnp.where(harmonic[None, None, None] < highest[..., None], strength, 0.0)

        place = offset + jnp.arange(samples)
        # Past the end of the clip the last frame is held; what is played there is cut off again.
        frame = jnp.clip(place // hop - first, 0, frames - 1)
        within = (place - (first + frame) * hop).astype(features.dtype)
        waves = harmonic_waves(
            pitch[:, frame], age[:, frame] + within[None, :, None], self.harmonics, self.sample_rate
        )
        return jnp.einsum("btvx,btvx->btx", strength[:, frame], waves)

    def _fading(self, velocity: Float[Array, "B F P"], age: Float[Array, "B F P"]) -> Float[Array, "B F P D"]:
        """Velocity, times exponentials of the age that fade at several paces, and times 1."""
        decays = jnp.asarray(DECAYS, velocity.dtype) * self.sample_rate
        fading = jnp.exp(-age[..., None] / decays[None, None, None])
        return velocity[..., None] * jnp.concatenate([fading, jnp.ones_like(fading[..., :1])], axis=-1)
