"""What a person asks of a causal model: generate, continue, stream and speak clips, and measure recordings."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, PyTree

from wavegen.audio import Audio
from wavegen.codecs import AudioCodec, Codecs
from wavegen.config import Config
from wavegen.config.models import (
    CodeConditionConfig,
    FeatureConditionConfig,
    NoteConditionConfig,
    PianoRollConditionConfig,
    WaveNetConfig,
)
from wavegen.errors import WavegenError
from wavegen.generation.requests import (
    pad_frames,
    require_least,
    require_share,
    to_labels,
    to_samples,
    to_tokens,
    to_waveform,
)
from wavegen.kernels.wavenet.api import IMPLEMENTATIONS
from wavegen.models.base import Choice
from wavegen.models.conditions.features import own_features
from wavegen.models.kinds import make_model
from wavegen.networks.base import parameters
from wavegen.notes.performance import Performance
from wavegen.notes.roll import roll_features
from wavegen.notes.score import Notes
from wavegen.runs.trained import Trained, fitting, save_trained
from wavegen.samplers.autoregressive import log_likelihood, stream
from wavegen.types import Tokens

Precision = Literal["float32", "bfloat16"]
Played = Performance | Notes


@dataclass(frozen=True)
class Generator:
    """A trained model with its codec: audio in, audio out.

    Attributes:
        config: of the experiment that trained it.
        labels: the values of each label field, in the order of their numbers.
        graph: structure of the model.
        params: its weights.
        codec: between audio and tokens.
        condition: the codec whose tokens a vocoder speaks.

    Example:
        >>> generator = wavegen.load()  # doctest: +SKIP
        >>> generator.generate(seconds=3, seed=1)[0].write("three.wav")  # doctest: +SKIP
    """

    config: Config
    labels: Mapping[str, tuple[str, ...]]
    graph: nnx.GraphDef
    params: PyTree
    codec: AudioCodec
    condition: AudioCodec | None = None

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
        temperature: float | None = None,
        top_k: int = 0,
        top_p: float = 1.0,
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
            temperature: below 1 is calmer, above 1 wilder; 0 always takes the likeliest token; None is the
                experiment's own.
            top_k: draw among the k likeliest tokens; 0 is all.
            top_p: draw among the likeliest tokens that together have this probability; 1 is all.
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
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
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
        temperature: float | None = None,
        top_k: int = 0,
        top_p: float = 1.0,
        prompt: Audio | None = None,
        labels: Mapping[str, str] | None = None,
        notes: Played | Sequence[Played] | None = None,
        like: Audio | None = None,
        chunk: int = 2000,
        implementation: str | None = None,
    ) -> Iterator[Float[np.ndarray, "B T"]]:
        """Generates clips block by block, as ``generate`` does; memory does not grow with their length.

        Args:
            seconds: see ``generate``.
            count: see ``generate``.
            seed: see ``generate``.
            temperature: see ``generate``.
            top_k: see ``generate``.
            top_p: see ``generate``.
            prompt: see ``generate``.
            labels: see ``generate``.
            notes: see ``generate``.
            like: see ``generate``.
            chunk: samples per block; the audio does not depend on it.
            implementation: see ``generate``.

        Returns:
            An iterator over blocks of float32 samples in [-1, 1], one row per clip; the prompt is the first block.

        Raises:
            WavegenError: see ``generate``.
        """
        frames = to_samples(self._seconds(seconds, notes, like), self.sample_rate)
        temperature = self.config.sampling.temperature if temperature is None else temperature
        require_least(count=(count, 1), chunk=(chunk, 1), temperature=(temperature, 0), top_k=(top_k, 0))
        require_share("top_p", top_p)
        network = self.config.model
        mixture = isinstance(network, WaveNetConfig) and network.head.kind == "mixture"
        if mixture and (top_k or top_p < 1):
            raise WavegenError(
                "top_k and top_p need a softmax head, this model has a mixture; use temperature"
            )
        tokens = None if prompt is None else to_tokens(self.codec, prompt, self.sample_rate)
        heard = 0 if tokens is None else tokens.shape[1]
        if implementation is not None and implementation not in IMPLEMENTATIONS:
            raise WavegenError(
                f"there is no implementation {implementation!r}; choose from {', '.join(IMPLEMENTATIONS)}"
            )
        blocks = stream(
            self.graph,
            self.params,
            frames,
            jax.random.key(seed),
            batch=count,
            choice=Choice(jnp.float32(temperature), top_k, top_p),
            prompt=None if tokens is None else jnp.repeat(tokens, count, axis=0),
            labels=self._labels(labels, count),
            features=self._features(notes, like, heard + frames, count),
            chunk=chunk,
            implementation=implementation,
        )
        return self._audible(blocks, tokens, count)

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
    ) -> Float[np.ndarray, "T"]:
        """The exact log-likelihood of a recording's tokens, sample by sample.

        Every sample is predicted from the whole receptive field before it; the first one from silence. Divide the
        negative mean by ``ln 2`` for bits per sample.

        Args:
            audio: resampled and mixed to mono as needed.
            labels: for models that are conditioned on labels.
            notes: for models that are conditioned on notes.
            window: samples per pass; the result does not depend on it beyond rounding.

        Returns:
            ln p(token t | tokens before t), in nats, float64.

        Raises:
            WavegenError: the recording is empty, or a condition is missing or not one that this model takes.
        """
        if window < 1:
            raise WavegenError(f"window must be at least 1, got {window}")
        tokens = np.asarray(to_tokens(self.codec, audio, self.sample_rate))
        scores = log_likelihood(
            self.graph,
            self.params,
            tokens,
            labels=self._labels(labels, 1),
            features=self._features(notes, audio, tokens.shape[1], 1),
            window=window,
        )
        return scores[0, :, 0]

    def speak(self, tokens: Tokens, samples: int, *, seed: int = 0) -> list[Audio]:
        """Turns the tokens of a codec into audio, for a vocoder of that codec.

        Args:
            tokens: of the clips.
            samples: length of each.
            seed: the same seed gives the same clips.

        Raises:
            WavegenError: this is no vocoder of tokens, or one of another codec.
        """
        local, codec = self.config.model.local, self.condition
        if not isinstance(local, CodeConditionConfig) or codec is None:
            raise WavegenError(
                "this model does not speak a codec's tokens; give a run with model.local.kind=codes"
            )
        if tokens.shape[2] != codec.codebooks:
            raise WavegenError(
                f"the vocoder speaks tokens of {codec.codebooks} codebooks, these have {tokens.shape[2]}; "
                "train both on the same codec"
            )
        blocks = stream(
            self.graph,
            self.params,
            samples,
            jax.random.key(seed),
            batch=len(tokens),
            choice=Choice(jnp.float32(self.config.sampling.temperature)),
            labels=self._labels(None, len(tokens)),
            features=tokens.astype(jnp.float32),
        )
        clips = np.concatenate(list(self._audible(blocks, None, len(tokens))), axis=1)
        return [Audio(clip[:, None], self.sample_rate) for clip in clips]

    def save(self, path: str | Path) -> Path:
        """Writes the weights and all that is needed to use them as one safetensors file.

        Args:
            path: ending in ``.safetensors``.

        Returns:
            The path.
        """
        labels = {field: list(values) for field, values in self.labels.items()}
        return save_trained(
            path, Trained(self.config, labels, self.params, Codecs(self.codec, self.condition))
        )

    def _seconds(
        self, seconds: float | None, notes: Played | Sequence[Played] | None, like: Audio | None
    ) -> float:
        if seconds is not None:
            return seconds
        if notes is not None:
            return max((melody.seconds for melody in _each(notes, 1)), default=0.0)
        if like is not None:
            return like.duration
        raise WavegenError("say how long the audio is to be, for example seconds=3")

    def _labels(self, labels: Mapping[str, str] | None, count: int) -> Array | None:
        return to_labels(self.config.model.global_fields, self.labels, labels, count)

    def _features(
        self, notes: Played | Sequence[Played] | None, like: Audio | None, samples: int, count: int
    ) -> Array | None:
        local = self.config.model.local
        if notes is not None and not isinstance(local, NoteConditionConfig | PianoRollConditionConfig):
            raise WavegenError("this model is not conditioned on notes; leave them out")
        if local is None:
            return None
        if isinstance(local, FeatureConditionConfig):
            raise WavegenError(
                "this model is conditioned on features of its own; drive it by wavegen.samplers.autoregressive"
            )
        if isinstance(local, NoteConditionConfig | PianoRollConditionConfig):
            if notes is None:
                raise WavegenError("this model plays notes: give some, for example --notes melody.txt")
            melodies = _each(notes, count)
            if len(melodies) != count:
                raise WavegenError(
                    f"give one melody for all {count} clips, or one for each; got {len(melodies)}"
                )
            grid = (self.sample_rate, local.hop_length, samples)
            if isinstance(local, PianoRollConditionConfig):
                rows = [roll_features(played, *grid, local.low, local.high) for played in melodies]
            else:
                rows = [melody.frames(*grid) for melody in melodies]
            return jnp.asarray(np.stack(rows))
        if like is None:
            raise WavegenError(
                "this model is a vocoder: give a recording to speak like, for example --like a.wav"
            )
        waveform = jnp.asarray(to_waveform(like, self.sample_rate))
        features = own_features(waveform, local, self.condition, self.sample_rate)
        return jnp.repeat(pad_frames(features, -(-samples // local.hop_length)), count, axis=0)


def _each(notes: Played | Sequence[Played], count: int) -> list[Performance]:
    given = [notes] * count if isinstance(notes, Played) else notes
    return [played.pitched() if isinstance(played, Notes) else played for played in given]


def build(trained: Trained, precision: Precision = "float32") -> Generator:
    """Puts a generator together from its parts."""
    graph, fresh = parameters(make_model(trained.config, trained.codecs, trained.labels))
    params = jax.tree.map(lambda x: x.astype(precision), fitting(trained.params, fresh))
    labels = {field: tuple(values) for field, values in trained.labels.items()}
    tokens, condition = trained.codecs
    assert isinstance(tokens, AudioCodec)
    return Generator(trained.config, labels, graph, params, tokens, condition)
