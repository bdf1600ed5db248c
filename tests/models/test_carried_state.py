"""Clips are evaluated by a state that is carried from piece to piece: the same figures, and flat memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws.cases import decoder, lstm, seq2seq, ssm

from wavegen.models import stepwise
from wavegen.models.decoder import Decoder
from wavegen.models.likelihood import next_token
from wavegen.networks.base import parameters, with_parameters

CASES = {
    "lstm": lambda: lstm.make_case("three codebooks"),
    "ssm": lambda: ssm.make_case("three rates, labels"),
    "decoder": lambda: decoder.make_case("compressed, three codebooks"),
    "seq2seq": seq2seq.make_case,
}


def examples_of(case):
    mask = jnp.asarray(np.arange(case.frames)[None] < np.array([[case.frames - 4], [case.frames]]))
    given = {"targets": case.tokens, "inputs": case.inputs, "mask": mask}
    return given | {k: x for k, x in (("labels", case.labels), ("features", case.features)) if x is not None}


# Pieces of 12 rows are whole chunks and frames of the state-space model, which it reads in parallel.
@pytest.mark.parametrize(("name", "piece"), [*((name, 5) for name in CASES), ("ssm", 12)])
def test_pieces_have_the_figures_of_the_whole_clip_read_at_once(name, piece, monkeypatch):
    case = CASES[name]()
    model, examples = case.model(), examples_of(case)
    assert model.carries_state
    assert model.context(1000) == 1000
    monkeypatch.setattr(stepwise, "PIECE", piece)
    pieces = jax.jit(lambda x: model.objective(x, None))(examples)
    whole = jax.jit(lambda x: next_token(model, model.with_ends(x), None))(examples)
    np.testing.assert_allclose(pieces.total, whole.total, rtol=1e-5)
    assert int(pieces.scored) == int(whole.scored)
    assert int(pieces.figures["accuracy"]) == int(whole.figures["accuracy"])


def test_a_decoder_of_one_codebook_is_evaluated_in_windows_of_its_receptive_field():
    model = decoder.build(reach=decoder.MEMORY)
    assert isinstance(model, Decoder)
    assert not model.carries_state
    assert model.context(10**6) == model.receptive_field


@pytest.mark.parametrize(("name", "model"), [("lstm", lstm.build()), ("ssm", ssm.build(pooling=(2,)))])
def test_memory_does_not_grow_with_the_clip_but_for_its_tokens(name, model):
    del name
    graph, params = parameters(model)

    def bytes_of(frames):
        shape = (2, frames, 1)
        examples = {
            "targets": jax.ShapeDtypeStruct(shape, jnp.int32),
            "inputs": jax.ShapeDtypeStruct(shape, jnp.int32),
        }
        examples["mask"] = jax.ShapeDtypeStruct(shape[:2], bool)
        step = jax.jit(lambda params, x: with_parameters(graph, params).objective(x, None))
        return step.lower(params, examples).compile().memory_analysis().temp_size_in_bytes

    short, long = bytes_of(2048), bytes_of(32 * 2048)
    # Tokens and masks, padded and cut: some bytes for each of two rows' samples, where a gate alone takes 4 a cell.
    assert (long - short) / (2 * 31 * 2048) < 24
