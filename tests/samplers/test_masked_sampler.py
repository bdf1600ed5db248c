"""The laws of the masked sampler and its prompts; and that a small Bert learns to inpaint."""

from functools import cache, partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.flatten_util import ravel_pytree

from wavegen.errors import WavegenError
from wavegen.models.base import Choice, MaskedModel
from wavegen.models.bert import Bert
from wavegen.models.masking import masked_token
from wavegen.networks.base import parameters, with_parameters
from wavegen.samplers import prompts
from wavegen.samplers.masked import SCHEDULES, Filling, fill, generate_long, make_plan, refine
from wavegen.samplers.typical import keep_typical
from wavegen.stopping import Stopped

BATCH, FRAMES, CODEBOOKS, VOCAB = 2, 14, 2, 6
RANDOM = np.random.default_rng(0)
KEYS = jax.random.split(jax.random.key(0), BATCH)
CLIPS = jnp.asarray(RANDOM.integers(VOCAB, size=(BATCH, FRAMES, CODEBOOKS)), jnp.int32)
MASKED = jnp.full_like(CLIPS, VOCAB)


class Toy(MaskedModel):
    """Logits that depend on the frame, on the label, and on how much is known."""

    make = objective = None

    def __init__(self, scale=1.0):
        self.table = nnx.Param(jnp.asarray(scale * RANDOM.standard_normal((FRAMES, VOCAB)), jnp.float32))
        self.codebooks, self.vocab_size = CODEBOOKS, VOCAB

    def flops_per_frame(self, frames):
        return 0

    def __call__(self, tokens, labels=None, features=None, *, dropout_key=None, valid=None):
        raise NotImplementedError

    def level_logits(self, tokens, level, labels=None, *, dropout_key=None, valid=None):
        known = jnp.mean(tokens != VOCAB, axis=(1, 2))[:, None, None]
        logits = self.table[...][None, : tokens.shape[1]] * (1 + known)
        if labels is None:
            return logits
        return logits + jnp.where(labels[:, :1, None] < 0, 0.0, jax.nn.one_hot(labels[:, :1], VOCAB))


FILLING = Filling(passes=(5, 3))
GRAPH, PARAMS = parameters(Toy())


@partial(jax.jit, static_argnames="cut")
def one_pass(tokens, keys, unknown, labels, valid, now, cut):
    return refine(with_parameters(GRAPH, PARAMS), tokens, keys, unknown, labels, valid, now, cut)


def watch(tokens, filling=FILLING, labels=None, valid=None):
    """The tokens before the first pass and after each."""
    valid = jnp.ones(tokens.shape[:2], bool) if valid is None else valid
    unknown = jnp.sum((tokens == VOCAB) & valid[..., None], axis=1)
    states = [np.asarray(tokens)]
    plan, cut = make_plan(filling, CODEBOOKS)
    for index in range(len(plan.level)):
        now = jax.tree.map(lambda column, index=index: jnp.asarray(column[index]), plan)
        tokens = one_pass(tokens, KEYS[: len(tokens)], unknown, labels, valid, now, cut)
        states.append(np.asarray(tokens))
    return states


def filled(tokens=MASKED, filling=FILLING, **options):
    return np.asarray(fill(GRAPH, PARAMS, tokens, KEYS[: len(tokens)], filling, **options))


def test_one_loop_is_pass_after_pass():
    np.testing.assert_array_equal(filled(), watch(MASKED)[-1])


def test_progress_is_called_for_each_pass_of_each_window_and_may_stop_between_two():
    seen = []
    np.testing.assert_array_equal(filled(progress=lambda *step: seen.append(step)), filled())
    assert seen == [("drawing", done, 8) for done in range(9)]
    long, seen = jnp.concatenate([MASKED, MASKED], axis=1), []

    def progress(what, done, total):
        seen.append((done, total))
        if done == 10:
            raise Stopped

    with pytest.raises(Stopped):
        generate_long(GRAPH, PARAMS, long, KEYS, FILLING, window=MASKED.shape[1], progress=progress)
    # Three windows, of which each moves on by half.
    assert seen[-1] == (10, 3 * 8)
    assert [done for done, _ in seen] == [*range(9), *range(8, 11)]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("passes", [(5, 3), (20, 20)])
def test_masked_count_falls_in_every_pass_and_ends_at_zero(schedule, passes):
    states = watch(MASKED, Filling(passes=passes, schedule=schedule))
    counts = np.stack([(tokens == VOCAB).sum((1, 2)) for tokens in states])
    falls = np.diff(counts, axis=0) < 0
    # Passes that are more than there are tokens have nothing left to do.
    assert (falls.sum(0) == sum(min(n, FRAMES) for n in passes)).all()
    assert falls[: min(passes[0], FRAMES)].all()
    assert (counts[-1] == 0).all()
    assert states[-1].min() >= 0
    # One codebook is done before the next one begins.
    assert (states[passes[0]][:, :, 0] < VOCAB).all()
    assert (states[passes[0]][:, :, 1] == VOCAB).all()


