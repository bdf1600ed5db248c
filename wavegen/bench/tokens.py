"""Benchmarks of learned codecs and masked models: coding, one pass, a whole generation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wavegen.bench.machine import has_peaks, processors, time_in_turns
from wavegen.codecs.learned import LearnedCodec
from wavegen.codecs.waveform.network import WaveVQ
from wavegen.errors import WavegenError
from wavegen.generation.codec import Reconstructor
from wavegen.generation.masked import Drawing, MaskedGenerator
from wavegen.generation.requests import to_samples
from wavegen.kernels import native
from wavegen.models.bert import Bert
from wavegen.networks.base import with_parameters

_encode = jax.jit(lambda codec, audio: codec.encode(audio))
_decode = jax.jit(lambda codec, tokens: codec.decode(tokens))


@dataclass(frozen=True)
class Work:
    """Something to time.

    Attributes:
        name: a name for the work.
        by: "wavegen" or "torch".
        call: does the work, which is finished when it returns.
        batch: clips that are processed together.
        seconds: length of each clip.
        flops: floating-point operations of all matrix products.
    """

    name: str
    by: str
    call: Callable[[], object]
    batch: int
    seconds: float
    flops: float


@dataclass(frozen=True)
class WorkSpeed:
    """The measurement of one work.

    Attributes:
        name: "encode"; "decode"; "pass", one pass of a masked model over all frames for one codebook; "generate P",
            all P passes and the decoding; "train codec" or "train model", one training step.
        by: "wavegen" or "torch".
        batch: clips that are processed together.
        seconds: length of each clip.
        milliseconds: median time of a call.
        slowest: milliseconds of the slowest round.
        real_time: seconds of audio per second, all clips together.
        gflops: floating-point operations of the products per second, in 10^9; a training step counts as three forward
            passes.
        share_of_arithmetic: share of the measured peak of all processors; None where it was not measured.
    """

    name: str
    by: str
    batch: int
    seconds: float
    milliseconds: float
    slowest: float
    real_time: float
    gflops: float
    share_of_arithmetic: float | None


def codec_work(codec: Reconstructor, batch: int, seconds: float) -> list[Work]:
    """Returns the encoding of random audio, and the decoding of its tokens."""
    network = _network(codec.codec)
    audio = jnp.asarray(noise(batch, to_samples(seconds, codec.sample_rate)), jnp.float32) / 32768
    tokens = _encode(codec.codec, audio)
    frames = batch * tokens.shape[1]

    def encode() -> None:
        _encode(codec.codec, audio).block_until_ready()

    def decode() -> None:
        _decode(codec.codec, tokens).block_until_ready()

    return [
        Work("encode", "wavegen", encode, batch, seconds, frames * network.encode_flops_per_frame),
        Work("decode", "wavegen", decode, batch, seconds, frames * network.decode_flops_per_frame),
    ]


def model_work(
    generator: MaskedGenerator, batch: int, seconds: float | None = None, passes: int = 24
) -> list[Work]:
    """Returns one pass of a masked model, and a generation from nothing to audio.

    Args:
        generator: the model and its codec.
        batch: clips that are generated together.
        seconds: length of each clip, at most the window of the model; None is that window.
        passes: number of passes of the generation over all codebooks: one for each, and the rest for the first.

    Raises:
        WavegenError: if the clips are longer than the window, or there are fewer passes than codebooks.
    """
    codec, model = generator.codec, masked_model(generator)
    longest = generator.sampler.window * codec.hop_length / generator.sample_rate
    seconds = longest if seconds is None else seconds
    if seconds > longest:
        raise WavegenError(
            f"expected at most {longest:g} s, the window of the model, got {seconds:g} s; ask for less"
        )
    if passes < codec.codebooks:
        raise WavegenError(
            f"expected a pass for each of {codec.codebooks} codebooks, got {passes} in all; ask for more"
        )
    frames = -(-to_samples(seconds, generator.sample_rate) // codec.hop_length)
    masked = jnp.full((batch, frames, codec.codebooks), codec.vocab_size)
    level = jnp.zeros(batch, jnp.int32)
    fields = len(generator.config.model.label_fields)
    labels = jnp.full((batch, fields), -1) if fields else None
    logits = jax.jit(
        lambda params, tokens: with_parameters(generator.graph, params).level_logits(tokens, level, labels)
    )
    rest = (1,) * (codec.codebooks - 1)
    drawing = Drawing(passes=(passes - len(rest), *rest), guidance=1.0)

    def one_pass() -> None:
        logits(generator.params, masked).block_until_ready()

    def generate() -> None:
        generator.generate(seconds, count=batch, drawing=drawing)

    flops = batch * frames * level_flops(model, frames)
    assert isinstance(codec, LearnedCodec)
    network = _network(codec)
    decoding = batch * frames * network.decode_flops_per_frame if isinstance(network, WaveVQ) else 0
    return [
        Work("pass", "wavegen", one_pass, batch, seconds, flops),
        Work(f"generate {passes}", "wavegen", generate, batch, seconds, passes * flops + decoding),
    ]


def level_flops(model: Bert, frames: int) -> int:
    """Returns the operations of a forward pass for one codebook, per frame of a clip of this many frames."""
    return model.flops_per_frame(frames) - 2 * (model.codebooks - 1) * model.width * model.vocab_size


def masked_model(generator: MaskedGenerator) -> Bert:
    """Returns the network of a masked model."""
    model: Bert = with_parameters(generator.graph, generator.params)
    return model


def noise(batch: int, samples: int) -> np.ndarray:
    """Returns random int16 [B, T] that fades in and out, so that no two windows are alike."""
    random = np.random.default_rng(0).standard_normal((batch, samples))
    return (3000 * random * np.sin(np.linspace(0, 3 * np.pi, samples))).astype(np.int16)


def measure(
    works: list[Work], *, rounds: int = 9, report: Callable[[str], None] = lambda text: None
) -> list[WorkSpeed]:
    """Times everything in alternation.

    Args:
        works: the works to time.
        rounds: number of rounds; their median is reported.
        report: called with lines of progress.

    Returns:
        One row per work.
    """
    for work in works:
        report(f"compiling {work.name} {work.by}")
        work.call()
    calls = {(work.name, work.by): work.call for work in works}
    times = time_in_turns(calls, rounds, report)
    peak = native.peaks(1 << 16)[0] * processors() if has_peaks() else None
    rows = []
    for work in works:
        seconds = float(np.median(times[work.name, work.by]))
        rows.append(
            WorkSpeed(
                name=work.name,
                by=work.by,
                batch=work.batch,
                seconds=work.seconds,
                milliseconds=1e3 * seconds,
                slowest=1e3 * max(times[work.name, work.by]),
                real_time=work.batch * work.seconds / seconds,
                gflops=1e-9 * work.flops / seconds,
                share_of_arithmetic=work.flops / seconds / peak if peak else None,
            )
        )
    return rows


def table(rows: list[WorkSpeed]) -> str:
    """Returns rows as text; the last column compares with PyTorch where it did the same work."""
    heads = ("", "by", "batch", "seconds", "ms", "slowest", "x real time", "GFLOP/s", "of peak", "x torch")
    lines = ["{:<14}{:<9}{:>6}{:>9}{:>10}{:>10}{:>13}{:>9}{:>9}{:>9}".format(*heads)]
    theirs = {row.name: row.milliseconds for row in rows if row.by == "torch"}
    for row in rows:
        share = "-" if row.share_of_arithmetic is None else f"{row.share_of_arithmetic:.0%}"
        faster = f"{theirs[row.name] / row.milliseconds:.2f}" if row.name in theirs else "-"
        lines.append(
            f"{row.name:<14}{row.by:<9}{row.batch:>6}{row.seconds:>9.2f}{row.milliseconds:>10.1f}{row.slowest:>10.1f}"
            f"{row.real_time:>13.2f}{row.gflops:>9.1f}{share:>9}{faster:>9}"
        )
    return "\n".join(lines)


def _network(codec: LearnedCodec) -> Any:
    return with_parameters(codec.graph, codec.params)
