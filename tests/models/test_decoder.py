"""What is a decoder's own, beside the laws of causal models: memory, compression, reach, cost."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws.cases.decoder import COMPRESSED, FRAMES, MEMORY, VARIANTS, build, make_case
from laws.causal import BATCH, START, VOCAB, assert_same

from wavegen.errors import WavegenError
from wavegen.models.layers.memory import MemoryAttention, Reach
from wavegen.networks.base import parameters, with_parameters


def reached(reach, layers, frame):
    """The inputs that the output at a frame depends on."""
    model = build(reach=reach, layers=layers)
    tokens = jnp.full((1, FRAMES + 1, 1), START)
    rows = jnp.where(jnp.eye(FRAMES + 1, dtype=bool)[..., None], VOCAB - 1, tokens)
    last = jax.jit(lambda x: model(x)[:, frame, 0])
    return model, np.flatnonzero((np.asarray(last(rows)) != np.asarray(last(rows * 0 + START))).any(axis=1))


@pytest.mark.parametrize(
    ("reach", "layers", "field"),
    [
        (Reach(4), 2, 4),
        (MEMORY, 1, 8),
        (MEMORY, 2, 12),
        (COMPRESSED, 1, 12),
        (COMPRESSED, 2, 20),
        (Reach(6, 3), 2, 15),
    ],
)
def test_the_last_frame_of_a_segment_depends_on_the_receptive_field_and_no_more(reach, layers, field):
    frame = FRAMES // reach.segment * reach.segment - 1
    model, frames = reached(reach, layers, frame)
    assert model.receptive_field == field
    np.testing.assert_array_equal(frames, np.arange(max(frame + 1 - field, 0), frame + 1))


def test_a_segment_attends_to_its_memory_and_entries_as_a_plain_loop_does():
    """One layer, written out: for every frame the keys and values that the module's docstring names."""
    reach, width = Reach(4, 2, 2, 2), 8
    layer = MemoryAttention(width, 2, reach, scale=1.0, random=np.random.default_rng(0))
    random = np.random.default_rng(1)
    layer.compress[...] = jnp.asarray(random.standard_normal((2, width, width)), jnp.float32)
    x = jnp.asarray(random.standard_normal((1, 16, width)), jnp.float32)
    parallel = np.asarray(jax.jit(layer)(x))

    queries, keys, values = layer.attention.queries_keys_values(x, jnp.arange(16))
    groups = jnp.stack(
        [sum(x[:, 2 * g + j] @ layer.compress[...][j] for j in range(2)) for g in range(8)], axis=1
    )
    _, group_keys, group_values = layer.attention.queries_keys_values(groups, 2 * jnp.arange(8) + 1)
    for n in range(16):
        begin = n // 4 * 4 - 2
        near, far = slice(max(begin, 0), n + 1), slice(max(begin // 2 - 2, 0), max(begin // 2, 0))
        k = np.concatenate([group_keys[0, far], keys[0, near]])
        v = np.concatenate([group_values[0, far], values[0, near]])
        weights = np.exp(np.einsum("hd,khd->hk", queries[0, n], k) / 2)
        read = np.einsum("hk,khd->hd", weights / weights.sum(1, keepdims=True), v)
        assert_same(np.einsum("hd,hdw->w", read, layer.attention.output[...]), parallel[0, n], 1e-5)


def test_nothing_learns_through_the_memory_but_the_weights_that_read_it():
    case = make_case("memory, labels, period")
    # Values that stand nowhere else, in an earlier segment and in the last one.
    marked = (case.inputs * 0 + START).at[:, 10].set(1).at[:, 20:].set(2)

    def loss(params):
        return jnp.sum(case.model(params)(marked, case.labels)[:, 20:] ** 2)

    table = np.asarray(jax.jit(jax.grad(loss))(case.params)["vocabulary"]["embedding"])
    assert not table[0, 1].any()
    assert table[0, 2].any()


def test_compression_learns_from_its_reconstruction_and_nothing_else_does():
    case = make_case("compressed, three codebooks")

    def parts(params):
        logits, lost = case.model(params).with_memory_loss(case.inputs)
        return jnp.stack([jnp.sum(logits**2), lost])

    gradients = jax.jit(jax.jacrev(parts))(case.params)
    for path, gradient in jax.tree.leaves_with_path(gradients):
        of_likelihood, of_reconstruction = (bool(part.any()) for part in np.asarray(gradient))
        assert (of_likelihood, of_reconstruction) == (("compress" not in str(path)), "compress" in str(path))


def test_entries_that_are_their_frames_are_reconstructed_without_loss():
    layer = MemoryAttention(8, 2, COMPRESSED, scale=1.0, random=np.random.default_rng(0))
    random = np.random.default_rng(1)
    pairs = jnp.asarray(np.repeat(random.standard_normal((2, 10, 8)), 2, axis=1), jnp.float32)
    loss = jax.jit(layer.reconstruction)
    assert float(loss(pairs)) < 1e-9
    assert float(loss(pairs.at[:, ::2].multiply(-1))) > 1e-3
    assert float(layer.reconstruction(pairs[:, :4])) == 0


def test_dropout_is_drawn_from_its_key_and_off_without_one():
    case = make_case("memory, labels, period")
    graph, _ = parameters(build(**VARIANTS["memory, labels, period"], dropout=0.3))

    @jax.jit
    def forward(key):
        return with_parameters(graph, case.params)(case.inputs, case.labels, dropout_key=key)

    one, again, other = (np.asarray(forward(jax.random.key(seed))) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()
    assert_same(forward(None), case.outputs(), 1e-5)


def test_bfloat16_parameters_give_float32_logits_near_those_of_float32():
    case = make_case("compressed, three codebooks")
    narrow = jax.tree.map(lambda x: x.astype(jnp.bfloat16), case.params)
    outputs = case.outputs(params=narrow)
    assert outputs.dtype == np.float32
    assert np.abs(outputs - case.outputs()).max() < 0.1 * np.abs(case.outputs()).max()
    memory = jax.eval_shape(lambda params: case.model(params).init_state(BATCH), narrow)["blocks"][0]
    assert {name: ring.dtype for name, ring in memory.items()} == dict.fromkeys(memory, jnp.bfloat16)


@pytest.mark.parametrize("reach", [Reach(128), Reach(32, 32, 8, 4)])
def test_flops_are_those_that_xla_counts(reach):
    model = build(vocab_size=64, width=64, layers=1, hidden=None, reach=reach)
    tokens = jax.ShapeDtypeStruct((1, 128, 1), jnp.int32)
    graph, params = parameters(model)
    compiled = jax.jit(lambda p, t: with_parameters(graph, p)(t)).lower(params, tokens).compile()
    assert model.flops_per_frame(128) * 128 == pytest.approx(compiled.cost_analysis()["flops"], rel=0.15)


def test_sizes_that_do_not_fit_are_told():
    with pytest.raises(WavegenError, match="got width 8 and 3 heads; try width 12"):
        build(heads=3, reach=MEMORY)
    with pytest.raises(WavegenError, match="segment and memory to be multiples of rate 3, got 4 and 2"):
        build(reach=Reach(4, 2, 1, 3))