def test_what_is_found_or_known_stays():
    for before, after in pairwise(watch(prompts.periodic(CLIPS, 4, VOCAB))):
        kept = before != VOCAB
        np.testing.assert_array_equal(after[kept], before[kept])


def test_counts_follow_the_schedule():
    states = watch(MASKED, Filling(passes=4, schedule="linear"))
    assert [int((tokens[0, :, 0] == VOCAB).sum()) for tokens in states[:5]] == [14, 10, 7, 3, 0]


def test_one_pass_draws_each_token_from_its_distribution():
    rows = 3000
    keys = jax.random.split(jax.random.key(1), rows)
    tokens = jnp.full((rows, FRAMES, CODEBOOKS), VOCAB, jnp.int32)
    filled = fill(GRAPH, PARAMS, tokens, keys, Filling(passes=1))[:, :, 0]
    frequency = np.mean(np.asarray(filled)[..., None] == np.arange(VOCAB), axis=0)
    np.testing.assert_allclose(frequency, jax.nn.softmax(PARAMS["table"]), atol=0.04)


def test_without_noise_the_surest_tokens_are_found_first_and_at_temperature_zero_the_likeliest():
    states = watch(MASKED, Filling(passes=(5, 3), choice=Choice(temperature=0.0), noise=0.0))
    expected = np.broadcast_to(np.argmax(PARAMS["table"], 1)[None, :, None], CLIPS.shape)
    np.testing.assert_array_equal(states[-1], expected)
    sure = np.asarray(jax.nn.softmax(PARAMS["table"])).max(1)
    for tokens in states[1:5]:
        found = tokens[0, :, 0] != VOCAB
        assert sure[found].min() > sure[~found].max()


def test_spans_are_found_together():
    valid = jnp.ones((BATCH, FRAMES), bool).at[:, 12:].set(False)
    # Of 12 tokens 8 and 4 stay masked.
    for tokens in watch(MASKED, Filling(passes=3, schedule="linear", span=4), valid=valid)[1:3]:
        masked = (tokens[:, :12, 0] == VOCAB).reshape(-1, 4)
        assert (masked.all(1) == masked.any(1)).all()
    # Where the last span is shorter than the others, nothing stays masked.
    assert (watch(MASKED, Filling(passes=3, schedule="linear", span=4))[-1] < VOCAB).all()


def test_guidance_is_extrapolation_that_is_annealed():
    labels = jnp.asarray([[1], [-1]], jnp.int32)
    table, bonus = np.asarray(PARAMS["table"]), np.eye(VOCAB)[1]
    for guidance, expected in (((4.0, 4.0), 4.0), ((4.0, 1.0), 4.0), ((1.0, 1.0), 1.0)):
        tokens = filled(
            MASKED,
            Filling(passes=1, choice=Choice(temperature=0.0), guidance=guidance),
            labels=labels,
        )
        np.testing.assert_array_equal(tokens[0, :, 0], np.argmax(table + expected * bonus, 1))
        np.testing.assert_array_equal(tokens[1, :, 0], np.argmax(table, 1))
    annealed = make_plan(Filling(passes=4, schedule="linear", guidance=(5.0, 1.0)), 1)[0].guidance
    np.testing.assert_allclose(annealed, [5, 4, 3, 2])


def test_same_keys_same_tokens_and_a_row_equals_the_clip_alone():
    tokens = prompts.inpaint(CLIPS, [(3, 9)], VOCAB)
    both = filled(tokens)
    np.testing.assert_array_equal(both, filled(tokens))
    np.testing.assert_array_equal(both[1:], fill(GRAPH, PARAMS, tokens[1:], KEYS[1:], FILLING))
    assert (both != np.asarray(fill(GRAPH, PARAMS, tokens, KEYS[::-1], FILLING))).any()


def test_frames_that_are_not_valid_come_back_as_they_are():
    valid = jnp.arange(FRAMES)[None] < jnp.asarray([[14], [9]])
    tokens = filled(valid=valid)
    assert (tokens[1, 9:] == VOCAB).all()
    assert (tokens[np.asarray(valid)] < VOCAB).all()


def test_typical_keeps_what_tells_about_as_much_as_the_mean():
    p = jnp.asarray([[0.4, 0.2, 0.15, 0.15, 0.1]])
    # H = 1.488; distances 0.57, 0.12, 0.41, 0.41, 0.81.
    for mass, kept in ((0.1, [1]), (0.3, [1, 2, 3]), (0.6, [0, 1, 2, 3]), (0.95, [0, 1, 2, 3, 4])):
        finite = np.isfinite(keep_typical(jnp.log(p), mass))[0]
        assert np.flatnonzero(finite).tolist() == kept


