"""Published codecs, small and of random weights, in the layout of Hugging Face."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
from safetensors.numpy import save_file

from laws.audio_codec import (
    BATCH,
    LAWS,
    OF_CODEBOOKS,
    Case,
    a_row_is_coded_exactly_as_the_clip_alone,
    a_row_is_decoded_as_the_clip_alone,
    frames_are_those_of_started_hops_and_clips_keep_their_length,
    the_last_frame_is_filled_up_with_zeros,
    tokens_are_in_range,
)
from laws.registered import registered, without
from wavegen.codecs.make import make_codec
from wavegen.codecs.pretrained import encodec, seanet
from wavegen.codecs.pretrained.dac import _build, _places
from wavegen.codecs.pretrained.encodec import EnCodec, EnCodecConfig
from wavegen.config.codecs import PretrainedCodecConfig

HOP = 6
DAC = {
    "model_type": "dac",
    "downsampling_ratios": [2, 3],
    "upsampling_ratios": [3, 2],
    "hidden_size": 8,
    "encoder_hidden_size": 2,
    "decoder_hidden_size": 8,
    "n_codebooks": 3,
    "codebook_size": 16,
    "codebook_dim": 2,
    "sampling_rate": 8000,
}
ENCODEC = {
    "model_type": "encodec",
    "upsampling_ratios": [3, 2],
    "num_filters": 4,
    "hidden_size": 8,
    "codebook_size": 16,
    "sampling_rate": 600,
    "target_bandwidths": [0.4, 1.2],
}
CONFIGS = {
    "DAC": DAC,
    "EnCodec": ENCODEC,
    "EnCodec, not causal": ENCODEC | {"use_causal_conv": False, "use_conv_shortcut": False},
}
Tensors = dict[str, np.ndarray]


def draw(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Of variance 1 / fan-in; biases are small, and so is what makes audio of one channel: it would be clipped."""
    small = len(shape) == 1 or shape[0] == 1
    scale = 0.1 if small else float(np.prod(shape[1:])) ** -0.5
    return (scale * random.standard_normal(shape)).astype(np.float32)


def draw_dac(config: Mapping[str, Any]) -> Tensors:
    random = np.random.default_rng(0)
    tensors = {
        name: draw(random, place.shape)
        for place in _places(_build(dict(config), 10**6)[0])
        for name in place.names
    }
    # Snake divides by them: near 0 its output is out of range.
    return {name: x if "alpha" not in name else 1 + 3 * x for name, x in tensors.items()}


def draw_encodec(config: Mapping[str, Any]) -> Tensors:
    """Drawn as they are asked for: their names and shapes are written down in no one place."""
    random, tensors = np.random.default_rng(0), {}

    def take(_: Tensors, name: str, shape: tuple[int, ...]) -> np.ndarray:
        tensors[name] = draw(random, shape)
        return tensors[name]

    with patch.object(encodec, "take_tensor", take), patch.object(seanet, "take_tensor", take):
        EnCodec(EnCodecConfig.model_validate(config), {})
    return tensors


DRAWN = {"dac": draw_dac, "encodec": draw_encodec}


def write_model(folder: Path, config: Mapping[str, Any]) -> None:
    save_file(DRAWN[config["model_type"]](config), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))


# A DAC's frame depends on 266 samples, as many to either side; an EnCodec's on all that are before it.
REACH = {"DAC": (22, 22), "EnCodec": (0, None), "EnCodec, not causal": (None, None)}


@cache
def make_case(name: str) -> Case:
    def make():
        with TemporaryDirectory() as folder:
            write_model(Path(folder), CONFIGS[name])
            return make_codec(PretrainedCodecConfig(pretrained=folder))

    audio = 0.3 * np.random.default_rng(1).standard_normal((BATCH, 48 * HOP)).astype(np.float32)
    return Case(make, audio, reach=REACH[name], tolerance=1e-5)


CASES = {
    **registered(make_case, ["DAC"], LAWS + OF_CODEBOOKS),
    # It fills up the last frame by reflection.
    **registered(
        make_case, ["EnCodec"], without(LAWS, the_last_frame_is_filled_up_with_zeros) + OF_CODEBOOKS
    ),
    **registered(
        make_case,
        ["EnCodec, not causal"],
        (
            frames_are_those_of_started_hops_and_clips_keep_their_length,
            tokens_are_in_range,
            a_row_is_coded_exactly_as_the_clip_alone,
            a_row_is_decoded_as_the_clip_alone,
        ),
    ),
}
