"""From a run folder or a file to what a person can ask things of."""

from pathlib import Path

from flax import nnx
from jaxtyping import PyTree

from wavegen.codecs import AudioCodec, NoteCodec
from wavegen.config.codec_models import CodecModelConfig
from wavegen.config.models import BertConfig, WindowVAEConfig
from wavegen.errors import WavegenError
from wavegen.generation.audio import Generator, Precision, build
from wavegen.generation.codec import Reconstructor
from wavegen.generation.masked import MaskedGenerator
from wavegen.generation.notes import NoteGenerator
from wavegen.generation.windows import WindowGenerator
from wavegen.models.kinds import make_model
from wavegen.networks.base import parameters
from wavegen.runs.trained import Trained, fitting, open_trained

SHIPPED = Path(__file__).parents[1] / "assets" / "piano-wavenet.safetensors"
"""The instrument that comes with the package."""


def load_generator(path: str | Path | None = None, *, precision: Precision = "float32") -> Generator:
    """As ``load``, for a WaveNet alone.

    Raises:
        WavegenError: the model is another; see ``load``.
    """
    model = load(path, precision=precision)
    if not isinstance(model, Generator):
        raise WavegenError(
            f"expected the run of a WaveNet, {path} is one of model.kind={model.config.model.kind}"
        )
    return model


def load(
    path: str | Path | None = None, *, precision: Precision = "float32", step: int | None = None
) -> Generator | MaskedGenerator | NoteGenerator | Reconstructor:
    """Loads a trained model.

    Args:
        path: a run folder (its newest sound checkpoint, averaged weights), a ``.safetensors`` file, or None for the
            instrument that comes with the package.
        precision: of a WaveNet's weights; bfloat16 halves what is read for a sample, which a long network's speed
            depends on (``benchmarks/quality/bfloat16.py`` measures what it costs in likelihood).
        step: of a run's checkpoint that is to be loaded; None is the newest.

    Returns:
        A ``Generator`` for a causal model of samples, a ``MaskedGenerator`` for a masked model, a ``Reconstructor`` for
        a codec; a ``NoteGenerator`` for any model of notes, which for a variational autoencoder is a
        ``WindowGenerator``.

    Raises:
        WavegenError: there is no such run or file, it is damaged, or of a newer version.
    """
    trained = open_trained(SHIPPED if path is None else path, step)
    if isinstance(trained.config.model, CodecModelConfig):
        return Reconstructor.open(trained)
    if isinstance(trained.codecs.tokens, NoteCodec):
        graph, params, labels = _parts(trained)
        kind = WindowGenerator if isinstance(trained.config.model, WindowVAEConfig) else NoteGenerator
        return kind(trained.config, labels, graph, params, trained.codecs.tokens)
    if isinstance(trained.config.model, BertConfig):
        graph, params, labels = _parts(trained)
        assert isinstance(trained.codecs.tokens, AudioCodec)
        return MaskedGenerator(trained.config, labels, graph, params, trained.codecs.tokens)
    return build(trained, precision)


def _parts(trained: Trained) -> tuple[nnx.GraphDef, PyTree, dict[str, tuple[str, ...]]]:
    graph, fresh = parameters(make_model(trained.config, trained.codecs, trained.labels))
    labels = {field: tuple(values) for field, values in trained.labels.items()}
    return graph, fitting(trained.params, fresh), labels
