"""How well a note-conditioned model plays melodies that it was not trained on."""

from dataclasses import replace
from itertools import islice
from pathlib import Path

from wavegen.audio import Audio
from wavegen.data.corpus import CLIP_SECONDS, TAIL, pieces
from wavegen.errors import WavegenError
from wavegen.evaluation import report
from wavegen.evaluation.hard_notes import play_hard_notes
from wavegen.generation.audio import AudioGenerator
from wavegen.notes.piano import Piano
from wavegen.pictures.runs import loss_curve
from wavegen.samplers.drawing import USUAL, Drawing
from wavegen.stopping import ProgressCallback, silent


def write_report(
    generator: AudioGenerator,
    out: Path,
    *,
    clips: int = 4,
    seconds: float = 6.0,
    drawing: Drawing = USUAL,
    run: Path | None = None,
    progress: ProgressCallback = silent,
) -> str:
    """Generates held-out pieces of the built-in corpus with a model, and measures them next to the controls.

    Loud, low, high, long and repeated notes follow, each kind in a row of its own.

    Args:
        generator: a model that is conditioned on notes and was trained on the built-in corpus.
        out: folder for the WAV, notes and recording of each clip, the figures as text and JSON, a spectrogram, and
            the loss curve of the run.
        clips: number of pieces, half known melodies and half composed.
        seconds: length of each piece, at most.
        drawing: how tokens are drawn.
        run: folder of the run, if there is one.
        progress: called for each block of samples that is generated.

    Returns:
        The table, how to read it, and where the files are.

    Raises:
        WavegenError: if the model is not conditioned on notes, librosa is not installed, or there is not at least one
            clip.
    """
    config = generator.config
    local = generator.network.local
    if local is None or local.takes != "melody":
        raise WavegenError(
            "expected a model with model.local.kind=notes, got another: report needs one that plays notes"
        )
    if clips < 1:
        raise WavegenError(f"expected at least one clip, got {clips}")
    out.mkdir(parents=True, exist_ok=True)
    rate, piano = generator.sample_rate, Piano.load()
    played = dict(islice(pieces("test", clips * CLIP_SECONDS, config.seed), clips))
    scores = [notes.between(0.0, seconds).quantize(rate, local.hop_length) for notes in played.values()]
    # All are generated in one batch, as long as the longest; each is then cut to its own notes and the last release.
    lengths = [round((score.seconds + TAIL) * rate) for score in scores]
    together = generator.generate(
        max(lengths) / rate, count=clips, notes=scores, drawing=drawing, progress=progress
    )
    generated = [Audio(clip.samples[:length], rate) for clip, length in zip(together, lengths, strict=True)]
    recordings = [
        piano.render(score, rate, length=length) for score, length in zip(scores, lengths, strict=True)
    ]
    for name, score, clip, recording in zip(played, scores, generated, recordings, strict=True):
        clip.write(out / f"{name}.wav")
        recording.write(out / f"{name}-recording.wav")
        (out / f"{name}.txt").write_text(score.text(), encoding="utf-8")
    table = report.compare(generated, recordings, scores)
    hard = play_hard_notes(generator, drawing)
    for kind, (clip, recording, _) in hard.items():
        clip.write(out / f"{kind}.wav")
        recording.write(out / f"{kind}-recording.wav")
    table = replace(table, rows={**table.rows, **{kind: figures for kind, (_, _, figures) in hard.items()}})
    report.write(table, out, generated[0], recordings[0])
    if run is not None and (run / "metrics.jsonl").is_file():
        loss_curve(run / "metrics.jsonl", out / "loss.png")
    return f"{table.text()}\n\naudio, pictures and figures: {out}"
