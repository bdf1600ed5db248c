"""Every local condition obeys the laws of local conditions in every one of its cases."""

import pytest

from laws.cases.conditions import CASES
from laws.condition import (
    LAWS,
    OF_NOTES,
    features_are_those_of_started_frames,
    features_of_a_clip_in_a_batch_are_those_of_the_clip_alone,
)
from laws.registered import assert_covered, checks
from wavegen.config.conditions import FeatureConditionConfig
from wavegen.models.conditions.make import CONDITIONS

STORED = "its features are those that the dataset holds"
EXCEPTIONS = {
    (FeatureConditionConfig, features_are_those_of_started_frames): STORED,
    (FeatureConditionConfig, features_of_a_clip_in_a_batch_are_those_of_the_clip_alone): STORED,
}


@pytest.mark.parametrize(("make_case", "law"), checks(CASES))
def test_local_conditions_obey_the_law(make_case, law):
    law(make_case())


def test_every_local_condition_has_cases_for_every_law():
    assert_covered(CASES, CONDITIONS, LAWS, EXCEPTIONS)
    on_notes = {
        section for section, condition in CONDITIONS.items() if condition.takes in ("melody", "chords")
    }
    assert_covered({section: CASES[section] for section in on_notes}, on_notes, OF_NOTES)
