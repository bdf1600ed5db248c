"""The laws of causal models that go on from a state, each as one check of a case."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from laws.registered import Law
from wavegen.errors import WavegenError
from wavegen.models.base import Choice
from wavegen.models.layers.delay import delay, undelay
from wavegen.networks.base import parameters, with_parameters

BATCH, VOCAB, START = 2, 11, 3
CLIP = jax.random.key(5)


class Case:
    """A model whose every weight is random, something to feed it, and its methods compiled.

    ``tokens`` are what the model is to predict and ``inputs`` what it reads, the same behind the start token.

    Args:
        model: whose weights are replaced.
        frames: of a clip.
        labels: of the clips.
        features: of the clips.
        vocab: values of a token.
        start: the token before the first one.
        prompts: where prompts are cut, each with the ends of its pieces; the last one is that of scores and draws.
        later: the first frames of what no output before may depend on.
        piece: frames to draw at once.
        temperatures: with which tokens are drawn, a number for all places or one for each of two.
        relative: whether tolerances are parts of the largest output, for outputs that are not of unit size.
    """

    def __init__(
        self,
        model,
        frames,
        labels=None,
        features=None,
        *,
        vocab=VOCAB,
        start=START,
        prompts=((5, 10),),
        later=(6,),
        piece=6,
        temperatures=((1.0, 1.0),),
        relative=False,
    ):
        self.graph, self.params = parameters(stirred(model))
        self.frames, self.labels, self.features = frames, labels, features
        self.vocab, self.start_token, self.prompts, self.later = vocab, start, prompts, later
        self.piece, self.temperatures, self.relative = piece, temperatures, relative
        vocabulary = getattr(model, "vocabulary", None)
        self.codebooks = 1 if vocabulary is None else vocabulary.codebooks
        tokens = np.random.default_rng(2).integers(
            vocab - 1, size=(BATCH, frames, self.codebooks), dtype=np.int32
        )
        self.tokens = jnp.asarray(tokens)
        self.inputs = self.shift(self.tokens)
        self.forward, self.log_prob, self.init_state, self.step, self.read, self.score = map(
            self._compile, ("__call__", "log_prob", "init_state", "step", "read", "score")
        )

    def shift(self, tokens):
        return shift(tokens, self.start_token)

    def marked(self, frame):
        """Inputs with a value from a frame on that stands nowhere else, and which outputs know only what is before."""
        marked = self.shift(self.tokens.at[:, frame:].set(self.vocab - 1))
        # Output (n, k) is read in row n + k, which holds input (n + k - j, j).
        return marked, np.arange(self.frames)[:, None] + np.arange(self.codebooks)[None] <= frame

    def assert_same(self, actual, expected, tolerance=1e-4):
        scale = max(1.0, float(np.abs(expected).max())) if self.relative else 1.0
        assert_same(actual, expected, tolerance * scale)

    def _compile(self, name):
        def call(*arguments, params=self.params, **options):
            return getattr(self.model(params), name)(*arguments, **options)

        return jax.jit(call, static_argnums=0 if name == "init_state" else ())

    def model(self, params=None):
        return with_parameters(self.graph, self.params if params is None else params)

    def start(self, rows=slice(None)):
        conditions = [None if x is None else x[rows] for x in (self.labels, self.features)]
        return self.init_state(len(self.tokens[rows]), *conditions)

    def outputs(self, inputs=None, rows=slice(None), **options):
        inputs = self.inputs if inputs is None else inputs
        conditions = [None if x is None else x[rows] for x in (self.labels, self.features)]
        return np.asarray(self.forward(inputs[rows], *conditions, **options))

    def ended(self, tokens):
        """The outputs for clips that end with these tokens."""
        inputs = self.shift(tokens)
        if self.codebooks > 1:
            inputs = jnp.concatenate([inputs, tokens[:, -1:]], axis=1)
        return self.outputs(inputs)[:, : tokens.shape[1]]

    def prompted(self, cuts):
        """The state behind a prompt that is read in pieces."""
        state = self.start()
        for first, last in itertools.pairwise((0, *cuts)):
            state = self.read(self.tokens[:, first:last], state)
        return state

    def drawn(self, *pieces, temperature, allowed=None, state=None):
        """What is drawn in pieces of these lengths; the clip ends with the last."""
        state, tokens, left = self.start() if state is None else state, [], sum(pieces)
        for frames in pieces:
            if np.ndim(temperature):
                allowed = np.ones((2, self.vocab), bool) if allowed is None else allowed
                choices = jnp.asarray(temperature), jnp.asarray(allowed)
                piece, state = draw(self.graph, self.params, state, frames, jnp.int32(left), *choices)
            else:
                choice = Choice(temperature)
                piece, state = self.model().draw(state, frames, CLIP, choice=choice, left=left)
            tokens.append(np.asarray(piece))
            left -= frames
        return np.concatenate(tokens, axis=1)


def stirred(model):
    """The model with noise on every weight: fresh biases are zero and fresh outputs small, and would hide faults."""
    graph, params = parameters(model)
    random = np.random.default_rng(1)
    noise = jax.tree.map(lambda x: jnp.asarray(0.3 * random.standard_normal(x.shape, np.float32)), params)
    return with_parameters(graph, jax.tree.map(jnp.add, params, noise))


@partial(jax.jit, static_argnums=(0, 3))
def draw(graph, params, state, frames, left, temperature, allowed):
    choice = Choice(temperature, allowed=allowed)
    return with_parameters(graph, params).draw(state, frames, CLIP, choice=choice, left=left)


def shift(tokens, start=START):
    return jnp.pad(tokens, ((0, 0), (1, 0), (0, 0)), constant_values=start)[:, :-1]


def assert_same(actual, expected, tolerance=1e-4):
    np.testing.assert_allclose(actual, expected, atol=tolerance, rtol=0)


def steps_equal_the_parallel_form(case):
    parallel = case.outputs()
    assert parallel.std() > 0.1, "outputs that hardly vary would hide a fault"
    state, outputs = case.start(), []
    rows = delay(case.inputs, case.vocab)
    for m in range(rows.shape[1]):
        logits, state = case.step(rows[:, m], state)
        outputs.append(np.asarray(logits))
    case.assert_same(undelay(jnp.asarray(np.stack(outputs, axis=1))), parallel)


def steps_behind_a_prompt_equal_the_parallel_form_wherever_it_is_cut(case):
    """For one codebook: with several ones the next row knows of later frames, too."""
    parallel = case.outputs()
    for cuts in case.prompts:
        state = case.prompted(cuts)
        for n in range(cuts[-1], case.frames):
            logits, state = case.step(case.inputs[:, n], state)
            case.assert_same(logits, parallel[:, n])


def scores_are_those_of_the_parallel_form_wherever_they_are_cut(case):
    expected = np.asarray(case.log_prob(jnp.asarray(case.ended(case.tokens)), case.tokens, case.inputs))
    cuts = case.prompts[-1]
    state = case.prompted(cuts[:1])
    for first, last in itertools.pairwise((*cuts, case.frames)):
        then = case.tokens[:, last : last + case.codebooks - 1]
        scores, state = case.score(case.tokens[:, first:last], state, then)
        case.assert_same(scores, expected[:, first:last])


def objectives_are_scores_of_clips_that_end_within_a_padded_batch(case):
    """In training as in evaluation, but for a decoder's loss of its memory."""
    model = case.model()
    lengths = np.array([case.frames - 3, case.frames])
    mask = jnp.asarray(np.arange(case.frames)[None] < lengths[:, None])
    examples = {"targets": case.tokens, "inputs": case.inputs, "mask": mask}
    conditions = {"labels": case.labels, "features": case.features}
    examples |= {name: x for name, x in conditions.items() if x is not None}
    scores = []
    for row, length in enumerate(lengths):
        rows = slice(row, row + 1)
        score, _ = case.score(case.tokens[rows, :length], case.start(rows))
        scores.append(np.asarray(score, np.float64).sum())
    objective = jax.jit(lambda key: model.objective(examples, key))
    for key in (None, jax.random.key(0)):
        outcome = objective(key)
        extra = sum(outcome.figures.get(name, 0) for name in ("memory_loss",))
        np.testing.assert_allclose(outcome.total - extra, -sum(scores), rtol=1e-5)
        assert int(outcome.scored) == lengths.sum() * case.codebooks


