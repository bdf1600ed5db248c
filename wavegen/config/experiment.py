"""One experiment: all sections, and whether they fit."""

from pydantic import Field, model_validator

from wavegen.config.codecs import CodecConfig, MuLawConfig
from wavegen.config.data import DataConfig
from wavegen.config.models import ModelConfig, WaveNetConfig
from wavegen.config.section import Section
from wavegen.config.training import OptimizerConfig, SamplingConfig, TrainingConfig

VERSION = 2


class Config(Section):
    """One experiment.

    Example:
        >>> from wavegen import Config
        >>> config = Config(name="slow")
        >>> config.optimizer.learning_rate, config.data.sample_rate
        (0.002, 16000)
    """

    version: int = Field(VERSION, ge=VERSION, le=VERSION)
    name: str = Field("run", pattern=r"^[\w-][\w.-]*$", description="the run folder is runs/NAME")
    seed: int = Field(0, ge=0, lt=2**32)
    data: DataConfig = DataConfig()
    codec: CodecConfig = MuLawConfig()
    model: ModelConfig = WaveNetConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    training: TrainingConfig = TrainingConfig()
    sampling: SamplingConfig = SamplingConfig()

    @model_validator(mode="after")
    def _parts_fit(self) -> "Config":
        self.model.fits(self)
        if self.data.channels == 2 and not self.model.takes_stereo(self.codec):
            raise ValueError(
                f"stereo is for a waveform codec and a masked model of its tokens, got data.channels=2 with "
                f"model.kind={self.model.kind} and codec.kind={self.codec.kind}; set data.channels=1"
            )
        if self.data.batch_size % self.optimizer.accumulate:
            raise ValueError(
                f"batch_size {self.data.batch_size} must be a multiple of accumulate {self.optimizer.accumulate}"
            )
        if self.training.sample_every % self.training.evaluate_every:
            raise ValueError(
                f"sample_every {self.training.sample_every} must be a multiple of "
                f"evaluate_every {self.training.evaluate_every}"
            )
        return self

    @property
    def warmup_steps(self) -> int:
        """Steps of the warm-up: half of all where the run is no longer than ``optimizer.warmup_steps``."""
        wanted, steps = self.optimizer.warmup_steps, self.training.steps
        return wanted if wanted < steps else steps // 2
