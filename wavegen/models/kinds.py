"""From a configuration to a network with fresh weights."""

from collections.abc import Mapping, Sequence

import numpy as np
from flax import nnx

from wavegen.codecs.base import AudioCodec, Codec, Codecs
from wavegen.codecs.make import make_codec_model
from wavegen.codecs.notes.base import Interleaved, NoteCodec
from wavegen.config import Config
from wavegen.config.codec_models import (
    CodecModelConfig,
)
from wavegen.config.models import BertConfig, DecoderConfig, LSTMConfig, Seq2SeqConfig, WindowVAEConfig
from wavegen.errors import WavegenError
from wavegen.models.bert import Bert
from wavegen.models.decoder import Decoder
from wavegen.models.layers.memory import Reach
from wavegen.models.lstm import LSTM
from wavegen.models.seq2seq import Seq2Seq
from wavegen.models.stepwise import SteppedModel
from wavegen.models.wavenet import WaveNet
from wavegen.models.window_vae import WindowVAE


def make_model(config: Config, codecs: Codecs, labels: Mapping[str, Sequence[str]]) -> nnx.Module:
    """The model that a configuration describes, with fresh weights drawn from its seed.

    Args:
        config: the experiment.
        codecs: whose tokens the model reads.
        labels: the values of each label field of the dataset, in the order of their numbers.

    Raises:
        WavegenError: the model is conditioned on a field that the dataset does not have.
    """
    model, random = config.model, np.random.Generator(np.random.Philox(config.seed))
    if isinstance(model, CodecModelConfig):
        return make_codec_model(
            model, sample_rate=config.data.sample_rate, channels=config.data.channels, random=random
        )
    for field in model.global_fields:
        if field not in labels:
            there = ", ".join(labels) or "none; set data.label_pattern"
            raise WavegenError(f"model.global_fields names '{field}', the dataset has label fields: {there}")
    label_sizes = tuple(len(labels[field]) for field in model.global_fields)
    codec = codecs.tokens
    if codec is None:
        raise WavegenError("expected a codec for the model's tokens, got none; open it with open_codecs")
    period = codec.period if isinstance(codec, NoteCodec) else 0
    if isinstance(model, BertConfig):
        return Bert(
            vocab_size=codec.vocab_size,
            codebooks=codec.codebooks,
            width=model.width,
            layers=model.layers,
            heads=model.heads,
            dropout=model.dropout,
            period=period,
            label_sizes=label_sizes,
            random=random,
        )
    if isinstance(model, WindowVAEConfig):
        return WindowVAE(
            vocab_size=codec.vocab_size,
            window=config.data.crop,
            bar=model.bar or period,
            period=period,
            start_token=codec.start_token,
            random=random,
            **model.model_dump(include={"width", "layers", "encoder_layers", "heads", "latent", "dropout"}),
        )
    if isinstance(model, LSTMConfig | DecoderConfig):
        return _make_stepped(model, codec, period, label_sizes, random)
    return WaveNet(
        model,
        vocab_size=codec.vocab_size,
        mu=codec.mu if isinstance(codec, AudioCodec) else 0,
        start_token=codec.start_token,
        period=period,
        label_sizes=label_sizes,
        sample_rate=config.data.sample_rate,
        condition=codecs.condition,
        random=random,
    )


def _make_stepped(
    config: LSTMConfig | DecoderConfig,
    codec: Codec,
    period: int,
    label_sizes: tuple[int, ...],
    random: np.random.Generator,
) -> SteppedModel:
    options = {
        "vocab_size": codec.vocab_size,
        "codebooks": codec.codebooks,
        "start_token": codec.start_token,
        "period": period,
        "label_sizes": label_sizes,
        "random": random,
        **config.model_dump(include={"width", "layers", "dropout", "tied"}),
    }
    if isinstance(config, LSTMConfig):
        return LSTM(**options)
    options |= {"heads": config.heads, "reach": Reach(**config.reach.model_dump())}
    if not isinstance(config, Seq2SeqConfig):
        return Decoder(**options)
    assert isinstance(codec, Interleaved)
    source = config.source_voices
    voices = codec.codec.codebooks - source
    options["period"] = codec.codec.period * voices
    return Seq2Seq(
        source_vocab_size=codec.vocab_size,
        source_codebooks=source,
        source_hop=voices,
        source_period=codec.codec.period,
        encoder_layers=config.encoder_layers,
        **options,
    )