def no_output_depends_on_later_rows(case):
    """Exactly."""
    original = case.outputs()
    for frame in case.later:
        marked, before = case.marked(frame)
        changed = case.outputs(marked)
        np.testing.assert_array_equal(original[:, before], changed[:, before])
        assert (original[:, frame + 1] != changed[:, frame + 1]).any()


def no_gradient_comes_from_later_rows(case):
    """Exactly: the embedding of a value that stands there alone gets none."""
    for frame in case.later:
        marked, before = case.marked(frame)

        def size(params, marked=marked, before=before):
            outputs = case.model(params)(marked, case.labels, case.features)
            # A tied embedding also makes the logit of its own value.
            return jnp.sum(outputs[:, before][..., : case.vocab - 1] ** 2)

        gradient = jax.jit(jax.grad(size))(case.params)
        embedding = np.asarray(gradient.get("vocabulary", gradient)["embedding"])
        assert not embedding[:, case.vocab - 1].any()
        assert embedding[:, case.start_token].any()


def a_row_does_not_depend_on_the_others(case):
    """Exactly."""
    before, after = case.outputs(), case.outputs(case.inputs.at[1].add(case.vocab // 3) % case.vocab)
    np.testing.assert_array_equal(before[0], after[0])
    assert (before[1] != after[1]).any()


def a_row_equals_the_clip_alone(case):
    whole = case.outputs()
    for row in range(BATCH):
        case.assert_same(case.outputs(rows=slice(row, row + 1))[0], whole[row], 1e-5)


def probabilities_sum_to_one(case):
    """For each row, over a batch of all values of the targets; of large vocabularies only in the first frames."""
    frames = min(case.frames, max(3, 10_000 // case.vocab))
    outputs, inputs = case.outputs()[:, :frames], np.asarray(case.inputs[:, :frames])
    targets = np.arange(case.vocab, dtype=np.int32)[:, None, None]
    targets = np.broadcast_to(targets, (case.vocab, *inputs.shape[1:]))
    for row in range(BATCH):
        all_targets = (jnp.broadcast_to(x[row], (case.vocab, *x.shape[1:])) for x in (outputs, inputs))
        log_prob = case.log_prob(next(all_targets), jnp.asarray(targets), next(all_targets))
        # Many small numbers are each rounded.
        tolerance = 1e-5 if case.vocab < 100 else 1e-4
        assert_same(np.exp(np.asarray(log_prob, np.float64)).sum(0), 1, tolerance)


def pieces_drawn_one_by_one_equal_one_draw(case):
    for temperature in case.temperatures:
        pieces = min(3, case.frames // case.piece) * (case.piece,)
        whole = case.drawn(sum(pieces), temperature=temperature)
        np.testing.assert_array_equal(case.drawn(*pieces, temperature=temperature), whole)
        assert len(np.unique(whole)) > 2
        assert 0 <= whole.min() <= whole.max() < case.vocab


def cold_draws_after_a_prompt_are_the_likeliest_tokens_of_the_parallel_form(case):
    heard, frames = case.prompts[-1][0], case.piece
    for temperature in case.temperatures:
        state = case.prompted((heard,))
        drawn = case.drawn(frames, temperature=0.0 * np.asarray(temperature), state=state)
        played = case.tokens.at[:, heard : heard + frames].set(drawn)
        likeliest = case.ended(played[:, : heard + frames]).argmax(-1)
        np.testing.assert_array_equal(drawn, likeliest[:, heard:])


def draws_keep_to_what_is_allowed_at_each_place(case):
    allowed = np.zeros((2, case.vocab), bool)
    allowed[0, :3], allowed[1, 5:7] = True, True
    drawn = case.drawn(case.piece, temperature=(2.0, 0.0), allowed=allowed)
    assert set(np.unique(drawn[:, ::2])) <= {0, 1, 2}
    assert set(np.unique(drawn[:, 1::2])) <= {5, 6}
    assert len(np.unique(drawn[:, ::2])) > 1


LAWS: tuple[Law, ...] = (
    steps_equal_the_parallel_form,
    scores_are_those_of_the_parallel_form_wherever_they_are_cut,
    objectives_are_scores_of_clips_that_end_within_a_padded_batch,
    no_output_depends_on_later_rows,
    no_gradient_comes_from_later_rows,
    a_row_does_not_depend_on_the_others,
    a_row_equals_the_clip_alone,
    probabilities_sum_to_one,
    pieces_drawn_one_by_one_equal_one_draw,
    cold_draws_after_a_prompt_are_the_likeliest_tokens_of_the_parallel_form,
    draws_keep_to_what_is_allowed_at_each_place,
)
"""The laws that every causal model obeys, each in at least one of its cases."""

OF_ONE_CODEBOOK: tuple[Law, ...] = (steps_behind_a_prompt_equal_the_parallel_form_wherever_it_is_cut,)
"""More laws of models of one codebook."""


def an_implementation_is_refused(case):
    with pytest.raises(WavegenError, match="got implementation='xla'; leave it out"):
        case.model().draw(case.start(), 2, CLIP, choice=Choice(), implementation="xla")
