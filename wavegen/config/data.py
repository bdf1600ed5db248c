"""Where recordings come from and how they become batches."""

from typing import Literal

from pydantic import Field, model_validator

from wavegen.config.section import Section
from wavegen.config.splits import LabelPattern, SplitRule


class SplitConfig(Section):
    """Which files are held out.

    Each is a fraction (chosen by a hash of the name), a rule on a label, ``"take=0-4"``, a pattern of paths,
    ``"test/*"``, a pattern with a fraction that holds where no file matches it, ``"test/* | 0.05"``, a part of the
    natural order of names, ``"order:0.88-0.94"``, or a list of names in a file of the folder,
    ``"list:testing_list.txt"``.
    """

    valid: float | str = 0.05
    test: float | str = 0.05
    by: str | None = Field(
        None,
        description="fractions are of the values of this label field, or of the folders ('folder'), not of the files: "
        "all files of a value or a folder are in one split",
    )

    @model_validator(mode="after")
    def _rules_can_be_read(self) -> "SplitConfig":
        SplitRule({"test": self.test, "valid": self.valid})
        return self


class AugmentConfig(Section):
    """Random changes of a training crop, made on the device."""

    gain_db: float = Field(0.0, ge=0, le=40, description="gain drawn evenly from [-gain_db, 0] dB")
    polarity: bool = Field(False, description="flip the sign of half of the crops")
    input_noise: float = Field(
        0.0, ge=0, le=64, description="standard deviation, in levels, of noise on what the model reads alone"
    )
    transpose: int = Field(
        0, ge=0, le=12, description="semitones that notes are moved by at most, up or down"
    )


class DataConfig(Section):
    """Where the recordings are and how they become batches."""

    path: str | None = Field(None, description="recordings, or a prepared dataset; none: the built-in corpus")
    sample_rate: int = Field(16000, ge=1000, le=384000, description="Hz")
    channels: int = Field(
        1,
        ge=1,
        le=2,
        description="1: mixed to mono; 2: stereo, for which mono recordings are duplicated, and those of more channels "
        "mixed to mono and duplicated",
    )
    label_pattern: str | None = Field(None, description="'{digit}_{speaker}_{take}' or 'folder'")
    split: SplitConfig = SplitConfig()
    trim_silence_db: float | None = Field(
        None, gt=0, le=300, description="drop edges this far below the peak"
    )
    pedal: bool = Field(
        True,
        description="notes of MIDI files last until they fall silent, by the pedals; false: as keys are held",
    )
    backend: Literal["memmap", "array_record"] = "memmap"
    cache: str = Field("cache", description="folder for datasets prepared from a plain folder")
    crop: int = Field(8192, ge=16, le=2**26, description="samples, or frames of notes, per training example")
    batch_size: int = Field(
        8, ge=1, le=2**16, description="examples per step, over all devices and accumulation steps"
    )
    augment: AugmentConfig = AugmentConfig()
    prefetch: int = Field(4, ge=0, le=1024, description="batches read ahead")
    corpus_minutes: float = Field(12.0, gt=0, le=600, description="length of the built-in corpus")

    @model_validator(mode="after")
    def _pattern_can_be_read(self) -> "DataConfig":
        if self.label_pattern is not None:
            LabelPattern(self.label_pattern)
        return self
