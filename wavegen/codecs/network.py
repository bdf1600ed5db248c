"""The contract of codecs that a run trains: a network around a quantizer."""

from abc import abstractmethod
from collections.abc import Sequence

from jaxtyping import Array, Float

from wavegen.codecs.base import AudioCodec
from wavegen.codecs.quantizers import Quantizer
from wavegen.networks.base import Network
from wavegen.types import AnyWaveform


class CodecNetwork(Network, AudioCodec):
    """An encoder, a quantizer of its latents, and a decoder.

    Attributes:
        quantizer: writes the latents as codes.
    """

    quantizer: Quantizer

    @abstractmethod
    def latents(self, audio: AnyWaveform) -> Float[Array, "B N D"]:
        """Returns what the quantizer is given, float32."""

    def standardise(self, audio: Sequence[AnyWaveform]) -> None:
        """Takes the scales that no gradient learns from real audio, before the first step; by default there are none.

        Args:
            audio: batches of clips.
        """
        del audio
