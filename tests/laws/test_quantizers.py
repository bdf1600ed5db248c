"""Every quantizer obeys the laws of quantizers in every one of its cases."""

import pytest

from laws.cases.quantizers import CASES
from laws.quantizer import LAWS
from laws.registered import assert_covered, checks
from wavegen.codecs.quantizers.make import QUANTIZERS


@pytest.mark.parametrize(("make_case", "law"), checks(CASES))
def test_quantizers_obey_the_law(make_case, law):
    law(make_case())


def test_every_quantizer_has_cases_for_every_law():
    assert_covered(CASES, QUANTIZERS, LAWS)
