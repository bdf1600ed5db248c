"""WaveNets of every input, head and condition, over mu-law, 16 bits and notes on a grid."""

from functools import cache, partial

import jax.numpy as jnp
import numpy as np

from laws import causal
from laws.causal import BATCH, Case
from laws.registered import registered
from wavegen.config.data import DataConfig
from wavegen.config.models import WaveNetConfig
from wavegen.models.conditions.make import make_condition
from wavegen.models.wavenet import WaveNet
from wavegen.networks.base import Given
from wavegen.notes.performance import Performance
from wavegen.notes.roll import roll_features

FRAMES, HOP = 48, 8
# Vocabulary, companding and start token of mu-law, of 16 bits, and of notes on a grid, whose start is not the middle.
MULAW, LINEAR16, GRID = (256, 255, 128), (65536, 0, 32768), (47, 0, 3)
FEATURES = {"kind": "features", "width": 3, "channels": 6, "hop_length": HOP}
NOTES = {"kind": "notes", "channels": 6, "hop_length": HOP, "harmonics": 2}
ROLL = {"kind": "piano_roll", "channels": 6, "hop_length": HOP, "low": 60, "high": 72}
ROLL |= {"harmonics": 2, "voices": 2}
MIXTURE = {"kind": "mixture", "components": 4}
PREDICTION = {"kind": "mixture", "components": 3, "linear_prediction": 4}

VARIANTS = {
    "plain": (MULAW, {}),
    "kernel 3": (MULAW, {"kernel_size": 3}),
    "kernel 4, wide input": (MULAW, {"kernel_size": 4, "input_kernel_size": 3}),
    "labels": (MULAW, {"label_fields": ("digit", "speaker")}),
    "features, upsampled": (MULAW, {"local": {**FEATURES, "upsample": (2, 2)}}),
    "labels and features": (MULAW, {"label_fields": ("digit",), "local": FEATURES}),
    "kernel 3, labels and features": (
        MULAW,
        {"kernel_size": 3, "label_fields": ("digit",), "local": {**FEATURES, "upsample": (8,)}},
    ),
    "notes": (MULAW, {"kernel_size": 3, "local": NOTES}),
    "piano roll": (MULAW, {"kernel_size": 3, "local": ROLL}),
    "period, notes": (MULAW, {"period": 5, "local": NOTES}),
    "start token that is not the middle": (GRID, {"period": 4, "kernel_size": 3}),
    "start token that is not the middle, scalar": (GRID, {"input": "scalar", "input_kernel_size": 2}),
    "scalar": (MULAW, {"input": "scalar", "input_kernel_size": 2}),
    "mixture": (LINEAR16, {"input": "scalar", "head": MIXTURE, "label_fields": ("digit",)}),
    "linear prediction": (MULAW, {"input": "scalar", "head": PREDICTION, "local": NOTES}),
    "linear prediction, linear codes": (LINEAR16, {"input": "scalar", "head": PREDICTION}),
}


def build(config: dict, vocab_size=256, mu=255, start_token=128, **sizes) -> WaveNet:
    small = {"dilations": (1, 2, 4), "cycles": 1, "residual_channels": 8, "gate_channels": 6}
    small |= {"skip_channels": 10, "head_channels": 7, "label_channels": 5}
    period = config.get("period", 0)
    settings = {name: value for name, value in config.items() if name != "period"}
    section, random = WaveNetConfig(**small | sizes | settings), np.random.default_rng(0)
    given = Given(DataConfig(sample_rate=8000))
    return WaveNet(
        section,
        vocab_size=vocab_size,
        period=period,
        mu=mu,
        start_token=start_token,
        label_sizes=(10, 4)[: len(config.get("label_fields", ()))],
        local=lambda: None if section.local is None else make_condition(section.local, given, random),
        random=random,
    )


@cache
def make_case(name: str) -> Case:
    codes, config = VARIANTS[name]
    labels = features = None
    if fields := config.get("label_fields"):
        labels = jnp.asarray([[3, 1], [7, -1]][:BATCH], jnp.int32)[:, : len(fields)]
    if local := config.get("local"):
        made = {"notes": make_notes, "piano_roll": make_rolls}
        plain = partial(np.random.default_rng(0).standard_normal, (BATCH, FRAMES // HOP, 3))
        features = jnp.asarray(made.get(local["kind"], plain)(), jnp.float32)
    return Case(
        build(config, *codes),
        FRAMES,
        labels,
        features,
        vocab=codes[0],
        start=codes[2],
        prompts=((1,), (13, 26), (1, 14, 15, 28)),
        later=(FRAMES // 2,),
        piece=7,
        temperatures=(1.0, (1.0, 1.0)) if name in WHOLE else (1.0,),
        relative=True,
    )


def make_notes() -> np.ndarray:
    """Frames of two melodies: A4 from frame 0, a rest, then C5; and one long C4."""
    rows = np.zeros((BATCH, FRAMES // HOP, 4), np.float32)
    for clip, pitch, first, last in ((0, 69, 0, 2), (0, 72, 3, 6), (1, 60, 0, 6)):
        for frame in range(first, last):
            rows[clip, frame] = pitch, (frame - first) * HOP, (last - frame) * HOP, 0.7
    return rows


def make_rolls() -> np.ndarray:
    """Piano rolls of two clips: three notes at once, one of them struck again; and a note after a rest."""
    frame = HOP / 8000
    clips = (
        Performance(
            np.array([60, 64, 67, 60]),
            frame * np.array([0, 1, 1, 3]),
            frame * np.array([3, 3, 5, 2]),
            np.array([0.9, 0.4, 0.6, 0.5]),
        ),
        Performance(np.array([72]), frame * np.array([2]), frame * np.array([4]), np.array([0.7])),
    )
    return np.stack([roll_features(clip, 8000, HOP, FRAMES, 60, 72) for clip in clips])


ALWAYS = (
    causal.steps_equal_the_parallel_form,
    causal.steps_behind_a_prompt_equal_the_parallel_form_wherever_it_is_cut,
    causal.scores_are_those_of_the_parallel_form_wherever_they_are_cut,
    causal.objectives_are_scores_of_clips_that_end_within_a_padded_batch,
    causal.no_output_depends_on_later_rows,
    causal.a_row_does_not_depend_on_the_others,
    causal.probabilities_sum_to_one,
)
# These compile more: each is tested where conditions, kernel and head differ.
DRAWN = ("notes", "piano roll", "start token that is not the middle")
WHOLE = ("kernel 3, labels and features", "period, notes")
OF_MIXTURES = ("mixture", "linear prediction")

CASES = {
    **registered(make_case, VARIANTS, ALWAYS),
    **registered(make_case, OF_MIXTURES, (*ALWAYS, causal.pieces_drawn_one_by_one_equal_one_draw)),
    **registered(
        make_case,
        DRAWN,
        (
            *ALWAYS,
            causal.pieces_drawn_one_by_one_equal_one_draw,
            causal.cold_draws_after_a_prompt_are_the_likeliest_tokens_of_the_parallel_form,
        ),
    ),
    # The law of gradients reads those of an embedding.
    **registered(make_case, ["plain"], (*ALWAYS, causal.a_row_equals_the_clip_alone)),
    **registered(make_case, WHOLE, causal.LAWS + causal.OF_ONE_CODEBOOK),
}
