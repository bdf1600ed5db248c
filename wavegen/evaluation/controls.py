"""Controls: what a figure says of sound that is known to be good, coded, tonal, noisy or out of order.

A figure that does not put them in the order in which an ear does says nothing about generated sound either.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from wavegen.audio import Audio
from wavegen.codecs.samples import MuLaw

SHUFFLED_SECONDS = 0.05
TONE_HZ = 440.0


def coded(audio: Audio) -> Audio:
    """Returns a recording in 256 levels (mu-law) and back: what a perfect model of its tokens would sound like."""
    wave, codec = audio.mono().samples[:, 0], MuLaw()
    # One program for many lengths; each sample is coded on its own.
    padded = np.pad(wave, (0, (1 << max(len(wave) - 1, 0).bit_length()) - len(wave)))
    decoded = np.asarray(codec.decode(codec.encode(jnp.asarray(padded[None]))))[0]
    return Audio(decoded[: len(wave)], audio.sample_rate)


def sine(audio: Audio, pitch: Float[np.ndarray, "T"] | float = TONE_HZ) -> Audio:
    """Returns a sine that is as long and as loud as a recording.

    Args:
        audio: the recording.
        pitch: frequency in Hz, of the whole or of each sample; 0 is silence.
    """
    length, rate = len(audio.samples), audio.sample_rate
    frequency = np.broadcast_to(np.asarray(pitch, np.float64), (length,))
    wave = np.sin(2 * np.pi * np.cumsum(frequency / rate)) * (frequency > 0)
    size = np.sqrt(np.mean(wave**2))
    return Audio(wave * (_rms(audio) / size if size else 0.0), rate)


def noise(audio: Audio, seed: int = 0) -> Audio:
    """Returns white noise that is as long and as loud as a recording."""
    random = np.random.Generator(np.random.Philox(seed))
    return Audio(random.normal(0, _rms(audio), len(audio.samples)), audio.sample_rate)


def shuffled(audio: Audio, seed: int = 0) -> Audio:
    """Returns a recording whose frames of 50 ms are in random order; a remainder stays at the end."""
    wave = audio.mono().samples[:, 0]
    size = max(round(SHUFFLED_SECONDS * audio.sample_rate), 1)
    whole = len(wave) // size * size
    frames = wave[:whole].reshape(-1, size)
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(frames))
    return Audio(np.concatenate([frames[order].ravel(), wave[whole:]]), audio.sample_rate)


def _rms(audio: Audio) -> float:
    return float(np.sqrt(np.mean(np.square(audio.mono().samples, dtype=np.float64))))
