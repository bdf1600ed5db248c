"""The laws of quantizers, each as one check of a case."""

from collections.abc import Callable
from functools import cached_property, partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from laws.registered import Law
from wavegen.codecs.quantizers.base import Quantizer
from wavegen.errors import WavegenError

BATCH, FRAMES, WIDTH, LEVELS = 4, 25, 6, 3


def noise(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


LATENTS = noise(1, BATCH, FRAMES, WIDTH)
ALL_LEVELS = np.full(BATCH, LEVELS, np.int32)
quantize = nnx.jit(
    lambda q, latents, levels=None: q.quantize(latents, codebooks=levels), static_argnames="levels"
)
decode = nnx.jit(lambda q, codes: q.decode(codes))
update = nnx.jit(lambda q, statistics: q.update(statistics))


@jax.jit
def differentiate(quantizer: Quantizer, latents: jax.Array, levels: jax.Array, cotangents: tuple):
    """What it makes of latents, and the gradients, to itself and to them, of latents and both losses so weighed."""

    def outputs(quantizer, latents):
        quantized = quantizer.quantize(latents, codebooks=levels)
        losses = quantized.losses["commitment"], quantized.losses["codebook"]
        return (quantized.latents, *losses), quantized

    _, pull, quantized = jax.vjp(outputs, quantizer, latents, has_aux=True)
    return quantized, *pull(cotangents)


def weigh(
    latents: np.ndarray | jax.Array | None = None, commitment: float = 0.0, codebook: float = 0.0
) -> tuple:
    latents = np.zeros_like(LATENTS) if latents is None else latents
    return latents, np.float32(commitment), np.float32(codebook)


class Case:
    """A quantizer of latents of ``WIDTH``, of ``LEVELS`` levels unless all of its laws are of one.

    Args:
        make: makes a fresh one, always the same.
        averages: whether ``update`` changes its weights.
    """

    def __init__(self, make: Callable[[], Quantizer], averages: bool = False):
        self.make, self.averages = make, averages

    @cached_property
    def quantizer(self) -> Quantizer:
        return self.make()


def codes_are_in_range_and_decode_to_the_quantized_latents(case):
    quantizer = case.quantizer
    codes, latents, losses, statistics = jax.tree.map(np.asarray, quantize(quantizer, LATENTS))
    assert codes.shape == (BATCH, FRAMES, quantizer.codebooks)
    assert codes.dtype == jnp.int32
    assert codes.min() >= 0
    assert codes.max() < quantizer.codebook_size
    assert latents.shape == LATENTS.shape
    np.testing.assert_allclose(decode(quantizer, codes), latents, atol=1e-6)
    assert set(losses) == {"commitment", "codebook"}
    size = quantizer.codebook_size
    counts = [np.bincount(codes[..., level].ravel(), minlength=size) for level in range(quantizer.codebooks)]
    np.testing.assert_array_equal(statistics["counts"], counts)


def codes_of_latents_of_any_size_are_in_range(case):
    for size in (1e-6, 10, 1e4):
        codes, latents, *_ = quantize(case.quantizer, np.float32(size) * LATENTS)
        assert 0 <= codes.min() <= codes.max() < case.quantizer.codebook_size
        np.testing.assert_allclose(decode(case.quantizer, codes), latents, atol=1e-6)


def quantizing_and_decoding_change_nothing(case):
    quantizer = case.make()
    decode(quantizer, quantize(quantizer, LATENTS).codes)
    jax.tree.map(np.testing.assert_array_equal, quantizer, case.make())


def rows_of_different_levels_equal_each_on_its_own(case):
    """Codes of fewer levels are a prefix of the codes of more; codes past a row's levels count for nothing."""
    levels = np.asarray([3, 2, 2, 3], np.int32)
    got = differentiate(case.quantizer, LATENTS, levels, weigh())[0]
    codes, latents, losses, statistics = jax.tree.map(np.asarray, got)
    np.testing.assert_array_equal(codes, quantize(case.quantizer, LATENTS).codes)
    counts, total = np.zeros_like(statistics["counts"]), dict.fromkeys(losses, 0.0)
    for row, own in enumerate(levels):
        clip = np.asarray(LATENTS)[row : row + 1]
        alone = jax.tree.map(np.asarray, quantize(case.quantizer, clip, int(own)))
        np.testing.assert_array_equal(codes[row : row + 1, :, :own], alone.codes)
        np.testing.assert_allclose(latents[row : row + 1], alone.latents, atol=1e-6)
        counts[:own] += alone.statistics["counts"]
        total = {loss: total[loss] + alone.losses[loss] / BATCH for loss in total}
    np.testing.assert_allclose(decode(case.quantizer, codes[..., :2])[1:3], latents[1:3], atol=1e-6)
    np.testing.assert_array_equal(statistics["counts"], counts)
    for loss, value in total.items():
        np.testing.assert_allclose(losses[loss], value, rtol=1e-5)


def half_precision_goes_in_and_out_with_float32_between(case):
    half = LATENTS.astype(jnp.bfloat16)
    codes, latents, losses, _ = quantize(case.quantizer, half)
    full = quantize(case.quantizer, half.astype(jnp.float32))
    assert latents.dtype == jnp.bfloat16
    assert all(loss.dtype == jnp.float32 for loss in losses.values())
    np.testing.assert_array_equal(codes, full.codes)
    np.testing.assert_array_equal(latents, full.latents.astype(jnp.bfloat16))


def gradients_are_finite_at_silence(case):
    weights = weigh(np.ones_like(LATENTS), 1.0, 1.0)
    _, *gradients = differentiate(case.quantizer, np.zeros_like(LATENTS), ALL_LEVELS, weights)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradients))


