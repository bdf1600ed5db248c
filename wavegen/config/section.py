"""What every section of a configuration is, and what the sections of networks and of codecs declare."""

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, field_validator

if TYPE_CHECKING:
    from wavegen.config.experiment import Config


_LARGEST = 2**32 - 1
_LONGEST = 1024


class Section(BaseModel):
    """Frozen; unknown keys, NaN, infinity, numbers past 2^32 and lists of more than 1,024 items are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())

    @field_validator("*", mode="after")
    @classmethod
    def _bounded(cls, value: Any) -> Any:
        if isinstance(value, tuple) and len(value) > _LONGEST:
            raise ValueError(f"expected at most {_LONGEST:,} items, got {len(value):,}")
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, int | float) and abs(number) > _LARGEST:
                # Not quoted here: a whole number may have more digits than a float can have.
                raise ValueError(f"expected a number within {_LARGEST:,}")
        return value


class CodecSection(Section):
    """The section of a codec.

    Attributes:
        of: what a frame of its tokens stands for: one sample, a frame of audio, or a step of a score.
    """

    of: ClassVar[Literal["samples", "frames", "notes"]] = "frames"

    @property
    def one_token_per_frame(self) -> bool:
        """Whether a frame holds one token, as models of a single token stream need it."""
        return self.of == "samples"


class NetworkSection(Section):
    """The section of a network that a run trains. A member has a ``kind``, ``label_fields`` and ``local``.

    Attributes:
        is_codec: whether the run learns a codec; else it learns a model of tokens.
        measured: what the figure of a model of tokens is that a run is judged by: "bits", an exact likelihood;
            "bound_bits", an upper bound of its negative; or "masked_bits", that of masked tokens given the others under
            one random mask, which is neither.
    """

    is_codec: ClassVar[bool] = False
    measured: ClassVar[Literal["bits", "bound_bits", "masked_bits"]] = "bits"

    def fits(self, config: "Config") -> None:
        """Checks what this network demands of the other sections.

        Raises:
            ValueError: a setting that it cannot be trained with.
        """

    def check_training(self, config: "Config", frames: int) -> None:
        """Checks that training reaches all that the network has; runs that exist are not asked.

        Args:
            config: the experiment.
            frames: of a crop, in the tokens of the codec.

        Raises:
            WavegenError: a part of the network would never be trained.
        """

    def takes_stereo(self, codec: CodecSection) -> bool:
        """Whether it can be trained on recordings of two channels, through a codec."""
        del codec
        return False


class ConditionSection(Section):
    """The section of a local condition."""

    @property
    def through(self) -> CodecSection | None:
        """The codec whose tokens it reads, if it reads any."""
        return None

    @property
    def stored(self) -> int:
        """Values per frame that a dataset has to hold with its recordings; 0 where none are read."""
        return 0
