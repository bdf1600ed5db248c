"""The laws of causal models, for the decoder; and what is its own: memory, compression, reach, cost."""

from functools import cache

import causal_laws as laws
import jax.numpy as jnp
import numpy as np
import pytest
from causal_laws import START, VOCAB, Case

from wavegen.models.decoder import Decoder
from wavegen.models.memory import Reach

FRAMES = 23
MEMORY, COMPRESSED = Reach(4, 4), Reach(4, 2, 3, 2)
VARIANTS = {
    # Almost six segments each; in the second one the compressed entries reach back over two of them.
    "memory, labels, period": {"reach": MEMORY, "label_sizes": (4, 3), "period": 4},
    "compressed, three codebooks": {"reach": COMPRESSED, "codebooks": 3, "tied": True},
}
every_variant = pytest.mark.parametrize("name", VARIANTS)


def build(**options):
    sizes = {"vocab_size": VOCAB, "width": 8, "layers": 2, "heads": 2, "hidden": 12, "start_token": START}
    return Decoder(**sizes | options, random=np.random.default_rng(0))


@cache
def make_case(name):
    labels = jnp.asarray([[3, 1], [0, -1]], jnp.int32) if "labels" in name else None
    return Case(build(**VARIANTS[name]), FRAMES, labels)


@every_variant
def test_steps_equal_the_parallel_form_through_five_segments(name):
    laws.steps_equal_the_parallel_form(make_case(name))


@every_variant
def test_scores_are_those_of_the_parallel_form_wherever_the_prompt_is_cut(name):
    laws.scores_are_those_of_the_parallel_form_wherever_the_prompt_is_cut(make_case(name), (1, 12))


@every_variant
def test_no_output_depends_on_later_rows(name):
    laws.no_output_depends_on_later_rows(make_case(name), 9)


@every_variant
def test_a_row_of_a_batch_equals_the_clip_alone(name):
    laws.a_row_equals_the_clip_alone(make_case(name))


@every_variant
def test_probabilities_sum_to_one(name):
    laws.probabilities_sum_to_one(make_case(name))


@every_variant
def test_pieces_drawn_one_by_one_equal_one_draw(name):
    laws.pieces_drawn_one_by_one_equal_one_draw(make_case(name), 8)


@every_variant
def test_cold_draws_after_a_prompt_are_the_likeliest_tokens_of_the_parallel_form(name):
    laws.cold_draws_after_a_prompt_are_the_likeliest_tokens_of_the_parallel_form(make_case(name), 12, 8)


@every_variant
def test_draws_keep_to_what_is_allowed_at_each_place(name):
    laws.draws_keep_to_what_is_allowed_at_each_place(make_case(name), 8)
