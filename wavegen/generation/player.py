"""A causal model of audio as an instrument: conditions in frame by frame, blocks of samples out, without an end."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key

from wavegen.codecs.base import AudioCodec
from wavegen.errors import WavegenError
from wavegen.generation.requests import decode
from wavegen.models.base import State
from wavegen.models.conditions.base import FrameWindow, LocalCondition
from wavegen.notes.performance import Performance
from wavegen.samplers.autoregressive import Stepper
from wavegen.types import Tokens


class Playing(NamedTuple):
    """Where clips are: all that the next block depends on besides the model and its conditions.

    Attributes:
        key: PRNG key of the clips, the same throughout.
        state: what the model remembers.
        position: samples so far.
    """

    key: Key[Array, ""]
    state: State
    position: int


@dataclass(frozen=True)
class Player:
    """Plays a model of single samples block by block; ``AudioGenerator.player`` makes one.

    Blocks have one size, so that nothing is compiled for another length, other notes or another key. What a block
    sounds like depends on the samples before it, the key and the conditions, not on how clips are cut: blocks are
    those of ``AudioGenerator.generate``, bit for bit. A ``Playing`` that was given is used up.

    Attributes:
        codec: whose frame is one sample.
        local: what the model is conditioned on at frame rate; None is nothing.
        stepper: draws the tokens.

    Example:
        >>> import jax
        >>> import wavegen
        >>> piano = wavegen.load()
        >>> player, melody = piano.player(), wavegen.Performance.parse("C4 1, G4 1")
        >>> features = player.features([melody], samples=8000)
        >>> playing = player.start(jax.random.key(1), player.window(features, 0))
        >>> block, playing = player.advance(playing, player.window(features, playing.position))
        >>> block.shape, playing.position
        ((1, 320), 320)
    """

    codec: AudioCodec
    local: LocalCondition | None
    stepper: Stepper

    @property
    def block(self) -> int:
        """Samples of a block."""
        return self.stepper.block

    def features(self, played: Sequence[Performance], samples: int) -> Float[np.ndarray, "B F D"]:
        """What notes are to the model: a row per frame of ``local.input_hop`` samples.

        Args:
            played: of each clip.
            samples: of the clips.

        Raises:
            WavegenError: the model is not conditioned on notes, or cannot play these.
        """
        if self.local is None:
            raise WavegenError("this model is not conditioned on notes; leave them out")
        return np.asarray(self.local.of_notes(played, samples))

    def window(self, features: Float[np.ndarray, "B F D"], position: int) -> FrameWindow:
        """The frames that the block from a sample on depends on: its own, and the neighbours in their reach.

        Where notes come in while they are played, build the ``FrameWindow`` of the frames that are known: the model
        reads ``local.reach`` frames ahead, and of the frame after those only where blocks begin within a frame.

        Args:
            features: of whole clips.
            position: of the block's first sample, ``Playing.position``.
        """
        assert self.local is not None, "a model without a local condition reads no windows"
        return self.local.window(features, position, self.block)

    def start(self, key: Key[Array, ""], window: FrameWindow | None = None) -> Playing:
        """Begins clips.

        Args:
            key: the same key gives the same clips.
            window: of the first block, where the model is conditioned at frame rate.
        """
        return Playing(key, self.stepper.start(window), 0)

    def read(self, playing: Playing, tokens: Tokens, window: FrameWindow | None = None) -> Playing:
        """Continues clips with what is given instead of drawn; each length of it is compiled.

        Args:
            playing: before it.
            tokens: of each clip.
            window: of these samples, see ``LocalCondition.window``.
        """
        state = self.stepper.read(tokens, playing.state, window)
        return Playing(playing.key, state, playing.position + tokens.shape[1])

    def advance(
        self, playing: Playing, window: FrameWindow | None = None
    ) -> tuple[Float[np.ndarray, "B block"], Playing]:
        """Draws the next block.

        Args:
            playing: before it.
            window: of the block, where the model is conditioned at frame rate.

        Returns:
            Samples in [-1, 1] of each clip, and where the clips are after them.
        """
        tokens, state = self.stepper.draw(playing.state, playing.key, window=window)
        after = Playing(playing.key, state, playing.position + self.block)
        return np.asarray(decode(self.codec, tokens)), after

    def play(
        self,
        samples: int,
        key: Key[Array, ""],
        *,
        prompt: Tokens | Int[np.ndarray, "B N K"] | None = None,
        features: Float[np.ndarray, "B F D"] | None = None,
    ) -> Iterator[Float[np.ndarray, "B T"]]:
        """Plays whole clips.

        Args:
            samples: how many, after the prompt.
            key: the same key gives the same clips.
            prompt: what the clips begin with; it is not yielded.
            features: of what the model is conditioned on, for the prompt and what is played.

        Yields:
            Blocks; the last one may be shorter.
        """
        playing = self.start(key, None if features is None else self.window(features, 0))
        if prompt is not None and prompt.shape[1]:
            window = None
            if features is not None and self.local is not None:
                window = self.local.window(features, 0, prompt.shape[1])
            playing = self.read(playing, jax.device_put(prompt), window)
        for done in range(0, samples, self.block):
            window = None if features is None else self.window(features, playing.position)
            block, playing = self.advance(playing, window)
            yield block[:, : samples - done]
