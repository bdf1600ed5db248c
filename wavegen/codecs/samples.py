"""Codecs whose frame is one sample: mu-law, linear, and the scaled windows of the SaShiMi paper.

Mu-law companding (ITU-T G.711, in the continuous form of van den Oord et al. 2016, "WaveNet: A Generative Model for
Raw Audio", section 2.2) is

    f(x) = sign(x) ln(1 + mu |x|) / ln(1 + mu)

This module alone decides how the companded range [-1, 1] is rounded to integers. Companded codes are decoded with a
table that the host computes in float64: XLA's exponential differs in its last bit between a vector loop and its tail,
so that a clip would not decode alike alone and in a batch.
"""

from dataclasses import dataclass, replace
from math import log1p
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from wavegen.codecs.base import AudioCodec
from wavegen.errors import WavegenError
from wavegen.types import Tokens, Waveform


def compress(x: Float[Array, "*axes"], mu: float) -> Float[Array, "*axes"]:
    """Returns the mu-law curve ``f``: amplitudes in [-1, 1] to [-1, 1], odd and increasing."""
    # On a CPU XLA's log1p takes three times as long as log; the difference lies far below a step.
    return jnp.sign(x) * jnp.log(1 + mu * jnp.abs(x)) / log1p(mu)


def expand(u: Float[np.ndarray, "V"], mu: float) -> Float[np.ndarray, "V"]:
    """Returns the inverse of ``compress``, computed on the host: ``sign(u) ((1 + mu)^|u| - 1) / mu``, float32."""
    return (np.sign(u) * np.expm1(np.abs(u) * log1p(mu)) / mu).astype(np.float32)


@jax.tree_util.register_static
@dataclass(frozen=True)
class MuLaw(AudioCodec):
    """Mu-law companding with ``mu = levels - 1``.

    Encoding rounds to the nearest of ``levels`` points that include both ends, halves upwards: ``q = floor((f(x) + 1)
    / 2 * mu + 1/2)``. Decoding takes the point itself: ``x = f^-1(2 q / mu - 1)``. Therefore ``encode(decode(q)) ==
    q``, and the error of ``f(x)`` is at most half a step, ``1 / mu``. An even number of levels has no point at 0:
    silence is the point just above, ``levels // 2``, which is 128 of 256, amplitude 8.6e-5.

    Args:
        levels: size of the vocabulary, from 2 to 65536.

    Raises:
        WavegenError: if ``levels`` is out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> from wavegen.codecs.samples import MuLaw
        >>> codec = MuLaw()
        >>> tokens = codec.encode(jnp.array([[-1.0, 0.0, 0.1, 1.0]]))
        >>> tokens[0, :, 0].tolist()
        [0, 128, 203, 255]
        >>> [round(sample, 2) for sample in codec.decode(tokens)[0].tolist()]
        [-1.0, 0.0, 0.1, 1.0]
    """

    levels: int = 256
    codebooks: ClassVar[int] = 1
    hop_length: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not 2 <= self.levels <= 65536:
            raise WavegenError(f"mu-law needs 2 to 65536 levels, got {self.levels}; 256 is the usual choice")

    @property
    def vocab_size(self) -> int:
        """Number of levels."""
        return self.levels

    @property
    def start_token(self) -> int:
        """The token of silence."""
        return self.levels // 2

    @property
    def mu(self) -> int:
        """Strength of the companding of code space."""
        return self.levels - 1

    def encode(self, audio: Waveform) -> Tokens:
        """See ``AudioCodec.encode``; amplitudes outside [-1, 1] are clipped."""
        u = compress(jnp.clip(audio.astype(jnp.float32), -1, 1), self.mu)
        return jnp.floor((u + 1) / 2 * self.mu + 0.5).astype(jnp.int32)[..., None]

    def decode(self, tokens: Tokens) -> Waveform:
        """See ``AudioCodec.decode``."""
        points = expand(2 * np.arange(self.levels) / self.mu - 1, self.mu)
        return jnp.asarray(points)[tokens[..., 0]]


