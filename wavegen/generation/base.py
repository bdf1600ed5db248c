"""What all generators share: a trained model with its codec and labels, and how it is saved."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from flax import nnx
from jaxtyping import PyTree

from wavegen.codecs.base import Codec, Codecs
from wavegen.config import Config
from wavegen.generation.requests import to_labels
from wavegen.networks.base import in_precision, parameters, with_parameters
from wavegen.runs.trained import Trained, rebuild, save_trained
from wavegen.samplers.drawing import Sampler
from wavegen.types import Labels

Precision = Literal["float32", "bfloat16", "int8"]
"""Of a sampler's weights; int8 is of a WaveNet and multiplies in 8 bits, see ``wavegen.kernels.wavenet.int8``."""


@dataclass(frozen=True)
class TokenGenerator:
    """A trained model of tokens.

    Attributes:
        config: of the experiment that trained it.
        labels: the values of each label field, in the order of their numbers.
        graph: structure of the model.
        params: its weights.
        codec: between tokens and what a person reads or hears.
        condition: the codec whose tokens a vocoder is conditioned on, if it is one.
    """

    config: Config
    labels: Mapping[str, tuple[str, ...]]
    graph: nnx.GraphDef
    params: PyTree
    codec: Codec
    condition: Any = None

    @classmethod
    def open(cls, trained: Trained, precision: Precision = "float32") -> "TokenGenerator":
        """The generator of a trained model.

        Args:
            trained: from ``open_trained``.
            precision: of the weights.

        Raises:
            WavegenError: the weights do not fit the configuration, or the model has no such precision.
        """
        graph, params = rebuild(trained)
        if precision == "int8":
            graph, params = parameters(with_parameters(graph, params).in_eight_bits())
        else:
            params = in_precision(params, precision)
        labels = {field: tuple(values) for field, values in trained.labels.items()}
        tokens, condition = trained.codecs
        assert tokens is not None, "a model of tokens has a codec"
        return cls(trained.config, labels, graph, params, tokens, condition)

    @cached_property
    def sampler(self) -> Sampler:
        """What draws the model's tokens."""
        return Sampler(self.config, self.graph, self.params, self.codec)

    @property
    def network(self) -> Any:
        """The model itself, to ask what it can do."""
        return self.sampler.network

    def save(self, path: str | Path) -> Path:
        """Writes the weights, and all that is needed to use them, as one safetensors file.

        Args:
            path: ending in ``.safetensors``.

        Returns:
            The path.

        Raises:
            WavegenError: another ending, a file that cannot be written, or a codec that stays in files of its own.
        """
        labels = {field: list(values) for field, values in self.labels.items()}
        codecs = Codecs(self.codec, self.condition)
        return save_trained(path, Trained(self.config, labels, self.params, codecs))

    def _labels(self, labels: Mapping[str, str] | None, count: int) -> Labels | None:
        return to_labels(self.config.model.label_fields, self.labels, labels, count)
