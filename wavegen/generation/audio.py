"""What a person asks of a causal model: generate, continue, stream and speak clips, and measure recordings."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from wavegen.audio import Audio
from wavegen.codecs.base import AudioCodec
from wavegen.errors import WavegenError, require_least
from wavegen.generation.base import TokenGenerator
from wavegen.generation.player import Player
from wavegen.generation.requests import from_tokens, pad_frames, to_samples, to_tokens, waveform_of
from wavegen.kernels.wavenet.api import IMPLEMENTATIONS
from wavegen.notes.performance import Performance
from wavegen.notes.score import Score
from wavegen.samplers.autoregressive import Stepper, log_likelihood
from wavegen.samplers.drawing import USUAL, Drawing
from wavegen.stopping import ProgressCallback, followed, silent
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
        progress: ProgressCallback = silent,
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
            progress: called for each block of samples. Where it raises ``Stopped``, the clips so far are returned.

        Returns:
            ``count`` clips of mono audio.

        Raises:
            Stopped: ``progress`` raised it before there was a block.
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
            progress=progress,
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
        progress: ProgressCallback = silent,
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
            progress: see ``generate``; the blocks end where it raises ``Stopped``.

        Returns:
            An iterator over blocks of float32 samples in [-1, 1], one row per clip; the prompt is the first block, or
            the beginning of the only one.

        Raises:
            WavegenError: see ``generate``.
        """
        length, hop = to_samples(self._seconds(seconds, notes, like), self.sample_rate), self.codec.hop_length
        require_least(count=(count, 1), chunk=(chunk, 1))
        tokens = np.zeros((1, 0, self.codec.codebooks), np.int32)
        if prompt is not None:
            recorded = waveform_of(prompt, self.sample_rate).shape[1]
            length += recorded
            # A last frame that the recording does not fill is drawn anew.
            tokens = np.asarray(to_tokens(self.codec, prompt, self.sample_rate))[:, : recorded // hop]
        start = np.repeat(tokens, count, axis=0)
        frames = -(-length // hop)
        features = self._features(notes, like, frames, count)
        stepper, key = self._stepper(count, drawing, labels, implementation), jax.random.key(seed)
        if hop == 1:
            player = Player(self.codec, self.network.local, stepper)
            left = length - start.shape[1]
            played = player.play(left, key, prompt=start, features=features)
            return self._prompted(start, in_chunks(followed(played, left, progress), chunk))
        drawn = stepper.stream(frames - start.shape[1], key, prompt=start, features=features)
        return self._decoded_at_once(drawn, start, length)

    def player(
        self,
        *,
        count: int = 1,
        drawing: Drawing = USUAL,
        labels: Mapping[str, str] | None = None,
        implementation: str | None = None,
    ) -> Player:
        """What plays the model block by block: for clips without an end, and notes that come in while they are played.

        Args:
            count: see ``generate``.
            drawing: see ``generate``.
            labels: see ``generate``.
            implementation: see ``generate``.

        Raises:
            WavegenError: the model draws tokens of a learned codec, whose frames are decoded together; see
                ``generate``.
        """
        require_least(count=(count, 1))
        if self.codec.hop_length > 1:
            raise WavegenError(
                f"a player needs a codec of single samples, got frames of {self.codec.hop_length}; use generate"
            )
        return Player(self.codec, self.network.local, self._stepper(count, drawing, labels, implementation))

    def _stepper(
        self, count: int, drawing: Drawing, labels: Mapping[str, str] | None, implementation: str | None
    ) -> Stepper:
        if implementation is not None and implementation not in IMPLEMENTATIONS:
            raise WavegenError(
                f"there is no implementation {implementation!r}; choose from {', '.join(IMPLEMENTATIONS)}"
            )
        return self.sampler.stepper(count, drawing, self._labels(labels, count), implementation)

    def _decoded_at_once(
        self, blocks: Iterator[np.ndarray], prompt: Int[np.ndarray, "B N K"], length: int
    ) -> Iterator[np.ndarray]:
        """Yields clips as one block: a frame's audio depends on its neighbours."""
        yield from_tokens(self.codec, np.concatenate([prompt, *blocks], axis=1))[:, :length]

    def _prompted(
        self, prompt: Int[np.ndarray, "B N K"], chunks: Iterator[np.ndarray]
    ) -> Iterator[np.ndarray]:
        if prompt.shape[1]:
            yield from_tokens(self.codec, prompt)
        yield from chunks

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
                features=None
                if features is None
                else jax.device_put(features[:, first // self.network.local.input_hop :]),
                window=window,
            )
            for first in range(0, tokens.shape[1], clip)
        ]
        return np.concatenate(scores, axis=1)[0].sum(axis=1)

    def speak(
        self, tokens: Tokens, samples: int, *, seed: int = 0, progress: ProgressCallback = silent
    ) -> list[Audio]:
        """Turns the tokens of a codec into audio, for a vocoder of that codec.

        Args:
            tokens: of the clips.
            samples: length of each.
            seed: the same seed gives the same clips.
            progress: see ``generate``.

        Raises:
            Stopped: see ``generate``.
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
        player = self.player(count=len(tokens))
        blocks = player.play(samples, jax.random.key(seed), features=np.asarray(tokens, np.float32))
        clips = np.concatenate(list(followed(blocks, samples, progress)), axis=1)
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
    ) -> Float[np.ndarray, "B F D"] | None:
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
            return np.repeat(pad_frames(features, -(-samples // local.input_hop)), count, axis=0)
        if notes is None:
            raise WavegenError("this model plays notes: give some, for example --notes melody.txt")
        played = _each(notes, count)
        if len(played) != count:
            raise WavegenError(f"give one melody for all {count} clips, or one for each; got {len(played)}")
        return np.asarray(local.of_notes(played, samples))


def in_chunks(blocks: Iterator[Float[np.ndarray, "B T"]], size: int) -> Iterator[Float[np.ndarray, "B size"]]:
    """The same samples in blocks of another size; the last one may be shorter."""
    held: list[np.ndarray] = []
    count = 0
    for block in blocks:
        held.append(block)
        count += block.shape[1]
        while count >= size:
            joined = np.concatenate(held, axis=1)
            yield joined[:, :size]
            held, count = [joined[:, size:]], count - size
    if count:
        yield np.concatenate(held, axis=1)


def _each(notes: Played | Sequence[Played], count: int) -> list[Performance]:
    given = [notes] * count if isinstance(notes, Played) else notes
    return [played.pitched() if isinstance(played, Score) else played for played in given]