@jax.tree_util.register_static
@dataclass(frozen=True)
class Linear(AudioCodec):
    """Uniform steps: ``q = round(x levels / 2) + levels / 2``, ``x = (q - levels / 2) / (levels / 2)``.

    Encoding rounds to the nearest level, halves to even. As in two's complement there are tokens for -1 and for 0 but
    none for +1, which is clipped to the last token. 65536 levels keep 16-bit audio exactly.

    Args:
        levels: size of the vocabulary, even, from 2 to 65536.

    Raises:
        WavegenError: if ``levels`` is odd or out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> from wavegen.codecs.samples import Linear
        >>> codec = Linear(256)
        >>> tokens = codec.encode(jnp.array([[-1.0, 0.0, 0.5, 1.0]]))
        >>> tokens[0, :, 0].tolist(), codec.decode(tokens).tolist()
        ([0, 128, 192, 255], [[-1.0, 0.0, 0.5, 0.9921875]])
    """

    levels: int = 65536
    codebooks: ClassVar[int] = 1
    hop_length: ClassVar[int] = 1
    mu: ClassVar[int] = 0

    def __post_init__(self) -> None:
        if not 2 <= self.levels <= 65536 or self.levels % 2:
            raise WavegenError(
                f"linear quantization needs an even number of 2 to 65536 levels, got {self.levels}; "
                "256 is 8 bits, 65536 is 16 bits"
            )

    @property
    def vocab_size(self) -> int:
        """Number of levels."""
        return self.levels

    @property
    def start_token(self) -> int:
        """The token of silence."""
        return self.levels // 2

    def encode(self, audio: Waveform) -> Tokens:
        """See ``AudioCodec.encode``; amplitudes outside [-1, 1] are clipped."""
        half = self.levels // 2
        q = jnp.round(audio.astype(jnp.float32) * half) + half
        return jnp.clip(q, 0, self.levels - 1).astype(jnp.int32)[..., None]

    def decode(self, tokens: Tokens) -> Waveform:
        """See ``AudioCodec.decode``."""
        half = self.levels // 2
        return (tokens[..., 0].astype(jnp.float32) - half) / half


@jax.tree_util.register_static
@dataclass(frozen=True)
class Sashimi(AudioCodec):
    """The 8-bit coding of Goel et al. 2022, "It's Raw! Audio Generation with State-Space Models".

    Every window is first stretched to the full range, so that the coding depends on the whole window and loses its
    level. It serves to compare likelihoods with that paper and those that follow it, and nothing else. A recording is
    cut into windows from its start, without overlap; in an experiment they have ``data.crop`` samples.

        linear: u = (x - min) / (max - min + 1e-6)
        mulaw:  y = -1 + 2 (x - min) / (max - min + 1e-6)
                u = (sign(y) ln(1 + 255 |y + 1e-8|) / ln 256 + 1) / 2
        q = floor(u (256 - 0.01) + 0.005)

    Decoding takes ``q / 128 - 1`` (the lower edge of a bin, not its centre), then expands it for mu-law. It returns
    the stretched window, not the original level, and a constant window becomes token 0, not the start token 128. The
    paper's windows have 128000 samples (Beethoven, linear), 131072 (YouTubeMix, mu-law) and 16000 (SC09, mu-law), all
    at 16 kHz.

    Args:
        quantization: "linear" or "mulaw".
        window: samples of a window; None takes each row as one.

    Raises:
        WavegenError: if ``quantization`` is neither.

    Example:
        >>> import jax.numpy as jnp
        >>> from wavegen.codecs.samples import Sashimi
        >>> codec = Sashimi("linear")
        >>> tokens = codec.encode(jnp.array([[0.0, 0.1, 0.4]]))
        >>> tokens[0, :, 0].tolist(), codec.decode(tokens).tolist()
        ([0, 64, 255], [[-1.0, -0.5, 0.9921875]])
    """

    quantization: str = "linear"
    window: int | None = None
    vocab_size: ClassVar[int] = 256
    codebooks: ClassVar[int] = 1
    hop_length: ClassVar[int] = 1
    start_token: ClassVar[int] = 128

    def __post_init__(self) -> None:
        if self.quantization not in ("linear", "mulaw"):
            raise WavegenError(f'expected the quantization "linear" or "mulaw", got "{self.quantization}"')

    @property
    def period(self) -> int:
        """Samples after which windows recur."""
        return self.window or 1

    def with_window(self, samples: int) -> "Sashimi":
        """See ``Codec``."""
        return replace(self, window=samples)

    @property
    def mu(self) -> int:
        """Strength of the companding of code space; 0 is none."""
        return 255 if self.quantization == "mulaw" else 0

    def encode(self, audio: Waveform) -> Tokens:
        """See ``AudioCodec.encode``; the last window of a row may be shorter than the others."""
        length, window = audio.shape[1], self.window or audio.shape[1]
        # Repeating the last sample moves no extremes.
        windows = jnp.pad(audio, ((0, 0), (0, -length % window)), mode="edge").reshape(-1, window)
        return self._encode_windows(windows).reshape(len(audio), -1, 1)[:, :length]

    def _encode_windows(self, audio: Waveform) -> Tokens:
        x = audio.astype(jnp.float32)
        low, high = x.min(axis=1, keepdims=True), x.max(axis=1, keepdims=True)
        if self.mu:
            # In float32 1e-8 vanishes next to |y| > 0.25, but the published codes depend on it.
            y = 2 * (x - low) / (high - low + 1e-6) - 1
            u = (jnp.sign(y) * (jnp.log1p(self.mu * jnp.abs(y + 1e-8)) / log1p(self.mu)) + 1) / 2
        else:
            u = (x - low) / (high - low + 1e-6)
        return jnp.floor(u * (256 - 0.01) + 0.005).astype(jnp.int32)[..., None]

    def decode(self, tokens: Tokens) -> Waveform:
        """See ``AudioCodec.decode``."""
        u = np.arange(256) / 128 - 1
        points = expand(u, self.mu) if self.mu else u.astype(np.float32)
        return jnp.asarray(points)[tokens[..., 0]]
