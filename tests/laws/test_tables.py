"""The tables of members are whole: a section without a class, or a class of another kind, fails here."""

from typing import get_args

import pytest

from wavegen.codecs.base import Codec
from wavegen.codecs.make import CODECS, LEARNED
from wavegen.codecs.quantizers.base import Quantizer
from wavegen.codecs.quantizers.make import QUANTIZERS
from wavegen.config.codec_models import CodecModelConfig, QuantizerConfig
from wavegen.config.codecs import CodecConfig, TrainedCodecConfig
from wavegen.config.conditions import LocalConditionConfig
from wavegen.config.models import ModelConfig
from wavegen.generation.load import GENERATORS
from wavegen.models.base import TokenModel
from wavegen.models.conditions.base import LocalCondition
from wavegen.models.conditions.make import CONDITIONS
from wavegen.models.kinds import KINDS
from wavegen.networks.base import Network


def members(union) -> set:
    """The sections of ``Annotated[A | B | ..., Field(discriminator=...)]``."""
    return set(get_args(get_args(union)[0]))


@pytest.mark.parametrize(
    ("table", "union", "elsewhere"),
    [
        (KINDS, ModelConfig, set()),
        # A run is opened by wavegen.runs, which lies above the codecs.
        (CODECS, CodecConfig, {TrainedCodecConfig}),
        (QUANTIZERS, QuantizerConfig, set()),
        (CONDITIONS, LocalConditionConfig, set()),
    ],
)
def test_every_section_has_a_line(table, union, elsewhere):
    assert set(table) | elsewhere == members(union)


def test_lines_name_what_their_tables_promise():
    assert all(issubclass(network, Network) for network in KINDS.values())
    assert all(issubclass(network, Network) and issubclass(network, Codec) for network in LEARNED.values())
    assert all(issubclass(section, CodecModelConfig) == section.is_codec for section in KINDS)
    assert all(issubclass(quantizer, Quantizer) for quantizer in QUANTIZERS.values())
    assert all(issubclass(condition, LocalCondition) for condition in CONDITIONS.values())


def test_every_model_of_tokens_is_used_through_a_generator():
    for section, network in KINDS.items():
        if not section.is_codec:
            assert issubclass(network, TokenModel)
            assert any(issubclass(network, ability) for ability, _, _ in GENERATORS)
