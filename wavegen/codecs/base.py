"""The codec contracts: what a token is, and audio to tokens and back."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from wavegen.types import AnyWaveform, Tokens


class Codec(ABC):
    """What a token model needs to know of its tokens: integers in frames of ``codebooks`` each.

    Members are immutable pytrees, arithmetic alone or frozen weights, and go into ``jax.jit`` as arguments. What they
    are codes of is the matter of ``AudioCodec`` and ``NoteCodec``.
    """

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Counts of values that a token can take."""

    @property
    @abstractmethod
    def codebooks(self) -> int:
        """Tokens per frame."""

    @property
    @abstractmethod
    def hop_length(self) -> int:
        """Steps of a dataset's time axis per frame: samples of audio; 1 where frames are stored as they are."""

    @property
    @abstractmethod
    def start_token(self) -> int:
        """The token that stands before the first frame of every clip."""

    @property
    def mu(self) -> int:
        """Companding of code space, for models that predict amplitudes; 0 where codes are even, or no amplitudes."""
        return 0

    @property
    def period(self) -> int:
        """Frames after which places in a bar, kinds of tokens, or windows recur; 1 if all frames are alike."""
        return 1

    @property
    def window(self) -> int | None:
        """Number of frames that are coded together, from the start of a recording on; None where each is on its own.

        A model reads nothing of the window before: in training, in evaluation and in ``log_likelihood`` each window is
        a clip.
        """
        return None

    def with_window(self, samples: int) -> "Codec":
        """Returns the codec of an experiment whose crops have this many samples; itself but for codecs of windows."""
        del samples
        return self

    @property
    def places(self) -> int:
        """Places of a period that a model distinguishes by a learned vector each; 0 is none."""
        return 0

    @property
    def allowed(self) -> Bool[np.ndarray, "places V"] | None:
        """Values that a token can take at each place in a period, see ``wavegen.models.base.Choice``; None is all."""
        return None

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the codebooks, where they have names."""
        return ()

    @property
    def plain(self) -> "Codec":
        """The codec before its tokens are written one after the other; itself where they are not."""
        return self

    @property
    def interleaving(self) -> int:
        """Frames for each frame of the plain codec: more than 1 where tokens are written one after the other."""
        return 1


class AudioCodec(Codec):
    """Audio in, integer tokens out, and back.

    A codec cuts a waveform into frames of ``hop_length`` samples and writes each frame as ``codebooks`` integers. Both
    methods are pure.

    Laws, tested for every member:

    - tokens lie in ``[0, vocab_size)``, and ``T`` samples give ``N = ceil(T / hop_length)`` frames;
    - ``decode(encode(x))[:, :T]`` has the shape of ``x``;
    - row ``i`` of a batch is coded exactly as the same clip alone, and decoded as it;
    - pieces cut at multiples of ``hop_length`` (of ``window`` frames, where there is one) and coded one by one give the
      codes of the whole, unless the member says how far its frames look past a cut, or that it looks at the whole clip.

    Attributes:
        audio_channels: 1 for mono, ``[B, T]``; 2 for stereo, ``[B, T, 2]``.
    """

    audio_channels: int = 1

    @abstractmethod
    def encode(self, audio: AnyWaveform) -> Tokens:
        """Writes a batch of waveforms as tokens.

        Args:
            audio: floats in [-1, 1]. Values outside are clipped by codecs of a fixed range.

        Returns:
            ``[B, N, K]`` int32 in ``[0, vocab_size)``. The last frame is filled up with zeros if ``T`` is no
            multiple of ``hop_length``, unless the member says otherwise.
        """

    @abstractmethod
    def decode(self, tokens: Tokens) -> AnyWaveform:
        """Turns tokens back into waveforms.

        Args:
            tokens: ``[B, N, K]`` integers in ``[0, vocab_size)``.

        Returns:
            ``[B, N * hop_length]``, or of a stereo codec ``[B, N * hop_length, 2]``, float32 in [-1, 1].
        """


class Codecs(NamedTuple):
    """What the model of an experiment reads through.

    Attributes:
        tokens: between audio, or notes, and the model's tokens; None for a model that is a codec itself.
        condition: whose tokens a vocoder is conditioned on, if it is.
    """

    tokens: Codec | None
    condition: AudioCodec | None = None
