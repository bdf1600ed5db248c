"""What a person asks of a masked model: generate, continue, inpaint, vary and redraw clips, through a learned codec."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, PyTree

from wavegen.audio import Audio
from wavegen.codecs.base import AudioCodec
from wavegen.errors import WavegenError, require_least
from wavegen.generation.audio import AudioGenerator
from wavegen.generation.base import TokenGenerator
from wavegen.generation.requests import from_tokens, to_samples, to_spans, to_tokens, waveform_of
from wavegen.networks.base import with_parameters
from wavegen.samplers import prompts
from wavegen.samplers.bound import order_agnostic_bound
from wavegen.samplers.drawing import USUAL, Drawing, row_keys
from wavegen.stopping import ProgressCallback, silent
from wavegen.types import Tokens

FADE_SECONDS = 0.01
"""Length of the cross-fade at each edge of an inpainted span, inside the span."""


@dataclass(frozen=True)
class MaskedGenerator(TokenGenerator):
    """A trained masked model of audio: recordings in, recordings out. Its attributes are ``TokenGenerator``'s.

    Example:
        >>> import wavegen
        >>> digits = wavegen.load("runs/fsdd-bert")  # doctest: +SKIP
        >>> digits.generate(0.6, seed=1, labels={"digit": "3"})[0].write("three.wav")  # doctest: +SKIP
    """

    codec: AudioCodec

    @property
    def sample_rate(self) -> int:
        """Hz, of what comes in and goes out."""
        return self.config.data.sample_rate

    def generate(
        self,
        seconds: float,
        *,
        count: int = 1,
        seed: int = 0,
        prompt: Audio | None = None,
        labels: Mapping[str, str] | None = None,
        drawing: Drawing = USUAL,
        vocoder: AudioGenerator | None = None,
        progress: ProgressCallback = silent,
    ) -> list[Audio]:
        """Generates clips, or continues a recording.

        Args:
            seconds: length of what is generated, after the prompt.
            count: clips, drawn side by side.
            seed: the same seed gives the same clips.
            prompt: a recording that the clips continue; it comes first in what is returned, as the codec keeps it. It
                is made mono or stereo as in ``inpaint``.
            labels: the value of each label field.
            drawing: how tokens are drawn.
            vocoder: a WaveNet that was trained on the codec's tokens; None is the codec's own decoder.
            progress: called for each pass of the model.

        Returns:
            Clips, stereo if the codec is, of the prompt's length and ``seconds``, to the sample.

        Raises:
            Stopped: ``progress`` raised it.
            WavegenError: an argument is out of range, or not one that this model takes.
        """
        require_least(count=(count, 1))
        length, hop = to_samples(seconds, self.sample_rate), self.codec.hop_length
        self.sampler.expect_room(count, -(-length // hop))
        if prompt is None:
            start, prompted = jnp.zeros((count, 0, self.codec.codebooks), jnp.int32), 0
        else:
            start = jnp.repeat(to_tokens(self.codec, prompt, self.sample_rate), count, axis=0)
            prompted = waveform_of(prompt, self.sample_rate).shape[1]
            # A last frame that the recording does not fill is drawn anew.
            start = start[:, : prompted // hop]
        frames = -(-(prompted + length) // hop) - start.shape[1]
        tokens = prompts.continuation(start, frames, self.codec.vocab_size)
        return self._render(tokens, prompted + length, seed, labels, drawing, vocoder, progress)

    def inpaint(
        self,
        audio: Audio,
        spans: Sequence[tuple[float, float]],
        *,
        count: int = 1,
        seed: int = 0,
        labels: Mapping[str, str] | None = None,
        drawing: Drawing = USUAL,
        progress: ProgressCallback = silent,
    ) -> list[Audio]:
        """Fills spans of a recording; every sample outside of them stays as it is.

        Args:
            audio: resampled as needed; mixed to mono for a mono model, a mono one duplicated for a stereo model.
            spans: first and last second of each.
            count: see ``generate``.
            seed: see ``generate``.
            labels: see ``generate``.
            drawing: see ``generate``.
            progress: see ``generate``.

        Raises:
            WavegenError: a span is empty, outside the recording, or overlaps another; see ``generate``.
        """
        require_least(count=(count, 1))
        waveform = waveform_of(audio, self.sample_rate, self.codec.audio_channels)
        length, hop = waveform.shape[1], self.codec.hop_length
        samples = to_spans(spans, self.sample_rate, length)
        tokens = jnp.repeat(to_tokens(self.codec, audio, self.sample_rate), count, axis=0)
        masked = [
            prompts.inpaint(tokens, [(begin // hop, -(-end // hop))], self.codec.vocab_size)
            for begin, end in samples
        ]
        tokens = reduce(jnp.maximum, masked)
        clips = self._render(tokens, length, seed, labels, drawing, None, progress)
        share = _inside(samples, length, round(FADE_SECONDS * self.sample_rate))[:, None]
        kept = (1 - share) * waveform[0].reshape(length, -1)
        return [Audio(kept + share * clip.samples, self.sample_rate) for clip in clips]

    def vary(
        self,
        audio: Audio,
        strength: float,
        *,
        count: int = 1,
        seed: int = 0,
        labels: Mapping[str, str] | None = None,
        drawing: Drawing = USUAL,
        vocoder: AudioGenerator | None = None,
        progress: ProgressCallback = silent,
    ) -> list[Audio]:
        """Draws a share of a recording's frames anew.

        Args:
            audio: see ``inpaint``.
            strength: the share: 0 keeps the recording as the codec codes it, 1 keeps nothing of it.
            count: see ``generate``.
            seed: see ``generate``.
            labels: see ``generate``.
            drawing: see ``generate``.
            vocoder: see ``generate``.
            progress: see ``generate``.

        Raises:
            WavegenError: the strength lies outside [0, 1]; see ``generate``.
        """
        require_least(count=(count, 1))
        length = waveform_of(audio, self.sample_rate).shape[1]
        tokens = jnp.repeat(to_tokens(self.codec, audio, self.sample_rate), count, axis=0)
        keys = row_keys(seed, count, purpose=1)
        tokens = prompts.variation(tokens, strength, keys, self.codec.vocab_size)
        return self._render(tokens, length, seed, labels, drawing, vocoder, progress)

    def redraw(
        self,
        audio: Audio,
        *,
        period: int = 1,
        codebooks: int | None = None,
        count: int = 1,
        seed: int = 0,
        labels: Mapping[str, str] | None = None,
        drawing: Drawing = USUAL,
        vocoder: AudioGenerator | None = None,
        progress: ProgressCallback = silent,
    ) -> list[Audio]:
        """Keeps an outline of a recording, and draws the rest anew: VampNet's periodic and compression prompts.

        Args:
            audio: see ``inpaint``.
            period: keep every ``period``-th frame, from the first on; 1 keeps all.
            codebooks: keep the first so many codebooks of the frames that are kept, which hold what matters most; None
                keeps all.
            count: see ``generate``.
            seed: see ``generate``.
            labels: see ``generate``.
            drawing: see ``generate``.
            vocoder: see ``generate``.
            progress: see ``generate``.

        Raises:
            WavegenError: the period is under 1, or there are not so many codebooks; see ``generate``.
        """
        require_least(count=(count, 1))
        length, vocab_size = waveform_of(audio, self.sample_rate).shape[1], self.codec.vocab_size
        tokens = jnp.repeat(to_tokens(self.codec, audio, self.sample_rate), count, axis=0)
        kept = self.codec.codebooks if codebooks is None else codebooks
        tokens = jnp.maximum(
            prompts.periodic(tokens, period, vocab_size), prompts.compression(tokens, kept, vocab_size)
        )
        return self._render(tokens, length, seed, labels, drawing, vocoder, progress)

    def bound(
        self, audio: Audio, *, labels: Mapping[str, str] | None = None, orders: int = 16, seed: int = 0
    ) -> Float[np.ndarray, "K"]:
        """An upper bound on the nats per token of a recording, by codebook (``order_agnostic_bound``).

        Args:
            audio: see ``inpaint``.
            labels: see ``generate``.
            orders: passes for each codebook: more make the figure steadier.
            seed: of the orders.
        """
        tokens = to_tokens(self.codec, audio, self.sample_rate)
        rows = self._labels(labels, 1)
        key = jax.random.key(seed)
        return np.asarray(_bound(self.graph, self.params, tokens, rows, key, orders))[0]

    def _render(
        self,
        tokens: Tokens,
        length: int,
        seed: int,
        labels: Mapping[str, str] | None,
        drawing: Drawing,
        vocoder: AudioGenerator | None,
        progress: ProgressCallback,
    ) -> list[Audio]:
        rows = self._labels(labels, len(tokens))
        filled = self.sampler.fill(tokens, seed, drawing=drawing, labels=rows, progress=progress)
        if vocoder is not None:
            if self.codec.audio_channels > 1:
                raise WavegenError("a vocoder is mono, this model is stereo; leave the vocoder out")
            return vocoder.speak(filled, length, seed=seed, progress=progress)
        clips = from_tokens(self.codec, filled)[:, :length]
        return [Audio(clip, self.sample_rate) for clip in clips]


@partial(jax.jit, static_argnames=("graph", "orders"))
def _bound(
    graph: nnx.GraphDef, params: PyTree, tokens: Tokens, labels: Array | None, key: Array, orders: int
) -> Array:
    valid = jnp.ones(tokens.shape[:2], bool)
    return order_agnostic_bound(with_parameters(graph, params), tokens, valid, labels, key, orders)


def _inside(spans: Sequence[tuple[int, int]], length: int, fade: int) -> Float[np.ndarray, "T"]:
    """1 inside of spans, 0 outside, and a slope of ``fade`` samples within their ends."""
    place = np.arange(length)
    share = np.zeros(length, np.float32)
    for begin, end in spans:
        slope = min(fade, (end - begin) // 2) + 1
        # No slope where the recording itself begins or ends: there is nothing to cross-fade with.
        rise = (place - begin + 1) / slope if begin else np.ones(length)
        fall = (end - place) / slope if end < length else np.ones(length)
        share = np.where((place >= begin) & (place < end), np.clip(np.minimum(rise, fall), 0, 1), share)
    return share.astype(np.float32)
