"""What a person asks of a learned codec: audio to tokens, and back."""

from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from wavegen.audio import Audio
from wavegen.codecs.base import Codecs
from wavegen.codecs.learned import LearnedCodec
from wavegen.config import Config
from wavegen.errors import WavegenError, require_least
from wavegen.generation.requests import from_tokens, to_tokens, waveform_of
from wavegen.networks.base import with_parameters
from wavegen.runs.trained import Trained, freeze_codec, save_trained
from wavegen.types import Tokens


@jax.jit
def _between(
    codec: LearnedCodec, pair: Float[Array, "2 T *C"], shares: Float[Array, "steps"]
) -> Int[Array, "steps N K"]:
    """The codes of latents on the way from one clip to another."""
    network = with_parameters(codec.graph, codec.params)
    first, last = network.latents(pair)
    share = shares[:, None, None]
    return network.quantizer.quantize((1 - share) * first[None] + share * last[None]).codes


@dataclass(frozen=True)
class Reconstructor:
    """A trained codec.

    Attributes:
        trained: the configuration and weights that the codec was made from.
        codec: between audio and tokens.

    Example:
        >>> import wavegen
        >>> codec = wavegen.load("runs/fsdd-codec")  # doctest: +SKIP
        >>> tokens = codec.encode(wavegen.Audio.read("one.wav"))  # doctest: +SKIP
    """

    trained: Trained
    codec: LearnedCodec

    @classmethod
    def open(cls, trained: Trained) -> "Reconstructor":
        """The codec of a codec run."""
        return cls(trained, freeze_codec(trained))

    @property
    def config(self) -> Config:
        """Of the experiment that trained it."""
        return self.trained.config

    @property
    def sample_rate(self) -> int:
        """Hz, of what comes in and goes out."""
        return self.codec.sample_rate

    @property
    def bits_per_second(self) -> float:
        """Of all codebooks, each token written with the same number of bits."""
        frames = self.sample_rate / self.codec.hop_length
        return frames * self.codec.codebooks * float(np.log2(self.codec.vocab_size))

    def encode(self, audio: Audio) -> Tokens:
        """Writes a recording as tokens, ``[1, ceil(T / hop_length), K]``; it is made to fit as in ``reconstruct``."""
        return to_tokens(self.codec, audio, self.sample_rate)

    def decode(self, tokens: Tokens, samples: int | None = None) -> Audio:
        """Turns the tokens of one clip into audio.

        Args:
            tokens: of the first codebooks.
            samples: length of the clip; None is all that the frames hold.

        Raises:
            WavegenError: tokens of more than one clip, of more codebooks than there are, or out of range.
        """
        if tokens.shape[0] != 1 or not 1 <= tokens.shape[2] <= self.codec.codebooks:
            raise WavegenError(
                f"expected tokens [1, frames, 1 to {self.codec.codebooks}], got {list(tokens.shape)}; "
                "give those of one clip that this codec wrote"
            )
        if tokens.size and not 0 <= int(tokens.min()) <= int(tokens.max()) < self.codec.vocab_size:
            raise WavegenError(
                f"expected tokens from 0 to {self.codec.vocab_size - 1}, got {int(tokens.min())} to "
                f"{int(tokens.max())}; they are of another codec"
            )
        clip = from_tokens(self.codec, tokens)[0, :samples]
        return Audio(clip, self.sample_rate)

    def reconstruct(self, audio: Audio, *, codebooks: int | None = None) -> Audio:
        """What the codec makes of a recording, of the same length.

        Args:
            audio: resampled as needed; mixed to mono for a mono codec, a mono one duplicated for a stereo codec.
            codebooks: code with the first so many; None is all.

        Raises:
            WavegenError: the recording is empty, or there are not so many codebooks.
        """
        codec = self.codec if codebooks is None else self.codec.with_codebooks(codebooks)
        samples = waveform_of(audio, self.sample_rate).shape[1]
        return self.decode(to_tokens(codec, audio, self.sample_rate), samples)

    def interpolate(self, first: Audio, last: Audio, steps: int = 7) -> list[Audio]:
        """Clips on the way from one recording to another: frame by frame their latents lie between those of the two.

        What lies between is coded and decoded, so the ends are reconstructions of the recordings. The shorter one is
        filled up with silence first.

        Args:
            first: where the way begins.
            last: where it ends.
            steps: clips, the two ends included.

        Raises:
            WavegenError: under two steps, or a recording is empty.
        """
        require_least(steps=(steps, 2))
        ends = [waveform_of(audio, self.sample_rate, self.codec.audio_channels)[0] for audio in (first, last)]
        longest = max(map(len, ends))
        pair = np.zeros((2, longest, *ends[0].shape[1:]), np.float32)
        for row, end in zip(pair, ends, strict=True):
            row[: len(end)] = end
        tokens = _between(self.codec, jnp.asarray(pair), jnp.linspace(0, 1, steps))
        return [Audio(clip[:longest], self.sample_rate) for clip in from_tokens(self.codec, tokens)]

    def save(self, path: str | Path) -> Path:
        """Writes the codec as one safetensors file, in float32.

        Args:
            path: ending in ``.safetensors``.

        Returns:
            The path.
        """
        return save_trained(path, self.trained._replace(codecs=Codecs(None)))
