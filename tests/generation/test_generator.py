"""What a person asks of a trained model: audio of the right length, the same twice, and errors that say what to do."""

import json
import math
from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import wavegen
from wavegen.audio import Audio
from wavegen.codecs.base import Codecs
from wavegen.config import VERSION, resolve
from wavegen.errors import WavegenError
from wavegen.generation.audio import AudioGenerator
from wavegen.models.kinds import make_model
from wavegen.networks.base import parameters, with_parameters
from wavegen.notes.performance import Performance
from wavegen.runs.checkpoints import Checkpoints
from wavegen.runs.trained import Trained, open_codecs
from wavegen.samplers.drawing import Drawing
from wavegen.training.step import first_state, make_evaluation_step

RATE = 8000
MODEL = {"dilations": [1, 2, 4], "cycles": 1, "residual_channels": 8, "gate_channels": 6, "skip_channels": 8}
MODEL |= {"head_channels": 8, "kernel_size": 3}
VOCABULARY = {"digit": ["0", "1", "2"], "speaker": ["george", "lucas"]}
VARIANTS = {
    "plain": [],
    "labels": ["model.label_fields=[digit, speaker]"],
    "notes": ["model.local={kind: notes, channels: 6, hop_length: 40, harmonics: 1}"],
    "features": ["model.local={kind: features, width: 3, channels: 6, hop_length: 64}"],
    "mixture": ["codec.kind=linear", "model.input=scalar", "model.head.kind=mixture"],
    "prediction": [
        "model.input=scalar",
        "model.head={kind: mixture, linear_prediction: 24}",
        "model.kernel_size=2",
    ],
}
OTHERS = {
    "lstm": {"kind": "lstm", "width": 8, "layers": 1, "label_fields": ["digit"]},
    "ssm": {"kind": "ssm", "width": 8, "layers": 1, "pooling": [4], "label_fields": ["digit"]},
    "decoder": {
        "kind": "decoder",
        "width": 8,
        "layers": 1,
        "heads": 1,
        "reach": {"segment": 64, "memory": 64},
    },
}
MELODY = Performance.parse("tempo 240, A4 1, C5 1/2, R 1/2, E4 2")

COLD = Drawing(temperature=0)


@cache
def make(variant: str, seed: int = 0) -> AudioGenerator:
    """An untrained model whose every weight is random."""
    tree = {"data": {"sample_rate": RATE, "crop": 1280 * 5}, "model": OTHERS.get(variant, MODEL)}
    config = resolve(tree, VARIANTS.get(variant, []))
    codecs = open_codecs(config)
    params = parameters(make_model(config, codecs, VOCABULARY))[1]
    random = np.random.default_rng(seed)
    params = jax.tree.map(lambda x: np.asarray(x) + 0.2 * random.standard_normal(x.shape, np.float32), params)
    return AudioGenerator.open(Trained(config, VOCABULARY, params, codecs))


def card_of(generator: AudioGenerator) -> dict:
    """What a checkpoint says of its arrays."""
    labels = {field: list(values) for field, values in generator.labels.items()}
    return {"config": generator.config.model_dump(mode="json"), "labels": labels}


def recording(samples: int, rate: int = RATE, channels: int = 1) -> Audio:
    time = np.arange(samples) / rate
    wave = 0.3 * np.sin(2 * np.pi * 300 * time) + 0.02 * np.random.default_rng(0).standard_normal(samples)
    return Audio(np.repeat(wave[:, None], channels, axis=1).astype(np.float32), rate)


def samples(clips: list[Audio]) -> np.ndarray:
    return np.stack([clip.samples[:, 0] for clip in clips])


# --- generate and stream ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "length"), [(0.02, 160), (0.00507, 41), (1 / RATE, 1)])
def test_clips_have_exactly_the_length_that_was_asked_for(seconds, length):
    clips = make("plain").generate(seconds, count=2)
    assert [clip.samples.shape for clip in clips] == [(length, 1)] * 2
    assert {clip.sample_rate for clip in clips} == {RATE}
    assert np.abs(samples(clips)).max() <= 1


