"""Published codecs, by the model type in their ``config.json``."""

from wavegen.codecs.learned import LearnedCodec, freeze
from wavegen.codecs.pretrained.dac import load_dac
from wavegen.codecs.pretrained.encodec import load_encodec
from wavegen.codecs.pretrained.hugging_face import read_config
from wavegen.config.codecs import PretrainedCodecConfig
from wavegen.errors import WavegenError


def load_pretrained(config: PretrainedCodecConfig) -> LearnedCodec:
    """Opens a published codec.

    Args:
        config: settings whose ``pretrained`` is a folder with ``config.json`` and ``model.safetensors``, or the
            safetensors file with ``config.json`` in its folder.

    Raises:
        WavegenError: if there is no such folder, a file is damaged, or the model type is not supported.
    """
    path = config.pretrained
    kind = read_config(path).get("model_type")
    if kind == "encodec":
        encodec = load_encodec(path)
        return freeze(encodec, sample_rate=encodec.sample_rate)
    if kind == "dac":
        dac, sample_rate = load_dac(path)
        return freeze(dac, sample_rate=sample_rate)
    raise WavegenError(
        f"expected model_type encodec or dac in config.json of {path}, got {kind!r}; convert it first"
    )
