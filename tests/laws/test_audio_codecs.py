"""Every audio codec obeys the laws of audio codecs in every one of its cases."""

import pytest

from laws.audio_codec import (
    LAWS,
    OF_CODEBOOKS,
    OF_STEREO,
    pieces_have_the_tokens_of_the_whole_out_of_reach_of_the_cut,
    the_last_frame_is_filled_up_with_zeros,
)
from laws.cases import pretrained, samples, spectrogram, wave_vq
from laws.registered import assert_covered, checks
from wavegen.codecs.base import AudioCodec
from wavegen.codecs.make import CODECS, LEARNED
from wavegen.config.codec_models import SpectrogramVQConfig, WaveVQConfig
from wavegen.config.codecs import (
    LinearConfig,
    MuLawConfig,
    PretrainedCodecConfig,
    SashimiConfig,
    SpectrogramCodecConfig,
)
from wavegen.config.section import NetworkSection

CASES = {
    **samples.CASES,
    PretrainedCodecConfig: pretrained.CASES,
    SpectrogramCodecConfig: spectrogram.CODEBOOK_CASES,
    WaveVQConfig: wave_vq.CASES,
    SpectrogramVQConfig: spectrogram.NETWORK_CASES,
}
A_FRAME_IS_A_SAMPLE = "a frame is one sample, so that there is nothing to fill up"
EXCEPTIONS = {
    (MuLawConfig, the_last_frame_is_filled_up_with_zeros): A_FRAME_IS_A_SAMPLE,
    (LinearConfig, the_last_frame_is_filled_up_with_zeros): A_FRAME_IS_A_SAMPLE,
    (SashimiConfig, the_last_frame_is_filled_up_with_zeros): A_FRAME_IS_A_SAMPLE,
    (SashimiConfig, pieces_have_the_tokens_of_the_whole_out_of_reach_of_the_cut): (
        "every window is stretched to the full range"
    ),
}


@pytest.mark.parametrize(("make_case", "law"), checks(CASES))
def test_audio_codecs_obey_the_law(make_case, law):
    law(make_case())


def test_every_audio_codec_has_cases_for_every_law():
    members = {section for section in CODECS if section.of != "notes"} | set(LEARNED)
    assert_covered(CASES, members, LAWS, EXCEPTIONS)


def test_every_codec_of_stereo_and_of_codebooks_has_cases_for_every_law_of_them():
    stereo = {s for s in LEARNED if s.takes_stereo is not NetworkSection.takes_stereo}
    assert_covered({section: CASES[section] for section in stereo}, stereo, OF_STEREO)
    of_codebooks = {PretrainedCodecConfig, *LEARNED}
    assert_covered({section: CASES[section] for section in of_codebooks}, of_codebooks, OF_CODEBOOKS)


def test_networks_that_are_codecs_are_of_audio():
    assert all(issubclass(network, AudioCodec) for network in LEARNED.values())
