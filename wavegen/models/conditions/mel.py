"""Local conditioning on a recording's own log-mel spectrogram: a vocoder of spectrograms."""

from typing import Any, ClassVar

import numpy as np

from wavegen.codecs.base import AudioCodec, Codecs
from wavegen.config.conditions import MelConditionConfig
from wavegen.models.conditions.features import FeatureCondition
from wavegen.networks.base import Examples, Given
from wavegen.spectral import log_mel, mel_spectrogram
from wavegen.types import Features, Waveform


class MelCondition(FeatureCondition):
    """A ``FeatureCondition`` on the common logarithm of mel magnitudes.

    Args:
        bands: of the spectrogram.
        n_fft: samples of a frame of the spectrogram.
        sample_rate: Hz.
        options: of ``FeatureCondition``: ``channels``, ``hop_length``, ``upsample`` and ``random``.
    """

    takes: ClassVar[Any] = "recording"

    def __init__(self, bands: int, n_fft: int, sample_rate: int, **options: Any) -> None:
        super().__init__(bands, **options)
        self.bands, self.n_fft, self.sample_rate = bands, n_fft, sample_rate

    @classmethod
    def make(cls, config: Any, given: Given, random: np.random.Generator) -> "MelCondition":
        """See ``LocalCondition``; the section is a ``MelConditionConfig``."""
        c: MelConditionConfig = config
        options = {"channels": c.channels, "hop_length": c.hop_length, "upsample": c.upsample}
        return cls(c.bands, c.n_fft, given.data.sample_rate, random=random, **options)

    def features(self, examples: Examples, codecs: Codecs) -> Features:
        """The spectrogram of each clip of a batch."""
        return self.of_recording(examples["waveform"], codecs.condition)

    def of_recording(self, waveform: Waveform, codec: AudioCodec | None) -> Features:
        """See ``LocalCondition``."""
        del codec
        mel = mel_spectrogram(
            waveform,
            sample_rate=self.sample_rate,
            n_fft=self.n_fft,
            hop_length=self.input_hop,
            n_mels=self.bands,
            squared=False,
        )
        return log_mel(mel)[:, : -(-waveform.shape[1] // self.input_hop)]
