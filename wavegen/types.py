"""The axis vocabulary: one letter, one meaning, in every signature of the library.

| letter | axis |
| --- | --- |
| B | batch: clips side by side |
| T | samples of a waveform |
| C | audio channels |
| N | token frames (for mu-law a frame is a sample, so N equals T) |
| K | codebooks: tokens per frame |
| V | vocabulary: values one token can take |
| F | frames of a condition (features at frame rate) |
| D | width of a feature vector |
| Y | label fields |
| L | layers |
| R, G, S, H, O | residual, gate, skip, head and output channels of a WaveNet |
"""

from jaxtyping import Array, Float, Int, Int16

Waveform = Float[Array, "B T"]
"""Mono waveforms, float32 in [-1, 1]."""
AnyWaveform = Float[Array, "B T *C"]
"""Waveforms, mono as [B, T] or stereo as [B, T, 2]."""
Pcm = Int16[Array, "B T *C"]
"""The same as they travel from disk to device: 16-bit integers."""
Tokens = Int[Array, "B N K"]
"""What every codec writes and every token model reads; values in [0, vocab_size)."""
Logits = Float[Array, "B N K V"]
"""What a token model returns: at frame n, the parameters of the distribution of the token of frame n + 1."""
Features = Float[Array, "B F D"]
"""Conditions at frame rate; each model says how many samples a frame spans."""
Labels = Int[Array, "B Y"]
"""Global conditions: one integer per label field and clip."""
