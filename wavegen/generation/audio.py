"""What a person asks of a causal model: generate, continue, stream and speak clips, and measure recordings."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from wavegen.audio import Audio
from wavegen.codecs.base import AudioCodec
from wavegen.errors import WavegenError, require_least
from wavegen.generation.base import TokenGenerator
from wavegen.generation.requests import pad_frames, to_samples, to_tokens, waveform_of
from wavegen.kernels.wavenet.api import IMPLEMENTATIONS
from wavegen.notes.performance import Performance
from wavegen.notes.score import Score
from wavegen.samplers.autoregressive import log_likelihood
from wavegen.samplers.drawing import USUAL, Drawing
from wavegen.types import Tokens

Played = Performance | Score


@dataclass(frozen=True)
class AudioGenerator(TokenGenerator):
    """A trained causal model of audio: recordings in, recordings out. Its attributes are ``TokenGenerator``'s.

    Example:
        >>> import wavegen
        >>> piano = wavegen.load()
        >>> clip = piano.generate(notes=wavegen.Performance.parse("tempo 240, C4 1"), seed=1)[0]
        >>> clip.samples.shape, clip.sample_rate
        ((4000, 1), 16000)
    """

    codec: AudioCodec
    condition: AudioCodec | None = None

    @property
    def plays(self) -> bool:
        """Whether it is conditioned on notes."""
        local = self.network.local
        return local is not None and local.takes in ("melody", "chords")

    @property
    def sample_rate(self) -> int:
        """Hz, of what comes in and goes out."""
        return self.config.data.sample_rate

    def generate(
        self,
        seconds: float | None = None,
        *,
        count: int = 1,
        seed: int = 0,
        drawing: Drawing = USUAL,
        prompt: Audio | None = None,
        labels: Mapping[str, str] | None = None,
        notes: Played | Sequence[Played] | None = None,
        like: Audio | None = None,
        implementation: str | None = None,
    ) -> list[Audio]:
        """Generates clips.

        Args:
            seconds: length of what is generated, after the prompt; a note-conditioned model plays the notes to their
                end if this is None.
            count: clips, drawn side by side.
            seed: the same seed gives the same clips.
            drawing: how tokens are drawn.
            prompt: a recording that the clips continue; it is resampled and mixed to mono as needed, and comes first
                in what is returned.
            labels: the value of each label field, for models that are conditioned on labels.
            notes: what is played, for models that are conditioned on notes; or one for each clip. Drums are left out.
            like: a recording whose spectrogram or tokens a vocoder turns into audio again; ``seconds`` may be left out.
            implementation: of the sampling kernel, by name; None is the best one here.

        Returns:
            ``count`` clips of mono audio.

        Raises:
            WavegenError: an argument is missing, out of range, or not one that this model takes.
        """
        blocks = self.stream(
            seconds,
            count=count,
            seed=seed,
            drawing=drawing,
            prompt=prompt,
            labels=labels,
            notes=notes,
            like=like,
            implementation=implementation,
        )
        clips = np.concatenate(list(blocks), axis=1)
        return [Audio(clip[:, None], self.sample_rate) for clip in clips]

    def stream(
        self,
        seconds: float | None = None,
        *,
        count: int = 1,
        seed: int = 0,
        drawing: Drawing = USUAL,
        prompt: Audio | None = None,
        labels: Mapping[str, str] | None = None,
        notes: Played | Sequence[Played] | None = None,
        like: Audio | None = None,
        chunk: int = 2000,
        implementation: str | None = None,
    ) -> Iterator[Float[np.ndarray, "B T"]]:
        """Generates clips block by block, as ``generate`` does; memory does not grow with their length.

        A learned codec decodes all frames of a clip together, and there is one block.

        Args:
            seconds: see ``generate``.
            count: see ``generate``.
            seed: see ``generate``.
            drawing: see ``generate``.
            prompt: see ``generate``.
            labels: see ``generate``.
            notes: see ``generate``.
            like: see ``generate``.
            chunk: samples per block; the audio does not depend on it.
            implementation: see ``generate``.

        Returns:
            An iterator over blocks of float32 samples in [-1, 1], one row per clip; the prompt is the first block, or
            the beginning of the only one.

        Raises:
            WavegenError: see ``generate``.
        """
        length, hop = to_samples(self._seconds(seconds, notes, like), self.sample_rate), self.codec.hop_length
        require_least(count=(count, 1), chunk=(chunk, 1))
        tokens = None
        if prompt is not None:
            recorded = waveform_of(prompt, self.sample_rate).shape[1]
            length += recorded
            # A last frame that the recording does not fill is drawn anew.
            tokens = to_tokens(self.codec, prompt, self.sample_rate)[:, : recorded // hop]
        prompted = 0 if tokens is None else tokens.shape[1]
        frames = -(-length // hop) - prompted
        if implementation is not None and implementation not in IMPLEMENTATIONS:
            raise WavegenError(
                f"there is no implementation {implementation!r}; choose from {', '.join(IMPLEMENTATIONS)}"
            )
        blocks = self.sampler.stream(
            frames,
            seed,
            count=count,
            drawing=drawing,
            prompt=None if tokens is None else jnp.repeat(tokens, count, axis=0),
            labels=self._labels(labels, count),
            features=self._features(notes, like, prompted + frames, count),
            chunk=chunk,
            implementation=implementation,
        )
        if hop == 1:
            return self._audible(blocks, tokens, count)
        return self._decoded_at_once(blocks, tokens, count, length)

    def _decoded_at_once(
        self, blocks: Iterator[Array], prompt: Array | None, count: int, length: int
    ) -> Iterator[np.ndarray]:
        """Yields clips as one block: a frame's audio depends on its neighbours."""
        parts = [] if prompt is None else [jnp.repeat(prompt, count, axis=0)]
        tokens = jnp.concatenate([*parts, *blocks], axis=1)
        yield np.asarray(jax.jit(self.codec.decode)(tokens))[:, :length]

    def _audible(self, blocks: Iterator[Array], prompt: Array | None, count: int) -> Iterator[np.ndarray]:
        decode = jax.jit(self.codec.decode)
        if prompt is not None:
            yield np.repeat(np.asarray(decode(prompt)), count, axis=0)
        for block in blocks:
            yield np.asarray(decode(block))

    def log_likelihood(
        self,
        audio: Audio,
        *,
        labels: Mapping[str, str] | None = None,
        notes: Played | None = None,
        window: int = 8192,
    ) -> Float[np.ndarray, "N"]:
        """The exact log-likelihood of a recording's tokens, frame by frame; of codecs of samples a frame is a sample.

        Every sample is predicted from the whole receptive field before it; the first one from silence. With a codec of
        windows (``Codec.window``) each of them is a clip. Divide the negative mean by ``ln 2`` for bits per sample.

        Args:
            audio: resampled and mixed to mono as needed.
            labels: for models that are conditioned on labels.
            notes: for models that are conditioned on notes.
            window: samples per pass; the result does not depend on it beyond rounding.

        Returns:
            ln p of each frame's tokens given those before, in nats, float64; with several codebooks their sum.

        Raises:
            WavegenError: the recording is empty, or a condition is missing or not one that this model takes.
        """
        if window < 1:
            raise WavegenError(f"window must be at least 1, got {window}")
        tokens = np.asarray(to_tokens(self.codec, audio, self.sample_rate))
        features = self._features(notes, audio, tokens.shape[1], 1)
        clip = self.codec.window or tokens.shape[1]
        scores = [
            log_likelihood(
                self.graph,
                self.params,
                tokens[:, first : first + clip],
                labels=self._labels(labels, 1),
                features=None if features is None else features[:, first // self.network.local.input_hop :],
                window=window,
            )
            for first in range(0, tokens.shape[1], clip)
        ]
        return np.concatenate(scores, axis=1)[0].sum(axis=1)

    def speak(self, tokens: Tokens, samples: int, *, seed: int = 0) -> list[Audio]:
        """Turns the tokens of a codec into audio, for a vocoder of that codec.

        Args:
            tokens: of the clips.
            samples: length of each.
            seed: the same seed gives the same clips.

        Raises:
            WavegenError: this is no vocoder of tokens, or one of another codec.
        """
        codec = self.condition
        if codec is None:
            raise WavegenError(
                "this model is no vocoder of a codec's tokens; give a run with model.local.kind=codes"
            )
        if tokens.shape[2] != codec.codebooks:
            raise WavegenError(
                f"the vocoder reads tokens of {codec.codebooks} codebooks, these have {tokens.shape[2]}; "
                "train both on the same codec"
            )
        blocks = self.sampler.stream(
            samples,
            seed,
            count=len(tokens),
            labels=self._labels(None, len(tokens)),
            features=tokens.astype(jnp.float32),
        )
        clips = np.concatenate(list(self._audible(blocks, None, len(tokens))), axis=1)
        return [Audio(clip[:, None], self.sample_rate) for clip in clips]

    def _seconds(
        self, seconds: float | None, notes: Played | Sequence[Played] | None, like: Audio | None
    ) -> float:
        if seconds is not None:
            return seconds
        if notes is not None:
            return max((melody.seconds for melody in _each(notes, 1)), default=0.0)
        if like is not None:
            return like.duration
        raise WavegenError(
            "expected a length, got none; give one, for example --seconds 3, or seconds=3 in Python"
        )

    def _features(
        self, notes: Played | Sequence[Played] | None, like: Audio | None, samples: int, count: int
    ) -> Array | None:
        local = self.network.local
        if local is None or local.takes == "features":
            if notes is not None:
                raise WavegenError("this model is not conditioned on notes; leave them out")
            if local is not None:
                raise WavegenError(
                    "this model is conditioned on features of its own; drive it by wavegen.samplers.autoregressive"
                )
            return None
        if local.takes == "recording":
            if notes is not None:
                raise WavegenError("this model is not conditioned on notes; leave them out")
            if like is None:
                raise WavegenError(
                    "this model is a vocoder: give a recording to speak like, for example --like a.wav"
                )
            waveform = jnp.asarray(waveform_of(like, self.sample_rate))
            features = local.of_recording(waveform, self.condition)
            return jnp.repeat(pad_frames(features, -(-samples // local.input_hop)), count, axis=0)
        if notes is None:
            raise WavegenError("this model plays notes: give some, for example --notes melody.txt")
        played = _each(notes, count)
        if len(played) != count:
            raise WavegenError(f"give one melody for all {count} clips, or one for each; got {len(played)}")
        return local.of_notes(played, samples)


def _each(notes: Played | Sequence[Played], count: int) -> list[Performance]:
    given = [notes] * count if isinstance(notes, Played) else notes
    return [played.pitched() if isinstance(played, Score) else played for played in given]
