"""Placeholder of the branch notes."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from wavegen.codecs.note_codec import NoteCodec


@partial(jax.tree_util.register_static)
@dataclass(frozen=True)
class NoteGrid(NoteCodec):
    voices: int = 4
    low: int = 36
    high: int = 84
    steps_per_quarter: int = 4
    ties: bool = False
    bar: int = 16

    @property
    def sizes(self):
        return (self.high - self.low + 2 + self.ties,) * self.voices

    @property
    def codebooks(self):
        return self.voices

    @property
    def start_token(self):
        return 0

    @property
    def period(self):
        return self.bar

    def encode(self, notes):
        notes = notes.at_resolution(self.steps_per_quarter)
        frames = notes.end
        tokens = np.zeros((frames, self.voices), np.int32)
        for p, o, d, t in zip(notes.pitch, notes.onset, notes.duration, notes.track):
            tokens[o : o + d, t] = p - self.low + 1
        return tokens

    def decode(self, tokens):
        raise NotImplementedError

    def transposed(self, tokens, semitones):
        sounding = tokens > 0
        low = jnp.min(jnp.where(sounding, tokens, self.high), axis=(1, 2))
        high = jnp.max(tokens, axis=(1, 2))
        moved = jnp.clip(semitones, 1 - low, self.high - self.low + 1 - high)
        return jnp.where(sounding, tokens + moved[:, None, None], tokens)
