"""Local conditions of every kind."""

from functools import cache

import numpy as np

from laws.cases import wave_vq
from laws.condition import (
    BATCH,
    FRAMES,
    LAWS,
    OF_NOTES,
    Case,
    features_are_those_of_started_frames,
    features_of_a_clip_in_a_batch_are_those_of_the_clip_alone,
)
from laws.registered import registered, without
from wavegen.codecs.base import Codecs
from wavegen.config.codecs import PretrainedCodecConfig
from wavegen.config.conditions import (
    CodeConditionConfig,
    FeatureConditionConfig,
    MelConditionConfig,
    NoteConditionConfig,
    PianoRollConditionConfig,
)
from wavegen.config.data import DataConfig
from wavegen.models.conditions.make import make_condition
from wavegen.networks.base import Given

RATE, CHANNELS, WIDTH = 8000, 4, 3
ANY_CODEC = PretrainedCodecConfig(pretrained="given")
# A frame of features reaches its neighbours, and at each stage those of finer frames.
SECTIONS = {
    "held": (FeatureConditionConfig(width=WIDTH, channels=CHANNELS, hop_length=16), 16),
    "two stages": (
        FeatureConditionConfig(width=WIDTH, channels=CHANNELS, hop_length=16, upsample=(2, 4)),
        16 + 16 + 8,
    ),
    "to samples": (
        FeatureConditionConfig(width=WIDTH, channels=CHANNELS, hop_length=16, upsample=(16,)),
        16 + 16,
    ),
    "melody": (NoteConditionConfig(channels=CHANNELS, hop_length=16, harmonics=2), 16),
    "chords": (
        PianoRollConditionConfig(channels=CHANNELS, hop_length=16, low=60, high=72, harmonics=2, voices=2),
        16,
    ),
    "mel": (MelConditionConfig(bands=5, n_fft=64, hop_length=16, channels=CHANNELS, upsample=(4,)), 16 + 16),
    "codes": (
        CodeConditionConfig(codec=ANY_CODEC, hop_length=wave_vq.HOP, channels=CHANNELS, upsample=(3,)),
        6 + 6,
    ),
}


@cache
def make_case(name: str) -> Case:
    section, reach = SECTIONS[name]
    codec = wave_vq.make_case("gradient").codec if name == "codes" else None
    given = Given(DataConfig(sample_rate=RATE), Codecs(None, codec))
    condition = make_condition(section, given, np.random.default_rng(0))
    stored = np.random.default_rng(2).standard_normal((BATCH, FRAMES, WIDTH))
    features = stored if isinstance(section, FeatureConditionConfig) else None
    return Case(condition, CHANNELS, reach, features, codec)


OF_STORED_FEATURES = without(
    LAWS, features_are_those_of_started_frames, features_of_a_clip_in_a_batch_are_those_of_the_clip_alone
)
CASES = {
    FeatureConditionConfig: registered(make_case, ["held", "two stages", "to samples"], OF_STORED_FEATURES),
    NoteConditionConfig: registered(make_case, ["melody"], LAWS + OF_NOTES),
    PianoRollConditionConfig: registered(make_case, ["chords"], LAWS + OF_NOTES),
    MelConditionConfig: registered(make_case, ["mel"], LAWS),
    CodeConditionConfig: registered(make_case, ["codes"], LAWS),
}
