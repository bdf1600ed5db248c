"""A small convolutional classifier of labelled recordings: what it understands of generated clips, and its features.

Log-mel frames, three strided convolutions, the mean over time, a softmax. It reads a fixed length of a clip, wherever
the clip lies in it, at any loudness and over faint noise, so that neither length nor level gives a label away.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Float32

from wavegen.audio import Audio
from wavegen.errors import WavegenError
from wavegen.evaluation.embeddings.base import Embedding, pieces
from wavegen.networks.base import parameters
from wavegen.runs.trained import fitting
from wavegen.runs.weights import read_weights, write_weights
from wavegen.spectral import log_mel, mel_spectrogram

BANDS, WIDTH = 40, 64
BATCH = 16
"""Pieces that are read at once; one shape, so that one program is compiled."""
KIND = "listener"


class Classifier(nnx.Module):
    """The network.

    Args:
        sample_rate: Hz, of what it reads.
        classes: number of labels.
        rngs: of the first weights.
    """

    def __init__(self, sample_rate: int, classes: int, rngs: nnx.Rngs) -> None:
        self.sample_rate = sample_rate
        widths = (BANDS, WIDTH, WIDTH, WIDTH)
        self.layers = nnx.List([nnx.Conv(a, b, 5, strides=2, rngs=rngs) for a, b in pairwise(widths)])
        self.head = nnx.Linear(WIDTH, classes, rngs=rngs)

    def features(self, audio: Float[Array, "B T"]) -> Float[Array, "B D"]:
        """The mean over time of the last layer, 64 numbers per clip."""
        hop = self.sample_rate // 100
        n_fft = 1 << (3 * hop - 1).bit_length()
        x = log_mel(
            mel_spectrogram(audio, sample_rate=self.sample_rate, n_fft=n_fft, hop_length=hop, n_mels=BANDS)
        )
        x = x - jnp.mean(x, axis=(1, 2), keepdims=True)
        for layer in self.layers:
            x = jax.nn.gelu(layer(x))
        return jnp.mean(x, axis=1)

    def __call__(self, audio: Float[Array, "B T"]) -> Float[Array, "B V"]:
        """Logits of the labels."""
        return self.head(self.features(audio))


@dataclass(frozen=True, eq=False)
class Listener(Embedding):
    """A trained classifier.

    Attributes:
        network: the network with its weights.
        sample_rate: Hz, of what it reads; clips of other rates are resampled.
        samples: length of what it reads.
        field: the label field that it understands.
        labels: the values of the field, in the order of the logits.
        accuracy: share of held-out recordings that it understood after training.
        held_out: number of these recordings.
        title: its name in tables.
    """

    network: Classifier
    sample_rate: int
    samples: int
    field: str
    labels: tuple[str, ...]
    accuracy: float | None = None
    held_out: int = 0
    title: str = KIND

    @property
    def name(self) -> str:
        """The name of the file that it was opened from, or "listener"."""
        return self.title

    def embed(self, clip: Audio) -> Float[np.ndarray, "P D"]:
        """Returns 64 numbers for each stretch of the length that it reads."""
        cut = pieces(clip.resample(self.sample_rate), self.samples / self.sample_rate)
        return self._read(np.stack([fitted(piece, self.samples) for piece in cut]))[0].astype(np.float64)

    def understood(self, clips: Sequence[Audio]) -> list[str]:
        """Returns the likeliest label of the middle of each clip."""
        if not clips:
            return []
        rows = np.stack([fitted(clip.mono().resample(self.sample_rate), self.samples) for clip in clips])
        return [self.labels[code] for code in self._read(rows)[1].argmax(axis=1)]

    def share_understood(self, clips: Sequence[Audio], labels: Sequence[str]) -> float:
        """Returns the share of clips whose label is understood, 0 to 1.

        Raises:
            WavegenError: if there are no clips, or not one label per clip.
        """
        if not clips or len(clips) != len(labels):
            raise WavegenError(
                f"expected one label per clip, got {len(clips)} clips and {len(labels)} labels"
            )
        pairs = zip(self.understood(clips), labels, strict=True)
        return float(np.mean([answer == label for answer, label in pairs]))

    def save(self, path: str | Path) -> None:
        """Writes the listener as one sealed safetensors file.

        Raises:
            WavegenError: the file has another ending than ``.safetensors``, or cannot be written.
        """
        _, params = parameters(self.network)
        card = {
            "kind": KIND,
            "sample_rate": self.sample_rate,
            "samples": self.samples,
            "field": self.field,
            "labels": list(self.labels),
            "accuracy": self.accuracy,
            "held_out": self.held_out,
        }
        write_weights(path, {}, card, exact=params)

    @classmethod
    def open(cls, path: str | Path) -> "Listener":
        """Opens a file of ``save``.

        Raises:
            WavegenError: it is missing, damaged, or no listener.
        """
        params, card = read_weights(Path(path))
        if card.get("kind") != KIND:
            raise WavegenError(
                f"expected a listener in {path}, got another kind of file; train one with wavegen train-listener"
            )
        try:
            graph, fresh = parameters(Classifier(card["sample_rate"], len(card["labels"]), nnx.Rngs(0)))
            return cls(
                nnx.merge(graph, fitting(params, fresh)),
                card["sample_rate"],
                card["samples"],
                card["field"],
                tuple(card["labels"]),
                card["accuracy"],
                card["held_out"],
                title=Path(path).stem,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise WavegenError(
                f"{path} is a listener of another version ({error}); train it again"
            ) from error

    def _read(
        self, rows: Float32[np.ndarray, "N T"]
    ) -> tuple[Float32[np.ndarray, "N D"], Float32[np.ndarray, "N V"]]:
        """Returns the features and the logits of clips of the right length."""
        count = len(rows)
        rows = np.pad(rows, ((0, -count % BATCH), (0, 0)))
        parts = [self._program(jnp.asarray(rows[i : i + BATCH])) for i in range(0, len(rows), BATCH)]
        features, logits = (np.concatenate([np.asarray(part[i]) for part in parts])[:count] for i in (0, 1))
        return features, logits

    @cached_property
    def _program(self) -> Any:
        graph, params = nnx.split(self.network)

        @jax.jit
        def read(audio: Float[Array, "B T"]) -> tuple[Float[Array, "B D"], Float[Array, "B V"]]:
            network = nnx.merge(graph, params)
            features = network.features(audio)
            return features, network.head(features)

        return read


def fitted(clip: Audio, samples: int, place: float = 0.5) -> Float32[np.ndarray, "T"]:
    """Returns ``samples`` samples of a mono clip: a part of it if it is longer, with silence around it if shorter.

    Args:
        clip: mono.
        samples: length of the result.
        place: of the part in the clip, or of the clip in the silence; 0 is the start, 1/2 the middle, 1 the end.
    """
    wave = clip.samples[:, 0]
    excess = len(wave) - samples
    if excess >= 0:
        start = round(place * excess)
        return wave[start : start + samples]
    before = round(place * -excess)
    return np.pad(wave, (before, -excess - before))
