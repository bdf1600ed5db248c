import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from wavegen.kernels import nearest_code
from wavegen.kernels.nearest_code import reference, xla
from wavegen.kernels.nearest_code.api import IMPLEMENTATIONS, check
from wavegen.kernels.nearest_code.shapes import ODD, TIMED, Lookup

SHAPES = TIMED | ODD
LARGE = Lookup(4096, 2048, 16)  # eight chunks
every_implementation = pytest.mark.parametrize("implementation", IMPLEMENTATIONS)


def squared_distance(x, codebook, indices):
    """In float64, of each row to the entry with its index."""
    x, codebook = np.asarray(x, np.float64), np.asarray(codebook, np.float64)
    return ((x - codebook[np.asarray(indices)]) ** 2).sum(-1)


def assert_nearest(indices, x, codebook):
    """Equal to the float64 reference's, or as near within what float32 rounds off; for at most 1,024 of the rows."""
    assert indices.shape == x.shape[:1]
    assert indices.dtype == jnp.int32
    rows = slice(None, None, max(1, len(x) // 1024))
    x, indices = x[rows], np.asarray(indices)[rows]
    with jax.enable_x64(True):
        wide = (jnp.asarray(np.asarray(a, np.float64)) for a in (x, codebook))
        expected = np.asarray(reference.nearest_code(*wide))
    best = squared_distance(x, codebook, expected)
    excess = squared_distance(x, codebook, indices) - best
    spread = np.asarray(codebook, np.float64).var(axis=0).sum()
    assert (np.abs(excess[indices != expected]) <= 1e-6 * (best + spread)[indices != expected]).all()


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_agrees_with_the_reference(name):
    x, codebook = SHAPES[name].random()
    assert_nearest(nearest_code(x, codebook, implementation="xla"), x, codebook)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@every_implementation
def test_every_dtype_agrees_with_float64(implementation, dtype):
    x, codebook = Lookup(500, 300, 24).random(dtype=dtype)
    assert_nearest(nearest_code(x, codebook, implementation=implementation), x, codebook)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@every_implementation
def test_far_from_the_origin_the_nearest_is_still_found(implementation, dtype):
    x, codebook = (np.asarray(a) + 1e3 for a in Lookup(500, 300, 24).random())
    x, codebook = jnp.asarray(x, dtype), jnp.asarray(codebook, dtype)
    assert_nearest(nearest_code(x, codebook, implementation=implementation), x, codebook)


@every_implementation
def test_ties_go_to_the_first(implementation):
    codebook = jnp.asarray([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    x = jnp.asarray([[1.0, 0.0], [0.0, 1.0], [0.0, 2.0], [-3.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    np.testing.assert_array_equal(
        nearest_code(x, codebook, implementation=implementation), [0, 1, 1, 4, 0, 0]
    )


def test_equal_entries_give_the_first_in_every_chunk():
    x, half = Lookup(LARGE.rows, LARGE.codes // 2, LARGE.width).random()
    twice = jnp.concatenate([half, half])
    indices = np.asarray(nearest_code(x, twice))
    assert indices.max() < len(half)
    assert_nearest(indices, x, twice)


@every_implementation
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_get_index_0_and_leave_others_alone(implementation, bad):
    x, codebook = Lookup(20, 8, 3).random()
    codebook = codebook.at[0].set(100.0)  # never nearest
    changed = x.at[4, 1].set(bad).at[11].set(bad)
    indices = np.asarray(nearest_code(changed, codebook, implementation=implementation))
    expected = np.array(nearest_code(x, codebook, implementation="reference"))
    assert expected.min() > 0
    expected[[4, 11]] = 0
    np.testing.assert_array_equal(indices, expected)


@every_implementation
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_codebook_that_is_not_finite_gives_index_0(implementation, bad):
    x, codebook = Lookup(20, 8, 3).random()
    indices = nearest_code(x, codebook.at[5, 1].set(bad), implementation=implementation)
    np.testing.assert_array_equal(indices, np.zeros(20))


@settings(deadline=None, max_examples=8, derandomize=True)
@given(st.integers(0, 40), st.integers(1, 40), st.integers(1, 9), st.integers(0, 99))
def test_any_sizes_give_the_least_distance(rows, codes, width, seed):
    x, codebook = Lookup(rows, codes, width).random(seed)
    best = np.min([squared_distance(x, codebook, np.full(rows, k)) for k in range(codes)], axis=0)
    found = squared_distance(x, codebook, nearest_code(x, codebook))
    np.testing.assert_allclose(found, best, rtol=1e-5, atol=1e-5)


@settings(deadline=None, max_examples=10, derandomize=True)
@given(st.integers(0, 200), st.integers(1, 50), st.integers(1, 2000))
def test_chunks_keep_rows_in_order_and_stay_small(rows, codes, most):
    sizes = []

    def of_rows(part):
        sizes.append(len(part))
        return part[:, 0].astype(jnp.int32)

    x = jnp.asarray(np.arange(rows, dtype=np.float32)[:, None])
    values = jax.jit(partial(xla.map_rows, of_rows, codes, most))(x)
    np.testing.assert_array_equal(values, np.arange(rows))
    assert all(size * codes <= most or size == 1 for size in sizes)


def largest_array(text):
    return max(
        int(np.prod([int(n) for n in axes.split(",")])) for axes in re.findall(r"\w\[([\d,]+)\]", text)
    )


def test_the_distances_of_a_large_problem_are_never_stored_at_once():
    lookup = TIMED["65536x1024x64"]
    compiled = jax.jit(nearest_code).lower(*lookup.random()).compile()
    assert largest_array(compiled.as_text()) == lookup.rows * lookup.width > xla.CPU_DISTANCES
    assert compiled.memory_analysis().temp_size_in_bytes < 16 * 2**20  # all at once: 256 MiB


def test_a_small_problem_is_one_product():
    lookup = Lookup(1024, 1024, 8)
    text = jax.jit(nearest_code).lower(*lookup.random()).compile().as_text()
    assert "while" not in text
    assert "while" in jax.jit(nearest_code).lower(*LARGE.random()).compile().as_text()


def test_vmap_gives_what_one_after_another_gives():
    x, codebook = Lookup(3 * 50, 4 * 20, 6).random()
    x, codebooks = x.reshape(3, 50, 6), codebook.reshape(4, 20, 6)[:3]
    for axes, books in (((0, 0), codebooks), ((0, None), codebooks[0])):
        together = jax.vmap(nearest_code, axes)(x, books)
        apart = [nearest_code(x[i], books[i] if axes[1] == 0 else books) for i in range(3)]
        np.testing.assert_array_equal(together, jnp.stack(apart))


@every_implementation
def test_gradients_pass_by_the_index(implementation):
    x, codebook = Lookup(30, 7, 4).random()

    def loss(x, codebook):
        return jnp.sum((x - codebook[nearest_code(x, codebook, implementation=implementation)]) ** 2)

    of_x, of_codebook = jax.jit(jax.grad(loss, (0, 1)))(x, codebook)
    indices = nearest_code(x, codebook)
    error = 2 * (x - codebook[indices])
    np.testing.assert_allclose(of_x, error, rtol=1e-6)
    np.testing.assert_allclose(of_codebook, jnp.zeros_like(codebook).at[indices].add(-error), rtol=1e-5)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_rows_spread_over_devices_stay_there(kind):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(kind,))
    x, codebook = LARGE.random()
    spread = jax.device_put(x, NamedSharding(mesh, P("data")))
    everywhere = jax.device_put(codebook, NamedSharding(mesh, P()))
    compiled = jax.jit(nearest_code).lower(spread, everywhere).compile()
    indices = compiled(spread, everywhere)
    assert indices.sharding.spec == P("data")
    assert not re.search("all-gather|all-reduce|all-to-all|collective-permute", compiled.as_text())
    np.testing.assert_array_equal(np.asarray(indices), nearest_code(x, codebook))


@pytest.mark.parametrize(
    ("x", "codebook", "message"),
    [
        (jnp.zeros((2, 3, 4)), jnp.zeros((5, 4)), r"x must be floats \[N, D\].* got float32\[2, 3, 4\]"),
        (jnp.zeros((2, 0)), jnp.zeros((5, 0)), r"D at least 1, got float32\[2, 0\]"),
        (jnp.zeros((2, 3), int), jnp.zeros((5, 3)), r"x must be floats .* got int32\[2, 3\]"),
        (jnp.zeros((2, 3)), jnp.zeros((5, 4)), r"codebook must be float32\[K, 3\] .* got float32\[5, 4\]"),
        (jnp.zeros((2, 3)), jnp.zeros((0, 3)), r"K at least 1, got float32\[0, 3\]"),
        (jnp.zeros((2, 3)), jnp.zeros(3), r"codebook must be float32\[K, 3\] .* got float32\[3\]"),
        (
            jnp.zeros((2, 3)),
            jnp.zeros((5, 3), jnp.bfloat16),
            r"codebook must be float32\[K, 3\] .* got bfloat16",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(x, codebook, message):
    with pytest.raises(ValueError, match=message) as raised:
        check(x, codebook)
    assert "\n" not in str(raised.value)


def test_the_call_checks_and_knows_its_implementations():
    with pytest.raises(ValueError, match="K at least 1"):
        nearest_code(jnp.zeros((2, 3)), jnp.zeros((0, 3)))
    with pytest.raises(
        ValueError, match="nearest_code has no implementation 'c'; choose from xla, reference"
    ):
        nearest_code(jnp.zeros((2, 3)), jnp.zeros((5, 3)), implementation="c")
