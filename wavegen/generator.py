"""What a person asks for: load a trained model, generate from it, stream it, and measure recordings with it."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, PyTree

from wavegen.audio import Audio
from wavegen.codecs import Codec, make_codec
from wavegen.config import Config, resolve
from wavegen.errors import WavegenError
from wavegen.kernels.wavenet.api import IMPLEMENTATIONS
from wavegen.models import make_model
from wavegen.models.base import Choice, parameters
from wavegen.notes.score import Notes
from wavegen.samplers.autoregressive import log_likelihood, stream
from wavegen.training.weights import read_run, read_weights, write_weights

Precision = Literal["float32", "bfloat16"]

SHIPPED = Path(__file__).parent / "assets" / "piano-wavenet.safetensors"
"""The instrument that comes with the package."""


@dataclass(frozen=True)
class Generator:
    """A trained model with its codec: audio in, audio out.

    Attributes:
        config: of the experiment that trained it.
        labels: the values of each label field, in the order of their numbers.
        graph: structure of the model.
        params: its weights.
        codec: between audio and tokens.

    Example:
        >>> generator = wavegen.load()  # doctest: +SKIP
        >>> generator.generate(seconds=3, seed=1)[0].write("three.wav")  # doctest: +SKIP
    """

    config: Config
    labels: Mapping[str, tuple[str, ...]]
    graph: nnx.GraphDef
    params: PyTree
    codec: Codec

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
        notes: Notes | Sequence[Notes] | None = None,
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
            notes: the melody, for models that are conditioned on notes; or one for each clip.
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
        notes: Notes | Sequence[Notes] | None = None,
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
            chunk: samples per block; the audio does not depend on it.
            implementation: see ``generate``.

        Returns:
            An iterator over blocks of float32 samples in [-1, 1], one row per clip; the prompt is the first block.

        Raises:
            WavegenError: see ``generate``.
        """
        seconds = self._seconds(seconds, notes)
        temperature = self.config.sampling.temperature if temperature is None else temperature
        least = {
            "count": (count, 1),
            "chunk": (chunk, 1),
            "temperature": (temperature, 0),
            "top_k": (top_k, 0),
        }
        for name, (value, lowest) in least.items():
            if not (math.isfinite(value) and value >= lowest):
                raise WavegenError(f"{name} must be at least {lowest}, got {value}")
        if not 0 < top_p <= 1:
            raise WavegenError(f"top_p must lie in (0, 1], got {top_p}; 1 draws among all tokens")
        if self.config.model.head.kind == "mixture" and (top_k or top_p < 1):
            raise WavegenError(
                "top_k and top_p need a softmax head, this model has a mixture; use temperature"
            )
        frames = round(seconds * self.sample_rate)
        tokens = None if prompt is None else self._tokens(prompt)
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
            features=self._features(notes, heard + frames, count),
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
        notes: Notes | None = None,
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
        tokens = np.asarray(self._tokens(audio))
        scores = log_likelihood(
            self.graph,
            self.params,
            tokens,
            labels=self._labels(labels, 1),
            features=self._features(notes, tokens.shape[1], 1),
            window=window,
        )
        return scores[0, :, 0]

    def save(self, path: str | Path) -> Path:
        """Writes the weights and all that is needed to use them as one safetensors file.

        Args:
            path: ending in ``.safetensors``.

        Returns:
            The path.
        """
        return write_weights(path, self.params, self.card())

    def card(self) -> dict[str, Any]:
        """What a file or a checkpoint needs besides the arrays to become this generator again."""
        return {
            "config": self.config.model_dump(mode="json"),
            "labels": {field: list(values) for field, values in self.labels.items()},
        }

    def _seconds(self, seconds: float | None, notes: Notes | Sequence[Notes] | None) -> float:
        if seconds is None:
            if notes is None:
                raise WavegenError("say how long the audio is to be, for example seconds=3")
            seconds = max((melody.seconds for melody in _each(notes, 1)), default=0.0)
        if not (math.isfinite(seconds) and seconds * self.sample_rate >= 1):
            raise WavegenError(f"seconds must be at least one sample, got {seconds}")
        return seconds

    def _tokens(self, audio: Audio) -> Array:
        mono = audio.mono().resample(self.sample_rate)
        if not len(mono.samples):
            raise WavegenError("the recording holds no samples; give one that does")
        length = len(mono.samples)
        # Clips of all lengths share few shapes, and so few compilations; repeating the last sample moves no extremes.
        padded = np.pad(mono.samples[:, 0], (0, -length % 8192), mode="edge")
        return _encode(self.codec, padded[None])[:, : -(-length // self.codec.hop_length)]

    def _labels(self, labels: Mapping[str, str] | None, count: int) -> Array | None:
        fields = self.config.model.global_fields
        unknown = [field for field in labels or {} if field not in fields]
        if unknown:
            raise WavegenError(
                f"this model has no label field '{unknown[0]}'; it has {', '.join(fields) or 'none'}"
            )
        if not fields:
            return None
        row = []
        for field in fields:
            values = self.labels[field]
            value = str((labels or {}).get(field, ""))
            if value and value not in values:
                raise WavegenError(
                    f"label {field}={value} was not in the training data; it had {', '.join(values)}"
                )
            row.append(values.index(value) if value else -1)
        return jnp.tile(jnp.asarray(row, jnp.int32)[None], (count, 1))

    def _features(self, notes: Notes | Sequence[Notes] | None, samples: int, count: int) -> Array | None:
        local = self.config.model.local
        takes = local is not None and local.kind == "notes"
        if notes is not None and not takes:
            raise WavegenError("this model is not conditioned on notes; leave them out")
        if local is None:
            return None
        if not takes:
            raise WavegenError(
                "this model is conditioned on features of its own; drive it by wavegen.samplers.autoregressive"
            )
        if notes is None:
            raise WavegenError("this model plays notes: give some, for example --notes melody.txt")
        melodies = _each(notes, count)
        if len(melodies) != count:
            raise WavegenError(f"give one melody for all {count} clips, or one for each; got {len(melodies)}")
        rows = [melody.frames(self.sample_rate, local.hop_length, samples) for melody in melodies]
        return jnp.asarray(np.stack(rows))


def _each(notes: Notes | Sequence[Notes], count: int) -> Sequence[Notes]:
    return [notes] * count if isinstance(notes, Notes) else notes


def _outline(params: PyTree) -> list[tuple[str, tuple[int, ...]]]:
    return [(jax.tree_util.keystr(path), leaf.shape) for path, leaf in jax.tree.leaves_with_path(params)]


@partial(jax.jit, static_argnames="codec")
def _encode(codec: Codec, waveform: Array) -> Array:
    return codec.encode(waveform)


def load(path: str | Path | None = None, *, precision: Precision = "float32") -> Generator:
    """Loads a trained model.

    Args:
        path: a run folder (its newest sound checkpoint, averaged weights), a ``.safetensors`` file, or None for the
            instrument that comes with the package.
        precision: of the weights; bfloat16 halves what is read for a sample, which a long network's speed depends
            on (``benchmarks/bfloat16.py`` measures what it costs in likelihood).

    Raises:
        WavegenError: there is no such run or file, it is damaged, or of a newer version.
    """
    path = SHIPPED if path is None else Path(path)
    if not path.exists():
        raise WavegenError(
            f"no run folder or .safetensors file at {path}; train one with: python train.py configs/..."
        )
    arrays, card = read_run(path) if path.is_dir() else read_weights(path)
    return build(resolve(card["config"]), card["labels"], arrays, precision)


def build(
    config: Config, labels: Mapping[str, Any], params: PyTree, precision: Precision = "float32"
) -> Generator:
    """Puts a generator together from its parts; ``params`` may be arrays of numpy or of JAX."""
    codec = make_codec(config.codec)
    graph, fresh = parameters(make_model(config, codec, labels))
    if _outline(fresh) != _outline(params):
        raise WavegenError("the weights do not fit the configuration they came with; the file is damaged")
    arrays = jax.tree.map(lambda x: jnp.asarray(x, precision), params)
    return Generator(config, {k: tuple(v) for k, v in labels.items()}, graph, arrays, codec)
