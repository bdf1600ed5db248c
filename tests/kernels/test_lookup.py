"""Looked-up rows, and their gradient: summed in float32 whatever the type of the table."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from wavegen.kernels import lookup
from wavegen.kernels.lookup import look_up

SIZE, WIDTH = 64, 8


def gradient(dtype, index, weight):
    def total(table):
        return jnp.sum((look_up(table, index) * weight.astype(dtype)).astype(jnp.float32))

    return np.asarray(jax.jit(jax.grad(total))(jnp.zeros((SIZE, WIDTH), dtype)), np.float64)


@pytest.fixture
def case(rng):
    """As of audio: values near the middle are used thousands of times, others rarely."""
    index = np.clip(np.round(rng.normal(SIZE / 2, 4, (8, 4096))), 0, SIZE - 1)
    return jnp.asarray(index, jnp.int32), jnp.asarray(rng.normal(0.3, 1, (8, 4096, WIDTH)), jnp.float32)


def test_rows_are_those_of_the_table(rng):
    table, index = jnp.asarray(rng.normal(size=(5, 3)), jnp.float32), jnp.asarray([[4, 0], [2, 2]])
    np.testing.assert_array_equal(look_up(table, index), table[index])
    np.testing.assert_array_equal(jax.vmap(look_up, (None, 0))(table, index), table[index])


@pytest.mark.parametrize("form", ["cpu", "default"])
def test_the_gradient_in_bfloat16_is_that_in_float32(case, form, monkeypatch):
    monkeypatch.setattr(lookup.lax, "platform_dependent", lambda *arguments, **forms: forms[form](*arguments))
    exact = gradient(jnp.float32, *case)
    used = np.abs(exact).max(axis=1) > 0
    assert used.sum() > 20
    error = np.abs(gradient(jnp.bfloat16, *case) - exact).max(axis=1)
    # Half a step of bfloat16's 8 bits is 0.4 %, for the weights and for the sum.
    assert (error[used] / np.abs(exact).max(axis=1)[used]).max() < 0.02
    assert not error[~used].any()


def test_in_float32_both_forms_and_plain_indexing_agree(case, monkeypatch):
    index, weight = case
    plain = jax.grad(lambda table: jnp.sum(table[index] * weight))(jnp.zeros((SIZE, WIDTH)))
    np.testing.assert_array_equal(gradient(jnp.float32, *case), plain)
    monkeypatch.setattr(lax, "platform_dependent", lambda *arguments, cpu, default: default(*arguments))
    np.testing.assert_allclose(gradient(jnp.float32, *case), plain, rtol=1e-4, atol=1e-3)
