"""Playing block by block: the clips of the whole, in one compilation for all lengths."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import wavegen
from wavegen.audio import Audio
from wavegen.config import resolve
from wavegen.errors import WavegenError
from wavegen.generation.audio import AudioGenerator, in_chunks
from wavegen.models.base import Choice
from wavegen.models.kinds import make_model
from wavegen.networks.base import parameters, with_parameters
from wavegen.notes.performance import Performance
from wavegen.runs.trained import Trained, open_codecs
from wavegen.stopping import ProgressCallback, Stopped

RATE, BLOCK = 8000, 320
WAVENET = {"dilations": [1, 2, 4], "cycles": 1, "residual_channels": 8, "gate_channels": 6}
WAVENET |= {"skip_channels": 8, "head_channels": 8, "kernel_size": 3}
MODELS = {
    "plain": WAVENET,
    "labels": WAVENET | {"label_fields": ["digit", "speaker"]},
    "melody": WAVENET
    | {
        "label_fields": ["digit"],
        "local": {"kind": "notes", "channels": 6, "hop_length": 40, "harmonics": 1},
    },
    "chords": WAVENET
    | {
        "local": {
            "kind": "piano_roll",
            "channels": 6,
            "hop_length": 50,
            "harmonics": 1,
            "low": 60,
            "high": 76,
        }
    },
    "features": WAVENET
    | {"local": {"kind": "features", "width": 3, "channels": 6, "hop_length": 64, "upsample": [2, 4]}},
    "lstm": {"kind": "lstm", "width": 8, "layers": 1, "label_fields": ["digit"]},
    "ssm": {"kind": "ssm", "width": 8, "layers": 1, "pooling": [4], "label_fields": ["digit"]},
}
VOCABULARY = {"digit": ["0", "1", "2"], "speaker": ["george", "lucas"]}
MELODY = Performance.parse("tempo 240, A4 1/2, C5 1/2, R 1/2, E4 2")
ARCHIVE = Path(__file__).parents[1] / "archives" / "clips.npz"


@cache
def make(name: str) -> AudioGenerator:
    """An untrained model whose every weight is random."""
    config = resolve({"data": {"sample_rate": RATE, "crop": 6400}, "model": MODELS[name]}, [])
    codecs = open_codecs(config)
    params = parameters(make_model(config, codecs, VOCABULARY))[1]
    random = np.random.default_rng(0)
    params = jax.tree.map(lambda x: np.asarray(x) + 0.2 * random.standard_normal(x.shape, np.float32), params)
    return AudioGenerator.open(Trained(config, VOCABULARY, params, codecs))


def features_of(generator: AudioGenerator, samples: int) -> np.ndarray | None:
    """Features of two clips, for a model that is conditioned on some."""
    local = generator.network.local
    if local is None:
        return None
    if local.takes == "features":
        frames = -(-samples // local.input_hop)
        return np.random.default_rng(1).standard_normal((2, frames, 3)).astype(np.float32)
    return np.asarray(local.of_notes([MELODY, MELODY.transpose(2)], samples))


@contextmanager
def compilations() -> Iterator[list[str]]:
    """Collects the events of JAX's compiler."""
    seen: list[str] = []

    def listen(event: str, seconds: float, **more: object) -> None:
        del seconds, more
        if "backend_compile" in event:
            seen.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seen
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.parametrize("name", ["melody", "chords", "features", "lstm"])
def test_blocks_are_those_of_a_clip_drawn_at_once_given_all_of_its_conditions(name):
    """After a prompt that ends within a frame, and to an end within a block."""
    generator, prompted, drawn = make(name), 133, 2 * BLOCK + 77
    features, key = features_of(generator, prompted + drawn), jax.random.key(5)
    labels = jnp.array([[1], [2]]) if "label_fields" in MODELS[name] else None
    prompt = jnp.asarray(np.random.default_rng(2).integers(0, 256, (2, prompted, 1)))

    @jax.jit
    def at_once(params):
        model = with_parameters(generator.graph, params)
        given = None if features is None else jnp.asarray(features)
        state = model.read(prompt, model.init_state(2, labels, given))
        return model.draw(state, drawn, key, choice=Choice())[0]

    stepper = generator.sampler.stepper(2, wavegen.Drawing(temperature=1), labels)
    assert stepper.block == BLOCK
    blocks = list(stepper.stream(drawn, key, prompt=prompt, features=features))
    assert [block.shape[1] for block in blocks] == [BLOCK, BLOCK, 77]
    np.testing.assert_array_equal(np.concatenate(blocks, axis=1), at_once(generator.params))


