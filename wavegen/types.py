"""The axis vocabulary: the letters that stand for axes in signatures.

| letter | axis |
| --- | --- |
| B | batch: clips computed together |
| T | samples of a waveform |
| C | audio channels |
| N | token frames (for mu-law a frame is a sample, so N equals T) |
| K | codebooks: tokens per frame |
| V | vocabulary: values that one token can take |
| F | frames of a condition (features at frame rate) |
| D | width of a feature vector |
| Y | label fields |
| L | layers |
| R, G, S, H, O | residual, gate, skip, head and output channels of a WaveNet |

Outside the WaveNet the letters of the last row are free: a layer that maps frames to frames has ``B T D`` and ``B S
E``.
"""

from jaxtyping import Array, Float, Int, Int16

Waveform = Float[Array, "B T"]
"""Mono waveforms, float32 in [-1, 1]."""
AnyWaveform = Float[Array, "B T *C"]
"""Waveforms: [B, T] for mono, [B, T, 2] for stereo."""
Pcm = Int16[Array, "B T *C"]
"""The same waveforms as they travel from disk to device: 16-bit integers."""
Tokens = Int[Array, "B N K"]
"""What codecs write and token models read: values in ``[0, vocab_size)``.

A masked model also reads ``vocab_size``, which stands for a token that it is to predict.
"""
Logits = Float[Array, "B N K V"]
"""What a token model returns: parameters of the distribution of each token, float32.

At frame n a causal model describes the token of frame n + 1, and a masked model that of frame n itself.
"""
Features = Float[Array, "B F D"]
"""Conditions at frame rate; each model documents how many samples a frame spans."""
Labels = Int[Array, "B Y"]
"""Global conditions: one integer per clip and label field."""