def trained_levels_each_lower_the_error(case):
    quantizer, random = case.make(), np.random.default_rng(1)
    optimizer = optax.adam(1e-2)
    # Mostly in the few dimensions that a level can say.
    latents = LATENTS * np.float32([[[3.0, 2.0, 1.0, 0.2, 0.1, 0.1]]])

    @jax.jit
    def improve(quantizer, state, gradient):
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(quantizer, updates), state

    state = optimizer.init(quantizer)
    for _ in range(300):
        levels = random.integers(1, 4, BATCH).astype(np.int32)
        quantized = differentiate(quantizer, latents, levels, weigh())[0]
        error = 2 * (np.asarray(quantized.latents) - latents) / latents.size
        gradient = differentiate(quantizer, latents, levels, weigh(error, 0.25, 1.0))[1]
        quantizer, state = improve(quantizer, state, gradient)
        update(quantizer, quantized.statistics)
    codes = np.asarray(quantize(quantizer, latents).codes)
    errors = [np.mean((np.asarray(decode(quantizer, codes[..., :n])) - latents) ** 2) for n in (1, 2, 3)]
    bounds = [np.mean(latents**2), *errors]
    assert all(after < 0.95 * before for before, after in pairwise(bounds)), bounds


def an_update_on_four_devices_equals_one_on_one(case):
    levels = np.asarray([1, 3, 2, 3], np.int32)
    mesh = Mesh(np.asarray(jax.devices()[:4]), ("data",))
    rows, whole = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
    spread = jax.device_put(LATENTS, rows)
    assert len(spread.sharding.device_set) == 4
    count = jax.jit(
        lambda q, latents, levels: q.quantize(latents, codebooks=levels).statistics, out_shardings=whole
    )
    one, four = case.make(), jax.device_put(case.make(), whole)
    of_one = differentiate(one, LATENTS, levels, weigh())[0].statistics
    of_four = count(four, spread, jax.device_put(levels, rows))
    np.testing.assert_array_equal(of_four["counts"], of_one["counts"])
    update(one, of_one)
    update(four, of_four)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), four, one)
    changed = jax.tree.map(lambda a, b: bool(np.any(np.asarray(a) != np.asarray(b))), case.quantizer, one)
    assert any(jax.tree.leaves(changed)) == case.averages


def widths_levels_and_codes_that_do_not_fit_are_refused(case):
    quantizer = case.quantizer
    levels = quantizer.codebooks
    with pytest.raises(WavegenError, match=r"latents of width 6, got \[4, 25, 5\]"):
        quantizer.quantize(LATENTS[..., :5])
    for wrong in (0, levels + 1):
        with pytest.raises(WavegenError, match=f"expected 1 to {levels} codebooks, got {wrong}"):
            quantizer.quantize(LATENTS, codebooks=wrong)
        with pytest.raises(WavegenError, match=rf"1 to {levels} codebooks, got \[1, 1, {wrong}\]"):
            quantizer.decode(jnp.zeros((1, 1, wrong), jnp.int32))


OF_ANY_LEVELS: tuple[Law, ...] = (
    codes_are_in_range_and_decode_to_the_quantized_latents,
    codes_of_latents_of_any_size_are_in_range,
    quantizing_and_decoding_change_nothing,
    widths_levels_and_codes_that_do_not_fit_are_refused,
)
"""Those that do not need several levels."""

LAWS: tuple[Law, ...] = (
    *OF_ANY_LEVELS,
    rows_of_different_levels_equal_each_on_its_own,
    half_precision_goes_in_and_out_with_float32_between,
    gradients_are_finite_at_silence,
    trained_levels_each_lower_the_error,
    an_update_on_four_devices_equals_one_on_one,
)
"""The laws that every quantizer obeys, each in at least one of its cases."""