def test_the_same_seed_gives_the_same_clips_and_another_seed_others():
    one, again, other = (samples(make("plain").generate(0.02, count=2, seed=seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any(axis=1).all()
    assert (one[0] != one[1]).any()


@pytest.mark.parametrize("variant", ["notes", "prediction", *OTHERS])
def test_the_audio_does_not_depend_on_how_it_is_cut(variant):
    notes = MELODY if variant == "notes" else None
    whole = samples(make(variant).generate(0.05, count=2, seed=3, notes=notes))
    blocks = list(make(variant).stream(0.05, count=2, seed=3, notes=notes, chunk=90))
    assert [block.shape[1] for block in blocks] == [90, 90, 90, 90, 40]
    np.testing.assert_array_equal(np.concatenate(blocks, axis=1), whole)


@pytest.mark.parametrize("variant", ["plain", "mixture", *OTHERS])
def test_a_prompt_comes_back_unchanged_but_for_the_codec(variant):
    generator, prompt = make(variant), recording(160)
    clips = generator.generate(0.02, count=2, prompt=prompt)
    coded = generator.codec.decode(generator.codec.encode(jnp.asarray(prompt.samples.T)))
    for clip in clips:
        assert len(clip.samples) == 320
        np.testing.assert_array_equal(clip.samples[:160, 0], coded[0])
    if variant == "mixture":  # 16 bit
        np.testing.assert_allclose(clips[0].samples[:160], prompt.samples, atol=2e-5)


def test_a_prompt_is_mixed_and_resampled_and_is_heard():
    clips = make("plain").generate(0.02, prompt=recording(320, 2 * RATE, channels=2), drawing=COLD)
    assert len(clips[0].samples) == 320
    unprompted = make("plain").generate(0.02, drawing=COLD)
    assert (clips[0].samples[160:] != unprompted[0].samples).any()


def test_a_conditioned_model_hears_its_labels():
    generator = make("labels")
    one, other, none = (
        samples(generator.generate(0.02, drawing=COLD, labels=labels))
        for labels in ({"digit": "0", "speaker": "lucas"}, {"digit": "2", "speaker": "lucas"}, None)
    )
    assert (one != other).any()
    assert (one != none).any()


def test_a_conditioned_model_plays_notes_to_their_end():
    generator = make("notes")
    (clip,) = generator.generate(notes=MELODY)
    assert MELODY.seconds == 1.0
    assert len(clip.samples) == RATE
    other = Performance.parse("tempo 240, F4 1, C5 3")
    alike = samples(generator.generate(0.02, notes=MELODY, count=2))
    unlike = samples(generator.generate(0.02, notes=[MELODY, other], count=2))
    np.testing.assert_array_equal(alike[0], unlike[0])
    assert (alike[1] != unlike[1]).any()


def test_top_k_one_is_the_likeliest_token():
    cold, narrow = (
        samples(make("plain").generate(0.02, drawing=drawing)) for drawing in (COLD, Drawing(top_k=1))
    )
    np.testing.assert_array_equal(cold, narrow)


def test_the_reference_implementation_gives_the_same_audio():
    fast, plain = (
        samples(make("plain").generate(0.02, implementation=implementation))
        for implementation in (None, "reference")
    )
    np.testing.assert_array_equal(fast, plain)


@pytest.mark.parametrize(
    ("variant", "arguments", "message"),
    [
        (
            "plain",
            {},
            "expected a length, got none; give one, for example --seconds 3, or seconds=3 in Python",
        ),
        ("plain", {"seconds": 0}, "seconds must be at least one sample, got 0"),
        ("plain", {"seconds": math.nan}, "seconds must be at least one sample, got nan"),
        ("plain", {"seconds": 1, "count": 0}, "count must be at least 1, got 0"),
        (
            "plain",
            {"seconds": 1, "drawing": Drawing(temperature=-0.5)},
            "temperature must be at least 0, got -0.5",
        ),
        (
            "plain",
            {"seconds": 1, "drawing": Drawing(temperature=math.inf)},
            "temperature must be at least 0, got inf",
        ),
        ("plain", {"seconds": 1, "drawing": Drawing(top_k=-1)}, "top_k must be at least 0, got -1"),
        (
            "plain",
            {"seconds": 1, "drawing": Drawing(top_p=0)},
            "top_p must lie in (0, 1], got 0; 1 draws among all",
        ),
        (
            "plain",
            {"seconds": 1, "implementation": "x"},
            "there is no implementation 'x'; choose from cuda, cpu, ",
        ),
        (
            "plain",
            {"seconds": 1, "labels": {"digit": "1"}},
            "this model has no label field 'digit'; it has none",
        ),
        ("plain", {"seconds": 1, "notes": MELODY}, "this model is not conditioned on notes; leave them out"),
        (
            "plain",
            {"seconds": 1, "prompt": recording(0)},
            "the recording holds no samples; give one that does",
        ),
        (
            "mixture",
            {"seconds": 1, "drawing": Drawing(top_k=5)},
            "top_k and top_p need a softmax head, this model has a mixture",
        ),
        (
            "mixture",
            {"seconds": 1, "drawing": Drawing(top_p=0.9)},
            "top_k and top_p need a softmax head, this model has a mixture",
        ),
        ("labels", {"seconds": 1, "labels": {"digt": "1"}}, "no label field 'digt'; it has digit, speaker"),
        (
            "labels",
            {"seconds": 1, "labels": {"digit": "7"}},
            "label digit=7 was not in the training data; it had 0, 1, 2",
        ),
        ("notes", {"seconds": 1}, "this model plays notes: give some, for example --notes melody.txt"),
        ("notes", {"notes": Performance.parse("R 1")}, "seconds must be at least one sample, got 0.0"),
        (
            "notes",
            {"seconds": 1, "count": 3, "notes": [MELODY, MELODY]},
            "give one melody for all 3 clips, or one for each; got 2",
        ),
        ("features", {"seconds": 1}, "this model is conditioned on features of its own; drive it by"),
    ],
)
def test_what_cannot_be_had_is_said_before_anything_is_generated(variant, arguments, message):
    with pytest.raises(WavegenError) as caught:
        make(variant).stream(**arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# --- likelihood ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["plain", "labels", "notes", "prediction"])
def test_the_likelihood_does_not_depend_on_windows_and_is_that_of_training(variant):
    generator, audio = make(variant), recording(500)
    conditions = {
        "labels": {"labels": {"digit": "1", "speaker": "lucas"}},
        "notes": {"notes": MELODY},
    }.get(variant, {})
    whole = generator.log_likelihood(audio, **conditions)
    assert whole.shape == (500,)
    assert whole.dtype == np.float64
    pieces = generator.log_likelihood(audio, window=130, **conditions)
    np.testing.assert_allclose(pieces, whole, atol=1e-4)

    batch = {
        "pcm": jnp.asarray(audio.to_pcm16().T),
        "length": jnp.array([500]),
        "context": jnp.array([0]),
        "labels": jnp.array([[1, 1]])[:, : len(generator.config.model.label_fields)],
        "features": jnp.asarray(MELODY.frames(RATE, 40, 500))[None],
    }
    evaluate = jax.jit(make_evaluation_step(generator.config, generator.graph))
    nats, count, *_ = evaluate(generator.params, batch, Codecs(generator.codec))
    heard = Audio.from_pcm16(audio.to_pcm16(), RATE)  # training reads 16 bits
    assert int(count) == 500
    np.testing.assert_allclose(generator.log_likelihood(heard, **conditions).sum(), -nats, rtol=1e-5)


def test_the_likelihood_of_one_sample_is_that_after_silence():
    generator = make("plain")
    start = jnp.full((1, 1, 1), generator.codec.start_token)
    logits = with_parameters(generator.graph, generator.params)(start)[0, 0, 0]
    token = generator.codec.encode(jnp.asarray(recording(1).samples.T))[0, 0, 0]
    (expected,) = generator.log_likelihood(recording(1))
    np.testing.assert_allclose(expected, jax.nn.log_softmax(logits)[token], rtol=1e-4)


@pytest.mark.parametrize(
    ("variant", "arguments", "message"),
    [
        ("plain", {"audio": recording(0)}, "the recording holds no samples"),
        ("plain", {"audio": recording(9), "window": 0}, "window must be at least 1, got 0"),
        ("notes", {"audio": recording(9)}, "this model plays notes: give some"),
        ("labels", {"audio": recording(9), "labels": {"digit": "9"}}, "digit=9 was not in the training data"),
    ],
)
def test_a_likelihood_that_cannot_be_had_is_refused(variant, arguments, message):
    with pytest.raises(WavegenError, match=message):
        make(variant).log_likelihood(**arguments)


# --- save and load ------------------------------------------------------------------------------------------


def save_run(folder, generator: AudioGenerator, steps=(10,)) -> None:
    """A run folder as training leaves it, whose averaged weights are the generator's plus the step."""
    state = first_state(generator.config, generator.labels, Codecs(generator.codec))[1]
    with Checkpoints(folder / "checkpoints", keep_latest=9) as checkpoints:
        for step in steps:
            ema = jax.tree.map(lambda p, n=step: p + n, generator.params)
            checkpoints.save(step, {**state, "ema": ema}, card_of(generator))


@pytest.mark.parametrize("variant", ["labels", "prediction"])
def test_a_saved_generator_comes_back(tmp_path, variant):
    original = make(variant)
    loaded = wavegen.load(original.save(tmp_path / "a.safetensors"))
    assert (loaded.config, loaded.labels) == (original.config, original.labels)
    # float16 moves the weights of the first save by less than one part in a thousand, those of the second not at all.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6), loaded.params, original.params
    )
    again = wavegen.load(loaded.save(tmp_path / "b.safetensors"))
    np.testing.assert_array_equal(samples(loaded.generate(0.01)), samples(again.generate(0.01)))
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_weights_in_bfloat16_give_nearly_the_same_likelihood(tmp_path):
    path = make("notes").save(tmp_path / "model.safetensors")
    clip, given = recording(700), {"notes": MELODY}
    exact, rounded = (
        wavegen.load(path, precision=p).log_likelihood(clip, **given) for p in ("float32", "bfloat16")
    )
    assert 0 < abs(exact.mean() - rounded.mean()) < 0.05
    assert wavegen.load(path, precision="bfloat16").generate(0.02, **given)[0].samples.shape == (160, 1)


def test_a_run_folder_gives_the_averaged_weights_of_its_newest_sound_checkpoint(tmp_path):
    original = make("plain")
    save_run(tmp_path, original, (10, 20))
    loaded = wavegen.load(tmp_path)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b + 20, rtol=1e-6), loaded.params, original.params
    )
    file = max((tmp_path / "checkpoints" / "20").rglob("*"), key=lambda path: path.stat().st_size)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.warns(UserWarning, match="checkpoint 20 is damaged and is left out"):
        loaded = wavegen.load(tmp_path)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b + 10, rtol=1e-6), loaded.params, original.params
    )


