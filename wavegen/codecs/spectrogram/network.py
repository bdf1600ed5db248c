"""A learned spectrogram codec: a small convolutional VQ-VAE over log-mel frames; a vocoder returns to audio.

The principle is that of van den Oord et al. 2017, "Neural Discrete Representation Learning". With as many bits it
describes more than a fixed codebook of frames, as codes depend on their neighbours and may stand for several frames.
"""

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Int

from wavegen.codecs.network import CodecNetwork
from wavegen.codecs.outcome import counted_codes, weighted_outcome
from wavegen.codecs.quantizers import Average, Quantizer, draw_codebooks
from wavegen.codecs.quantizers.make import make_quantizer
from wavegen.codecs.spectrogram.frames import MelFrames
from wavegen.codecs.spectrogram.loss import mel_losses
from wavegen.codecs.spectrogram.vocoder import Vocoder
from wavegen.codecs.waveform.loss import audio_losses
from wavegen.config.codec_models import AudioLossConfig, MelLossConfig, SpectrogramVQConfig, VocoderConfig
from wavegen.errors import WavegenError
from wavegen.networks.base import Examples, Given, Outcome, frame_mask
from wavegen.networks.initial import layer_options
from wavegen.types import AnyWaveform, Tokens, Waveform


class MelReconstruction(NamedTuple):
    """What a training step reads.

    Attributes:
        audio: of the length of the input, from the vocoder that learns with the codec; None without one.
        rows: what the codes stand for, in dB; as many as whole codes have.
        target: the rows of the input, filled up with silence.
        codes: of all codebooks that were used.
        losses: of the quantizer, see ``Quantized``.
        statistics: of the quantizer, for its ``update``.
    """

    audio: Waveform | None
    rows: Float[Array, "B frames D"]
    target: Float[Array, "B frames D"]
    codes: Tokens
    losses: dict[str, Float[Array, ""]]
    statistics: dict[str, Array]


