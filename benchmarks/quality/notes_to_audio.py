"""What conditioning on notes brings a WaveNet, and whether the notes can be heard in what it plays.

    python benchmarks/quality/notes_to_audio.py RUN --against RUN_WITHOUT --folder MIDI [--pieces 10] [--seconds 8]

RUN is conditioned on piano rolls, RUN_WITHOUT is the same network trained for the same steps on the same audio without
`model.local`; MIDI holds pieces that neither has seen. Prints one JSON line:

bits_per_sample: of the rendered pieces, exact; with the notes, with those of another piece, and by RUN_WITHOUT.
onset_f1: of the peaks of the spectral flux (librosa) against the onsets of the notes, within 50 ms, one to one. A
    generated clip is as long as the piece's first seconds and drawn at the experiment's own temperature. `rendered` is
    the ceiling: the same detector on the piano that the model has learned from; `wrong_piece` the floor: the rendered
    piece against the onsets of another. Where pieces share a grid of beats the floor is high.
note_recall: share of the notes whose pitch is 3 dB louder in the 0.15 s after their onset than in the 0.15 s before,
    and then louder than both neighbouring semitones; in the same ways. It hears which notes are played, not only when.
Needs pip install -e '.[evaluate]'.
"""

import argparse
import json
import math
from pathlib import Path

import librosa
import numpy as np

import wavegen
from wavegen.audio import Audio
from wavegen.config.conditions import PianoRollConditionConfig
from wavegen.data.rendering import Rendering
from wavegen.generation.load import load_generator
from wavegen.notes.midi import read_midi
from wavegen.notes.performance import Performance, frequency

TOLERANCE = 0.05  # seconds
BESIDE = 0.15  # seconds on either side of an onset
RISE = 3.0  # dB


def onset_f1(audio: Audio, notes: Performance) -> float:
    """F1 of the detected onsets against the moments at which notes begin."""
    wave, rate = audio.samples[:, 0], audio.sample_rate
    frames = {"sr": rate, "hop_length": rate // 100}
    flux = librosa.onset.onset_strength(y=wave, n_fft=1024, **frames)
    found = librosa.onset.onset_detect(onset_envelope=flux, units="time", **frames)
    there = np.unique(np.round(notes.onset, 3))
    matched = first = 0
    # In order of time the earliest free onset in reach is the best partner.
    for onset in there:
        while first < len(found) and found[first] < onset - TOLERANCE:
            first += 1
        if first < len(found) and found[first] <= onset + TOLERANCE:
            matched, first = matched + 1, first + 1
    return 2 * matched / max(len(found) + len(there), 1)


def note_recall(audio: Audio, notes: Performance) -> float:
    """Share of the notes whose pitch grows louder when they begin, and stands out from its neighbours."""
    wave, rate = audio.samples[:, 0].astype(np.float64), audio.sample_rate
    width = round(BESIDE * rate)
    window, time = np.hanning(width), np.arange(width) / rate
    padded = np.pad(wave, width)  # silence before the beginning
    heard = 0
    for pitch, onset in zip(notes.pitch, notes.onset, strict=True):
        tones = window * np.exp(-2j * np.pi * frequency(pitch + np.array([[-1], [0], [1]])) * time)
        start = round(onset * rate)
        before = abs(tones[1] @ padded[start : start + width])
        below, after, above = np.abs(tones @ padded[start + width : start + 2 * width])
        heard += after > 10 ** (RISE / 20) * before and after > max(below, above)
    return heard / max(len(notes), 1)


def bits(generator: Generator, audio: Audio, notes: Performance | None) -> float:
    return float(-generator.log_likelihood(audio, notes=notes).mean() / math.log(2))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--against", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--pieces", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--temperature", type=float)
    parser.add_argument("-o", "--out", type=Path, help="folder for the audio and its spectrograms")
    options = parser.parse_args()
    player, deaf = load_generator(options.run), load_generator(options.against)
    local, rate = player.config.model.local, player.sample_rate
    if not isinstance(local, PianoRollConditionConfig) or deaf.config.model.local is not None:
        raise SystemExit(
            "expected RUN with model.local.kind=piano_roll, and RUN_WITHOUT with model.local=null"
        )
    paths = sorted(path for path in options.folder.rglob("*.mid"))[: options.pieces]
    rendering, length = Rendering(local.hop_length, local.low, local.high), round(options.seconds * rate)
    audio, notes = [], []
    for path in paths:
        score = read_midi(path)
        played = score.pitched().quantize(rate, local.hop_length)
        pcm, _ = rendering.play(score, rate)
        audio.append(Audio.from_pcm16(pcm[:length, None], rate))
        notes.append(played.between(0, options.seconds))
    others = notes[1:] + notes[:1]
    clips = player.generate(
        options.seconds, count=len(paths), notes=notes, temperature=options.temperature, seed=0
    )
    figures: dict[str, object] = {
        "pieces": len(paths),
        "seconds": options.seconds,
        "bits_per_sample": {
            "with": _mean(bits(player, *pair) for pair in zip(audio, notes, strict=True)),
            "with_wrong_piece": _mean(bits(player, *pair) for pair in zip(audio, others, strict=True)),
            "without": _mean(bits(deaf, clip, None) for clip in audio),
        },
    }
    for name, measure in (("onset_f1", onset_f1), ("note_recall", note_recall)):
        figures[name] = {
            "generated": _mean(map(measure, clips, notes)),
            "rendered": _mean(map(measure, audio, notes)),
            "wrong_piece": _mean(map(measure, audio, others)),
            "generated_wrong_piece": _mean(map(measure, clips, others)),
        }
    print(json.dumps({"wavegen": wavegen.__version__, **figures}))
    if options.out is not None:
        from wavegen.pictures.audio import spectrograms

        options.out.mkdir(parents=True, exist_ok=True)
        for path, clip, recording in zip(paths, clips, audio, strict=True):
            clip.write(options.out / f"{path.stem}.wav")
            recording.write(options.out / f"{path.stem}-rendered.wav")
            spectrograms(
                options.out / f"{path.stem}.png", {"generated": clip, "rendered by the piano": recording}
            )


def _mean(values) -> float:
    return round(float(np.mean(list(values))), 4)


if __name__ == "__main__":
    main()