def change(path, arrays=None, card=None) -> None:
    """Rewrites a saved file with other arrays or another card."""
    content = {**load_file(path), **(arrays or {})}
    card = card_of(make("plain")) if card is None else card
    save_file(content, path, metadata={"wavegen": card if isinstance(card, str) else json.dumps(card)})


def wider(card: dict) -> dict:
    """The card of a network of some GiB."""
    model = card["config"]["model"] | {"skip_channels": 8192, "head_channels": 8192, "cycles": 16}
    return card | {"config": card["config"] | {"model": model}}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda path: path.unlink(),
            r"no run folder or \.safetensors file at .*a\.safetensors, and no shipped model of that name",
        ),
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "is not a readable safetensors file"),
        (lambda path: path.write_bytes(b"RIFF....WAVE"), "is not a readable safetensors file"),
        (
            lambda path: save_file({"a": np.zeros(3)}, path),
            "holds tensors but no wavegen card; use a file that wavegen wrote",
        ),
        (
            lambda path: change(path, {"skip_bias": np.zeros(5, np.float16)}),
            "do not fit the configuration they came",
        ),
        (
            lambda path: change(path, {"other": np.zeros(5, np.float16)}),
            "do not fit the configuration they came with",
        ),
        (
            lambda path: change(path, card={"config": {"version": VERSION + 1}, "labels": {}}),
            f"has version {VERSION + 1}, this wavegen reads versions 1 to {VERSION}; update wavegen",
        ),
        (
            lambda path: change(path, card=wider(card_of(make("plain")))),
            "and the file holds .* it is damaged",
        ),
        (lambda path: change(path, card="{"), "holds a damaged wavegen card"),
        (lambda path: change(path, card={"labels": {}}), "holds a damaged wavegen card"),
    ],
)
def test_a_file_that_cannot_be_loaded_is_one_line(tmp_path, damage, message):
    path = make("plain").save(tmp_path / "a.safetensors")
    damage(path)
    with pytest.raises(WavegenError, match=message) as caught:
        wavegen.load(path)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_no_run_is_one_line(tmp_path):
    with pytest.raises(
        WavegenError, match=r"is not a run folder \(it has no checkpoints\); give the folder that"
    ):
        wavegen.load(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(WavegenError, match=r"expected a checkpoint in .*, got none"):
        wavegen.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.wav", r"expected a file named NAME\.safetensors, got a\.wav"),
        ("file/a.safetensors", "cannot write .*a.safetensors"),
    ],
)
def test_a_place_that_cannot_be_written_is_one_line(tmp_path, name, message):
    (tmp_path / "file").write_text("")
    with pytest.raises(WavegenError, match=message):
        make("plain").save(tmp_path / name)


def test_weights_too_large_for_a_file_are_named():
    generator = make("plain")
    params = {**generator.params, "skip_bias": generator.params["skip_bias"] + 1e6}
    with pytest.raises(WavegenError, match="the weight skip_bias is not finite in float16"):
        replace(generator, params=params).save("never.safetensors")
