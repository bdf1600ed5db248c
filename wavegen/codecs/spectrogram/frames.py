"""Log-mel frames: their definition, and their conversion from and to audio."""

from dataclasses import dataclass
from math import log10

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from wavegen.errors import WavegenError
from wavegen.spectral.griffin_lim import griffin_lim, mel_to_power
from wavegen.spectral.mel import log_mel, mel_filterbank, mel_spectrogram
from wavegen.types import Waveform


@dataclass(frozen=True)
class MelFrames:
    """The definition of rows of mel values: energies in decibels.

        row = 10 log10(max(mel, floor) / reference)

    where ``mel`` is the energy of a periodic Hann window in bands on Slaney's scale, each of area 1. The defaults are
    those of ``librosa.feature.melspectrogram``, then ``librosa.power_to_db(mel, ref=1.0, amin=1e-10, top_db=None)``.
    Rows that were made with ``ref=np.max``, relative to the peak of each recording, have lost their level; a common
    peak can serve as their reference.

    Frame n is centred on sample ``n * hop_length``, with silence beyond the ends.

    Args:
        sample_rate: sample rate in Hz.
        n_fft: samples per frame, even.
        hop_length: samples between frames, at most half a frame.
        bands: values per row, D.
        f_min: frequency in Hz at which the first band begins.
        f_max: frequency in Hz at which the last band ends; None is half the sample rate.
        floor: the least energy.
        reference: the energy of 0 dB.

    Raises:
        WavegenError: if a value is out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> from wavegen.codecs.spectrogram.frames import MelFrames
        >>> frames = MelFrames(sample_rate=8000, n_fft=512, hop_length=128, bands=20)
        >>> rows = frames.from_audio(jnp.zeros((1, 1000)))
        >>> rows.shape, frames.silence, float(rows.max())
        ((1, 8, 20), -100.0, -100.0)
    """

    sample_rate: int = 22050
    n_fft: int = 2048
    hop_length: int = 512
    bands: int = 128
    f_min: float = 0.0
    f_max: float | None = None
    floor: float = 1e-10
    reference: float = 1.0

    def __post_init__(self) -> None:
        if self.n_fft % 2 or not 1 <= self.hop_length <= self.n_fft // 2:
            raise WavegenError(
                f"expected an even n_fft and a hop_length from 1 to half of it, got n_fft={self.n_fft}, "
                f"hop_length={self.hop_length}; a quarter of n_fft is usual"
            )
        if not (self.floor > 0 and self.reference > 0):
            raise WavegenError(
                f"expected floor and reference above 0, got {self.floor:g} and {self.reference:g}; they are energies"
            )
        self._filterbank()  # checks the frequencies

    @property
    def silence(self) -> float:
        """The value of every band in silence, the least possible one, in dB."""
        return float(10 * log10(self.floor / self.reference))

    def from_audio(self, audio: Waveform) -> Float[Array, "B N D"]:
        """Computes the rows of audio.

        Args:
            audio: mono, at this sample rate.

        Returns:
            float32 in dB, one row per started hop: N = ``ceil(T / hop_length)``.
        """
        frames = -(-audio.shape[1] // self.hop_length)
        padded = jnp.pad(audio, ((0, 0), (0, frames * self.hop_length - audio.shape[1])))
        mel = mel_spectrogram(
            padded,
            sample_rate=self.sample_rate,
            n_fft=self.n_fft,
            hop_length=self.hop_length,
            n_mels=self.bands,
            f_min=self.f_min,
            f_max=self.f_max,
        )
        # The frame that is centred on the end is dropped, because no hop starts there.
        return 10 * log_mel(mel[:, :frames] / self.reference, floor=self.floor / self.reference)

    def to_audio(self, rows: Float[Array, "B N D"], *, iterations: int = 32) -> Waveform:
        """Finds audio that has nearly these rows; Griffin-Lim finds the phases.

        Args:
            rows: rows in dB.
            iterations: iterations of Griffin-Lim.

        Returns:
            ``[B, N * hop_length]`` float32 in [-1, 1].
        """
        # The floor is subtracted, because it stands for silence and would sound as hiss.
        mel = jnp.maximum(self.reference * 10 ** (rows / 10) - self.floor, 0)
        # The last row is repeated for the frame that is centred on the end.
        mel = jnp.concatenate([mel, mel[:, -1:]], axis=1)
        magnitudes = jnp.sqrt(mel_to_power(mel, self._filterbank()))
        audio = griffin_lim(magnitudes, n_fft=self.n_fft, hop_length=self.hop_length, iterations=iterations)
        return jnp.clip(audio, -1, 1)

    def _filterbank(self) -> Float[np.ndarray, "bins D"]:
        return mel_filterbank(
            sample_rate=self.sample_rate,
            n_fft=self.n_fft,
            n_mels=self.bands,
            f_min=self.f_min,
            f_max=self.f_max,
        )
