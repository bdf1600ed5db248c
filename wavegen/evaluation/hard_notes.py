"""Figures of the notes that a model of an instrument finds hardest: loud, low, high, long and repeated ones."""

from collections.abc import Mapping

from wavegen.audio import Audio
from wavegen.data.corpus import TAIL
from wavegen.evaluation.figures import Figures, measure
from wavegen.generation.audio import AudioGenerator
from wavegen.notes.performance import Performance
from wavegen.notes.piano import Piano
from wavegen.samplers.drawing import USUAL, Drawing

PHRASES: Mapping[str, str] = {
    "loud": "tempo 120, velocity 1.0, C4 1/2, E4 1/2, G4 1/2, C5 1/2, E5 1, C5 1",
    "low": "tempo 120, F3 1, G3 1, A3 1, F3 1",
    "high": "tempo 120, A5 1, C6 1, B5 1, G5 1",
    "long": "tempo 60, C5 2",
    "repeated": "tempo 120, " + ", ".join(["G4 1/4"] * 16),
}
"""Two seconds each, inside the range of the built-in corpus (F3 to C6)."""


def play_hard_notes(
    generator: AudioGenerator, drawing: Drawing = USUAL
) -> dict[str, tuple[Audio, Audio, Figures]]:
    """Plays each kind of notes on a model, and measures it against the piano that the corpus was played on.

    Args:
        generator: a model that is conditioned on notes and was trained on the built-in corpus.
        drawing: how tokens are drawn.

    Returns:
        By kind, what the model plays, the recording, and the figures.

    Raises:
        WavegenError: if librosa is not installed.
    """
    rate, piano = generator.sample_rate, Piano.load()
    scores = [
        Performance.parse(text).quantize(rate, generator.network.local.hop_length)
        for text in PHRASES.values()
    ]
    lengths = [round((score.seconds + TAIL) * rate) for score in scores]
    together = generator.generate(max(lengths) / rate, count=len(scores), notes=scores, drawing=drawing)
    found = {}
    for kind, score, clip, length in zip(PHRASES, scores, together, lengths, strict=True):
        played = Audio(clip.samples[:length], rate)
        recording = piano.render(score, rate, length=length)
        found[kind] = played, recording, measure(played, recording, score)
    return found
