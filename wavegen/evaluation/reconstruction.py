"""How close a reconstruction is to its recording."""

import jax.numpy as jnp

from wavegen.audio import Audio
from wavegen.codecs.waveform.loss import audio_losses
from wavegen.generation.requests import waveform_of
from wavegen.spectral import si_sdr


def compare(estimate: Audio, target: Audio) -> dict[str, float]:
    """Returns the figures by which codecs are judged.

    Args:
        estimate: the reconstruction, mono or stereo.
        target: the recording, with the channels and the rate of the reconstruction; the longer of both is cut.

    Returns:
        si_sdr: scale-invariant signal-to-distortion ratio in dB; higher is better. It means little for codecs that do
            not keep phases, such as those of spectrograms.
        mel: multi-scale log-mel distance; lower is better.
        stft: multi-resolution STFT loss; lower is better.
    """
    length = min(len(estimate.samples), len(target.samples))
    ours, theirs = (
        jnp.asarray(waveform_of(audio, audio.sample_rate, audio.channels))[:, :length]
        for audio in (estimate, target)
    )
    losses = audio_losses(ours, theirs, target.sample_rate)
    return {
        "si_sdr": float(si_sdr(ours, theirs)[0]),
        "mel": float(losses["mel"]),
        "stft": float(losses["stft"]),
    }