@pytest.mark.parametrize("name", ["labels", "melody"])
def test_a_player_goes_on_from_where_it_was_given_what_comes_next(name):
    generator, labels = make(name), {"digit": "1"}
    notes = MELODY if name == "melody" else None
    (clip,) = generator.generate(0.1, seed=3, notes=notes, labels=labels)
    player = generator.player(labels=labels)
    features = None if notes is None else player.features([notes], len(clip.samples))
    window = lambda position: None if features is None else player.window(features, position)  # noqa: E731
    playing, blocks = player.start(jax.random.key(3), window(0)), []
    for number in range(2):
        assert playing.position == number * BLOCK
        block, playing = player.advance(playing, window(playing.position))
        blocks.append(block)
    np.testing.assert_array_equal(np.concatenate(blocks, axis=1)[0], clip.samples[: 2 * BLOCK, 0])


@pytest.mark.parametrize("name", ["labels", "melody", "ssm"])
def test_a_clip_of_another_length_and_of_other_notes_compiles_nothing(name):
    generator, other = make(name), MELODY.transpose(-3)
    notes = (lambda piece: piece) if name == "melody" else (lambda piece: None)
    generator.generate(0.05, notes=notes(MELODY), labels={"digit": "1"})
    with compilations() as seen:
        for seconds, piece, digit in ((0.0701, MELODY, "1"), (0.003, other, "0"), (0.2, other, "2")):
            drawing = wavegen.Drawing(temperature=0.5 + seconds)
            (clip,) = generator.generate(
                seconds, seed=7, notes=notes(piece), labels={"digit": digit}, drawing=drawing
            )
            assert len(clip.samples) == round(seconds * RATE)
    assert not seen
    with compilations() as seen:
        jax.jit(lambda x: x + 1)(jnp.zeros(3))
    assert seen, "the compiler's events have other names"


def test_chunks_hold_the_same_samples_in_other_sizes():
    blocks = [np.arange(first, first + size)[None] for first, size in ((0, 5), (5, 1), (6, 7))]
    for size in (1, 2, 5, 13, 14):
        chunks = [chunk[0].tolist() for chunk in in_chunks(iter(blocks), size)]
        assert chunks == [list(range(first, min(first + size, 13))) for first in range(0, 13, size)]
    assert list(in_chunks(iter([]), 3)) == []


@pytest.mark.parametrize("name", ["plain", "labels", "lstm", "ssm"])
def test_clips_are_those_that_were_drawn_before_there_was_a_player(name):
    """``clips.npz`` was written when each clip was drawn in chunks of 2000 samples with whole conditions."""
    labels = None if name == "plain" else {"digit": "1"}
    clips = make(name).generate(0.1, count=2, seed=7, labels=labels)
    with np.load(ARCHIVE) as archive:
        np.testing.assert_array_equal([clip.samples[:, 0] for clip in clips], archive[name])


def test_the_instrument_plays_as_it_did_before_there_was_a_player():
    melody = Performance.parse("tempo 120, C4 1/2, R 1/4, E4 1/2, G4 1/2, C5 1")
    generator = wavegen.load()
    (clip,) = generator.generate(0.33, notes=melody, seed=3)
    (continued,) = generator.generate(
        0.2, notes=melody, seed=3, prompt=Audio(clip.samples[:3333], generator.sample_rate)
    )
    with np.load(ARCHIVE) as archive:
        np.testing.assert_array_equal(clip.to_pcm16()[:, 0], archive["instrument"])
        np.testing.assert_array_equal(continued.to_pcm16()[:, 0], archive["continued"])


def stop_after(count: int) -> tuple[list[tuple[int, int]], ProgressCallback]:
    """A progress callback that stops the work after so many steps, and what it was called with."""
    seen: list[tuple[int, int]] = []

    def progress(what: str, done: int, total: int) -> None:
        assert what
        seen.append((done, total))
        if len(seen) > count:
            raise Stopped

    return seen, progress


def test_a_clip_that_is_stopped_is_the_beginning_of_the_whole():
    generator, options = make("labels"), {"seed": 4, "labels": {"digit": "1"}}
    (whole,) = generator.generate(0.1, **options)
    seen, progress = stop_after(2)
    (clip,) = generator.generate(0.1, progress=progress, **options)
    assert seen == [(0, 800), (BLOCK, 800), (2 * BLOCK, 800)]
    np.testing.assert_array_equal(clip.samples, whole.samples[: 2 * BLOCK])
    with pytest.raises(Stopped):
        generator.generate(0.1, progress=stop_after(0)[1], **options)


def test_a_player_refuses_what_it_cannot_play():
    with pytest.raises(WavegenError, match="this model is not conditioned on notes; leave them out"):
        make("plain").player().features([MELODY], 100)
    with pytest.raises(WavegenError, match="count must be at least 1, got 0"):
        make("plain").player(count=0)
