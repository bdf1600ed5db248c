"""From what a person names to an embedding."""

from pathlib import Path

from wavegen.evaluation.embeddings.base import Embedding
from wavegen.evaluation.embeddings.hugging_face import HuggingFaceEncoder
from wavegen.evaluation.embeddings.listener import Listener
from wavegen.evaluation.embeddings.log_mel import LogMelStatistics


def open_embedding(path: str | Path | None, sample_rate: int) -> Embedding:
    """Opens an embedding.

    Args:
        path: None for log-mel statistics, a ``.safetensors`` file of a listener, or a folder of an encoder in the
            layout of Hugging Face.
        sample_rate: Hz, the highest at which log-mel statistics are taken.

    Raises:
        WavegenError: if there is neither a listener nor an encoder at the path, or a package is missing.
    """
    if path is None:
        return LogMelStatistics(sample_rate)
    return Listener.open(path) if Path(path).suffix == ".safetensors" else HuggingFaceEncoder(path)
