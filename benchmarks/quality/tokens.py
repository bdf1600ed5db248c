"""A codec and a masked model: what the codec keeps, what the model learned.

    python benchmarks/quality/tokens.py CODEC_RUN --folder FSDD_FOLDER [--bert BERT_RUN] [--out tokens]
    python benchmarks/quality/tokens.py CODEC_RUN [--bert BERT_RUN] [--out tokens]

With a folder, on the Free Spoken Digit Dataset: takes 0 to 4 test, takes from 10 on train, as in
configs/fsdd-codec.yaml, and digits are understood by a listener (wavegen/evaluation/embeddings), trained here.
Without one, on the train and test splits of the codec's own data, cut into pieces. The codec is measured beside Opus at
the lowest rate that libsndfile offers. The masked model is measured in bits per token (an upper bound, over random
orders) beside what the frequencies of the training tokens give, overall and frame by frame.
"""

import io
import json
from dataclasses import dataclass
from pathlib import Path

import baselines
import jax
import jax.numpy as jnp
import numpy as np
import soundfile
import tyro

import wavegen
from wavegen.audio import Audio
from wavegen.codecs.quantizers import code_usage, count_codes
from wavegen.codecs.waveform.loss import audio_losses
from wavegen.data.open import open_dataset
from wavegen.evaluation.embeddings import train_listener
from wavegen.generation.codec import Reconstructor
from wavegen.generation.masked import MaskedGenerator
from wavegen.networks.base import with_parameters
from wavegen.notes.harmony import repetition
from wavegen.pictures.audio import spectrograms
from wavegen.samplers.bound import order_agnostic_bound
from wavegen.spectral import log_mel, mel_spectrogram, si_sdr

SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")


@dataclass(frozen=True)
class Options:
    """What to measure."""

    codec: tyro.conf.Positional[Path]
    """A run that learned a codec, of waveforms or of spectrograms."""
    folder: Path | None = None
    """The recordings of digits; by default the codec's own data."""
    bert: Path | None = None
    """A run of a masked model on its tokens."""
    out: Path = Path("tokens")
    """Where clips, pictures and figures are written."""
    seconds: float = 0.6
    """Length of generated clips, and of pieces of the codec's own data."""
    orders: int = 16
    """Passes for each codebook of the bound."""
    seed: int = 0


def opus(clip: Audio) -> tuple[Audio, int]:
    """A clip through Opus at its lowest rate, and the bytes that it took."""
    file = io.BytesIO()
    soundfile.write(
        file, clip.samples[:, 0], clip.sample_rate, format="OGG", subtype="OPUS", compression_level=1.0
    )
    size = file.tell()
    file.seek(0)
    samples, _ = soundfile.read(file, dtype="float32")
    return Audio(samples[: len(clip.samples), None], clip.sample_rate), size


