"""Prepares a folder of recordings: decodes, resamples, labels and splits them into int16 shards with checksums.

The work is a list of shards, each a pure function of its recordings and the settings. A shard whose row file names
the same inputs is left alone. The same command therefore resumes an interrupted run, does nothing the second time,
and, with ``shard_index`` and ``num_shards``, divides the work between machines that share the output folder.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, replace
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Float32, Int16

from wavegen.audio import Audio
from wavegen.config.splits import LabelPattern, SplitRule, Splits, resolved_splits
from wavegen.data.dataset import Dataset
from wavegen.data.manifest import MANIFEST, VERSION, Backend, ShardRow, SkippedRow, read_shard_row
from wavegen.data.plan import (
    AUDIO_SUFFIXES,
    MIDI_SUFFIXES,
    READERS,
    NoteTokens,
    PlannedShard,
    Settings,
    digest,
    find_recordings,
    plan_shards,
)
from wavegen.data.rendering import Rendering
from wavegen.data.report import Report
from wavegen.data.shards import Clip as Clip
from wavegen.data.shards import checked, find_file, shard_files, write_shard
from wavegen.data.splitting import duplicates, with_final_splits
from wavegen.data.write import begin, write_manifest
from wavegen.data.write import write_dataset as write_dataset
from wavegen.errors import WavegenError
from wavegen.losses import Losses
from wavegen.notes.midi import read_midi
from wavegen.progress import Progress
from wavegen.stopping import follow_parent

_CANCELLED = 0.01  # of the power, 20 dB: what opposed channels leave of themselves in the mix
DEFAULT_SPLIT: Splits = MappingProxyType({"valid": 0.05, "test": 0.05})


def prepare(
    folder: str | Path,
    out: str | Path,
    *,
    sample_rate: int,
    channels: int = 1,
    label_pattern: str | None = None,
    split: Splits = DEFAULT_SPLIT,
    split_by: str | None = None,
    pedal: bool = True,
    trim_silence_db: float | None = None,
    backend: Backend = "memmap",
    shard_bytes: int = 64 * 2**20,
    codec: NoteTokens | None = None,
    rendering: Rendering | None = None,
    workers: int | None = None,
    shard_index: int = 0,
    num_shards: int = 1,
    progress: bool = True,
) -> Report:
    """Prepares every recording, or every MIDI file, below ``folder`` into the dataset ``out``.

    Recordings that cannot be used are skipped, with the reason in the manifest and in the report. A second run writes
    only what changed; a changed dataset replaces the old one.

    Args:
        folder: the folder of recordings, searched with its subfolders, in the order of the names.
        out: folder of the dataset.
        sample_rate: sample rate in Hz, to which recordings are resampled.
        channels: 1 is mono, 2 stereo; recordings with another number of channels are mixed to mono, which every
            channel then contains.
        label_pattern: labels from the path; see ``wavegen.config.splits.LabelPattern``.
        split: see ``wavegen.config.splits.SplitRule``; by default 5 % "valid" and 5 % "test" by a hash of the name.
            Identical recordings share a split. A split with a fraction gets at least one recording where there are
            enough, and a recording that is longer than all others together is cut by time for the splits.
        split_by: a label field, or "folder": all recordings with one value, or in one folder, get the same split, and
            fractions are of the values.
        pedal: notes of MIDI files last until they fall silent, as the pedals say; False gives the times of the keys.
        trim_silence_db: cuts ends this much quieter than the loudest moment; None keeps them.
        backend: "memmap" (everywhere) or "array_record".
        shard_bytes: size of the files of recordings at which a shard is closed.
        codec: stores MIDI files as tokens of this codec; sample rate, channels and silence then do not matter.
        rendering: plays MIDI files and stores the audio with its piano rolls.
        workers: number of processes; by default one per processor, and no pool for a single shard.
        shard_index: number of this machine among ``num_shards``.
        num_shards: number of machines that share the work; the last one to finish writes the manifest.
        progress: whether to show a progress bar.

    Returns:
        What was stored and what was skipped.

    Raises:
        WavegenError: if there is no such folder, it has no recordings or none that can be used, a setting is invalid,
            or the disk is full or not writable.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from wavegen import Audio
        >>> from wavegen.data.prepare import prepare
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("wren", "robin"):
        ...         Audio(np.zeros(16000), 16000).write(f"{folder}/in/{name}.wav")
        ...     report = prepare(f"{folder}/in", Path(folder, "out"), sample_rate=8000, split={}, progress=False)
        >>> report.files, report.seconds
        ({'train': 2}, {'train': 2.0})
    """
    folder, out = Path(folder), Path(out)
    settings = Settings(
        sample_rate=sample_rate,
        channels=channels,
        label_pattern=label_pattern,
        split=dict(split),
        split_by=split_by,
        pedal=pedal,
        trim_silence_db=trim_silence_db,
        backend=backend,
        shard_bytes=shard_bytes,
        codec=codec,
        rendering=rendering,
    )
    if not 0 <= shard_index < num_shards:
        raise WavegenError(f"expected 0 <= shard_index < num_shards, got {shard_index} of {num_shards}")
    recordings = find_recordings(folder, settings.suffixes)
    names = [recording.name for recording in recordings]
    settings = replace(settings, split=resolved_splits(settings.split, names, folder))
    plan = list(plan_shards(recordings, settings))
    inputs = digest([shard.inputs for shard in plan])
    begin(out, inputs, [name for shard in plan for name in shard_files(shard.name, settings.format)])

    mine = plan[shard_index::num_shards]
    todo = [shard for shard in mine if _whole(out, shard, settings) is None]
    _run(folder, out, todo, settings, workers, progress)

    rows = [row for shard in plan if (row := _whole(out, shard, settings)) is not None]
    repeated = duplicates(rows)
    if len(rows) == len(plan):
        rows = with_final_splits(out, rows, settings)
        write_manifest(out, rows, settings.format, inputs)
    counts, samples, losses, lossy = Counter[str](), Counter[str](), Losses(), Counter[str]()
    for file in chain.from_iterable(row.files for row in rows):
        losses.update(file.losses)
        lossy.update(file.losses.keys())
        counts[file.split] += 1
        samples[file.split] += file.length
    return Report(
        out=out,
        files=dict(counts),
        seconds={name: total / settings.format.sample_rate for name, total in samples.items()},
        skipped=tuple(chain.from_iterable(row.skipped for row in rows)),
        shards_written=len(todo),
        shards_kept=len(mine) - len(todo),
        shards_missing=len(plan) - len(rows),
        notes=codec is not None,
        losses={kind: (count, lossy[kind]) for kind, count in losses.items()},
        duplicates=repeated,
        empty=tuple(
            name for name in SplitRule(settings.split).shares if len(rows) == len(plan) and not counts[name]
        ),
    )


def prepared(
    path: str | Path, cache: str | Path, *, new_in: str | Path | None = None, **settings: Any
) -> Path:
    """Returns the folder of a prepared dataset, and prepares it first where ``path`` is a folder of recordings.

    Args:
        path: a prepared dataset, used as it is, or a folder of recordings, prepared on first use.
        cache: folder for prepared datasets, whose names depend on the settings and on the names, sizes and times of
            the recordings.
        new_in: folder for what is not below ``cache`` yet; by default the same.
        **settings: settings of ``prepare``, which do not affect a dataset that is already prepared.

    Returns:
        The folder of the dataset.

    Raises:
        WavegenError: see ``prepare``.
    """
    path = Path(path)
    if (path / MANIFEST).is_file():
        return path
    codec, rendering = settings.get("codec"), settings.get("rendering")
    sources = find_recordings(path, AUDIO_SUFFIXES if codec is None and rendering is None else MIDI_SUFFIXES)
    others = ("workers", "progress", "codec", "rendering")
    content = {name: value for name, value in settings.items() if name not in others}
    if codec is not None:
        content["codec"] = codec.fingerprint
    if rendering is not None:
        content["rendering"] = asdict(rendering)
    key = digest([VERSION, READERS, [asdict(source) for source in sources], content])
    name = f"{path.resolve().name}-{key[:16]}"
    if Dataset.is_whole(out := Path(cache) / name):
        return out
    if not Dataset.is_whole(out := Path(cache if new_in is None else new_in) / name):
        prepare(path, out, **settings)
    return out


def _run(
    folder: Path,
    out: Path,
    todo: Sequence[PlannedShard],
    settings: Settings,
    workers: int | None,
    progress: bool,
) -> None:
    """Makes shards, in a pool of processes if there are several shards and several processors."""
    if not todo:
        return
    workers = min(workers or os.cpu_count() or 1, len(todo))
    files = sum(len(shard.sources) for shard in todo)
    size = sum(source.size for shard in todo for source in shard.sources)
    with Progress(hidden=not progress) as lines:
        line = lines.line(f"preparing {files:,} files", size)
        done = Counter[str]()

        def advance(*sizes: int) -> None:
            done.update(files=len(sizes), bytes=sum(sizes))
            line.update(f"prepared {done['files']:,} of {files:,} files", done["bytes"])

        if workers <= 1:
            for shard in todo:
                make_shard(folder, out, shard, settings, advance)
            return
        # Processes are spawned, not forked: a fork of a process with JAX's threads can hang.
        with ProcessPoolExecutor(workers, get_context("spawn"), initializer=follow_parent) as pool:
            running = {pool.submit(make_shard, folder, out, shard, settings): shard for shard in todo}
            try:
                for future in as_completed(running):
                    future.result()
                    advance(*(source.size for source in running[future].sources))
            except BrokenProcessPool as error:
                raise WavegenError(
                    f"a worker process died, often for lack of memory; use fewer than {workers} workers and "
                    "run again to resume: finished shards are kept"
                ) from error
            finally:
                pool.shutdown(cancel_futures=True)


def make_shard(
    folder: Path,
    out: Path,
    shard: PlannedShard,
    settings: Settings,
    advance: Callable[[int], None] = lambda size: None,
) -> None:
    """Prepares the recordings of one shard; ``advance`` is called with the size in bytes of each finished file."""
    clips = _decode(folder, shard, settings, advance)
    write_shard(out, shard.name, clips, settings.format, shard.inputs)


def _decode(
    folder: Path, shard: PlannedShard, settings: Settings, advance: Callable[[int], None]
) -> Iterator[Clip | SkippedRow]:
    """Yields the recordings of a shard as clips, and those that cannot be used as rows with the reason."""
    pattern = None if settings.label_pattern is None else LabelPattern(settings.label_pattern)
    rule = SplitRule(settings.split, settings.split_by)
    for source in shard.sources:
        labels = {} if pattern is None else pattern.labels(source.name)
        if source.problem:
            yield SkippedRow(name=source.name, reason=source.problem)
        elif labels is None:
            yield SkippedRow(name=source.name, reason=f"its name does not match {settings.label_pattern!r}")
        else:
            split, losses = rule.split(source.name, labels), Losses()
            try:
                stored, features = _stored(folder / source.name, settings, losses)
                clip = Clip(source.name, stored, labels, split, features, losses)
                checked(clip, settings.format)
                yield clip
            except WavegenError as error:
                reason = str(error).removeprefix(f"cannot read {folder / source.name}: ")
                yield SkippedRow(name=source.name, reason=reason)
        advance(source.size)


def _stored(
    path: Path, settings: Settings, losses: Losses
) -> tuple[Int16[np.ndarray, "T *C"], Float32[np.ndarray, "F D"] | None]:
    """Returns the samples of a recording, the tokens of a MIDI file, or its samples and features."""
    if settings.codec is None and settings.rendering is None:
        return _conformed(Audio.read(path, losses=losses), settings, losses), None
    notes = read_midi(path, pedal=settings.pedal, losses=losses)
    if not len(notes):
        raise WavegenError("expected notes, got none; remove it")
    if settings.codec is not None:
        return settings.codec.encode(notes).astype(np.int16), None
    assert settings.rendering is not None
    if drums := int(notes.drum.sum()):
        losses["drum notes left out"] += drums
    return settings.rendering.play(notes, settings.sample_rate)


def _conformed(audio: Audio, settings: Settings, losses: Losses) -> Int16[np.ndarray, "T C"]:
    """Converts a recording to the rate, channels and samples of the dataset, and cuts its silent ends."""
    # Lossy codecs overshoot full scale by some dB; far larger samples are unscaled integers, which clipping would ruin.
    if (peak := np.abs(audio.samples).max()) > 8:
        raise WavegenError(f"expected samples in [-1, 1], got a peak of {peak:.6g}; scale it to [-1, 1]")
    if audio.channels != settings.channels:
        mixed = audio.with_channels(settings.channels)
        if audio.channels > 1:
            losses["recordings mixed to mono"] += 1
            before, after = (np.square(part.samples, dtype=np.float64).mean() for part in (audio, mixed))
            if after < _CANCELLED * before:
                losses["recordings whose channels cancel each other in the mix"] += 1
        audio = mixed
    if audio.sample_rate != settings.sample_rate:
        losses["recordings resampled"] += 1
        audio = audio.resample(settings.sample_rate)
    if settings.trim_silence_db is not None:
        length = len(audio.samples)
        audio = audio.trim_silence(settings.trim_silence_db)
        if len(audio.samples) == 0:
            raise WavegenError("expected sound, got nothing but silence; prepare without trim_silence_db")
        if cut := length - len(audio.samples):
            losses["samples of silence cut"] += cut
    # Half a step above full scale still rounds to it.
    if clipped := int(np.count_nonzero(np.abs(audio.samples) > 1 + 0.5 / 32768)):
        losses["samples clipped"] += clipped
    pcm = audio.to_pcm16()
    if not pcm.any():
        losses["recordings of silence"] += 1
    return pcm


def _whole(out: Path, shard: PlannedShard, settings: Settings) -> ShardRow | None:
    """Returns the row of a shard that exists, was made from the same inputs and can be checked, else None."""
    row = read_shard_row(out / f"{shard.name}.json")
    if row is None or (row.name, row.inputs) != (shard.name, shard.inputs):
        return None
    try:
        row.check(settings.format)
        for file in row.data:
            find_file(out, file)
    except ValueError:  # A WavegenError, too. Whatever is wrong with it, it is made again.
        return None
    return row if all(file.checked for file in row.data) else None
