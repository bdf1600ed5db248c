"""Writes the tokens of a learned codec next to their recordings, so that training need not encode."""

from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from wavegen.codecs.learned import LearnedCodec
from wavegen.data.dataset import Dataset
from wavegen.data.manifest import Manifest
from wavegen.data.shards import Clip
from wavegen.data.write import write_dataset
from wavegen.errors import WavegenError

_SHAPES = 8
"""Lengths are padded to one of this many per doubling, because encoding is compiled for each length."""

_encode = jax.jit(lambda codec, waveform: codec.encode(waveform))


def tokenize(
    dataset: Dataset, codec: LearnedCodec, out: str | Path, progress: Callable[[int, int], None] | None = None
) -> Manifest:
    """Writes a dataset of the same recordings with their tokens.

    Each recording is encoded as a whole. A training on the recordings themselves encodes crops, whose tokens differ a
    little at their ends.

    Args:
        dataset: the recordings, at the codec's sample rate and with its channels.
        codec: the codec; tokens of all its codebooks are written.
        out: folder of the new dataset; an existing one is replaced.
        progress: called after every recording with the number of finished recordings and that of all.

    Returns:
        The manifest, as written.

    Raises:
        WavegenError: if the dataset differs from the codec in sample rate or channels, ``out`` is the dataset itself,
            or the folder is not writable.
    """
    if (dataset.sample_rate, dataset.channels) != (codec.sample_rate, codec.audio_channels):
        raise WavegenError(
            f"expected a dataset of {codec.audio_channels} channel(s) of {codec.sample_rate} Hz, got "
            f"{dataset.channels} of {dataset.sample_rate} Hz; prepare one with --channels {codec.audio_channels} "
            f"--sample-rate {codec.sample_rate}"
        )
    if Path(out).resolve() == dataset.path.resolve():
        raise WavegenError(f"{out} is the dataset itself; write its tokens to another folder")
    clips = _clips(dataset, codec, progress)
    return write_dataset(
        out,
        clips,
        dataset.sample_rate,
        codec.hop_length,
        channels=dataset.channels,
        codec=codec.fingerprint,
        backend="memmap",
    )


def _clips(
    dataset: Dataset, codec: LearnedCodec, progress: Callable[[int, int], None] | None
) -> Iterator[Clip]:
    total, done = sum(1 for _ in dataset.manifest.files), 0
    for split in dataset.splits:
        files = dataset.split(split)
        for row in range(len(files)):
            pcm = dataset.read(files, row, 0, int(files.length[row]))
            values = zip(dataset.labels.items(), files.labels[row], strict=True)
            labels = {field: known[number] for (field, known), number in values}
            yield Clip(files.names[row], pcm, labels, split, _tokens(codec, pcm))
            done += 1
            if progress is not None:
                progress(done, total)


def _tokens(codec: LearnedCodec, pcm: np.ndarray) -> np.ndarray:
    frames = -(-len(pcm) // codec.hop_length)
    step = max(1 << (frames.bit_length() - 1), _SHAPES) // _SHAPES
    samples = -(-frames // step) * step * codec.hop_length
    waveform = np.pad(pcm.astype(np.float32) / 32768, ((0, samples - len(pcm)), (0, 0)))
    if codec.audio_channels == 1:
        waveform = waveform[:, 0]
    return np.asarray(_encode(codec, jnp.asarray(waveform)[None]))[0, :frames].astype(np.float32)
