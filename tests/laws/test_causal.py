"""Every causal model obeys the laws of causal models in every one of its cases."""

import pytest

from laws.cases import decoder, lstm, seq2seq, ssm, wavenet, window_vae
from laws.causal import LAWS, objectives_are_scores_of_clips_that_end_within_a_padded_batch
from laws.registered import assert_covered, checks
from wavegen.config.models import (
    DecoderConfig,
    LSTMConfig,
    Seq2SeqConfig,
    SSMConfig,
    WaveNetConfig,
    WindowVAEConfig,
)
from wavegen.models.base import CausalModel
from wavegen.models.kinds import KINDS

CASES = {
    LSTMConfig: lstm.CASES,
    SSMConfig: ssm.CASES,
    DecoderConfig: decoder.CASES,
    Seq2SeqConfig: seq2seq.CASES,
    WindowVAEConfig: window_vae.CASES,
    WaveNetConfig: wavenet.CASES,
}


@pytest.mark.parametrize(("make_case", "law"), checks(CASES))
def test_causal_models_obey_the_law(make_case, law):
    law(make_case())


def test_every_causal_model_has_cases_for_every_law():
    causal = (section for section, network in KINDS.items() if issubclass(network, CausalModel))
    bound = (WindowVAEConfig, objectives_are_scores_of_clips_that_end_within_a_padded_batch)
    assert_covered(CASES, causal, LAWS, {bound: "its objective is an upper bound of the scores"})
