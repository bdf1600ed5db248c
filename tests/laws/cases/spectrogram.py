"""Spectrogram codecs: the learned one with every quantizer, and a codebook of frames."""

from functools import cache, partial
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory

import jax
import jax.numpy as jnp
import numpy as np

from laws.audio_codec import BATCH, LAWS, OF_CODEBOOKS, Case, tokens_are_in_range
from laws.registered import Registered, registered
from wavegen.codecs.learned import freeze
from wavegen.codecs.make import make_codec
from wavegen.codecs.quantizers import FSQ, EMAResidualVQ, GradientVQ
from wavegen.codecs.spectrogram.codebook import SpectrogramCodebook
from wavegen.codecs.spectrogram.frames import MelFrames
from wavegen.codecs.spectrogram.network import SpectrogramVQ
from wavegen.config.codec_models import VocoderConfig
from wavegen.config.codecs import SpectrogramCodecConfig

RATE, HOP, STRIDE, LATENT = 8000, 32, 2, 4
FRAMES = MelFrames(RATE, n_fft=128, hop_length=HOP, bands=10)
WINDOW = FRAMES.n_fft // 2 // HOP
"""Frames to either side that a frame's window reaches."""
QUANTIZERS = {
    "EMA": lambda random: EMAResidualVQ(LATENT, codebooks=2, codebook_size=16, random=random),
    "gradient": lambda random: GradientVQ(LATENT, codebooks=2, codebook_size=16, random=random),
    "FSQ": lambda random: FSQ(LATENT, sizes=(4, 4), codebooks=2, random=random),
}
VOCODER = VocoderConfig(width=8, depth=2)
rows_of = jax.jit(FRAMES.from_audio)


def tones(seed: int, batch: int, length: int) -> np.ndarray:
    """Tones of half a thousand samples, one of four pitches each, over a little noise."""
    random = np.random.default_rng(seed)
    pitch = np.repeat(random.choice([250, 500, 1000, 2000], (batch, -(-length // 500))), 500, axis=1)
    phase = 2 * np.pi * np.cumsum(pitch[:, :length], axis=1) / RATE
    return (0.3 * np.sin(phase) + 0.003 * random.standard_normal((batch, length))).astype(np.float32)


def rows() -> np.ndarray:
    """Of other tones."""
    return np.asarray(rows_of(jnp.asarray(tones(9, 1, 100 * HOP))))[0]


def build(quantizer: str = "EMA", vocoder: VocoderConfig | None = None) -> SpectrogramVQ:
    random = np.random.default_rng(0)
    codec = SpectrogramVQ(
        frames=FRAMES,
        stride=STRIDE,
        width=16,
        depth=1,
        quantizer=QUANTIZERS[quantizer](random),
        vocoder=vocoder,
        random=random,
    )
    codec.standardise([jnp.asarray(tones(9, 1, 100 * HOP))])
    return codec


@cache
def make_network_case(quantizer: str, vocoder: VocoderConfig | None = None) -> Case:
    # A window that only touches a cut is 0 there.
    reach = ceil((build(quantizer).reach + WINDOW) / STRIDE)
    return Case(
        lambda: freeze(build(quantizer, vocoder), sample_rate=RATE),
        tones(0, BATCH, 40 * HOP),
        reach=(reach, reach),
        tolerance=2e-3,
    )


@cache
def make_codebook_case() -> Case:
    codebook = np.concatenate([rows()[::4], np.full((1, FRAMES.bands), FRAMES.silence, np.float32)])

    def make():
        with TemporaryDirectory() as folder:
            path = Path(folder) / "codec.safetensors"
            SpectrogramCodebook(codebook, frames=FRAMES).save(path)
            return make_codec(SpectrogramCodecConfig(codebook=str(path)))

    return Case(make, tones(0, BATCH, 40 * HOP), reach=(WINDOW - 1, WINDOW), tolerance=2e-3)


NETWORK_CASES = {
    **registered(make_network_case, ["EMA"], LAWS + OF_CODEBOOKS),
    **registered(make_network_case, ["gradient", "FSQ"], (tokens_are_in_range,)),
    "vocoder": Registered(partial(make_network_case, "EMA", VOCODER), LAWS),
}
CODEBOOK_CASES = {"tones": Registered(make_codebook_case, LAWS)}
