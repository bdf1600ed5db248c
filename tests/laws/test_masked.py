"""Every masked model obeys the laws of masked models in every one of its cases."""

import pytest

from laws.cases import bert
from laws.masked import LAWS
from laws.registered import assert_covered, checks
from wavegen.config.models import BertConfig
from wavegen.models.base import MaskedModel
from wavegen.models.kinds import KINDS

CASES = {BertConfig: bert.CASES}


@pytest.mark.parametrize(("make_case", "law"), checks(CASES))
def test_masked_models_obey_the_law(make_case, law):
    law(make_case())


def test_every_masked_model_has_cases_for_every_law():
    members = {section for section, network in KINDS.items() if issubclass(network, MaskedModel)}
    assert_covered(CASES, members, LAWS)
