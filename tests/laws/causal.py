"""The laws of causal models that go on from a state, each as one check of a case."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wavegen.errors import WavegenError
from wavegen.models.base import Choice
from wavegen.models.layers.delay import delay, undelay
from wavegen.networks.base import parameters, with_parameters

BATCH, VOCAB, START = 2, 11, 3
CLIP = jax.random.key(5)
EVERYTHING = np.ones((2, VOCAB), bool)


class Case:
    """A model whose every weight is random, something to feed it, and its methods compiled.

    ``tokens`` are what the model is to predict and ``inputs`` what it reads, the same behind the start token.
    """

    def __init__(self, model, frames, labels=None, features=None):
        self.graph, params = parameters(model)
        random = np.random.default_rng(1)
        # Fresh biases are zero and fresh outputs small: nothing could go wrong in them.
        self.params = jax.tree.map(
            lambda x: x + jnp.asarray(0.3 * random.standard_normal(x.shape, np.float32)), params
        )
        self.frames, self.labels, self.features = frames, labels, features
        self.codebooks = model.vocabulary.codebooks
        tokens = random.integers(VOCAB - 1, size=(BATCH, frames, self.codebooks), dtype=np.int32)
        self.tokens = jnp.asarray(tokens)
        self.inputs = shift(self.tokens)
        self.forward, self.log_prob, self.init_state, self.step, self.read, self.score = map(
            self._compile, ("__call__", "log_prob", "init_state", "step", "read", "score")
        )

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

    def drawn(self, *pieces, temperature=(1.0, 1.0), allowed=EVERYTHING, state=None):
        state, tokens = self.start() if state is None else state, []
        for frames in pieces:
            piece, state = draw(
                self.graph, self.params, state, frames, jnp.asarray(temperature), jnp.asarray(allowed)
            )
            tokens.append(np.asarray(piece))
        return np.concatenate(tokens, axis=1)


@partial(jax.jit, static_argnums=(0, 3))
def draw(graph, params, state, frames, temperature, allowed):
    choice = Choice(temperature, allowed=allowed)
    return with_parameters(graph, params).draw(state, frames, CLIP, choice=choice)


def shift(tokens):
    return jnp.pad(tokens, ((0, 0), (1, 0), (0, 0)), constant_values=START)[:, :-1]


def assert_same(actual, expected, tolerance=1e-4):
    np.testing.assert_allclose(actual, expected, atol=tolerance, rtol=0)


def steps_equal_the_parallel_form(case):
    parallel = case.outputs()
    assert parallel.std() > 0.1, "outputs that hardly vary would hide a fault"
    state, outputs = case.start(), []
    rows = delay(case.inputs, VOCAB)
    for m in range(rows.shape[1]):
        logits, state = case.step(rows[:, m], state)
        outputs.append(np.asarray(logits))
    assert_same(undelay(jnp.asarray(np.stack(outputs, axis=1))), parallel)


def scores_are_those_of_the_parallel_form_wherever_the_prompt_is_cut(case, cuts):
    """With several codebooks the rows at the end of a score know less, so a prompt is read and the rest scored."""
    expected = np.asarray(case.log_prob(jnp.asarray(case.outputs()), case.tokens, case.inputs))
    state = case.start()
    for first, last in itertools.pairwise((0, *cuts)):
        state = case.read(case.tokens[:, first:last], state)
    scores, _ = case.score(case.tokens[:, cuts[-1] :], state)
    assert_same(scores, expected[:, cuts[-1] :])


def no_output_depends_on_later_rows(case, frame):
    """Exactly: nothing else changes, and no gradient comes from there."""
    # A value that stands nowhere else: its embedding steers later rows alone.
    marked = shift(case.tokens.at[:, frame:].set(VOCAB - 1))
    # Output (n, k) is read in row n + k, which holds input (n + k - j, j).
    before = np.arange(case.frames)[:, None] + np.arange(case.codebooks)[None] <= frame
    original, changed = case.outputs(), case.outputs(marked)
    np.testing.assert_array_equal(original[:, before], changed[:, before])
    assert (original[:, ~before] != changed[:, ~before]).any()

    def size(params):
        outputs = case.model(params)(marked, case.labels, case.features)
        # A tied embedding also makes the logit of its own value.
        return jnp.sum(outputs[:, before][..., : VOCAB - 1] ** 2)

    gradient = jax.jit(jax.grad(size))(case.params)
    embedding = np.asarray(gradient["vocabulary"]["embedding"])
    assert not embedding[:, VOCAB - 1].any()
    assert embedding[:, START].any()
    return marked, before


def a_row_equals_the_clip_alone(case):
    assert_same(case.outputs(rows=slice(1, 2))[0], case.outputs()[1], 1e-5)


def probabilities_sum_to_one(case):
    outputs = jnp.asarray(case.outputs())
    each = [case.log_prob(outputs, jnp.full_like(case.tokens, v), case.inputs) for v in range(VOCAB)]
    assert_same(np.exp(np.stack(each).astype(np.float64)).sum(0), 1, 1e-5)


def pieces_drawn_one_by_one_equal_one_draw(case, frames):
    whole = case.drawn(2 * frames)
    np.testing.assert_array_equal(case.drawn(frames, frames), whole)
    assert len(np.unique(whole)) > 2
    assert 0 <= whole.min() <= whole.max() < VOCAB


def cold_draws_after_a_prompt_are_the_likeliest_tokens_of_the_parallel_form(case, heard, frames):
    state = case.read(case.tokens[:, :heard], case.start())
    drawn = case.drawn(frames, temperature=(0.0, 0.0), state=state)
    played = case.tokens.at[:, heard : heard + frames].set(drawn)
    # The last rows of several codebooks also know of the frames that follow.
    sure = slice(heard, heard + frames - case.codebooks + 1)
    likeliest = case.outputs(shift(played)).argmax(-1)
    np.testing.assert_array_equal(played[:, sure], likeliest[:, sure])


def draws_keep_to_what_is_allowed_at_each_place(case, frames):
    allowed = np.zeros((2, VOCAB), bool)
    allowed[0, :3], allowed[1, 5:7] = True, True
    drawn = case.drawn(frames, temperature=(2.0, 0.0), allowed=allowed)
    assert set(np.unique(drawn[:, ::2])) <= {0, 1, 2}
    assert set(np.unique(drawn[:, 1::2])) <= {5, 6}
    assert len(np.unique(drawn[:, ::2])) > 1


def an_implementation_is_refused(case):
    with pytest.raises(WavegenError, match="got implementation='xla'; leave it out"):
        case.model().draw(case.start(), 2, CLIP, choice=Choice(), implementation="xla")