def mean_figures(ours: list[Audio], theirs: list[Audio]) -> dict[str, float]:
    """Medians over all whole pieces of 0.3 s: of one length, for every length is compiled anew."""
    length = round(0.3 * theirs[0].sample_rate)

    def pieces(clips: list[Audio]) -> jax.Array:
        whole = [clip.samples[: len(clip.samples) // length * length, 0] for clip in clips]
        return jnp.asarray(np.concatenate(whole).reshape(-1, length))

    def figures(estimate: jax.Array, target: jax.Array) -> dict[str, jax.Array]:
        rows = (estimate[None], target[None])
        losses = audio_losses(*rows, theirs[0].sample_rate)
        return {"si_sdr": si_sdr(*rows)[0], "mel": losses["mel"], "stft": losses["stft"]}

    result = jax.jit(lambda a, b: jax.lax.map(lambda pair: figures(*pair), (a, b)))(
        pieces(ours), pieces(theirs)
    )
    return {name: float(np.median(values)) for name, values in result.items()}


def measure_codec(codec: Reconstructor, clips: list[Audio], figures: dict) -> list[Audio]:
    """Reconstructions of the clips, all padded to one length: a codec is compiled for every length."""
    longest = max(len(clip.samples) for clip in clips)
    padded = [
        Audio(np.pad(clip.samples, ((0, longest - len(clip.samples)), (0, 0))), clip.sample_rate)
        for clip in clips
    ]
    tokens = [np.asarray(codec.encode(clip))[0] for clip in padded]
    heard = [
        Audio(codec.decode(jnp.asarray(t)[None]).samples[: len(clip.samples)], clip.sample_rate)
        for t, clip in zip(tokens, clips, strict=True)
    ]
    hop = codec.codec.hop_length
    kept = [t[: -(-len(clip.samples) // hop)] for t, clip in zip(tokens, clips, strict=True)]
    usage = code_usage(count_codes(jnp.asarray(np.concatenate(kept))[None], codec.codec.vocab_size))
    figures["codec"] = {
        "bits per second": codec.bits_per_second,
        "entropy, bits per second": float(usage.entropy.sum()) * codec.sample_rate / hop,
        "entries used": float(usage.used.mean()),
        "perplexity": [round(float(p), 1) for p in usage.perplexity],
        **mean_figures(heard, clips),
    }
    # One file for all clips: a container's header would weigh more than a word.
    together, size = opus(Audio(np.concatenate([clip.samples for clip in clips]), codec.sample_rate))
    ends = np.cumsum([len(clip.samples) for clip in clips])[:-1]
    pieces = [Audio(piece, codec.sample_rate) for piece in np.split(together.samples, ends)]
    seconds = sum(clip.duration for clip in clips)
    figures["opus"] = {"bits per second": size * 8 / seconds, **mean_figures(pieces, clips)}
    silence = [Audio(np.zeros_like(clip.samples), clip.sample_rate) for clip in clips]
    figures["silence"] = {"mel": mean_figures(silence, clips)["mel"]}
    return heard


def windows(codec: Reconstructor, clips: list[Audio], frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of the beginnings of clips, `[clips, frames, K]`, and which frames are of the clip."""
    hop, tokens, valid = codec.codec.hop_length, [], []
    for clip in clips:
        samples = np.pad(
            clip.samples[: frames * hop], ((0, max(frames * hop - len(clip.samples), 0)), (0, 0))
        )
        tokens.append(np.asarray(codec.encode(Audio(samples, clip.sample_rate)))[0])
        valid.append(np.arange(frames) * hop < len(clip.samples))
    return np.stack(tokens), np.stack(valid)


def frequencies(tokens: np.ndarray, valid: np.ndarray, vocab_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of tokens by codebook, `[K, V]`, and by frame and codebook, `[N, K, V]`, smoothed."""
    _, frames, codebooks = tokens.shape
    counts = np.zeros((frames, codebooks, vocab_size))
    for k in range(codebooks):
        rows, places = np.nonzero(valid)
        np.add.at(counts, (places, k, tokens[rows, places, k]), 1)
    overall = counts.sum(axis=0) + 1
    overall /= overall.sum(axis=1, keepdims=True)
    framewise = counts + 50 * overall  # as if 50 clips had the overall frequencies
    return overall, framewise / framewise.sum(axis=2, keepdims=True)


def region_distance(ours: Audio, theirs: Audio, first: float, last: float) -> float:
    """Mean distance of log-mel spectrograms in a span of seconds, in dB."""

    def level(audio: Audio) -> np.ndarray:
        samples = jnp.asarray(audio.samples[:, 0])[None]
        mel = mel_spectrogram(samples, sample_rate=audio.sample_rate, n_fft=256, hop_length=80, n_mels=40)
        frames = slice(round(first * audio.sample_rate / 80), round(last * audio.sample_rate / 80))
        return 10 * np.asarray(log_mel(mel, floor=1e-7))[0, frames]

    return float(np.mean(np.abs(level(ours) - level(theirs))))


def measure_inpainting(model: MaskedGenerator, clips: list[tuple[Audio, dict]], figures: dict) -> None:
    """The middle fifth of a second of clips of 0.5 s, drawn anew, beside silence and another clip's middle."""
    first, last, rate = 0.15, 0.35, model.sample_rate
    long = [(clip, labels) for clip, labels in clips if clip.duration >= 0.5][:60]
    cut = [(Audio(clip.samples[: rate // 2], rate), labels) for clip, labels in long]
    rows = []
    inside = slice(round(first * rate), round(last * rate))
    for index, (clip, labels) in enumerate(cut):
        [filled] = model.inpaint(clip, [(first, last)], labels=labels, seed=index)
        outside = np.delete(filled.samples - clip.samples, np.r_[inside], axis=0)
        silent, other = clip.samples.copy(), clip.samples.copy()
        silent[inside] = 0
        other[inside] = cut[(index + 7) % len(cut)][0].samples[inside]
        rows.append(
            (
                np.abs(outside).max(),
                region_distance(filled, clip, first, last),
                region_distance(Audio(silent, rate), clip, first, last),
                region_distance(Audio(other, rate), clip, first, last),
            )
        )
    unchanged, ours, silence, another = np.array(rows).T
    figures["inpainting"] = {
        "clips": len(rows),
        "largest change outside": float(unchanged.max()),
        "mel distance of the filled span, dB": float(ours.mean()),
        "of silence": float(silence.mean()),
        "of another clip's": float(another.mean()),
    }


def measure_bert(
    options: Options, codec: Reconstructor, data: dict, listener, figures: dict
) -> dict[str, Audio]:
    model = wavegen.load(options.bert)
    if not isinstance(model, MaskedGenerator):
        raise SystemExit(f"expected the run of a masked model, got {options.bert}")
    train, test = data["train"], data["test"]
    tokens, valid = windows(codec, [clip for clip, _ in train], model.window)
    overall, framewise = frequencies(tokens, valid, codec.codec.vocab_size)
    held, held_valid = windows(codec, [clip for clip, _ in test], model.window)
    picked = held[held_valid]
    places = np.nonzero(held_valid)[1]
    levels = np.arange(held.shape[2])
    numbers = {f: {v: i for i, v in enumerate(values)} for f, values in model.labels.items()}
    fields = model.config.model.label_fields

    def rows(labels: list[dict]) -> jax.Array | None:
        if not fields:
            return None
        return jnp.asarray([[numbers[f][row[f]] for f in fields] for row in labels], jnp.int32)

    bound = jax.jit(
        lambda params, t, v, y, key: order_agnostic_bound(
            with_parameters(model.graph, params), t, v, y, key, options.orders
        )
    )
    sums, counted = np.zeros(held.shape[2]), 0
    for at in range(0, len(held), 50):
        part = slice(at, at + 50)
        labels = rows([labels for _, labels in test[part]])
        nats = bound(
            model.params, jnp.asarray(held[part]), jnp.asarray(held_valid[part]), labels, jax.random.key(at)
        )
        weight = held_valid[part].sum(axis=1)
        sums += (np.asarray(nats) * weight[:, None]).sum(axis=0)
        counted += weight.sum()
    per_level = sums / counted / np.log(2)
    rate = codec.sample_rate / codec.codec.hop_length
    figures["masked model, bits per token"] = {
        "bound": float(per_level.mean()),
        "by codebook": [round(float(x), 3) for x in per_level],
        "bound, bits per second": float(per_level.sum() * rate),
        "unigram": float(-np.log2(overall[levels, picked]).mean()),
        "frequency per frame": float(-np.log2(framewise[places[:, None], levels[None], picked]).mean()),
        "uniform": float(np.log2(codec.codec.vocab_size)),
    }
    titles = []
    if listener is None:
        generated = model.generate(options.seconds, count=12, seed=options.seed)
        titles = [f"{number}" for number in range(len(generated))]
    else:
        generated, digits = speak(model, options)
        titles = digits
        figures["digits understood"] |= {"generated": listener.share_understood(generated, digits)}
    step = max(len(generated) // 10, 1)
    for index in range(0, len(generated), step):
        generated[index].write(options.out / f"generated-{titles[index]}-{index}.wav")
    frames = round(options.seconds * rate)
    again = [np.asarray(codec.encode(clip))[0, :frames] for clip in generated[:: max(step // 10, 1)]]
    real = [t[v] for t, v in zip(held, held_valid, strict=True) if v.sum() >= 8]
    figures["repeated 4-grams of the first codebook"] = {
        "generated": float(np.mean([repetition(t[:, 0]) for t in again])),
        "recorded": float(np.mean([repetition(t[:, 0]) for t in real])),
    }
    measure_inpainting(model, test, figures)
    return {f"{titles[i]}, generated": generated[i] for i in (3 * step + step // 6, 7 * step + step // 6)}


def speak(model: MaskedGenerator, options: Options) -> tuple[list[Audio], list[str]]:
    """Every digit by every speaker five times, and which digit it is."""
    fields, generated, digits = model.config.model.label_fields, [], []
    for digit in range(10):
        for speaker in SPEAKERS:
            labels = {f: v for f, v in {"digit": str(digit), "speaker": speaker}.items() if f in fields}
            clips = model.generate(options.seconds, count=5, seed=options.seed + digit, labels=labels or None)
            generated += clips
            digits += [str(digit)] * len(clips)
    return generated, digits


def digits_in(folder: Path) -> dict[str, list[tuple[Audio, dict]]]:
    """Recordings of the Free Spoken Digit Dataset, and their labels."""

    def read(first: int, last: int) -> list[tuple[Audio, dict]]:
        named = []
        for path in baselines.recordings(folder, first, last):
            digit, speaker, _ = path.stem.split("_")
            named.append((Audio.read(path), {"digit": digit, "speaker": speaker}))
        return named

    return {"train": read(10, 49), "test": read(*baselines.TEST_TAKES)}


def own_pieces(codec: Reconstructor, seconds: float) -> dict[str, list[tuple[Audio, dict]]]:
    """Whole pieces of the recordings that the codec's configuration names."""
    dataset = open_dataset(codec.config)
    length = round(seconds * codec.sample_rate)
    found: dict[str, list[tuple[Audio, dict]]] = {}
    for split in ("train", "test"):
        files = dataset.split(split)
        found[split] = [
            (Audio.from_pcm16(dataset.read(files, row, first, first + length), codec.sample_rate), {})
            for row in range(len(files.length))
            for first in range(0, int(files.length[row]) - length + 1, length)
        ]
    return found


def main(options: Options) -> None:
    codec = wavegen.load(options.codec)
    if not isinstance(codec, Reconstructor):
        raise SystemExit(f"expected a run that learned a codec, got {options.codec}")

    data = digits_in(options.folder) if options.folder else own_pieces(codec, options.seconds)
    options.out.mkdir(parents=True, exist_ok=True)
    figures: dict = {}
    clips = [clip for clip, _ in data["test"]]
    heard = measure_codec(codec, clips, figures)
    listener, titles = None, [f"{number}" for number in range(len(clips))]
    if options.folder:
        titles = [labels["digit"] for _, labels in data["test"]]
        listener = train_listener.train(
            [clip for clip, _ in data["train"]],
            [labels["digit"] for _, labels in data["train"]],
            field="digit",
            seconds=0.6,
        )
        figures["digits understood"] = {
            "recorded": listener.share_understood(clips, titles),
            "reconstructed": listener.share_understood(heard, titles),
        }
    print(json.dumps(figures, indent=1), flush=True)
    pictures = {}
    for index in (5, len(clips) // 2 + 5):
        pictures |= {
            f"{titles[index]}, recorded": clips[index],
            f"{titles[index]}, reconstructed": heard[index],
        }
        clips[index].write(options.out / f"recorded-{index}.wav")
        heard[index].write(options.out / f"reconstructed-{index}.wav")
    if options.bert is not None:
        pictures |= measure_bert(options, codec, data, listener, figures)
        print(json.dumps(figures, indent=1))
    (options.out / "figures.json").write_text(json.dumps(figures, indent=1))
    print(f"picture: {spectrograms(options.out / 'spectrograms.png', pictures)}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
