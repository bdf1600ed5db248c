"""The device half of the pipeline, the same for every model: int16 crops to inputs, targets and mask.

All functions are pure and run inside the jitted training step, so that only int16 crosses to the device.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from wavegen.codecs.base import AudioCodec, Codec
from wavegen.codecs.notes.base import NoteCodec
from wavegen.networks.base import frame_mask
from wavegen.types import AnyWaveform, Pcm, Tokens


def to_waveform(pcm: Pcm) -> AnyWaveform:
    """int16 to float32 in [-1, 1): divided by 32768."""
    return pcm.astype(jnp.float32) / 32768


def augment(
    waveform: AnyWaveform,
    key: Key[Array, ""],
    gain_db: tuple[float, float] = (0.0, 0.0),
    polarity: bool = False,
) -> AnyWaveform:
    """A random gain, and a random sign, for each clip; clipped to [-1, 1].

    Args:
        waveform: both channels of a stereo clip are changed alike.
        key: PRNG key.
        gain_db: lowest and highest gain in decibels, drawn uniformly; (0, 0) leaves the loudness.
        polarity: flip the sign of every second clip or so; inaudible, and a new example to a model.
    """
    gain_key, sign_key = jax.random.split(key)
    shape = (waveform.shape[0],) + (1,) * (waveform.ndim - 1)
    if gain_db != (0.0, 0.0):
        low, high = gain_db
        decibels = jax.random.uniform(gain_key, shape, jnp.float32, minval=low, maxval=high)
        waveform = jnp.clip(waveform * 10 ** (decibels / 20), -1, 1)
    if polarity:
        waveform = waveform * jax.random.rademacher(sign_key, shape, dtype=waveform.dtype)
    return waveform


def _hold_last(waveform: AnyWaveform, length: Int[Array, "B"]) -> AnyWaveform:
    """Repeats the last sample of a clip behind its end: zeros would move the extremes of a window."""
    last = jnp.maximum(length - 1, 0)[:, None]
    return jnp.take_along_axis(waveform, jnp.minimum(jnp.arange(waveform.shape[1])[None], last), axis=1)


def shift(tokens: Tokens, start_token: int) -> Tokens:
    """What a causal model reads to predict ``tokens``: the start token in front, the last frame dropped."""
    return jnp.pad(tokens, ((0, 0), (1, 0), (0, 0)), constant_values=start_token)[:, :-1]


def make_example(
    batch: Mapping[str, Array],
    codec: Codec | None,
    key: Key[Array, ""] | None = None,
    *,
    gain_db: tuple[float, float] = (0.0, 0.0),
    polarity: bool = False,
    input_noise: float = 0.0,
    transpose: int = 0,
) -> dict[str, Array]:
    """Turns a host batch into what objectives read.

    Args:
        batch: of ``BatchSource`` or ``EvaluationSource``.
        codec: waveform to tokens; None, as for a model that is a codec itself, makes none.
        key: PRNG key of this step; None, as for evaluation, leaves the waveforms as they are.
        gain_db: see ``augment``.
        polarity: see ``augment``.
        input_noise: standard deviation, in levels, of Gaussian noise on the inputs; needs a key.
        transpose: largest number of semitones by which clips of notes are moved, up or down; needs a key.

    Returns:
        waveform: float32 [B, T], or [B, T, 2], in [-1, 1]; not of notes.
        targets: int [B, N, K], the codec's tokens, or those of the batch; it and the next two only with a codec.
        inputs: int [B, N, K], the same one frame later, behind the codec's start token.
        mask: bool [B, N], the frames that count in a loss or a likelihood.
        labels: int32 [B, fields].
        length: int32 [B], samples of the clip; what comes after is padding.
        features: float32 [B, F, D], if the batch has them.
    """
    example = {"labels": batch["labels"], "length": batch["length"]}
    if "pcm" in batch:
        waveform = to_waveform(batch["pcm"])
        if key is not None:
            waveform = augment(waveform, key, gain_db, polarity)
        example["waveform"] = waveform
    if codec is not None:
        if isinstance(codec, AudioCodec) and "tokens" not in batch:
            waveform = example["waveform"]
            if codec.window is not None:
                waveform = _hold_last(waveform, batch["length"])
            targets = codec.encode(waveform)
        else:
            targets = batch["tokens"][..., : codec.codebooks]
        if isinstance(codec, NoteCodec) and key is not None and transpose:
            drawn = jax.random.randint(
                jax.random.fold_in(key, 2), targets.shape[:1], -transpose, transpose + 1
            )
            targets = codec.transposed(targets, drawn)
        inputs = shift(targets, codec.start_token)
        if key is not None and input_noise > 0:
            noise = input_noise * jax.random.normal(jax.random.fold_in(key, 1), inputs.shape, jnp.float32)
            inputs = jnp.clip(inputs + jnp.round(noise).astype(inputs.dtype), 0, codec.vocab_size - 1)
        mask = frame_mask(batch["context"], batch["length"], targets.shape[1], codec.hop_length)
        example |= {"targets": targets, "inputs": inputs, "mask": mask}
    if "features" in batch:
        example["features"] = batch["features"]
    return example
