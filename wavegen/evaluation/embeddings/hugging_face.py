"""Embeddings of any audio encoder in the layout of Hugging Face, from a local folder; nothing is downloaded."""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Float

from wavegen.audio import Audio
from wavegen.errors import WavegenError
from wavegen.evaluation.embeddings.base import Embedding, pieces

SECONDS = 2.0


class HuggingFaceEncoder(Embedding):
    """The mean over time of an encoder's last hidden states, for every 2 seconds of a clip.

    Args:
        folder: a folder with ``config.json``, the weights, and ``preprocessor_config.json``, as ``save_pretrained`` of
            a model such as wav2vec 2.0, HuBERT, WavLM or MERT and of its feature extractor writes them.

    Raises:
        WavegenError: if torch or transformers is not installed, or the folder holds no audio encoder.
    """

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        if not (folder / "config.json").is_file():
            raise WavegenError(
                f"expected an encoder in the layout of Hugging Face in {folder}, got no config.json there; "
                "write one with save_pretrained"
            )
        self._torch, transformers = _modules()
        try:
            self._extractor: Any = transformers.AutoFeatureExtractor.from_pretrained(
                folder, local_files_only=True
            )
            self._model: Any = transformers.AutoModel.from_pretrained(folder, local_files_only=True).eval()
        except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
            raise WavegenError(
                f"cannot open {folder} as an audio encoder: {error}; expected what save_pretrained of a model and of "
                "its feature extractor wrote"
            ) from error
        self._name = folder.resolve().name

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self._name

    def embed(self, clip: Audio) -> Float[np.ndarray, "P D"]:
        """Returns one vector per 2 seconds."""
        rate = self._extractor.sampling_rate
        rows = [self._one(piece.samples[:, 0], rate) for piece in pieces(clip.resample(rate), SECONDS)]
        return np.stack(rows)

    def _one(self, wave: Float[np.ndarray, "T"], rate: int) -> Float[np.ndarray, "D"]:
        # The convolutions of such encoders need some hundred samples; a shorter piece is followed by silence.
        wave = np.pad(wave, (0, max(0, rate // 10 - len(wave))))
        inputs = self._extractor(wave, sampling_rate=rate, return_tensors="pt")
        with self._torch.inference_mode():
            hidden = self._model(**inputs).last_hidden_state
        return hidden[0].mean(dim=0).float().numpy()


def _modules() -> tuple[ModuleType, ModuleType]:
    try:
        import torch
        import transformers
    except ImportError as error:
        raise WavegenError(
            f"expected torch and transformers for an encoder of Hugging Face, got {error}: "
            "pip install 'wavegen[encoders]'"
        ) from error
    return torch, transformers
