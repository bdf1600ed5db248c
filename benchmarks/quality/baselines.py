"""What simple predictors reach on the Free Spoken Digit Dataset, in bits per sample of 256 mu-law codes.

    python benchmarks/quality/baselines.py FSDD_FOLDER [--json-file RESULT.json]

The folder holds `{digit}_{speaker}_{take}.wav`, 8 kHz (https://github.com/Jakobovski/free-spoken-digit-dataset).
Takes 0-4 are the dataset's own test split; takes from 10 on train, 5-9 are left for validation. Every figure
is the mean over all test samples, and every clip starts without a past.

The linear predictors see the decoded amplitudes of the past codes. Their residuals follow a Laplace
distribution, integrated over the interval of amplitudes that each code stands for; a hundredth of the mass is
spread evenly over the codes, for otherwise one surprise can cost hundreds of bits.
"""

import io
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import soundfile
import tyro
from numpy.lib.stride_tricks import sliding_window_view
from scipy.signal import lfilter

from wavegen.codecs.samples import MuLaw, expand

SAMPLE_RATE = 8000
TEST_TAKES = (0, 4)
ORDER = 32
CODEC = MuLaw(levels=256)
AMPLITUDE = np.asarray(CODEC.decode(jnp.arange(256)[None, :, None])[0], np.float64)
EDGES = np.concatenate([[-np.inf], expand((2 * np.arange(1, 256) - 1) / CODEC.mu - 1, CODEC.mu), [np.inf]])
QUIETEST = 1e-5  # the smallest scale of a residual; digital silence would make it 0
SPREAD = 0.01


def recordings(folder: Path, first_take: int, last_take: int) -> list[Path]:
    """The takes `first_take..last_take` of every speaker and digit, by name."""
    takes = {str(take) for take in range(first_take, last_take + 1)}
    paths = [path for path in sorted(folder.glob("*_*_*.wav")) if path.stem.split("_")[2] in takes]
    if not paths:
        raise SystemExit(
            f"no {{digit}}_{{speaker}}_{{take}}.wav with take {first_take} to {last_take} in {folder}"
        )
    return paths


def read_codes(paths: list[Path]) -> list[np.ndarray]:
    """The mu-law codes of each recording."""
    clips = []
    for path in paths:
        pcm, sample_rate = soundfile.read(path, dtype="int16")
        if sample_rate != SAMPLE_RATE or pcm.ndim != 1:
            raise SystemExit(f"expected 8 kHz mono, got {path} at {sample_rate} Hz with shape {pcm.shape}")
        clips.append(pcm)
    # Encoded in one go: the codec is compiled for every new length.
    waveform = jnp.asarray(np.concatenate(clips).astype(np.float32) / 32768)
    codes = np.asarray(CODEC.encode(waveform[None]))[0, :, 0]
    return np.split(codes, np.cumsum([len(clip) for clip in clips])[:-1])


def histogram(train: list[np.ndarray], test: list[np.ndarray]) -> float:
    """Order 0: how often each code occurs in the train split, plus one."""
    counts = np.bincount(np.concatenate(train), minlength=256) + 1.0
    return float(-np.log2(counts / counts.sum())[np.concatenate(test)].mean())


def markov(train: list[np.ndarray], test: list[np.ndarray]) -> float:
    """Order 1: how often each code follows each other code in the train split, plus one."""
    counts = np.ones((256, 256))
    for clip in train:
        np.add.at(counts, (previous(clip), clip), 1)
    bits = -np.log2(counts / counts.sum(axis=1, keepdims=True))
    return float(np.concatenate([bits[previous(clip), clip] for clip in test]).mean())


def previous(clip: np.ndarray) -> np.ndarray:
    return np.concatenate([[CODEC.start_token], clip[:-1]])


def past(x: np.ndarray) -> np.ndarray:
    """The `ORDER` amplitudes before each sample, `[T] -> [T, ORDER]`; zeros before the first."""
    return sliding_window_view(np.concatenate([np.zeros(ORDER), x[:-1]]), ORDER)


def laplace_bits(codes: np.ndarray, prediction: np.ndarray, scale: np.ndarray | float) -> np.ndarray:
    """Bits of each code under a Laplace distribution of its amplitude around the prediction."""
    low, high = (EDGES[codes] - prediction) / scale, (EDGES[codes + 1] - prediction) / scale
    low, high = np.where(low + high > 0, -high, low), np.where(low + high > 0, -low, high)
    one_sided = (np.exp(np.minimum(high, 0)) - np.exp(low)) / 2
    across = 1 - (np.exp(low) + np.exp(-np.maximum(high, 0))) / 2
    return -np.log2((1 - SPREAD) * np.where(high > 0, across, one_sided) + SPREAD / 256)


