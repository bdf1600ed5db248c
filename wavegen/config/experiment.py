"""One experiment: all sections, and whether they fit."""

from pydantic import Field, model_validator

from wavegen.config.codec_models import AdversarialConfig, CodecModelConfig, WaveVQConfig
from wavegen.config.codecs import CodecConfig, MuLawConfig, NoteCodecConfig, NoteEventsConfig, NoteGridConfig
from wavegen.config.data import DataConfig
from wavegen.config.models import ModelConfig, Seq2SeqConfig, WaveNetConfig
from wavegen.config.section import Section
from wavegen.config.training import OptimizerConfig, SamplingConfig, TrainingConfig

VERSION = 1


class Config(Section):
    """One experiment."""

    version: int = Field(VERSION, ge=VERSION, le=VERSION)
    name: str = Field("run", pattern=r"^[\w.-]+$", description="the run folder is runs/NAME")
    seed: int = Field(0, ge=0, lt=2**32)
    data: DataConfig = DataConfig()
    codec: CodecConfig = MuLawConfig()
    model: ModelConfig = WaveNetConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    training: TrainingConfig = TrainingConfig()
    sampling: SamplingConfig = SamplingConfig()

    @model_validator(mode="after")
    def _parts_fit(self) -> "Config":
        if isinstance(self.model, WaveNetConfig):
            self._wavenet_fits(self.model)
        if isinstance(self.model, WaveVQConfig) and self.model.adversarial is not None:
            self._second_phase_fits(self.model.adversarial)
        if self.data.channels == 2:
            self._stereo_fits()
        if isinstance(self.model, CodecModelConfig) and self.codec != MuLawConfig():
            raise ValueError("a codec learns from waveforms: leave the section codec out")
        if self.model.kind == "bert" and self.codec.kind in ("mulaw", "linear", "sashimi"):
            raise ValueError(
                f"a masked model needs a learned codec, got codec.kind={self.codec.kind}; "
                "say codec.run=runs/NAME of a codec run"
            )
        if (
            self.model.kind == "bert"
            and isinstance(self.codec, NoteEventsConfig)
            and not self.codec.interleave
        ):
            raise ValueError("a masked model of events reads one field a frame; say codec.interleave=true")
        if isinstance(self.model, Seq2SeqConfig):
            self._voices_part(self.model)
        if self.model.kind == "window_vae" and not getattr(self.codec, "interleave", False):
            raise ValueError(
                f"windows are of notes, one token a frame, got codec.kind={self.codec.kind}; say codec.kind=note_grid "
                "and codec.interleave=true"
            )
        if self.data.batch_size % self.optimizer.accumulate:
            raise ValueError(
                f"batch_size {self.data.batch_size} must be a multiple of accumulate {self.optimizer.accumulate}"
            )
        if self.optimizer.warmup_steps >= self.training.steps:
            raise ValueError(
                f"warmup_steps {self.optimizer.warmup_steps} must be less than training.steps {self.training.steps}"
            )
        if self.training.sample_every % self.training.evaluate_every:
            raise ValueError(
                f"sample_every {self.training.sample_every} must be a multiple of "
                f"evaluate_every {self.training.evaluate_every}"
            )
        return self

    def _stereo_fits(self) -> None:
        masked = self.model.kind == "bert" and not isinstance(self.codec, NoteCodecConfig)
        if not masked and not isinstance(self.model, WaveVQConfig):
            raise ValueError(
                f"stereo is for a waveform codec and a masked model of its tokens, got data.channels=2 with "
                f"model.kind={self.model.kind} and codec.kind={self.codec.kind}; say data.channels=1"
            )

    def _second_phase_fits(self, phase: AdversarialConfig) -> None:
        if phase.start >= self.training.steps:
            raise ValueError(
                f"model.adversarial.start {phase.start} must be less than training.steps {self.training.steps}"
            )
        if self.optimizer.accumulate > 1:
            raise ValueError(
                "discriminators judge whole batches: use optimizer.accumulate=1 with model.adversarial"
            )
        if max(phase.windows, default=0) > self.data.crop:
            raise ValueError(
                f"model.adversarial.windows {phase.windows} must fit into data.crop {self.data.crop}"
            )

    def _voices_part(self, model: Seq2SeqConfig) -> None:
        codec = self.codec
        if not isinstance(codec, NoteGridConfig) or not codec.interleave:
            raise ValueError(
                f"an encoder-decoder writes voices to voices, got codec.kind={codec.kind}; say codec.kind=note_grid"
            )
        if model.source_voices >= codec.voices:
            raise ValueError(
                f"model.source_voices {model.source_voices} must be less than codec.voices {codec.voices}"
            )

    def _wavenet_fits(self, model: WaveNetConfig) -> None:
        levels = getattr(self.codec, "levels", 256)
        if isinstance(self.codec, NoteCodecConfig):
            if not self.codec.interleave or model.local is not None:
                raise ValueError("a WaveNet of notes needs codec.interleave=true and no model.local")
        elif self.codec.kind not in ("mulaw", "linear", "sashimi"):
            raise ValueError(
                f"a WaveNet models samples, got codec.kind={self.codec.kind}; use mulaw or linear, and "
                "model.local.kind=codes to condition it on a codec's tokens"
            )
        if model.head.kind == "softmax" and levels > 4096:
            raise ValueError(f"a softmax over {levels} levels is too wide; use model.head.kind=mixture")
        if model.input == "embedding" and levels > 4096:
            raise ValueError(f"an embedding of {levels} levels is too large; use model.input=scalar")
        if model.local is not None and self.data.crop % model.local.hop_length:
            raise ValueError(
                f"crop {self.data.crop} must be a multiple of local.hop_length {model.local.hop_length}"
            )
