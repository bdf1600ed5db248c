"""What a step minimises: functions of a model and one device batch."""

import math
from functools import partial

from wavegen.codecs.spectrogram.loss import mel_reconstruction
from wavegen.codecs.waveform.loss import reconstruction
from wavegen.config import Config
from wavegen.config.codec_models import (
    CodecModelConfig,
    SpectrogramVQConfig,
    WaveVQConfig,
)
from wavegen.config.codecs import FixedCodecConfig
from wavegen.config.models import BertConfig, DecoderConfig, WindowVAEConfig
from wavegen.models.likelihood import next_token, next_token_and_memory
from wavegen.models.masking import mask_classic, mask_levels, masked_token
from wavegen.models.window_vae import evidence_bound
from wavegen.networks.base import Objective


def objective_of(config: Config) -> Objective:
    """What the model of a configuration minimises."""
    model = config.model
    if isinstance(model, WaveVQConfig):
        return partial(
            reconstruction,
            sample_rate=config.data.sample_rate,
            weights=model.loss,
            quantizer_dropout=model.quantizer_dropout,
        )
    if isinstance(model, SpectrogramVQConfig):
        return partial(mel_reconstruction, weights=model.loss, quantizer_dropout=model.quantizer_dropout)
    if isinstance(model, BertConfig):
        masking = model.masking
        return partial(
            masked_token,
            masking=mask_classic
            if masking.scheme == "classic"
            else partial(mask_levels, spans=masking.spans, prompts=masking.prompts),
            label_smoothing=model.label_smoothing,
            label_dropout=model.condition_dropout,
        )
    if isinstance(model, WindowVAEConfig):
        options = model.model_dump(include={"beta", "free_nats", "token_dropout"})
        return partial(evidence_bound, **options)
    if isinstance(model, DecoderConfig) and model.reach.compressed:
        return partial(next_token_and_memory, weight=model.reconstruction)
    return next_token


def metric_of(config: Config) -> tuple[str, float]:
    """The figure that a run is judged by, lower is better: its name, and what ``total / scored`` is multiplied by."""
    if isinstance(config.model, CodecModelConfig):
        return "loss", 1.0
    token = "sample" if isinstance(config.codec, FixedCodecConfig) else "token"
    return f"bits_per_{token}", 1 / math.log(2)