def test_top_k_chooses_among_the_typical():
    tokens = filled(filling=Filling(passes=1, typical=0.3, choice=Choice(top_k=1)))
    expected = np.argmax(keep_typical(PARAMS["table"], 0.3), 1)
    np.testing.assert_array_equal(tokens[:, :, 0], np.broadcast_to(expected, (BATCH, FRAMES)))
    assert (expected != np.argmax(PARAMS["table"], 1)).any()


@pytest.mark.parametrize(
    ("filling", "message"),
    [
        (Filling(passes=(3,)), r"at least 1 pass for each of 2 codebooks, got \(3,\)"),
        (Filling(passes=0), "at least 1 pass"),
        (Filling(schedule="sudden"), "schedule is one of cosine, linear, square, cubic, got 'sudden'"),
        (Filling(typical=0.0), r"typical is in \(0, 1\], got 0.0"),
        (Filling(choice=Choice(top_p=1.5)), "top_p"),
        (Filling(choice=Choice(top_k=-1)), "top_k"),
        (Filling(choice=Choice(temperature=-1.0)), "temperature"),
        (Filling(span=0), "span is 1 or more"),
        (Filling(noise=-1.0), "noise is 0 or more"),
        (Filling(guidance=(3.0, 1.0)), "needs labels to be guided by"),
    ],
)
def test_bad_settings_are_told(filling, message):
    with pytest.raises(WavegenError, match=message):
        fill(GRAPH, PARAMS, MASKED, KEYS, filling)


# --- prompts -----------------------------------------------------------------------------------------------


def masked_frames(tokens):
    masked = np.asarray(tokens) == VOCAB
    assert (masked.all(2) == masked.any(2)).all()
    return masked.all(2)


def test_prompts_mask_what_they_say_and_nothing_else():
    frame = np.arange(FRAMES)
    for tokens, expected in (
        (prompts.unconditional(CLIPS, VOCAB), frame >= 0),
        (prompts.inpaint(CLIPS, [(8, 10), (0, 3)], VOCAB), (frame < 3) | ((frame >= 8) & (frame < 10))),
        (prompts.periodic(CLIPS, 5, VOCAB), frame % 5 != 0),
        (prompts.continuation(CLIPS[:, :6], 8, VOCAB), frame >= 6),
        (prompts.compression(CLIPS, 0, VOCAB), frame >= 0),
        (prompts.compression(CLIPS, 2, VOCAB), frame < 0),
    ):
        np.testing.assert_array_equal(masked_frames(tokens), np.broadcast_to(expected, (BATCH, FRAMES)))
        kept = np.asarray(tokens) != VOCAB
        np.testing.assert_array_equal(np.asarray(tokens)[kept], np.asarray(CLIPS)[kept])
    coarse = np.asarray(prompts.compression(CLIPS, 1, VOCAB))
    np.testing.assert_array_equal(coarse[..., 0], CLIPS[..., 0])
    assert (coarse[..., 1] == VOCAB).all()


def test_variation_masks_a_share_of_the_frames_of_each_clip():
    for strength, count in ((0.0, 0), (0.5, 7), (1.0, 14)):
        masked = masked_frames(prompts.variation(CLIPS, strength, KEYS, VOCAB))
        assert masked.sum(1).tolist() == [count, count]
    half = masked_frames(prompts.variation(CLIPS, 0.5, KEYS, VOCAB))
    assert (half[0] != half[1]).any()
    np.testing.assert_array_equal(half[1:], masked_frames(prompts.variation(CLIPS[1:], 0.5, KEYS[1:], VOCAB)))


def test_prompts_are_combined_by_maximum_and_minimum():
    a, b = prompts.periodic(CLIPS, 2, VOCAB), prompts.inpaint(CLIPS, [(2, 7)], VOCAB)
    either, both = masked_frames(jnp.maximum(a, b)), masked_frames(jnp.minimum(a, b))
    np.testing.assert_array_equal(either, masked_frames(a) | masked_frames(b))
    np.testing.assert_array_equal(both, masked_frames(a) & masked_frames(b))


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (partial(prompts.inpaint, spans=[(3, 15)]), "inside the clip's 14 frames, got 3:15"),
        (partial(prompts.inpaint, spans=[(-1, 2)]), "got -1:2"),
        (partial(prompts.inpaint, spans=[(4, 4)]), "got 4:4; give first < last"),
        (
            partial(prompts.inpaint, spans=[(5, 9), (2, 6)]),
            "expected spans apart, got one to 6 and one from 5",
        ),
        (partial(prompts.continuation, frames=0), "at least 1 frame to follow, got 0"),
        (partial(prompts.periodic, period=0), "a period of at least 1 frame, got 0"),
        (partial(prompts.compression, codebooks=3), "0 to 2 codebooks to keep, got 3"),
        (partial(prompts.variation, strength=1.1, keys=KEYS), r"strength in \[0, 1\], got 1.1"),
    ],
)
def test_bad_prompts_are_told(prompt, message):
    with pytest.raises(WavegenError, match=message):
        prompt(CLIPS, vocab_size=VOCAB)


