"""Commands on codecs: what comes back from one, what lies between two recordings, tokens and codebooks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from tyro.conf import Positional

from wavegen.cli.options import Out, refuse, result_name
from wavegen.cli.ranges import Bands, Batches, Codebooks, Entries, Hertz, Hop, Seed, Steps, Window
from wavegen.cli.show import print_facts, write_clips, write_comparison, write_scores
from wavegen.cli.work import shown
from wavegen.errors import WavegenError
from wavegen.progress import Progress

if TYPE_CHECKING:
    from wavegen.generation.windows import WindowGenerator


def reconstruct(
    run: Positional[Path],
    recording: Positional[Path],
    /,
    out: Out = Path("generated"),
    codebooks: Annotated[Codebooks | None, tyro.conf.arg(aliases=["--levels"])] = None,
) -> None:
    """Encodes and decodes a recording, or a score, and measures what comes back.

    Args:
        run: a run folder or a .safetensors file of a codec, a vocoder, or a variational autoencoder of notes.
        recording: a recording, mixed to mono for a mono codec or duplicated for a stereo one; for an autoencoder of
            notes a MIDI file.
        out: folder for the WAV file and its picture, or for the MIDI file.
        codebooks: how many of the codec's codebooks are used, from the first on; by default all.
    """
    import wavegen
    from wavegen.audio import Audio
    from wavegen.evaluation.reconstruction import compare

    model = wavegen.load(run)
    path = out / f"{result_name(run)}-{recording.stem}"
    if isinstance(model, wavegen.WindowGenerator):
        refuse("an autoencoder of notes", codebooks=codebooks)
        _reconstruct_notes(model, recording, path)
        return
    audio = Audio.read(recording)
    if isinstance(model, wavegen.Reconstructor):
        result = model.reconstruct(audio, codebooks=codebooks)
        share = (codebooks or model.codec.codebooks) / model.codec.codebooks
        print_facts({"rate": f"{model.bits_per_second * share:,.0f} bits per second"})
    elif isinstance(model, wavegen.AudioGenerator):
        refuse("a vocoder", codebooks=codebooks)
        with shown("generating") as work:
            result = model.generate(like=audio, progress=work)[0]
    else:
        raise WavegenError(
            f"{run} is a masked model; try wavegen sample {run} --prompt {recording} --vary 0.3"
        )
    original = audio.with_channels(result.channels).resample(model.sample_rate)
    print_facts({name: f"{value:.2f}" for name, value in compare(result, original).items()})
    write_comparison(result, original, path.with_name(f"{path.name}.wav"))


def interpolate(
    run: Positional[Path],
    first: Positional[Path],
    last: Positional[Path],
    /,
    steps: Steps = 7,
    out: Out = Path("generated"),
) -> None:
    """Goes in steps from one score, or recording, to another, through the latents of an autoencoder.

    The first and the last result are reconstructions of the two files.

    Args:
        run: a run of a variational autoencoder of notes, for MIDI files, or of a codec, for recordings.
        first: the file at the start.
        last: the file at the end.
        steps: number of results, the two ends included; scores are also joined into one more MIDI file.
        out: folder for the files.
    """
    import wavegen
    from wavegen.audio import Audio
    from wavegen.notes.arrange import concatenate, with_same_tracks
    from wavegen.notes.midi import read_midi

    model, path = wavegen.load(run), out / f"{first.stem}-to-{last.stem}"
    if isinstance(model, wavegen.Reconstructor):
        write_clips(model.interpolate(Audio.read(first), Audio.read(last), steps), path)
        return
    if not isinstance(model, wavegen.WindowGenerator):
        raise WavegenError(
            f"interpolating takes a model.kind=window_vae or a codec, got {model.config.model.kind}; train one with "
            "configs/chorales-vae.yaml"
        )
    pieces = model.interpolate(read_midi(first), read_midi(last), steps)
    write_scores(pieces, path)
    write_scores([concatenate(with_same_tracks(pieces))], path.with_name(f"{path.name}-all"))


def _reconstruct_notes(model: WindowGenerator, piece: Path, path: Path) -> None:
    from wavegen.notes.midi import read_midi

    notes = read_midi(piece)
    result = model.reconstruct(notes)
    print_facts({"accuracy": f"{model.accuracy(notes):.4f} of the tokens"})
    write_scores([result], path)


def tokenize(codec: Positional[Path], dataset: Positional[Path], /, out: Out) -> None:
    """Encodes a dataset with a trained codec, once, so that training reads tokens.

    The new dataset holds the tokens and the recordings.

    Args:
        codec: a codec's run folder or .safetensors file.
        dataset: a prepared dataset.
        out: folder of the new dataset, for data.path.
    """
    from wavegen.data.dataset import Dataset
    from wavegen.data.tokenize import tokenize as run
    from wavegen.runs.trained import freeze_codec, open_trained

    frozen, source = freeze_codec(open_trained(codec)), Dataset.open(dataset)
    with Progress() as progress:
        line = progress.line("encoding")
        manifest = run(source, frozen, out, lambda done, total: line.update(done=done, total=total))
    frames = sum(-(-file.length // frozen.hop_length) for file in manifest.files)
    print(
        f"{out}: {frames:,} frames of {frozen.codebooks} tokens from {len(list(manifest.files)):,} recordings"
    )


def fit_codebook(
    dataset: Positional[Path],
    /,
    out: Out,
    size: Entries = 512,
    n_fft: Window = 2048,
    hop_length: Hop = 512,
    bands: Bands = 128,
    f_min: Hertz = 0.0,
    f_max: Hertz | None = None,
    split: str = "train",
    batches: Batches = 200,
    seed: Seed = 0,
    csv: Path | None = None,
) -> None:
    """Fits the codebook of a spectrogram codec by k-means; run it again to resume.

    Args:
        dataset: a prepared dataset.
        out: NAME.safetensors, for codec.codebook.
        size: number of entries of the codebook.
        n_fft: samples per frame, an even number; about 0.1 s.
        hop_length: samples from one code to the next.
        bands: mel bands per frame.
        f_min: where the first band begins, in Hz.
        f_max: where the last band ends, in Hz; by default half the sample rate.
        split: the split whose recordings are used.
        batches: of 8192 frames, to learn from in all.
        seed: of the order of the frames and of the first entries.
        csv: also write the codebook to this text file, with the mel values of one entry, in dB, per line.
    """
    from wavegen.training.codebook import fit_codebook as run

    with Progress() as progress:
        line = progress.line("fitting", batches)
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
            progress=lambda done, error: line.update(f"mean squared distance {error:.2f} dB2", done),
        )
    if csv is not None:
        codec.to_csv(csv)
    print(f"{out}: {codec.vocab_size} entries of {codec.frames.bands} bands, one every {hop_length} samples")
