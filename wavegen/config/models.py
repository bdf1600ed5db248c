"""The networks that model tokens, and all that a run may learn."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from wavegen.config.codec_models import SpectrogramVQConfig, WaveVQConfig
from wavegen.config.conditions import LocalConditionConfig
from wavegen.config.section import CodecSection, NetworkSection, Section
from wavegen.errors import WavegenError

if TYPE_CHECKING:
    from wavegen.config.experiment import Config


class SoftmaxHeadConfig(Section):
    """One logit per token."""

    kind: Literal["softmax"] = "softmax"


class MixtureHeadConfig(Section):
    """Discretised mixture of logistics; for many levels (16 bit), where a softmax is too wide."""

    kind: Literal["mixture"] = "mixture"
    components: int = Field(10, ge=1, le=64)
    linear_prediction: int = Field(
        0, ge=0, le=64, description="order of the linear prediction that shifts the means; 0 is none"
    )


HeadConfig = Annotated[SoftmaxHeadConfig | MixtureHeadConfig, Field(discriminator="kind")]


def _heads_divide_the_width(section: Any) -> Any:
    if section.width % (2 * section.heads):
        raise ValueError(f"width {section.width} must be a multiple of twice the heads, {2 * section.heads}")
    return section


class WaveNetConfig(NetworkSection):
    """WaveNet (van den Oord et al. 2016, arXiv:1609.03499)."""

    kind: Literal["wavenet"] = "wavenet"
    kernel_size: int = Field(2, ge=2, le=16)
    dilations: tuple[int, ...] = Field((1, 2, 4, 8, 16, 32, 64, 128, 256, 512), min_length=1)
    cycles: int = Field(2, ge=1, le=16, description="how many times the dilations are repeated")
    residual_channels: int = Field(64, ge=1, le=4096)
    gate_channels: int = Field(64, ge=1, le=4096, description="width of each half of the gate")
    skip_channels: int = Field(128, ge=1, le=8192)
    head_channels: int = Field(128, ge=1, le=8192)
    input: Literal["embedding", "scalar"] = "embedding"
    input_kernel_size: int = Field(1, ge=1, le=64)
    dropout: float = Field(0.0, ge=0, lt=1)
    head: HeadConfig = SoftmaxHeadConfig()
    label_fields: tuple[str, ...] = Field((), description="label fields of the dataset to condition on")
    label_channels: int = Field(16, ge=1, le=8192)
    local: LocalConditionConfig | None = None

    @model_validator(mode="after")
    def _positive_dilations(self) -> "WaveNetConfig":
        if min(self.dilations) < 1:
            raise ValueError(f"dilations must be at least 1, got {self.dilations}")
        if len(self.dilations) * self.cycles > 256:
            raise ValueError(f"{len(self.dilations)} dilations x {self.cycles} cycles is over 256 layers")
        return self

    def fits(self, config: "Config") -> None:
        """See ``NetworkSection``."""
        codec = config.codec
        if codec.of == "notes":
            if not codec.one_token_per_frame or self.local is not None:
                raise ValueError("a WaveNet of notes needs codec.interleave=true and no model.local")
        elif codec.of != "samples":
            raise ValueError(
                f"a WaveNet models samples, got codec.kind={codec.kind}; use mulaw or linear, and "
                "model.local.kind=codes to condition it on a codec's tokens"
            )
        levels = getattr(codec, "levels", 256)
        if self.head.kind == "softmax" and levels > 4096:
            raise ValueError(f"a softmax over {levels} levels is too wide; use model.head.kind=mixture")
        if self.input == "embedding" and levels > 4096:
            raise ValueError(f"an embedding of {levels} levels is too large; use model.input=scalar")
        if self.local is not None and config.data.crop % self.local.hop_length:
            raise ValueError(
                f"crop {config.data.crop} must be a multiple of local.hop_length {self.local.hop_length}"
            )


class MaskingConfig(Section):
    """What is masked in training."""

    scheme: Literal["levels", "classic"] = Field(
        "levels", description="levels: as the sampler fills them; classic: BERT's 15 percent"
    )
    spans: float = Field(0.5, ge=0, le=1, description="share of clips masked in spans of three frames")
    prompts: float = Field(0.25, ge=0, le=1, description="share of clips with a mask shaped like a prompt")


class BertConfig(NetworkSection):
    """A bidirectional transformer that fills masked tokens."""

    measured = "masked_bits"
    kind: Literal["bert"] = "bert"
    width: int = Field(384, ge=2, le=16384)
    layers: int = Field(6, ge=1, le=256)
    heads: int = Field(6, ge=1, le=256)
    dropout: float = Field(0.1, ge=0, lt=1)
    label_fields: tuple[str, ...] = Field((), description="label fields of the dataset to condition on")
    label_dropout: float = Field(0.1, ge=0, le=1, description="share of clips trained without labels")
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    masking: MaskingConfig = MaskingConfig()

    @property
    def local(self) -> None:
        """Conditions at frame rate are not for this model."""

    def fits(self, config: "Config") -> None:
        """See ``NetworkSection``."""
        codec = config.codec
        if codec.of == "samples":
            raise ValueError(
                f"a masked model needs a learned codec, got codec.kind={codec.kind}; "
                "set codec.run=runs/NAME of a codec run"
            )
        if codec.kind == "note_events" and not codec.interleave:
            raise ValueError("a masked model of events reads one field per frame; set codec.interleave=true")

    def takes_stereo(self, codec: CodecSection) -> bool:
        """See ``NetworkSection``."""
        return codec.of == "frames"

    _heads = model_validator(mode="after")(_heads_divide_the_width)


class LSTMConfig(NetworkSection):
    """A stacked LSTM."""

    kind: Literal["lstm"] = "lstm"
    width: int = Field(512, ge=1, le=16384, description="cells of a layer")
    layers: int = Field(2, ge=1, le=64)
    dropout: float = Field(0.1, ge=0, lt=1)
    tied: bool = Field(False, description="the output weights are the embedding")
    label_fields: tuple[str, ...] = Field((), description="label fields of the dataset to condition on")

    @property
    def local(self) -> None:
        """Conditions at frame rate are not for this model."""


class SSMConfig(NetworkSection):
    """Diagonal state-space layers, at one rate or several (``wavegen.models.ssm``)."""

    kind: Literal["ssm"] = "ssm"
    width: int = Field(128, ge=1, le=16384, description="channels")
    layers: int = Field(6, ge=1, le=64, description="at each rate")
    state: int = Field(16, ge=1, le=1024, description="oscillators of a channel")
    pooling: tuple[int, ...] = Field(
        (), max_length=8, description="rows of a frame of the next lower rate; empty is one rate"
    )
    longest: int = Field(
        2000, ge=2, le=1_000_000, description="slowest time constant of a fresh layer, in rows of its rate"
    )
    chunk: int = Field(
        64, ge=1, le=4096, description="rows that training reads by one product; speed alone depends on it"
    )
    smooth: bool = Field(
        False,
        description="neighbouring token values begin with similar embeddings, as levels of samples should",
    )
    dropout: float = Field(0.1, ge=0, lt=1)
    tied: bool = Field(False, description="the output weights are the embedding")
    label_fields: tuple[str, ...] = Field((), description="label fields of the dataset to condition on")

    @property
    def local(self) -> None:
        """Conditions at frame rate are not for this model."""

    @model_validator(mode="after")
    def _frames_of_two_rows_or_more(self) -> "SSMConfig":
        if min(self.pooling, default=2) < 2:
            raise ValueError(f"pooling must be at least 2 at each rate, got {self.pooling}")
        return self


class ReachConfig(Section):
    """How far each layer of a decoder reads back; see ``wavegen.models.layers.memory``."""

    segment: int = Field(512, ge=1, le=65536, description="frames that attend to each other")
    memory: int = Field(512, ge=0, le=65536, description="frames before the segment")
    compressed: int = Field(0, ge=0, le=65536, description="entries before those; 0: no compression")
    rate: int = Field(4, ge=2, le=64, description="frames of an entry")

    @model_validator(mode="after")
    def _entries_end_where_segments_do(self) -> "ReachConfig":
        if self.compressed and (self.segment % self.rate or self.memory % self.rate):
            raise ValueError(
                f"segment {self.segment} and memory {self.memory} must be multiples of rate {self.rate}"
            )
        return self


class DecoderConfig(NetworkSection):
    """A causal transformer with segment memory (Transformer-XL) and compressed memory (Compressive Transformer)."""

    kind: Literal["decoder"] = "decoder"
    width: int = Field(384, ge=2, le=16384)
    layers: int = Field(6, ge=1, le=256)
    heads: int = Field(6, ge=1, le=256)
    reach: ReachConfig = ReachConfig()
    memory_loss: float = Field(1.0, gt=0, description="weight of the loss from which compression learns")
    dropout: float = Field(0.1, ge=0, lt=1)
    tied: bool = Field(False, description="the output weights are the embedding")
    label_fields: tuple[str, ...] = Field((), description="label fields of the dataset to condition on")

    @property
    def local(self) -> None:
        """Conditions at frame rate are not for this model."""

    def check_training(self, config: "Config", frames: int) -> None:
        """See ``NetworkSection``: the memory and the compressed memory are read."""
        del config
        reach = self.reach
        segments = -(-frames // reach.segment)
        if reach.memory and segments < 2:
            raise WavegenError(
                f"expected crops of more than model.reach.segment {reach.segment} frames, so that training reads the "
                f"memory, got {frames}; set model.reach.memory=0 model.reach.compressed=0, or make the crop longer"
            )
        if reach.compressed and segments < 2 + -(-reach.memory // reach.segment):
            raise WavegenError(
                f"expected crops of more than model.reach segment {reach.segment} + memory {reach.memory} frames, so "
                f"that the compression is trained, got {frames}; set model.reach.compressed=0, or make the crop longer"
            )

    _heads = model_validator(mode="after")(_heads_divide_the_width)


class Seq2SeqConfig(DecoderConfig):
    """A decoder that reads some voices of a score, its source, through an encoder, and writes the others."""

    kind: Literal["seq2seq"] = "seq2seq"  # type: ignore[assignment]
    encoder_layers: int = Field(3, ge=1, le=256)
    source_voices: int = Field(
        1, ge=1, le=63, description="of a grid of notes, the highest first; the others follow"
    )

    def fits(self, config: "Config") -> None:
        """See ``NetworkSection``."""
        codec = config.codec
        if codec.kind != "note_grid" or not codec.interleave:
            raise ValueError(
                f"an encoder-decoder needs a grid of voices, got codec.kind={codec.kind}; set codec.kind=note_grid "
                "and codec.interleave=true"
            )
        if self.source_voices >= codec.voices:
            raise ValueError(
                f"model.source_voices {self.source_voices} must be less than codec.voices {codec.voices}"
            )

    def check_training(self, config: "Config", frames: int) -> None:
        """See ``DecoderConfig``; of a crop's voices the source is not written."""
        voices = config.codec.voices  # type: ignore[union-attr]
        super().check_training(config, frames * (voices - self.source_voices) // voices)


class WindowVAEConfig(NetworkSection):
    """A variational autoencoder over windows of ``data.crop`` tokens of notes (MusicVAE, arXiv:1803.05428)."""

    measured = "bound_bits"
    kind: Literal["window_vae"] = "window_vae"
    width: int = Field(256, ge=2, le=16384, description="of encoder, conductor and decoder")
    layers: int = Field(2, ge=1, le=64, description="of the decoder's LSTM")
    encoder_layers: int = Field(2, ge=1, le=256, description="of the conductor, too")
    heads: int = Field(4, ge=1, le=256, description="of encoder and conductor")
    latent: int = Field(
        256, ge=1, le=65536, description="dimensions of what stands for a window; each bar has its share"
    )
    bar: int = Field(
        0, ge=0, description="tokens for each vector of the conductor; 0: the codec's period, a bar of a grid"
    )
    dropout: float = Field(0.1, ge=0, lt=1)
    token_dropout: float = Field(
        0.9, ge=0, lt=1, description="share of its inputs that the decoder does not read"
    )
    beta: float = Field(0.2, ge=0, le=100, description="weight of the divergence from the prior in training")
    free_nats: float = Field(300.0, ge=0, description="divergence of a window that costs nothing in training")

    @property
    def local(self) -> None:
        """Conditions at frame rate are not for this model."""

    @property
    def label_fields(self) -> tuple[str, ...]:
        """Nor are labels."""
        return ()

    def fits(self, config: "Config") -> None:
        """See ``NetworkSection``."""
        if config.codec.of != "notes" or not config.codec.one_token_per_frame:
            raise ValueError(
                f"windows are of notes, one token per frame, got codec.kind={config.codec.kind}; set "
                "codec.kind=note_grid and codec.interleave=true"
            )

    _heads = model_validator(mode="after")(_heads_divide_the_width)


ModelConfig = Annotated[
    WaveNetConfig
    | WaveVQConfig
    | SpectrogramVQConfig
    | BertConfig
    | LSTMConfig
    | SSMConfig
    | DecoderConfig
    | Seq2SeqConfig
    | WindowVAEConfig,
    Field(discriminator="kind"),
]