# --- a Bert that has learned ---------------------------------------------------------------------------------

PERIOD, LENGTH = 4, 16
PATTERN = np.asarray([[1, 5], [4, 0], [2, 2], [3, 5]], np.int32)


def repeated(frames):
    return jnp.asarray(np.resize(PATTERN, (1, frames, CODEBOOKS)))


@cache
def learned():
    """A Bert that was shown nothing but a repeated pattern, from any of its frames on."""
    bert = Bert(
        vocab_size=VOCAB, codebooks=CODEBOOKS, width=64, layers=1, heads=2, random=np.random.default_rng(0)
    )
    graph, params = parameters(bert)
    # One vector: XLA compiles the optimizer once, not for each array.
    flat, as_tree = ravel_pytree(params)
    optimizer = optax.adam(5e-3)
    shifts = np.stack([np.asarray(repeated(LENGTH + PERIOD))[0, s : s + LENGTH] for s in range(PERIOD)])
    clips = jnp.asarray(np.tile(shifts, (4, 1, 1)))
    examples = {"targets": clips, "mask": jnp.ones(clips.shape[:2], bool)}

    def loss(flat, key):
        model = with_parameters(graph, as_tree(flat))
        nats, count, *_ = masked_token(model, examples, key, label_smoothing=0.0)
        return nats / count

    @jax.jit
    def train(flat):
        def step(state, key):
            flat, moments = state
            value, gradient = jax.value_and_grad(loss)(flat, key)
            updates, moments = optimizer.update(gradient, moments)
            return (flat + updates, moments), value

        keys = jax.random.split(jax.random.key(0), 300)
        (flat, _), values = jax.lax.scan(step, (flat, optimizer.init(flat)), keys)
        return flat, values

    flat, values = train(flat)
    return graph, as_tree(flat), np.asarray(values)


def test_learned_pattern_is_inpainted_exactly():
    graph, params, losses = learned()
    assert losses[-20:].mean() < 0.3 * losses[:5].mean()
    clip = repeated(LENGTH)
    prompt = prompts.inpaint(clip, [(5, 9), (12, 15)], VOCAB)
    np.testing.assert_array_equal(fill(graph, params, prompt, KEYS[:1], Filling(passes=4)), clip)


def test_learned_pattern_goes_on_window_after_window():
    graph, params, _ = learned()
    clip = repeated(43)
    prompt = prompts.continuation(clip[:, :6], 37, VOCAB)
    likeliest = Filling(passes=4, choice=Choice(temperature=0.0))
    long = generate_long(graph, params, prompt, KEYS[:1], likeliest, window=LENGTH)
    np.testing.assert_array_equal(long, clip)


def test_windows_of_clips_that_fit_are_one():
    for window in (FRAMES, 99):
        long = generate_long(GRAPH, PARAMS, MASKED, KEYS, FILLING, window=window)
        keys = jax.vmap(jax.random.fold_in, (0, None))(KEYS, 0)
        np.testing.assert_array_equal(long, fill(GRAPH, PARAMS, MASKED, keys, FILLING))
    with pytest.raises(WavegenError, match="a window of at least 2 frames, got 1"):
        generate_long(GRAPH, PARAMS, MASKED, KEYS, window=1)


@pytest.mark.parametrize(
    ("period", "firsts"), [(1, [0, 5, 10, 15, 17]), (4, [0, 4, 8, 12, 16, 20])], ids=["alike", "period"]
)
def test_windows_move_on_by_half_and_end_with_the_clip(period, firsts):
    tokens = jnp.full((1, 27, CODEBOOKS), VOCAB, jnp.int32)
    expected = tokens
    for index, first in enumerate(firsts):
        key = jax.random.fold_in(KEYS[0], index)[None]
        piece = fill(GRAPH, PARAMS, expected[:, first : first + 10], key, FILLING)
        expected = expected.at[:, first : first + 10].set(piece)
    np.testing.assert_array_equal(
        generate_long(GRAPH, PARAMS, tokens, KEYS[:1], FILLING, window=10, period=period), expected
    )
