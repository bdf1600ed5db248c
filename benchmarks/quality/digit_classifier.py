"""A small convolutional classifier of spoken digits, trained on recordings: a listener for generated clips.

Log-mel frames, three strided convolutions, the mean over time, a softmax. It hears 0.6 s of a clip, wherever the clip
lies in them, at any loudness and over faint noise, so that neither length nor level gives a digit away.
"""

from collections.abc import Sequence
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from wavegen.audio import Audio
from wavegen.spectral import log_mel, mel_spectrogram

SAMPLE_RATE, SAMPLES, BANDS = 8000, 4800, 40
STEPS, BATCH, WIDTH = 1200, 64, 64


class Listener(nnx.Module):
    """Ten logits for each clip."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        widths = (BANDS, WIDTH, WIDTH, WIDTH)
        self.layers = nnx.List([nnx.Conv(a, b, 5, strides=2, rngs=rngs) for a, b in pairwise(widths)])
        self.head = nnx.Linear(WIDTH, 10, rngs=rngs)

    def __call__(self, audio: jax.Array) -> jax.Array:
        """Logits of clips ``[B, T]``."""
        mel = mel_spectrogram(audio, sample_rate=SAMPLE_RATE, n_fft=256, hop_length=80, n_mels=BANDS)
        x = log_mel(mel)
        x = x - jnp.mean(x, axis=(1, 2), keepdims=True)
        for layer in self.layers:
            x = jax.nn.gelu(layer(x))
        return self.head(jnp.mean(x, axis=1))


def fitted(clip: Audio, place: float = 0.5) -> np.ndarray:
    """0.6 s of a clip: its middle if it is longer, with silence around it if it is shorter."""
    samples = clip.samples[:, 0]
    excess = len(samples) - SAMPLES
    if excess >= 0:
        start = round(place * excess)
        return samples[start : start + SAMPLES]
    before = round(place * -excess)
    return np.pad(samples, (before, -excess - before))


def train(clips: Sequence[Audio], digits: Sequence[int], seed: int = 0) -> nnx.Module:
    """A listener that has heard these recordings."""
    listener = Listener(nnx.Rngs(seed))
    graph, params, rest = nnx.split(listener, nnx.Param, ...)
    optimizer = optax.adamw(optax.cosine_decay_schedule(2e-3, STEPS), weight_decay=1e-2)
    state = optimizer.init(params)
    rng = np.random.default_rng(seed)

    @jax.jit
    def step(params, state, audio, digits):
        def loss(params):
            logits = nnx.merge(graph, params, rest)(audio)
            return optax.softmax_cross_entropy_with_integer_labels(logits, digits).mean()

        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value

    known = np.asarray(digits)
    for _ in range(STEPS):
        chosen = rng.integers(len(clips), size=BATCH)
        audio = np.stack([fitted(clips[i], rng.random()) for i in chosen])
        audio = audio * 10 ** rng.uniform(-0.5, 0.5, (BATCH, 1))
        audio = audio + rng.normal(size=audio.shape) * 10 ** rng.uniform(-5, -2.5, (BATCH, 1))
        params, state, _ = step(params, state, jnp.asarray(audio, jnp.float32), known[chosen])
    return nnx.merge(graph, params, rest)


def accuracy(listener: nnx.Module, clips: Sequence[Audio], digits: Sequence[int]) -> float:
    """The share of clips whose digit is understood."""
    heard = jax.jit(lambda audio: listener(audio))(jnp.asarray(np.stack([fitted(clip) for clip in clips])))
    return float(np.mean(np.argmax(heard, axis=1) == np.asarray(digits)))
