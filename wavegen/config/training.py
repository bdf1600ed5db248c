"""How long, how fast and how exactly a run learns, and how it draws samples."""

from typing import Literal

from pydantic import Field, model_validator

from wavegen.config.section import Section


class OptimizerConfig(Section):
    """AdamW, or Muon for the matrices inside a network and AdamW for the rest, with warm-up and cosine decay."""

    kind: Literal["adamw", "muon"] = "adamw"
    matrix_learning_rate: float = Field(2e-2, gt=0, lt=1, description="of the matrices that Muon updates")
    learning_rate: float = Field(2e-3, gt=0, lt=1)
    warmup_steps: int = Field(
        100,
        ge=0,
        description="steps of the rise of the learning rate; a shorter run rises over half of its steps",
    )
    final_fraction: float = Field(0.02, ge=0, le=1, description="last learning rate as a share of the peak")
    weight_decay: float = Field(1e-4, ge=0, lt=1)
    b1: float = Field(0.9, ge=0, lt=1)
    b2: float = Field(0.98, ge=0, lt=1)
    clip_norm: float = Field(1.0, gt=0, le=1e6)
    ema_decay: float = Field(0.99, ge=0, lt=1, description="0 keeps no average")
    accumulate: int = Field(1, ge=1, description="microbatches per step")
    max_bad_steps: int = Field(20, ge=1, description="stop after this many non-finite steps in a row")


class MeshConfig(Section):
    """Devices along each axis; -1 takes what is left."""

    data: int = Field(-1, ge=-1)
    fsdp: int = Field(1, ge=1)
    cpu_devices: int = Field(1, ge=1, le=256, description="how many a CPU is split into; one a core is best")


class TrainingConfig(Section):
    """How long, how exactly, and what is written on the way."""

    steps: int = Field(1000, ge=1, le=10**9)
    start_from: str | None = Field(
        None,
        description="run folder or .safetensors file whose weights a run begins with, instead of random ones",
    )
    precision: Literal["float32", "bfloat16"] = "float32"
    log_every: int = Field(10, ge=1)
    evaluate_every: int = Field(500, ge=1)
    evaluate_batches: int = Field(
        16, ge=1, le=10**6, description="batches of the validation split per evaluation"
    )
    checkpoint_every: int = Field(500, ge=1)
    keep_latest: int = Field(2, ge=1)
    keep_best: int = Field(1, ge=0)
    sample_every: int = Field(0, ge=0, description="steps between audio samples; 0: only at the end")
    sample_seconds: float = Field(2.0, ge=1e-3, le=3600)
    sample_count: int = Field(2, ge=1, le=1000)
    mesh: MeshConfig = MeshConfig()


class MaskedSamplingConfig(Section):
    """How a masked model fills tokens."""

    passes: tuple[int, ...] = Field(
        (16, 4, 2, 1), min_length=1, description="for each level; the last number serves all further levels"
    )
    schedule: Literal["cosine", "linear", "square", "cubic"] = "cosine"
    order: Literal["confidence", "random"] = Field(
        "confidence",
        description="which tokens a pass keeps: the surest, or random ones, as the bound measures",
    )
    noise: float = Field(4.5, ge=0, le=100, description="Gumbel noise on the confidence, annealed to 0")
    guidance: float = Field(
        1.0, ge=0, le=20, description="classifier-free guidance, annealed to 1; 1 is none"
    )

    @model_validator(mode="after")
    def _at_least_one_pass(self) -> "MaskedSamplingConfig":
        if not 1 <= min(self.passes) <= max(self.passes) <= 1000:
            raise ValueError(f"passes must lie between 1 and 1000, got {self.passes}")
        return self


class SamplingConfig(Section):
    """How audio is drawn unless a ``Drawing`` says otherwise."""

    temperature: float = Field(1.0, ge=0, le=10, description="0 always draws the likeliest token")
    top_k: int = Field(
        0, ge=0, le=2**20, description="draw among so many likeliest tokens; 0: all; for causal models"
    )
    top_p: float = Field(
        1.0, gt=0, le=1, description="draw among the likeliest that together have this share"
    )
    masked: MaskedSamplingConfig = MaskedSamplingConfig()
