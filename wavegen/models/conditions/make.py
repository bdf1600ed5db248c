"""From a section of the configuration to a local condition: the table of members."""

from collections.abc import Mapping

import numpy as np

from wavegen.config.conditions import (
    CodeConditionConfig,
    FeatureConditionConfig,
    MelConditionConfig,
    NoteConditionConfig,
    PianoRollConditionConfig,
)
from wavegen.config.section import ConditionSection
from wavegen.models.conditions.base import LocalCondition
from wavegen.models.conditions.codes import CodeCondition
from wavegen.models.conditions.features import FeatureCondition
from wavegen.models.conditions.mel import MelCondition
from wavegen.models.conditions.melody import NoteCondition
from wavegen.models.conditions.piano_roll import PianoRollCondition
from wavegen.networks.base import Given

CONDITIONS: Mapping[type[ConditionSection], type[LocalCondition]] = {
    FeatureConditionConfig: FeatureCondition,
    NoteConditionConfig: NoteCondition,
    PianoRollConditionConfig: PianoRollCondition,
    MelConditionConfig: MelCondition,
    CodeConditionConfig: CodeCondition,
}
"""The class of each section."""


def make_condition(config: ConditionSection, given: Given, random: np.random.Generator) -> LocalCondition:
    """The condition that a section describes, with fresh weights.

    Raises:
        WavegenError: it needs something that is not given.
    """
    return CONDITIONS[type(config)].make(config, given, random)
