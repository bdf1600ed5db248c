"""From a run folder or a file to what a person can ask things of."""

from collections.abc import Sequence
from pathlib import Path

from wavegen.codecs.base import AudioCodec, Codec
from wavegen.codecs.notes.base import NoteCodec
from wavegen.errors import WavegenError
from wavegen.generation.audio import AudioGenerator
from wavegen.generation.base import Precision, TokenGenerator
from wavegen.generation.codec import Reconstructor
from wavegen.generation.masked import MaskedGenerator
from wavegen.generation.notes import NoteGenerator
from wavegen.generation.windows import WindowGenerator
from wavegen.models.base import CausalModel, LatentModel, MaskedModel, TokenModel
from wavegen.models.kinds import KINDS
from wavegen.runs.trained import open_trained

GENERATORS: Sequence[tuple[type[TokenModel], type[Codec], type[TokenGenerator]]] = (
    (LatentModel, NoteCodec, WindowGenerator),
    (TokenModel, NoteCodec, NoteGenerator),
    (MaskedModel, AudioCodec, MaskedGenerator),
    (CausalModel, AudioCodec, AudioGenerator),
)
"""What a model is used through, by what it can do and by what its tokens are; the first that fits is taken."""


def load_generator(path: str | Path | None = None, *, precision: Precision = "float32") -> AudioGenerator:
    """As ``load``, for a causal model of audio alone.

    Raises:
        WavegenError: the model is another; see ``load``.
    """
    model = load(path, precision=precision)
    if not isinstance(model, AudioGenerator):
        raise WavegenError(
            f"expected the run of a WaveNet, {path} is one of model.kind={model.config.model.kind}"
        )
    return model


def load(
    path: str | Path | None = None, *, precision: Precision = "float32", step: int | None = None
) -> AudioGenerator | MaskedGenerator | NoteGenerator | Reconstructor:
    """Loads a trained model.

    Args:
        path: a run folder (its newest sound checkpoint, averaged weights), a ``.safetensors`` file, the name of a model
            that comes with the package (``wavegen models`` lists them), or None for the instrument among these.
        precision: of the weights of a causal model of audio; bfloat16 halves what is read for a sample, which a long
            network's speed depends on, and int8, of a WaveNet on a CPU, halves it again
            (``benchmarks/quality/precisions.py`` measures what they cost in likelihood).
        step: of a run's checkpoint that is to be loaded; None is the newest.

    Returns:
        An ``AudioGenerator`` for a causal model of audio, a ``MaskedGenerator`` for a masked one, a ``Reconstructor``
        for a codec; a ``NoteGenerator`` for any model of notes, which for a variational autoencoder is a
        ``WindowGenerator``.

    Raises:
        WavegenError: there is no such run or file, it is damaged, or of a newer version; or a causal model of audio
            other than a WaveNet is asked for in int8.

    Example:
        >>> import wavegen
        >>> wavegen.load().sample_rate
        16000
    """
    trained = open_trained(path, step)
    if trained.config.model.is_codec:
        return Reconstructor.open(trained)
    network, codec = KINDS[type(trained.config.model)], trained.codecs.tokens
    kind = next(k for can, of, k in GENERATORS if issubclass(network, can) and isinstance(codec, of))
    return kind.open(trained, precision if kind is AudioGenerator else "float32")  # type: ignore[return-value]