def fit(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Least squares predictors of `y [..., T]` from `x [..., T, ORDER]`."""
    return solve(np.swapaxes(x, -1, -2) @ x, (np.swapaxes(x, -1, -2) @ y[..., None])[..., 0])


def solve(gram: np.ndarray, cross: np.ndarray) -> np.ndarray:
    """Solve the normal equations with a ridge of a thousandth of the mean power."""
    power = np.trace(gram, axis1=-2, axis2=-1)[..., None, None] / ORDER
    return np.linalg.solve(gram + (1e-3 * power + 1e-9) * np.eye(ORDER), cross[..., None])[..., 0]


def global_prediction(train: list[np.ndarray], test: list[np.ndarray]) -> tuple[float, float]:
    """One predictor and one scale for all; returns its bits per sample and its scale."""
    signals = [AMPLITUDE[clip] for clip in train]
    predictor = solve(sum(past(x).T @ past(x) for x in signals), sum(past(x).T @ x for x in signals))
    scale = float(np.concatenate([np.abs(x - past(x) @ predictor) for x in signals]).mean())
    bits = [laplace_bits(clip, past(AMPLITUDE[clip]) @ predictor, scale) for clip in test]
    return float(np.concatenate(bits).mean()), scale


def framewise(test: list[np.ndarray], frame: int) -> float:
    """A predictor and a scale for each frame, fitted on that frame itself; they are not paid for."""
    bits = []
    for clip in test:
        y = AMPLITUDE[clip]
        x = past(y)
        for start in range(0, len(clip), frame):
            part = slice(start, start + frame)
            prediction = x[part] @ fit(x[part], y[part])
            scale = max(float(np.abs(y[part] - prediction).mean()), QUIETEST)
            bits.append(laplace_bits(clip[part], prediction, scale))
    return float(np.concatenate(bits).mean())


def backward_adaptive(test: list[np.ndarray], window: int, hop: int, first_scale: float) -> float:
    """A predictor refitted every `hop` samples on the last `window`: what a decoder can do too, at no cost.

    The scale of sample t is the running mean of the residuals before t, forgetting a tenth at every sample.
    """
    bits = []
    for clip in test:
        # Zeros in front of the clip weigh nothing in the fit. Each window ends where its block begins.
        y = np.concatenate([np.zeros(window), AMPLITUDE[clip], np.zeros(-len(clip) % hop)])
        x = past(y)
        windows_x = np.swapaxes(sliding_window_view(x, window, axis=0)[:-1:hop], -1, -2)
        windows_y = sliding_window_view(y, window)[:-1:hop]
        predictors = fit(windows_x, windows_y)
        blocks = x[window:].reshape(-1, hop, ORDER)
        prediction = (blocks @ predictors[..., None]).reshape(-1)[: len(clip)]
        residuals = np.abs(AMPLITUDE[clip] - prediction)
        scale = lfilter([0.1], [1, -0.9], np.concatenate([[0.0], residuals[:-1]]), zi=[first_scale])[0]
        bits.append(laplace_bits(clip, prediction, np.maximum(scale, QUIETEST)))
    return float(np.concatenate(bits).mean())


def flac(test: list[np.ndarray]) -> float:
    """The size of the codes as one 8-bit FLAC file."""
    codes = np.concatenate(test)
    file = io.BytesIO()
    soundfile.write(file, ((codes - 128) << 8).astype(np.int16), SAMPLE_RATE, format="FLAC", subtype="PCM_S8")
    return 8 * len(file.getvalue()) / len(codes)


def measure(folder: Path) -> dict[str, float]:
    """Return bits per sample on the test split, by name of the predictor."""
    train, test = read_codes(recordings(folder, 10, 49)), read_codes(recordings(folder, *TEST_TAKES))
    global_bits, scale = global_prediction(train, test)
    return {
        "uniform": 8.0,
        "order 0 (histogram)": histogram(train, test),
        "LPC-32, global": global_bits,
        "FLAC of the codes": flac(test),
        "order 1 (Markov)": markov(train, test),
        "LPC-32, backward-adaptive, refit every 256 on the last 2048": backward_adaptive(
            test, 2048, 256, scale
        ),
        "LPC-32 per frame of 1024, coefficients not paid for": framewise(test, 1024),
        "LPC-32, backward-adaptive, refit every 32 on the last 256": backward_adaptive(test, 256, 32, scale),
    }


def show(rows: dict[str, float]) -> None:
    """Print the rows as a table, the worst first."""
    print("| predictor | bits per sample |\n| --- | --- |")
    for name, bits in sorted(rows.items(), key=lambda row: -row[1]):
        print(f"| {name} | {bits:.3f} |")


def main(folder: tyro.conf.Positional[Path], /, json_file: Path | None = None) -> None:
    """Measure simple predictors on the Free Spoken Digit Dataset.

    Args:
        folder: Folder of the dataset's WAV files.
        json_file: Where to write the figures as JSON.
    """
    rows = measure(folder)
    show(rows)
    if json_file:
        json_file.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
