"""The waveform codec: a convolutional autoencoder whose latent vectors are quantized.

Source: Kumar et al. 2023, "High-Fidelity Audio Compression with Improved RVQGAN" (DAC), section 3.1 and its code; the
causal form follows Zeghidour et al. 2021, "SoundStream", section III-A. There is no weight norm, with which DAC is
trained: folded in it gives this network.
"""

from math import prod
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from wavegen.codecs.network import CodecNetwork
from wavegen.codecs.outcome import counted_codes, weighted_outcome
from wavegen.codecs.quantizers import Quantizer, draw_codebooks
from wavegen.codecs.quantizers.make import make_quantizer
from wavegen.codecs.waveform.convolution import (
    Convolution,
    Layer,
    Residual,
    Snake,
    Stack,
    State,
    TransposedConvolution,
)
from wavegen.codecs.waveform.loss import audio_losses
from wavegen.config.codec_models import CodecLossConfig, WaveVQConfig
from wavegen.errors import WavegenError
from wavegen.networks.base import Examples, Given, Outcome
from wavegen.spectral import si_sdr
from wavegen.types import Tokens

PRESETS: dict[int, tuple[int, ...]] = {
    8000: (2, 4, 4, 5),
    16000: (2, 4, 5, 8),
    24000: (2, 4, 5, 8),
    32000: (4, 4, 5, 8),
    44100: (2, 4, 8, 8),
}
"""Strides by sample rate in Hz: 50 frames a second, but 75 at 24 kHz and 86 at 44.1 kHz."""


class Reconstruction(NamedTuple):
    """What a training step reads.

    Attributes:
        audio: of the length of the input.
        codes: of all codebooks that were used.
        losses: of the quantizer, see ``Quantized``.
        statistics: of the quantizer, for its ``update``.
    """

    audio: Float[Array, "B T *C"]
    codes: Tokens
    losses: dict[str, Float[Array, ""]]
    statistics: dict[str, Array]


