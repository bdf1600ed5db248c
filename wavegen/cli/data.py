"""Commands that make data sets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from tyro.conf import Positional

from wavegen.errors import WavegenError

if TYPE_CHECKING:
    from wavegen.codecs.notes.base import NoteCodec


def prepare(
    folder: Positional[Path],
    /,
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])],
    sample_rate: int = 16000,
    channels: Literal[1, 2] = 1,
    codec: Literal["note_grid", "note_events"] | None = None,
    codec_options: tuple[str, ...] = (),
    label_pattern: str | None = None,
    valid: str = "0.05",
    test: str = "0.05",
    trim_silence_db: float | None = None,
    backend: Literal["memmap", "array_record"] = "memmap",
    workers: int | None = None,
    shard_index: int = 0,
    num_shards: int = 1,
) -> None:
    """Turn a folder of recordings, or of MIDI files, into a dataset of int16 shards with checksums.

    Args:
        folder: searched with its subfolders for anything that libsndfile reads, or for MIDI files.
        out: the dataset's folder.
        sample_rate: in Hz; recordings are resampled to it.
        channels: 1 mixes recordings to mono; 2 is stereo: mono ones are duplicated, and more than two channels are
            mixed to mono and duplicated.
        codec: store the tokens of MIDI files: on a grid of voices, or as events.
        codec_options: as in a configuration, without "codec.": voices=2 low=48, or steps_per_quarter=4.
        label_pattern: labels from the path: '{digit}_{speaker}_{take}', '{genre}/*', or 'folder'.
        valid: the validation split: a fraction (0.05), labels ('take=5-9') or a path pattern ('valid/*').
        test: the test split, likewise.
        trim_silence_db: cut ends that are this much quieter than the loudest moment.
        backend: of the shards; memmap works everywhere.
        workers: processes; one a processor by default.
        shard_index: this machine's number among num-shards.
        num_shards: machines that share the work and the output folder.
    """
    from wavegen.data.prepare import prepare as run

    if codec_options and codec is None:
        raise WavegenError("--codec-options are those of --codec note_grid or note_events; say which")
    report = run(
        folder,
        out,
        sample_rate=sample_rate,
        channels=channels,
        label_pattern=label_pattern,
        split={"test": _fraction(test), "valid": _fraction(valid)},
        trim_silence_db=trim_silence_db,
        backend=backend,
        codec=None if codec is None else _note_codec(codec, codec_options),
        workers=workers,
        shard_index=shard_index,
        num_shards=num_shards,
    )
    print(report)


def tokenize(
    codec: Positional[Path], dataset: Positional[Path], /, out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
) -> None:
    """Write the tokens of a trained codec beside the recordings of a dataset, so that training need not encode them.

    Args:
        codec: a codec's run folder or .safetensors file.
        dataset: a prepared dataset.
        out: folder of the new dataset, for data.path.
    """
    from rich.progress import Progress

    from wavegen.data.dataset import Dataset
    from wavegen.data.tokenize import tokenize as run
    from wavegen.runs.trained import freeze_codec, open_trained

    frozen, source = freeze_codec(open_trained(codec)), Dataset.open(dataset)
    with Progress() as bar:
        task = bar.add_task("encoding", total=None)
        manifest = run(source, frozen, out, lambda done, total: bar.update(task, completed=done, total=total))
    frames = sum(-(-file.length // frozen.hop_length) for file in manifest.files)
    print(
        f"{out}: {frames:,} frames of {frozen.codebooks} tokens from {len(list(manifest.files)):,} recordings"
    )


def fit_codebook(
    dataset: Positional[Path],
    /,
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])],
    size: int = 512,
    n_fft: int = 2048,
    hop_length: int = 512,
    bands: int = 128,
    f_min: float = 0.0,
    f_max: float | None = None,
    split: str = "train",
    batches: int = 200,
    seed: int = 0,
    csv: Path | None = None,
) -> None:
    """Fit the codebook of a spectrogram codec by k-means; the same command goes on where it stopped.

    Args:
        dataset: a prepared dataset.
        out: NAME.safetensors, for codec.codebook.
        size: entries of the codebook.
        n_fft: samples of a frame, even; about 0.1 s.
        hop_length: samples of a code.
        bands: mel bands of a frame.
        f_min: Hz, where the first band begins.
        f_max: Hz, where the last band ends; by default half the sample rate.
        split: whose recordings are used.
        batches: of 8192 frames, to learn from in all.
        seed: of the order and of the first entries.
        csv: also write the codebook as text, a row of mel values in dB a line.
    """
    from rich.progress import Progress

    from wavegen.training.codebook import fit_codebook as run

    with Progress() as bar:
        task = bar.add_task("fitting", total=batches)

        def show(done: int, error: float) -> None:
            bar.update(task, completed=done, description=f"mean squared error {error:.2f} dB2")

        codec = run(
            dataset,
            out,
            size=size,
            n_fft=n_fft,
            hop_length=hop_length,
            bands=bands,
            f_min=f_min,
            f_max=f_max,
            split=split,
            batches=batches,
            seed=seed,
            progress=show,
        )
    if csv is not None:
        codec.to_csv(csv)
    print(f"{out}: {codec.vocab_size} entries of {codec.frames.bands} bands, one every {hop_length} samples")


def _note_codec(kind: str, options: tuple[str, ...]) -> NoteCodec:
    from wavegen.codecs.make import make_codec
    from wavegen.codecs.notes.base import NoteCodec
    from wavegen.config import resolve

    # An LSTM reads any codec: nothing but the options can be wrong.
    tree = {"model": {"kind": "lstm"}, "codec": {"kind": kind}}
    codec = make_codec(resolve(tree, [f"codec.{option}" for option in options]).codec)
    assert isinstance(codec, NoteCodec)
    return codec


def _fraction(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
