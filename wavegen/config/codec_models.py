"""The networks that are codecs, and their quantizers."""

import math
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from wavegen.config.codecs import MuLawConfig
from wavegen.config.section import CodecSection, NetworkSection, Section

if TYPE_CHECKING:
    from wavegen.config.experiment import Config


class GradientVQConfig(Section):
    """Residual VQ with factorised, normalised codebooks learned by gradient (DAC).

    At first latents turn and grow faster than their entries, which move only when they are chosen, and by about the
    learning rate: the share of entries in use falls for a hundred steps or so, and then rises, the sooner the more
    frames a step has (DAC: 2,300). So it was with a small autoencoder of 30 s of speech. ``ema`` is for short runs and
    small batches; long ones were not tried.
    """

    kind: Literal["gradient"] = "gradient"
    codebooks: int = Field(4, ge=1, le=64)
    codebook_size: int = Field(1024, ge=2, le=65536)
    codebook_width: int = Field(8, ge=1, le=1024, description="dimensions in which entries are compared")


class FSQConfig(Section):
    """Finite scalar quantization, residual with more than one codebook."""

    kind: Literal["fsq"] = "fsq"
    codebooks: int = Field(1, ge=1, le=64)
    sizes: tuple[int, ...] = Field((8, 5, 5, 5), min_length=1, description="steps of each dimension")


class EMAConfig(Section):
    """Residual VQ with moving averages, k-means start and restart of dead entries (EnCodec)."""

    kind: Literal["ema"] = "ema"
    codebooks: int = Field(4, ge=1, le=64)
    codebook_size: int = Field(1024, ge=2, le=65536)
    decay: float = Field(0.99, ge=0, lt=1)
    restart: float = Field(0.1, ge=0, lt=1, description="share of an even share below which an entry is dead")


QuantizerConfig = Annotated[GradientVQConfig | FSQConfig | EMAConfig, Field(discriminator="kind")]


class AudioLossConfig(Section):
    """Weights of how far audio is from what it should be."""

    mel: float = Field(15.0, ge=0, description="multi-scale log-mel distance")
    stft: float = Field(1.0, ge=0, description="multi-resolution STFT loss")
    waveform: float = Field(1.0, ge=0, description="mean absolute difference of samples")


class CodecLossConfig(AudioLossConfig):
    """Weights of the parts of a codec's loss."""

    commitment: float = Field(0.25, ge=0)
    codebook: float = Field(1.0, ge=0)


class AdversarialConfig(Section):
    """The second phase of a waveform codec's training: discriminators that play against it (DAC's)."""

    start: int = Field(..., ge=0, description="step before which the codec trains alone")
    learning_rate: float = Field(
        1e-4, gt=0, lt=1, description="of the discriminators, at first; a cosine follows"
    )
    adversarial: float = Field(
        1.0, ge=0, description="size of this loss's gradient, as a share of that of the codec's own losses"
    )
    features: float = Field(1.0, ge=0, description="the same for feature matching")
    periods: tuple[int, ...] = Field((2, 3, 5, 7, 11), description="samples, of one kind of discriminator")
    windows: tuple[int, ...] = Field(
        (2048, 1024, 512), description="samples, of the other kind; shorter ones suit low sample rates"
    )
    width: int = Field(32, ge=1, le=1024, description="channels of their first layers")

    @model_validator(mode="after")
    def _there_is_a_discriminator(self) -> "AdversarialConfig":
        if not self.periods + self.windows or min(self.periods, default=2) < 2:
            raise ValueError(f"periods must be at least 2, one of them or a window, got {self.periods}")
        if any(window < 32 or window % 4 for window in self.windows):
            raise ValueError(f"windows must be multiples of 4 from 32 on, got {self.windows}")
        return self

    def fits(self, config: "Config") -> None:
        """Checks what the second phase demands of the rest of an experiment.

        Raises:
            ValueError: it begins after the end, a batch is split, or a window is longer than a crop.
        """
        if self.start >= config.training.steps:
            raise ValueError(
                f"model.adversarial.start {self.start} must be less than training.steps {config.training.steps}"
            )
        if config.optimizer.accumulate > 1:
            raise ValueError(
                "discriminators judge whole batches: use optimizer.accumulate=1 with model.adversarial"
            )
        if max(self.windows, default=0) > config.data.crop:
            raise ValueError(
                f"model.adversarial.windows {self.windows} must fit into data.crop {config.data.crop}"
            )


