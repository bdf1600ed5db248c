"""From a configuration to a network: the table of all networks that a run can train."""

from collections.abc import Mapping, Sequence

from wavegen.codecs.base import Codecs
from wavegen.codecs.make import LEARNED
from wavegen.config import Config
from wavegen.config.models import (
    BertConfig,
    DecoderConfig,
    LSTMConfig,
    Seq2SeqConfig,
    SSMConfig,
    WaveNetConfig,
    WindowVAEConfig,
)
from wavegen.config.section import NetworkSection
from wavegen.errors import WavegenError
from wavegen.models.bert import Bert
from wavegen.models.decoder import Decoder
from wavegen.models.lstm import LSTM
from wavegen.models.seq2seq import Seq2Seq
from wavegen.models.ssm import SSM
from wavegen.models.wavenet import WaveNet
from wavegen.models.window_vae import WindowVAE
from wavegen.networks.base import Given, Network
from wavegen.networks.initial import Draws

KINDS: Mapping[type[NetworkSection], type[Network]] = {
    **LEARNED,
    WaveNetConfig: WaveNet,
    LSTMConfig: LSTM,
    SSMConfig: SSM,
    DecoderConfig: Decoder,
    Seq2SeqConfig: Seq2Seq,
    BertConfig: Bert,
    WindowVAEConfig: WindowVAE,
}
"""The network of each section."""


def make_model(
    config: Config, codecs: Codecs, labels: Mapping[str, Sequence[str]], most: int | None = None
) -> Network:
    """The network that a configuration describes, with fresh weights drawn from its seed.

    Args:
        config: the experiment.
        codecs: whose tokens the model reads.
        labels: the values of each label field of the dataset, in the order of their numbers.
        most: see ``wavegen.networks.initial.Draws``.

    Raises:
        WavegenError: the model is conditioned on a field that the dataset does not have, does not fit what is given, or
            has too many weights.
    """
    section, random = config.model, Draws(config.seed, most)
    for field in section.label_fields:
        if field not in labels:
            there = ", ".join(labels) or "none; set data.label_pattern"
            raise WavegenError(f"model.label_fields names '{field}', the dataset has label fields: {there}")
    given = Given(config.data, codecs, tuple(len(labels[field]) for field in section.label_fields))
    return KINDS[type(section)].make(section, given, random)
