"""EnCodec with its published weights: tokens of a codec that was trained on far more audio than most users have.

Source: Défossez et al. 2022, "High Fidelity Neural Audio Compression"; for 32 kHz: Copet et al. 2023, "Simple and
Controllable Music Generation" (MusicGen). Weights are read in the Hugging Face layout of ``facebook/encodec_24khz``
and ``facebook/encodec_32khz``.
"""

from math import ceil, log2
from pathlib import Path
from typing import Annotated, Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from pydantic import Field, model_validator

from wavegen.codecs.base import AudioCodec
from wavegen.codecs.pretrained.hugging_face import (
    Size,
    Tensors,
    expect_no_more,
    read_hugging_face,
    read_sizes,
    take_tensor,
)
from wavegen.codecs.pretrained.seanet import SEANetConfig, decoder, encoder
from wavegen.codecs.quantizers import EMAResidualVQ
from wavegen.errors import WavegenError
from wavegen.types import Tokens, Waveform

_ONLY = {
    "audio_channels": 1,
    "norm_type": "weight_norm",
    "normalize": False,
    "chunk_length_s": None,
    "pad_mode": "reflect",
    "trim_right_ratio": 1.0,
}
"""The settings of the published codecs of 24 and 32 kHz; that of 48 kHz differs in the first four."""


class EnCodecConfig(SEANetConfig):
    """Sizes, by the names and with the defaults of Hugging Face's ``config.json``.

    Attributes:
        sampling_rate: sample rate in Hz.
        codebook_size: entries per codebook, V.
        target_bandwidths: bit rates that the codec was trained for, in kb/s, in rising order; the last one uses all
            codebooks.
    """

    sampling_rate: Size = 24000
    codebook_size: int = Field(1024, ge=2, le=2**20)
    target_bandwidths: tuple[Annotated[float, Field(gt=0, le=2**20)], ...] = Field(
        (1.5, 3.0, 6.0, 12.0, 24.0), min_length=1, max_length=64
    )

    @model_validator(mode="after")
    def _have_room_for_codebooks(self) -> "EnCodecConfig":
        if not 1 <= self.codebooks <= 256:
            raise ValueError(
                "expected target_bandwidths to have room for 1 to 256 codebooks, "
                f"got {self.codebooks} for {list(self.target_bandwidths)} kb/s"
            )
        return self

    @property
    def codebooks(self) -> int:
        """Number of codebooks that fit into the highest bit rate."""
        frame_rate, bits = ceil(self.sampling_rate / self.hop_length), ceil(log2(self.codebook_size))
        return int(1000 * self.target_bandwidths[-1] // (frame_rate * bits))


class EnCodec(AudioCodec, nnx.Module):
    """Convolutions, an LSTM, and residual codebooks of nearest entries; for use, not for training.

    Unlike other codecs it fills the last frame by reflection, not by zeros. A frame depends on all samples before it
    (and, where the network is not causal, on some after it), so that pieces have other codes than the whole.

    Args:
        config: sizes.
        tensors: weights by their names in the file; those of the codec are removed from the dictionary.

    Raises:
        WavegenError: if a tensor is missing or has another shape.
    """

    def __init__(self, config: EnCodecConfig, tensors: Tensors) -> None:
        self.config = config
        self.encoder = encoder(config, tensors)
        self.decoder = decoder(config, tensors)
        self.quantizer = _quantizer(config, tensors)

    @property
    def sample_rate(self) -> int:
        """Sample rate of the audio that it was trained on, in Hz."""
        return self.config.sampling_rate

    @property
    def vocab_size(self) -> int:
        """Entries per codebook."""
        return self.config.codebook_size

    @property
    def codebooks(self) -> int:
        """Tokens per frame."""
        return self.config.codebooks

    @property
    def hop_length(self) -> int:
        """Samples per frame."""
        return self.config.hop_length

    @property
    def mu(self) -> int:
        """Always 0: codes have no order of amplitude."""
        return 0

    @property
    def start_token(self) -> int:
        """Always 0, in every codebook: no entry stands for silence."""
        return 0

    def encode(self, audio: Waveform, *, codebooks: int | None = None) -> Tokens:
        """See ``AudioCodec.encode``.

        Args:
            audio: ``[B, T]``, at ``sample_rate``; it is not clipped.
            codebooks: how many codebooks to use, for a lower bit rate: each takes ``log2(vocab_size)`` bits per frame,
                and fewer are a prefix of more. None is all.

        Raises:
            WavegenError: if there are not so many codebooks, or the audio has no samples.
        """
        if not audio.shape[1]:
            raise WavegenError(
                f"expected at least one sample, got audio of shape {list(audio.shape)}; leave empty clips out"
            )
        latents = self.encoder(audio.astype(jnp.float32)[..., None])
        return self.quantizer.quantize(latents, codebooks=codebooks).codes

    def decode(self, tokens: Tokens) -> Waveform:
        """See ``AudioCodec.decode``; the audio is clipped to [-1, 1].

        Args:
            tokens: tokens of the first codebooks, or of all.

        Raises:
            WavegenError: if there are more codes per frame than codebooks.
        """
        audio = self.decoder(self.quantizer.decode(tokens))[..., 0]
        return jnp.clip(audio, -1, 1)


def load_encodec(path: str | Path) -> EnCodec:
    """Loads a pretrained codec.

    Args:
        path: a folder with ``config.json`` and ``model.safetensors``, or the safetensors file with ``config.json`` in
            its folder.

    Raises:
        WavegenError: if a file is missing or damaged, is not EnCodec, or is that of 48 kHz, or a tensor is missing,
            unknown or of another shape.
    """
    values, tensors = read_hugging_face(path)
    codec = EnCodec(_read_sizes(values), tensors)
    expect_no_more(tensors)
    return codec


def _read_sizes(values: dict[str, Any]) -> EnCodecConfig:
    if values.get("model_type") != "encodec":
        raise WavegenError(
            f'expected model_type "encodec" in config.json, got {values.get("model_type")!r}; '
            "give the folder of an EnCodec"
        )
    for key, only in _ONLY.items():
        if values.get(key, only) != only:
            raise WavegenError(
                f"expected {key} {only} in config.json, got {values[key]}; use EnCodec of 24 or 32 kHz: that of 48 "
                "kHz codes overlapping stereo chunks with a scale for each, which tokens cannot represent"
            )
    config = read_sizes(EnCodecConfig, values)
    if values.get("codebook_dim") not in (None, config.hidden_size):
        raise WavegenError(
            f"expected codebook_dim {config.hidden_size} like hidden_size in config.json, "
            f"got {values['codebook_dim']}; download it again"
        )
    return config


def _quantizer(config: EnCodecConfig, tensors: Tensors) -> EMAResidualVQ:
    shape = (config.codebook_size, config.hidden_size)
    names = [f"quantizer.layers.{level}.codebook" for level in range(config.codebooks)]
    for name in names:
        for of_training in ("embed_avg", "cluster_size", "inited"):
            tensors.pop(f"{name}.{of_training}", None)
    quantizer = EMAResidualVQ(
        config.hidden_size,
        codebooks=config.codebooks,
        codebook_size=config.codebook_size,
        random=np.random.default_rng(0),
    )
    quantizer.codebook[...] = jnp.stack([take_tensor(tensors, f"{name}.embed", shape) for name in names])
    return quantizer