class SpectrogramVQ(CodecNetwork):
    """Convolutions over mel frames around any quantizer.

    The encoder: a convolution of 3 frames, residual units, and a linear map of every ``stride`` frames to one latent.
    The decoder is its mirror. Each band is brought to mean 0 and deviation 1 first, by figures of ``standardise``: with
    levels as they are, codebooks stay unused for hundreds of steps.

    A code depends on ``reach`` frames to either side besides its own, and on what their windows see: pieces of a clip
    have other codes than the clip near their ends. Griffin-Lim looks at the whole clip; a vocoder, which learns with
    the codec, at the rows around each of its frames.

    Args:
        frames: of the audio.
        stride: frames of a code.
        width: channels.
        depth: residual units on either side.
        quantizer: of the latents.
        iterations: of Griffin-Lim, which returns to audio where there is no vocoder.
        loss: weights of the parts of the loss.
        quantizer_dropout: share of clips coded with fewer codebooks in training; see ``draw_codebooks``.
        vocoder: its sizes and losses; None is Griffin-Lim.
        random: draws the initial weights.

    Raises:
        WavegenError: a size under 1.
    """

    mu: ClassVar[int] = 0
    start_token: ClassVar[int] = 0

    def __init__(
        self,
        *,
        frames: MelFrames,
        stride: int = 1,
        width: int = 256,
        depth: int = 3,
        quantizer: Quantizer,
        iterations: int = 32,
        loss: MelLossConfig = MelLossConfig(),
        quantizer_dropout: float = 0.0,
        vocoder: VocoderConfig | None = None,
        random: np.random.Generator,
    ) -> None:
        if min(stride, width, depth) < 1:
            raise WavegenError(
                f"expected stride, width and depth of at least 1, got {stride}, {width} and {depth}"
            )
        self.frames, self.stride, self.width, self.iterations = frames, stride, width, iterations
        self.loss, self.quantizer_dropout = loss, quantizer_dropout
        self.quantizer = quantizer
        options = layer_options(random)
        self.mean = Average(jnp.full(frames.bands, frames.silence / 2, jnp.float32))
        self.deviation = Average(jnp.full(frames.bands, 20.0, jnp.float32))
        self.first = nnx.Conv(frames.bands, width, 3, **options)
        self.encoder = nnx.List([_Residual(width, random) for _ in range(depth)])
        self.join = nnx.Linear(stride * width, quantizer.width, **options)
        self.split = nnx.Linear(quantizer.width, stride * width, **options)
        self.decoder = nnx.List([_Residual(width, random) for _ in range(depth)])
        self.last = nnx.Conv(width, frames.bands, 3, **options)
        self.audio_loss = AudioLossConfig() if vocoder is None else vocoder.loss
        self.vocoder = (
            None
            if vocoder is None
            else Vocoder(frames, width=vocoder.width, depth=vocoder.depth, random=random)
        )

    @classmethod
    def make(cls, config: SpectrogramVQConfig, given: Given, random: np.random.Generator) -> "SpectrogramVQ":
        """See ``Network``."""
        return cls(
            frames=MelFrames(given.data.sample_rate, config.n_fft, config.hop_length, config.bands),
            stride=config.stride,
            width=config.width,
            depth=config.depth,
            quantizer=make_quantizer(config.quantizer, config.latent, random),
            iterations=config.iterations,
            loss=config.loss,
            quantizer_dropout=config.quantizer_dropout,
            vocoder=config.vocoder,
            random=random,
        )

    def objective(self, examples: Examples, key: Array | None) -> Outcome:
        """How far the rows are from those of the audio, latents from their codes, and a vocoder's audio from the audio.

        Args:
            examples: "waveform", and "length": frames that begin after the clip's end do not count.
            key: draws with how many codebooks each clip is coded; None codes with all.

        Returns:
            Sums over clips: the weighted loss, and its parts. Without a key padding is not counted among the codes.
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

    def judge(self, result: MelReconstruction, examples: Examples) -> Outcome:
        """The second half of ``objective``: compares what came out with what went in."""
        audio, length = examples["waveform"], examples["length"]
        valid = frame_mask(jnp.zeros_like(length), length, result.target.shape[1], self.frames.hop_length)
        parts = mel_losses(result.rows, result.target, valid)
        outcome = weighted_outcome(parts, result.losses, self.loss, length > 0, result.statistics)
        if result.audio is None:
            return outcome
        # Row by row: some losses are ratios over what they are given.
        rate = self.frames.sample_rate
        apart = jax.vmap(lambda ours, theirs: audio_losses(ours[None], theirs[None], rate))(
            result.audio, audio
        )
        vocoded = weighted_outcome(apart, {}, self.audio_loss, length > 0, {})
        figures = {f"audio_{name}": figure for name, figure in vocoded.figures.items()}
        return outcome._replace(total=outcome.total + vocoded.total, figures=outcome.figures | figures)

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
        """Samples of a code."""
        return self.frames.hop_length * self.stride

    @property
    def reach(self) -> int:
        """Frames to either side of its own that a code depends on."""
        return 1 + len(self.encoder)

    def standardise(self, audio: Sequence[AnyWaveform]) -> None:
        """Sets the scale of each band; see ``CodecNetwork.standardise``."""
        to_rows = jax.jit(self.frames.from_audio)
        rows = np.concatenate([to_rows(clips) for clips in audio]).reshape(-1, self.frames.bands)
        self.mean[...] = jnp.asarray(rows.mean(axis=0), jnp.float32)
        # A band without any sound stays silent; half a decibel keeps its error from outweighing the others.
        self.deviation[...] = jnp.asarray(np.maximum(rows.std(axis=0), 0.5), jnp.float32)

    def flops_per_frame(self, frames: int) -> int:
        """Floating-point operations of encoder and decoder for one code of a clip of any length."""
        del frames
        outer, unit = 3 * self.frames.bands * self.width, 4 * self.width**2
        vocoder = 0 if self.vocoder is None else self.stride * self.vocoder.flops_per_row
        # Two sides, and a multiply-add is two.
        return vocoder + 4 * self.stride * (
            outer + len(self.encoder) * unit + self.width * self.quantizer.width
        )

    def latents(self, audio: Waveform) -> Float[Array, "B N width"]:
        """What the quantizer is given, float32."""
        return self._latents(self._standard(self._target(audio)))

    def encode(self, audio: Waveform, codebooks: int | None = None) -> Tokens:
        """See ``AudioCodec.encode``.

        Args:
            audio: at least one sample, of the frames' sample rate.
            codebooks: code with so many of the codebooks; None is all.

        Raises:
            WavegenError: no samples, or codebooks do not fit.
        """
        return self.quantizer.quantize(self.latents(audio), codebooks=codebooks).codes

    def decode(self, tokens: Tokens) -> Waveform:
        """See ``AudioCodec.decode``; tokens may be of the first codebooks only."""
        rows = self.rows(tokens)
        if self.vocoder is None:
            return self.frames.to_audio(rows, iterations=self.iterations)
        return jnp.clip(self.vocoder(self._standard(rows)), -1, 1)

    def rows(self, tokens: Tokens) -> Float[Array, "B frames D"]:
        """The mel values of tokens, in dB, ``stride`` rows each: what a vocoder reads."""
        return self._in_decibels(self._decoded(self.quantizer.decode(tokens)))

    def reconstruct(
        self, audio: Waveform, *, codebooks: int | Int[Array, "B"] | None = None
    ) -> MelReconstruction:
        """Encodes, quantizes and decodes to rows, with gradients that pass the quantizer.

        Args:
            audio: as in ``encode``.
            codebooks: as in ``Quantizer.quantize``.

        Raises:
            WavegenError: as in ``encode``.
        """
        target = self._target(audio)
        latents = self._latents(self._standard(target))
        codes, quantized, losses, statistics = self.quantizer.quantize(latents, codebooks=codebooks)
        rows = self._in_decibels(self._decoded(quantized))
        decoded = None
        if self.vocoder is not None:
            # The rows stay what their own loss makes of them, so that any other vocoder can read them.
            decoded = self.vocoder(self._standard(lax.stop_gradient(rows)))[:, : audio.shape[1]]
        return MelReconstruction(decoded, rows, target, codes, losses, statistics)

    def _target(self, audio: Waveform) -> Float[Array, "B frames D"]:
        """The rows of whole codes, in dB."""
        return self.frames.from_audio(jnp.pad(audio, ((0, 0), (0, -audio.shape[1] % self.hop_length))))

    def _standard(self, rows: Float[Array, "B frames D"]) -> Float[Array, "B frames D"]:
        mean, deviation = self._scale()
        return (rows - mean) / deviation

    def _in_decibels(self, rows: Float[Array, "B frames D"]) -> Float[Array, "B frames D"]:
        mean, deviation = self._scale()
        return rows.astype(jnp.float32) * deviation + mean

    def _scale(self) -> tuple[Float[Array, "1 1 D"], Float[Array, "1 1 D"]]:
        """Mean and deviation of each band: measured, not learned, so no gradient is to reach them."""
        mean, deviation = (
            lax.stop_gradient(x[...].astype(jnp.float32))[None, None] for x in (self.mean, self.deviation)
        )
        return mean, deviation

    def _latents(self, rows: Float[Array, "B frames D"]) -> Float[Array, "B N width"]:
        x = self.first(rows.astype(self.first.kernel.dtype))
        for unit in self.encoder:
            x = unit(x)
        return self.join(x.reshape(len(x), -1, self.stride * self.width)).astype(jnp.float32)

    def _decoded(self, latents: Float[Array, "B N width"]) -> Float[Array, "B frames D"]:
        x = self.split(latents).reshape(len(latents), -1, self.width)
        for unit in self.decoder:
            x = unit(x)
        return self.last(x)


class _Residual(nnx.Module):
    """``x + W gelu(V * gelu(x))``, V a convolution of 3 frames."""

    def __init__(self, width: int, random: np.random.Generator) -> None:
        options = layer_options(random)
        self.convolution = nnx.Conv(width, width, 3, **options)
        # At 0 the unit begins as the identity, and depth changes no scale.
        self.linear = nnx.Linear(width, width, **options | {"kernel_init": nnx.initializers.zeros})

    def __call__(self, x: Float[Array, "B frames D"]) -> Float[Array, "B frames D"]:
        return x + self.linear(jax.nn.gelu(self.convolution(jax.nn.gelu(x))))
