"""Every note codec obeys the laws of note codecs in every one of its cases."""

import pytest

from laws.cases.notes import CASES
from laws.note_codec import LAWS, OF_INTERLEAVED
from laws.registered import assert_covered, checks
from wavegen.codecs.make import CODECS


@pytest.mark.parametrize(("make_case", "law"), checks(CASES))
def test_note_codecs_obey_the_law(make_case, law):
    law(make_case())


def test_every_note_codec_has_cases_for_every_law():
    members = {section for section in CODECS if section.of == "notes"}
    assert_covered(CASES, members, LAWS + OF_INTERLEAVED)
