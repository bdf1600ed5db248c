"""Spectrogram frames as codes of one codebook: log-mel, the nearest row, and back by Griffin-Lim."""

from dataclasses import asdict
from pathlib import Path
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from wavegen.codecs.base import AudioCodec
from wavegen.codecs.learned import LearnedCodec, freeze
from wavegen.codecs.spectrogram.files import (
    read_codebook,
    read_codebook_csv,
    read_codes_csv,
    write_codebook,
    write_codebook_csv,
    write_codes_csv,
)
from wavegen.codecs.spectrogram.frames import MelFrames
from wavegen.config.codecs import SpectrogramCodecConfig
from wavegen.errors import WavegenError
from wavegen.kernels import nearest_code
from wavegen.types import Tokens, Waveform

LOUDEST = 300.0
"""dB. No audio comes near; energies beyond it leave the range of float32."""


class SpectrogramCodebook(nnx.Module, AudioCodec):
    """A frame is the row of a codebook that is nearest to its log-mel spectrum; phases are not kept.

    Windows overlap: a piece cut out of a clip has the codes of the whole but for frames whose window, ``n_fft / 2``
    samples to either side, goes past a cut; there it sees silence. Decoding looks at the whole clip.

    Args:
        codebook: rows of mel values in dB, as ``frames`` has them; kept as float32.
        frames: what the rows mean.
        iterations: of Griffin-Lim.

    Raises:
        WavegenError: no rows, rows of another width, or values that are not finite or above ``LOUDEST``.
    """

    codebooks: ClassVar[int] = 1
    mu: ClassVar[int] = 0

    def __init__(
        self, codebook: Float[np.ndarray, "V D"], *, frames: MelFrames | None = None, iterations: int = 32
    ) -> None:
        frames = MelFrames() if frames is None else frames
        rows = np.asarray(codebook, np.float32)
        if rows.ndim != 2 or len(rows) < 1 or rows.shape[1] != frames.bands:
            raise WavegenError(
                f"expected codebook rows of {frames.bands} values, one a band, got {list(rows.shape)}; "
                "describe the frames with the bands that the codebook has"
            )
        if not (np.abs(rows) <= LOUDEST).all():
            raise WavegenError(
                f"expected codebook values in dB, within {LOUDEST:g} of 0, got one of "
                f"{rows[~(np.abs(rows) <= LOUDEST)][0]:g}; convert it to decibels"
            )
        self.frames, self.iterations = frames, iterations
        self.codebook = nnx.Variable(jnp.asarray(rows))
        self._size = len(rows)
        self._silence = int(((rows - frames.silence) ** 2).sum(axis=1).argmin())

    @classmethod
    def from_csv(cls, path: str | Path, frames: MelFrames | None = None) -> "SpectrogramCodebook":
        """Reads a codebook of one row a line.

        Args:
            path: of the file.
            frames: what its rows mean, which the file does not say; None is ``MelFrames()``.

        Raises:
            WavegenError: the file cannot be read, is empty or ragged, or holds anything but finite numbers.
        """
        frames = MelFrames() if frames is None else frames
        return cls(read_codebook_csv(path, frames.bands), frames=frames)

    @classmethod
    def from_file(cls, path: str | Path) -> "SpectrogramCodebook":
        """Reads what ``save`` or ``fit_codebook`` wrote.

        Raises:
            WavegenError: no such file, or not one of these.
        """
        tensors, card = read_codebook(path)
        try:
            frames = MelFrames(**card["frames"])
        except (KeyError, TypeError) as error:
            raise WavegenError(f"{path} holds a damaged card ({error}); fit or copy it again") from None
        return cls(tensors["codebook"], frames=frames)

    def save(self, path: str | Path) -> None:
        """Writes the codebook and the meaning of its rows as NAME.safetensors.

        Raises:
            WavegenError: another ending, or the file cannot be written.
        """
        write_codebook(path, {"codebook": np.asarray(self.codebook[...])}, {"frames": asdict(self.frames)})

    def to_csv(self, path: str | Path) -> None:
        """Writes the codebook, one row a line; what the rows mean is not in the file.

        Raises:
            WavegenError: the file cannot be written.
        """
        write_codebook_csv(path, np.asarray(self.codebook[...]))

    def read_codes(self, path: str | Path) -> Tokens:
        """Reads the tokens of one clip, ``[1, N, 1]``, from a file of one integer a line.

        Raises:
            WavegenError: the file cannot be read or is empty, or a line is no code of this codebook.
        """
        return jnp.asarray(read_codes_csv(path, self.vocab_size))

    def write_codes(self, path: str | Path, tokens: Tokens) -> None:
        """Writes the tokens of one clip, ``[1, N, 1]``, one integer a line.

        Raises:
            WavegenError: more than one clip, or the file cannot be written.
        """
        if tokens.shape[0] != 1 or tokens.shape[2] != 1:
            raise WavegenError(
                f"expected the tokens of one clip, [1, N, 1], got {list(tokens.shape)}; write a file for each"
            )
        write_codes_csv(path, np.asarray(tokens))

    @property
    def vocab_size(self) -> int:
        """Rows of the codebook."""
        return self._size

    @property
    def hop_length(self) -> int:
        """Samples per frame."""
        return self.frames.hop_length

    @property
    def start_token(self) -> int:
        """The row nearest to silence."""
        return self._silence

    def encode(self, audio: Waveform) -> Tokens:
        """See ``AudioCodec.encode``."""
        rows = self.frames.from_audio(audio)
        codes = nearest_code(rows.reshape(-1, self.frames.bands), self.codebook[...])
        return codes.reshape(*rows.shape[:2], 1)

    def decode(self, tokens: Tokens) -> Waveform:
        """See ``AudioCodec.decode``."""
        return self.frames.to_audio(self.rows(tokens), iterations=self.iterations)

    def rows(self, tokens: Tokens) -> Float[Array, "B N D"]:
        """The mel values of tokens, in dB: what a vocoder reads."""
        return self.codebook[...][tokens[..., 0]]


def load_codebook(config: SpectrogramCodecConfig) -> LearnedCodec:
    """Opens the codec of a codebook file.

    Raises:
        WavegenError: see ``SpectrogramCodebook.from_file``.
    """
    codebook = SpectrogramCodebook.from_file(config.codebook)
    return freeze(codebook, sample_rate=codebook.frames.sample_rate)