class WaveVQ(CodecNetwork):
    """DAC's network around any quantizer.

    The encoder: a convolution of 7 taps; for each stride s three residual units (Snake, 7 dilated taps, Snake, 1 tap),
    Snake and a convolution of 2 s taps with stride s to twice the channels; Snake and 3 taps to the width of the
    latents. The decoder is its mirror, with half the channels after every stride, and a tanh at the end.

    Without ``causal`` a frame's codes depend on ``receptive_field`` samples around it: pieces of a clip have other
    codes than the clip near their ends. With ``causal`` no later samples than the frame's own count, and pieces have
    exactly the codes of the whole where ``encode_chunk`` hands the state on; ``encode`` always begins with silence.

    Mono audio is [B, T], stereo [B, T, 2]; inside both are [B, T, C].

    Args:
        strides: of the encoder, the first one first; their product is the hop.
        width: channels of the encoder before the first stride; they double with each.
        decoder_width: channels of the decoder before its first stride, a multiple of 2 to the number of strides.
        audio_channels: 1 or 2.
        causal: look only back, so that audio can be coded as it comes.
        dilations: of the residual units.
        quantizer: of the latents; its width is that of the encoder's output (DAC: ``width * 2**len(strides)``).
        sample_rate: Hz, which the loss depends on.
        loss: weights of its parts.
        quantizer_dropout: share of clips coded with fewer codebooks in training; see ``draw_codebooks``.
        random: draws the initial weights.

    Raises:
        WavegenError: a size does not fit.
    """

    mu: ClassVar[int] = 0
    start_token: ClassVar[int] = 0

    def __init__(
        self,
        *,
        strides: tuple[int, ...],
        width: int = 32,
        decoder_width: int = 512,
        audio_channels: int = 1,
        causal: bool = False,
        dilations: tuple[int, ...] = (1, 3, 9),
        quantizer: Quantizer,
        sample_rate: int = 16000,
        loss: CodecLossConfig = CodecLossConfig(),
        quantizer_dropout: float = 0.0,
        random: np.random.Generator,
    ) -> None:
        if not strides or min(*strides, *dilations, width) < 1 or audio_channels not in (1, 2):
            raise WavegenError(
                "expected at least one stride, positive sizes and 1 or 2 audio channels, got "
                f"strides={strides}, dilations={dilations}, width={width}, audio_channels={audio_channels}; "
                "PRESETS has strides for usual sample rates"
            )
        if decoder_width < 1 or decoder_width % 2 ** len(strides):
            raise WavegenError(
                f"expected a decoder_width that is a multiple of {2 ** len(strides)}, got {decoder_width}; "
                "it is halved by each stride"
            )
        self.strides, self.dilations = tuple(strides), tuple(dilations)
        self.audio_channels, self.causal = audio_channels, causal
        self.sample_rate, self.loss, self.quantizer_dropout = sample_rate, loss, quantizer_dropout
        self.quantizer = quantizer
        self.encoder = self._make_encoder(width, random)
        self.decoder = self._make_decoder(decoder_width, random)

    @classmethod
    def make(cls, config: WaveVQConfig, given: Given, random: np.random.Generator) -> "WaveVQ":
        """See ``Network``.

        Raises:
            WavegenError: no strides are given, and there is no preset for the sample rate.
        """
        sample_rate = given.data.sample_rate
        strides = config.strides or PRESETS.get(sample_rate)
        if strides is None:
            raise WavegenError(
                f"there are no usual strides for {sample_rate} Hz; set model.strides, for example "
                f"{list(PRESETS[16000])}, or use one of {', '.join(map(str, PRESETS))} Hz"
            )
        return cls(
            strides=strides,
            width=config.width,
            decoder_width=config.decoder_width,
            audio_channels=given.data.channels,
            causal=config.causal,
            quantizer=make_quantizer(config.quantizer, config.width * 2 ** len(strides), random),
            sample_rate=sample_rate,
            loss=config.loss,
            quantizer_dropout=config.quantizer_dropout,
            random=random,
        )

    def objective(self, examples: Examples, key: Array | None) -> Outcome:
        """How far the audio is from what was given, and latents are from their codes.

        Args:
            examples: "waveform", and "length": rows without samples, which fill up a batch, do not count.
            key: draws with how many codebooks each clip is coded; None codes with all.

        Returns:
            Sums over clips: the weighted loss, its parts, and the scale-invariant signal-to-distortion ratio in dB.
            Without a key padding is not counted among the codes.
        """
        audio, length = examples["waveform"], examples["length"]
        codebooks = (
            None if key is None else draw_codebooks(key, len(audio), self.codebooks, self.quantizer_dropout)
        )
        result = self.reconstruct(audio, codebooks=codebooks)
        if key is None:
            counts = counted_codes(result.codes, length, self.hop_length, self.vocab_size)
            result = result._replace(statistics=result.statistics | counts)
        return self.judge(result, examples)

    def judge(self, result: Reconstruction, examples: Examples) -> Outcome:
        """The second half of ``objective``: compares what came out with what went in."""
        audio, counted = examples["waveform"], examples["length"] > 0
        # Row by row: some losses are ratios over what they are given.
        parts = jax.vmap(lambda ours, theirs: audio_losses(ours[None], theirs[None], self.sample_rate))(
            result.audio, audio
        )
        outcome = weighted_outcome(parts, result.losses, self.loss, counted, result.statistics)
        outcome.figures["si_sdr"] = jnp.sum(jnp.where(counted, si_sdr(result.audio, audio), 0.0))
        return outcome

    @property
    def vocab_size(self) -> int:
        """Entries of each codebook."""
        return self.quantizer.codebook_size

    @property
    def codebooks(self) -> int:
        """Levels of the quantizer."""
        return self.quantizer.codebooks

    @property
    def hop_length(self) -> int:
        """Samples per frame: the product of the strides."""
        return prod(self.strides)

    @property
    def receptive_field(self) -> int:
        """Samples that the codes of one frame depend on."""
        field, hop = 7, 1
        for stride in self.strides:
            field += hop * (6 * sum(self.dilations) + 2 * stride - 1)
            hop *= stride
        return field + 2 * hop

    @property
    def encode_flops_per_frame(self) -> int:
        """Floating-point operations of the encoder's convolutions for one frame."""
        return self.encoder.flops(self.hop_length)[0]

    @property
    def decode_flops_per_frame(self) -> int:
        """Floating-point operations of the decoder's convolutions for one frame."""
        return self.decoder.flops(1)[0]

    def flops_per_frame(self, frames: int) -> int:
        """Of encoder and decoder, for one frame of a clip of any length."""
        del frames
        return self.encode_flops_per_frame + self.decode_flops_per_frame

    def latents(self, audio: Float[Array, "B T *C"]) -> Float[Array, "B N D"]:
        """What the quantizer is given, float32.

        Raises:
            WavegenError: as in ``encode``.
        """
        frames = self._to_frames(audio)
        return self.encoder(frames, self.encoder.start(len(frames)))[0].astype(jnp.float32)

    def encode(self, audio: Float[Array, "B T *C"], codebooks: int | None = None) -> Tokens:
        """See ``AudioCodec.encode``.

        Args:
            audio: mono or stereo, whichever the codec is made for; at least one sample.
            codebooks: code with so many of the codebooks; None is all.

        Raises:
            WavegenError: channels or codebooks do not fit, or there are no samples.
        """
        return self.quantizer.quantize(self.latents(audio), codebooks=codebooks).codes

    def decode(self, tokens: Tokens) -> Float[Array, "B T *C"]:
        """See ``AudioCodec.decode``.

        Args:
            tokens: of the first K codebooks, as ``encode`` writes them.

        Raises:
            WavegenError: more codebooks than the quantizer has.
        """
        return self._decode(self.quantizer.decode(tokens), self.decoder.start(len(tokens)))[0]

    def reconstruct(
        self, audio: Float[Array, "B T *C"], *, codebooks: int | Int[Array, "B"] | None = None
    ) -> Reconstruction:
        """Encodes, quantizes and decodes, with gradients that pass the quantizer.

        Args:
            audio: as in ``encode``.
            codebooks: as in ``Quantizer.quantize``: one number for all rows, or one each (quantizer dropout).

        Raises:
            WavegenError: as in ``encode``.
        """
        codes, quantized, losses, statistics = self.quantizer.quantize(
            self.latents(audio), codebooks=codebooks
        )
        decoded, _ = self._decode(quantized, self.decoder.start(len(audio)))
        return Reconstruction(decoded[:, : audio.shape[1]], codes, losses, statistics)

    def encoder_state(self, batch: int) -> State:
        """The state of ``encode_chunk`` before the first sample.

        Raises:
            WavegenError: the codec is not causal.
        """
        self._require_causal()
        return self.encoder.start(batch)

    def decoder_state(self, batch: int) -> State:
        """The state of ``decode_chunk`` before the first frame.

        Raises:
            WavegenError: the codec is not causal.
        """
        self._require_causal()
        return self.decoder.start(batch)

    def encode_chunk(
        self, audio: Float[Array, "B T *C"], state: State, codebooks: int | None = None
    ) -> tuple[Tokens, State]:
        """Codes the next samples of a clip.

        Args:
            audio: a multiple of the hop, but for the last piece, which is filled up with zeros.
            state: of ``encoder_state``, or of the piece before.
            codebooks: as in ``encode``.

        Returns:
            The codes that the whole clip has there, and the state after them.

        Raises:
            WavegenError: as in ``encode``.
        """
        latents, state = self.encoder(self._to_frames(audio), state)
        return self.quantizer.quantize(latents.astype(jnp.float32), codebooks=codebooks).codes, state

    def decode_chunk(self, tokens: Tokens, state: State) -> tuple[Float[Array, "B T *C"], State]:
        """Turns the next frames of a clip into samples.

        Args:
            tokens: as in ``decode``.
            state: of ``decoder_state``, or of the piece before.

        Returns:
            The samples that the whole clip has there, and the state after them.
        """
        return self._decode(self.quantizer.decode(tokens), state)

    def _decode(self, latents: Float[Array, "B N D"], state: State) -> tuple[Array, State]:
        audio, state = self.decoder(latents, state)
        audio = jnp.tanh(audio.astype(jnp.float32))
        return audio if self.audio_channels == 2 else audio[..., 0], state

    def _to_frames(self, audio: Float[Array, "B T *C"]) -> Float[Array, "B S D"]:
        """Whole hops with an axis of channels, after a check."""
        channels = audio.shape[2:]
        if channels != ((2,) if self.audio_channels == 2 else ()) or audio.shape[1] < 1:
            expected = "stereo, [B, T, 2]" if self.audio_channels == 2 else "mono, [B, T]"
            raise WavegenError(
                f"this codec takes {expected} with at least one sample, got {list(audio.shape)}; "
                "mix or copy the channels"
            )
        audio = audio.reshape(*audio.shape[:2], self.audio_channels)
        return jnp.pad(audio, ((0, 0), (0, -audio.shape[1] % self.hop_length), (0, 0)))

    def _require_causal(self) -> None:
        if not self.causal:
            raise WavegenError(
                "a codec that is not causal has no state; code the whole clip, or train with causal=true"
            )

    def _make_encoder(self, width: int, random: np.random.Generator) -> Stack:
        layers: list[Layer] = [Convolution(self.audio_channels, width, 7, causal=self.causal, random=random)]
        for stride in self.strides:
            down = Convolution(width, 2 * width, 2 * stride, stride=stride, causal=self.causal, random=random)
            layers.append(Stack([*self._residual_units(width, random), Snake(width), down]))
            width *= 2
        last = Convolution(width, self.quantizer.width, 3, causal=self.causal, random=random)
        return Stack([*layers, Snake(width), last])

    def _make_decoder(self, width: int, random: np.random.Generator) -> Stack:
        layers: list[Layer] = [Convolution(self.quantizer.width, width, 7, causal=self.causal, random=random)]
        for stride in reversed(self.strides):
            up = TransposedConvolution(width, width // 2, stride, causal=self.causal, random=random)
            layers.append(Stack([Snake(width), up, *self._residual_units(width // 2, random)]))
            width //= 2
        # Quiet at first: the gradient of a saturated tanh is nothing.
        last = Convolution(width, self.audio_channels, 7, causal=self.causal, gain=0.1, random=random)
        return Stack([*layers, Snake(width), last])

    def _residual_units(self, width: int, random: np.random.Generator) -> list[Residual]:
        # Small at first, so that the variance does not grow with the number of units.
        gain = (len(self.strides) * len(self.dilations)) ** -0.5
        return [
            Residual(
                [
                    Snake(width),
                    Convolution(width, width, 7, dilation=dilation, causal=self.causal, random=random),
                    Snake(width),
                    Convolution(width, width, 1, causal=self.causal, gain=gain, random=random),
                ]
            )
            for dilation in self.dilations
        ]