class CodecModelConfig(NetworkSection):
    """The section of a network that is a codec itself: it reads waveforms, and takes no labels and no conditions."""

    is_codec: ClassVar[bool] = True
    adversarial: AdversarialConfig | None = None

    @property
    def label_fields(self) -> tuple[str, ...]:
        """There are none."""
        return ()

    @property
    def local(self) -> None:
        """There is none."""

    def fits(self, config: "Config") -> None:
        """See ``NetworkSection``."""
        if config.codec != MuLawConfig():
            raise ValueError("a codec learns from waveforms: leave the section codec out")
        if self.adversarial is not None:
            self.adversarial.fits(config)


class WaveVQConfig(CodecModelConfig):
    """A waveform codec: convolutional autoencoder with a quantizer (DAC, arXiv:2306.06546)."""

    kind: Literal["wave_vq"] = "wave_vq"
    strides: tuple[int, ...] = Field(
        (), description="of the blocks, their product is the hop; none: the preset of the sample rate"
    )
    width: int = Field(32, ge=1, le=1024, description="channels of the encoder's first layer")
    decoder_width: int = Field(512, ge=1, le=8192, description="channels of the decoder's first layer")
    causal: bool = Field(False, description="look at no later samples, so that codes can stream")
    quantizer: QuantizerConfig = GradientVQConfig()
    quantizer_dropout: float = Field(0.5, ge=0, le=1, description="share of clips coded with fewer codebooks")
    loss: CodecLossConfig = CodecLossConfig()

    @model_validator(mode="after")
    def _strides_are_strides(self) -> "WaveVQConfig":
        if min(self.strides, default=2) < 2 or math.prod(self.strides) > 65536:
            raise ValueError(f"strides must be at least 2 with a product up to 65536, got {self.strides}")
        if self.decoder_width % 2 ** max(len(self.strides), 4):
            raise ValueError(
                f"decoder_width {self.decoder_width} must be a multiple of {2 ** max(len(self.strides), 4)}: "
                "it halves at every stride"
            )
        return self

    def takes_stereo(self, codec: CodecSection) -> bool:
        """See ``NetworkSection``."""
        return True


class MelLossConfig(Section):
    """Weights of the parts of a spectrogram codec's loss."""

    mel: float = Field(0.1, ge=0, description="mean absolute difference of log-mel, in dB")
    convergence: float = Field(0.1, ge=0, description="distance of mel amplitudes, which peaks dominate")
    commitment: float = Field(0.25, ge=0)
    codebook: float = Field(1.0, ge=0)


class VocoderConfig(Section):
    """A vocoder of ConvNeXt blocks and an inverse Fourier transform (Vocos, arXiv:2306.00814)."""

    width: int = Field(256, ge=1, le=8192, description="channels")
    depth: int = Field(4, ge=1, le=64, description="blocks")
    loss: AudioLossConfig = AudioLossConfig()


class SpectrogramVQConfig(CodecModelConfig):
    """A spectrogram codec: VQ-VAE over log-mel frames, back to audio by Griffin-Lim or a vocoder (arXiv:1711.00937)."""

    kind: Literal["spectrogram_vq"] = "spectrogram_vq"
    n_fft: int = Field(1024, ge=16, le=65536, description="samples of a frame, even; about 0.06 s")
    hop_length: int = Field(256, ge=1, description="samples between frames, at most half a frame")
    bands: int = Field(80, ge=1, le=512)
    stride: int = Field(1, ge=1, le=64, description="frames of a code")
    width: int = Field(256, ge=1, le=8192, description="channels")
    depth: int = Field(3, ge=1, le=64, description="residual units on either side")
    latent: int = Field(64, ge=1, le=8192, description="width of what is quantized")
    quantizer: QuantizerConfig = EMAConfig(codebook_size=512)
    quantizer_dropout: float = Field(
        0.25, ge=0, le=1, description="share of clips coded with fewer codebooks"
    )
    loss: MelLossConfig = MelLossConfig()
    iterations: int = Field(32, ge=0, le=10000, description="of Griffin-Lim, which a vocoder replaces")
    vocoder: VocoderConfig | None = None

    @model_validator(mode="after")
    def _frames_overlap(self) -> "SpectrogramVQConfig":
        if self.n_fft % 2 or self.hop_length > self.n_fft // 2:
            raise ValueError(
                f"n_fft must be even and hop_length at most half of it, got {self.n_fft} and {self.hop_length}"
            )
        return self

    @model_validator(mode="after")
    def _there_is_audio_to_judge(self) -> "SpectrogramVQConfig":
        if self.adversarial is not None and self.vocoder is None:
            raise ValueError("discriminators judge audio: set model.vocoder.depth=4 with model.adversarial")
        return self
