"""The laws of quantizers, for every member; then what each promises on its own, and the figures of usage."""

from functools import cache, partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from wavegen.codecs.quantizers import (
    FSQ,
    Average,
    EMAResidualVQ,
    ResidualVQ,
    code_usage,
    count_codes,
    draw_levels,
)
from wavegen.codecs.quantizers.base import Quantizer, straight_through
from wavegen.codecs.quantizers.fsq import EXCESS
from wavegen.codecs.quantizers.kmeans import kmeans
from wavegen.errors import WavegenError

BATCH, FRAMES, WIDTH = 4, 25, 6
SMALL = {"codebooks": 3, "codebook_size": 16}
MAKE = {
    "residual VQ": partial(ResidualVQ, WIDTH, **SMALL, codebook_width=4),
    "FSQ": partial(FSQ, WIDTH, sizes=(4, 3, 5)),
    "residual FSQ": partial(FSQ, WIDTH, sizes=(4, 3, 5), codebooks=3),
    "EMA": partial(EMAResidualVQ, WIDTH, **SMALL),
}
every_quantizer = pytest.mark.parametrize("name", MAKE)
every_kind = pytest.mark.parametrize("name", ["residual VQ", "residual FSQ", "EMA"])


@cache
def make(name: str) -> Quantizer:
    return MAKE[name](random=np.random.default_rng(0))


def noise(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


LATENTS = noise(1, BATCH, FRAMES, WIDTH)
RANDOM = np.random.default_rng(0)
quantize = nnx.jit(
    lambda q, latents, levels=None: q.quantize(latents, levels=levels), static_argnames="levels"
)
quantize_rows = nnx.jit(lambda q, latents, levels: q.quantize(latents, levels=levels))
decode = nnx.jit(lambda q, codes: q.decode(codes))
update = nnx.jit(lambda q, statistics: q.update(statistics))
learn = nnx.jit(lambda q, latents: q.update(q.quantize(latents).statistics))


@every_quantizer
def test_codes_are_in_range_and_decode_to_the_quantized_latents(name: str) -> None:
    quantizer = make(name)
    codes, latents, losses, statistics = quantize(quantizer, LATENTS)
    assert codes.shape == (BATCH, FRAMES, quantizer.codebooks)
    assert codes.dtype == jnp.int32
    assert codes.min() >= 0
    assert codes.max() < quantizer.codebook_size
    assert latents.shape == LATENTS.shape
    np.testing.assert_allclose(decode(quantizer, codes), latents, atol=1e-6)
    assert set(losses) == {"commitment", "codebook"}
    np.testing.assert_array_equal(statistics["counts"], count_codes(codes, quantizer.codebook_size))
    assert statistics["counts"].sum() == codes.size


@every_kind
def test_rows_of_different_levels_equal_each_on_its_own(name: str) -> None:
    quantizer = make(name)
    levels = np.asarray([3, 2, 2, 3], np.int32)
    codes, latents, losses, statistics = quantize_rows(quantizer, LATENTS, jnp.asarray(levels))
    np.testing.assert_array_equal(codes, quantize(quantizer, LATENTS).codes)
    counts, total = np.zeros_like(statistics["counts"]), dict.fromkeys(losses, 0.0)
    for row, own in enumerate(levels):
        alone = quantize(quantizer, LATENTS[row : row + 1], int(own))
        np.testing.assert_array_equal(codes[row : row + 1, :, :own], alone.codes)
        np.testing.assert_allclose(latents[row : row + 1], alone.latents, atol=1e-6)
        np.testing.assert_allclose(decode(quantizer, alone.codes), alone.latents, atol=1e-6)
        counts[:own] += alone.statistics["counts"]
        total = {loss: total[loss] + alone.losses[loss] / BATCH for loss in total}
    np.testing.assert_array_equal(statistics["counts"], counts)
    for loss, value in total.items():
        np.testing.assert_allclose(losses[loss], value, rtol=1e-5)


@every_kind
def test_half_precision_goes_in_and_out_with_float32_between(name: str) -> None:
    half = LATENTS.astype(jnp.bfloat16)
    codes, latents, losses, _ = quantize(make(name), half)
    full = quantize(make(name), half.astype(jnp.float32))
    assert latents.dtype == jnp.bfloat16
    assert all(loss.dtype == jnp.float32 for loss in losses.values())
    np.testing.assert_array_equal(codes, full.codes)
    np.testing.assert_array_equal(latents, full.latents.astype(jnp.bfloat16))


@every_kind
def test_gradients_are_finite_at_silence(name: str) -> None:
    graph, state = nnx.split(make(name))

    def loss(state, latents):
        _, quantized, losses, _ = nnx.merge(graph, state).quantize(latents)
        return jnp.sum(quantized**2) + losses["commitment"] + losses["codebook"]

    gradients = jax.jit(jax.grad(loss, argnums=(0, 1)))(state, jnp.zeros_like(LATENTS))
    assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(gradients))


@every_kind
def test_trained_levels_each_lower_the_error(name: str) -> None:
    quantizer = MAKE[name](random=np.random.default_rng(0))
    graph, params, averages = nnx.split(quantizer, nnx.Param, Average)
    optimizer = optax.adam(1e-2)
    # Mostly in the few dimensions that a level can say.
    latents = LATENTS * jnp.asarray([3.0, 2.0, 1.0, 0.2, 0.1, 0.1])[None, None]

    def loss(params, averages, levels):
        _, quantized, losses, statistics = nnx.merge(graph, params, averages).quantize(latents, levels=levels)
        error = jnp.mean((quantized - latents) ** 2)
        return error + losses["codebook"] + 0.25 * losses["commitment"], statistics

    @partial(jax.jit, donate_argnums=(0, 1, 2))
    def step(params, averages, optimizer_state, key):
        levels = draw_levels(key, BATCH, quantizer.codebooks, 0.5)
        (_, statistics), gradient = jax.value_and_grad(loss, has_aux=True)(params, averages, levels)
        updates, optimizer_state = optimizer.update(gradient, optimizer_state)
        model = nnx.merge(graph, optax.apply_updates(params, updates), averages)
        model.update(statistics)
        return *nnx.state(model, nnx.Param, Average), optimizer_state

    state = (params, averages, optimizer.init(params))
    for key in jax.random.split(jax.random.key(0), 300):
        state = step(*state, key)
    quantizer = nnx.merge(graph, *state[:2])
    codes = quantize(quantizer, latents).codes
    errors = [np.mean((np.asarray(decode(quantizer, codes[..., :n])) - latents) ** 2) for n in (1, 2, 3)]
    bounds = [float(jnp.mean(latents**2)), *errors]
    assert all(after < 0.95 * before for before, after in pairwise(bounds)), bounds


@every_kind
def test_an_update_on_four_devices_equals_one_on_one(name: str) -> None:
    def statistics_and_update(state, latents, levels):
        quantizer = nnx.merge(graph, state)
        statistics = quantizer.quantize(latents, levels=levels).statistics
        quantizer.update(statistics)
        return statistics, nnx.state(quantizer)

    graph, state = nnx.split(make(name))
    levels = jnp.asarray([1, 3, 2, 3], jnp.int32).clip(1, make(name).codebooks)
    one_statistics, one = jax.jit(statistics_and_update)(state, LATENTS, levels)
    mesh = Mesh(np.asarray(jax.devices()[:4]), ("data",))
    rows, whole = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
    spread = jax.device_put(LATENTS, rows)
    assert len(spread.sharding.device_set) == 4
    four_statistics, four = jax.jit(statistics_and_update, out_shardings=whole)(
        jax.device_put(state, whole), spread, jax.device_put(levels, rows)
    )
    np.testing.assert_array_equal(four_statistics["counts"], one_statistics["counts"])
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), four, one)
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), state, one)
    assert any(jax.tree.leaves(changed)) == (name == "EMA")


def test_straight_through_keeps_values_to_the_last_bit() -> None:
    latents, quantized = noise(2, 1000), 1e-3 * noise(3, 1000)
    value, pull = jax.vjp(straight_through, latents, quantized)
    np.testing.assert_array_equal(value, quantized)
    to_latents, to_quantized = pull(jnp.full(1000, 0.5))
    np.testing.assert_array_equal(to_latents, np.full(1000, 0.5, np.float32))
    np.testing.assert_array_equal(to_quantized, np.zeros(1000, np.float32))


def gradient_of_latents(quantizer: Quantizer, weight: jax.Array) -> jax.Array:
    return jax.jit(jax.grad(lambda latents: jnp.sum(quantizer.quantize(latents).latents * weight)))(LATENTS)


def test_gradient_passes_the_averaged_codebook_unchanged() -> None:
    weight = noise(4, *LATENTS.shape)
    np.testing.assert_array_equal(gradient_of_latents(make("EMA"), weight), weight)


def test_gradient_passes_the_projections_of_all_levels() -> None:
    quantizer, weight = make("residual VQ"), noise(4, *LATENTS.shape)
    left = np.eye(WIDTH)
    for into, out in zip(quantizer.project_in[...], quantizer.project_out[...], strict=True):
        left = left @ (np.eye(WIDTH) - np.asarray(into, np.float64) @ np.asarray(out, np.float64))
    expected = np.asarray(weight, np.float64) @ (np.eye(WIDTH) - left).T
    np.testing.assert_allclose(gradient_of_latents(quantizer, weight), expected, rtol=1e-4, atol=1e-4)


def test_gradient_passes_the_rounding_and_not_the_squeeze() -> None:
    quantizer, weight = make("residual FSQ"), noise(4, *LATENTS.shape)
    into, out = (np.asarray(w[...], np.float64) for w in (quantizer.project_in, quantizer.project_out))
    size = np.asarray(quantizer.sizes)
    half, offset = (1 + EXCESS) * (size - 1) / 2, np.where(size % 2, 0, 0.5)
    slope = half / np.cosh(np.asarray(LATENTS) @ into + np.arctanh(offset / half)) ** 2
    expected = (np.asarray(weight) @ out.T / (size // 2) * slope) @ into.T
    np.testing.assert_allclose(gradient_of_latents(quantizer, weight), expected, rtol=1e-4, atol=1e-5)


def test_commitment_moves_latents_and_codebook_loss_moves_entries() -> None:
    quantizer = MAKE["residual VQ"](random=np.random.default_rng(0))
    graph, params = nnx.split(quantizer)

    def gradients(name):
        def loss(params, latents):
            return nnx.merge(graph, params).quantize(latents, levels=1).losses[name]

        params_gradient, latents_gradient = jax.jit(jax.grad(loss, argnums=(0, 1)))(params, LATENTS)
        return params_gradient["codebook"][...][0], latents_gradient

    into, codebook = quantizer.project_in[...][0], quantizer.codebook[...][0]
    codes = quantize(quantizer, LATENTS).codes[..., 0]
    entries = codebook[codes]
    difference = LATENTS @ into - entries
    to_codebook, to_latents = gradients("commitment")
    assert not to_codebook.any()
    np.testing.assert_allclose(to_latents, 2 * difference @ into.T / difference.size, rtol=1e-4, atol=1e-7)
    to_codebook, to_latents = gradients("codebook")
    assert not to_latents.any()
    expected = jnp.zeros_like(codebook).at[codes].add(-2 * difference / difference.size)
    np.testing.assert_allclose(to_codebook, expected, rtol=1e-4, atol=1e-7)


def test_commitment_of_every_averaged_level_reaches_the_latents() -> None:
    quantizer = make("EMA")
    gradient = jax.jit(jax.grad(lambda latents: quantizer.quantize(latents).losses["commitment"]))(LATENTS)
    codes = quantize(quantizer, LATENTS).codes
    errors = [LATENTS - decode(quantizer, codes[..., :levels]) for levels in (1, 2, 3)]
    expected = 2 * sum(errors) / LATENTS.size
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-7)


def test_codes_are_those_of_the_nearest_direction() -> None:
    quantizer = make("residual VQ")
    projected = np.asarray(LATENTS, np.float64) @ np.asarray(quantizer.project_in[...][0])
    entries = np.asarray(quantizer.codebook[...][0], np.float64)
    cosine = projected @ (entries / np.linalg.norm(entries, axis=1, keepdims=True)).T
    np.testing.assert_array_equal(quantize(quantizer, LATENTS).codes[..., 0], cosine.argmax(axis=-1))


def test_dropped_levels_are_evenly_drawn(key: jax.Array) -> None:
    draw = partial(jax.jit(draw_levels, static_argnums=(1, 2, 3)), key, 9000, 9)
    assert (np.asarray(draw(0.0)) == 9).all()
    drawn = np.bincount(draw(1.0), minlength=10)
    assert drawn[0] == 0
    assert np.abs(drawn[1:] - 1000).max() < 150
    assert 0.5 < np.mean(np.asarray(draw(0.5)) == 9) < 0.6


def exact_fsq(sizes: tuple[int, ...], codebooks: int) -> FSQ:
    """Without projections, so that latents are what is squeezed."""
    quantizer = FSQ(len(sizes), sizes=sizes, codebooks=codebooks, random=np.random.default_rng(0))
    quantizer.project_in[...] = quantizer.project_out[...] = jnp.eye(len(sizes))
    return quantizer


@pytest.mark.parametrize("sizes", [(8, 5, 5, 5), (2, 3), (256,)], ids=str)
def test_fsq_codes_and_grid_points_are_one_to_one(sizes: tuple[int, ...]) -> None:
    quantizer, size = exact_fsq(sizes, 1), np.asarray(sizes)
    codes = np.arange(quantizer.codebook_size)
    points = np.asarray(quantizer.decode(jnp.asarray(codes)[None, :, None]))[0]
    # the first dimension is the least significant digit
    digits = np.stack(np.unravel_index(codes, sizes[::-1])[::-1], axis=-1)
    np.testing.assert_allclose(points, (digits - size // 2) / (size // 2), rtol=1e-6)
    half, offset = (1 + EXCESS) * (size - 1) / 2, np.where(size % 2, 0, 0.5)
    latents = np.arctanh((points * (size // 2) + offset) / half) - np.arctanh(offset / half)
    got = quantize(quantizer, jnp.asarray(latents, jnp.float32)[None])
    np.testing.assert_array_equal(got.codes[0, :, 0], codes)
    np.testing.assert_allclose(got.latents[0], points, rtol=1e-6)
    assert (quantize(quantizer, jnp.zeros((1, len(codes), len(sizes)))).latents == 0).all()


def test_every_residual_fsq_level_divides_the_error_by_its_size() -> None:
    sizes = np.asarray([8, 5, 3])
    quantizer = exact_fsq((8, 5, 3), 4)
    latents = 1.5 * noise(5, 1, 2000, 3)
    half, offset = (1 + EXCESS) * (sizes - 1) / 2, np.where(sizes % 2, 0, 0.5)
    squeezed = half * np.tanh(np.asarray(latents, np.float64) + np.arctanh(offset / half)) - offset
    codes = quantize(quantizer, latents).codes
    for level in range(1, 5):
        rounded = np.asarray(decode(quantizer, codes[..., :level])) * (sizes // 2)
        assert (np.abs(rounded - squeezed).max(axis=(0, 1)) <= 0.5 / sizes ** (level - 1.0) + 2e-6).all()


def averages(quantizer: EMAResidualVQ) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(quantizer.codebook[...], np.float64), np.asarray(quantizer.share[...], np.float64)


def test_averages_follow_the_paper() -> None:
    """The paper's sums and counts, by hand; here of batches of one size, so that counts and shares agree."""
    quantizer = EMAResidualVQ(
        WIDTH, codebooks=1, codebook_size=8, decay=0.9, restart=0, random=np.random.default_rng(0)
    )
    codebook, share = averages(quantizer)
    counts, sums = share[0] * BATCH * FRAMES, (share[..., None] * codebook)[0] * BATCH * FRAMES
    for seed in range(3):
        latents = noise(seed, BATCH, FRAMES, WIDTH)
        chosen = np.eye(8)[np.asarray(quantize(quantizer, latents).codes).reshape(-1)]
        learn(quantizer, latents)
        counts = 0.9 * counts + 0.1 * chosen.sum(axis=0)
        sums = 0.9 * sums + 0.1 * chosen.T @ np.asarray(latents).reshape(-1, WIDTH)
    codebook, share = averages(quantizer)
    np.testing.assert_allclose(share[0], counts / (BATCH * FRAMES), rtol=1e-5)
    np.testing.assert_allclose(codebook[0], sums / counts[:, None], rtol=1e-4, atol=1e-5)


def test_dead_entries_move_to_vectors_of_the_batch() -> None:
    quantizer = EMAResidualVQ(2, codebooks=1, codebook_size=4, decay=0.5, random=np.random.default_rng(0))
    corners = jnp.asarray([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    quantizer.codebook[...] = jnp.asarray([[[0.0, 0.0], [100.0, 0.0], [0.0, 100.0], [100.0, 100.0]]])
    latents = jnp.repeat(corners, 5, axis=0)[None]
    for _ in range(20):
        learn(quantizer, latents)
    usage = code_usage(quantize(quantizer, latents).statistics["counts"])
    np.testing.assert_allclose(usage.used, [1.0])
    distances = np.abs(np.asarray(quantizer.codebook[...][0])[:, None] - np.asarray(corners)[None]).max(
        axis=-1
    )
    np.testing.assert_allclose(distances.min(axis=0), 0, atol=1e-3)


def test_a_level_that_no_row_used_keeps_its_averages() -> None:
    quantizer = MAKE["EMA"](random=np.random.default_rng(0))
    codebook, share = averages(quantizer)
    statistics = quantize_rows(quantizer, LATENTS, jnp.ones(BATCH, jnp.int32)).statistics
    for _ in range(300):
        update(quantizer, statistics)
    after, share_after = averages(quantizer)
    assert (after[0] != codebook[0]).any()
    np.testing.assert_array_equal(after[1:], codebook[1:])
    np.testing.assert_array_equal(share_after[1:], share[1:])


def test_averages_are_apart_from_parameters_and_have_no_gradient() -> None:
    graph, params, kept = nnx.split(make("EMA"), nnx.Param, Average)
    assert not jax.tree.leaves(params)
    assert len(jax.tree.leaves(kept)) == 2

    def loss(kept):
        _, quantized, losses, _ = nnx.merge(graph, params, kept).quantize(LATENTS)
        return jnp.sum(quantized**2) + losses["commitment"]

    assert not any(g.any() for g in jax.tree.leaves(jax.jit(jax.grad(loss))(kept)))


def test_kmeans_start_lowers_the_error_level_by_level() -> None:
    quantizer = MAKE["EMA"](random=np.random.default_rng(0))
    before = jnp.mean((quantize(quantizer, LATENTS).latents - LATENTS) ** 2)
    quantizer.start(LATENTS, random=np.random.default_rng(0))
    codes, _, _, statistics = quantize(quantizer, LATENTS)
    errors = [np.mean((np.asarray(decode(quantizer, codes[..., :n])) - LATENTS) ** 2) for n in (1, 2, 3)]
    assert errors[2] < 0.6 * errors[1] < 0.36 * errors[0] < 0.36 * float(before)
    np.testing.assert_allclose(quantizer.share[...], statistics["counts"] / (BATCH * FRAMES), rtol=1e-5)


def test_kmeans_finds_separate_clusters_and_keeps_empty_entries(rng: np.random.Generator) -> None:
    centres = np.asarray([[0, 0], [50, 0], [0, 50]], np.float32)
    rows = (centres[:, None] + rng.standard_normal((3, 40, 2), np.float32)).reshape(-1, 2)
    entries, codes = kmeans(jnp.asarray(rows), 12, iterations=20, random=rng)
    distances = np.linalg.norm(rows[:, None] - np.asarray(entries)[None], axis=-1)
    np.testing.assert_array_equal(codes, distances.argmin(axis=1))
    for code in np.unique(codes):
        np.testing.assert_allclose(entries[code], rows[np.asarray(codes) == code].mean(axis=0), atol=1e-4)

    silence, codes = kmeans(jnp.zeros((5, 2)), 3, iterations=4, random=rng)
    assert not silence.any()
    assert not codes.any()


def test_usage_of_a_histogram_by_hand() -> None:
    usage = code_usage(jnp.asarray([[2, 2, 0, 0], [4, 0, 0, 0], [0, 0, 0, 0], [2, 1, 1, 0]]))
    np.testing.assert_allclose(usage.entropy, [1, 0, 0, 1.5], atol=1e-6)
    np.testing.assert_allclose(usage.perplexity, [2, 1, 1, 2**1.5], rtol=1e-6)
    np.testing.assert_allclose(usage.used, [0.5, 0.25, 0, 0.75])
    np.testing.assert_allclose(usage.efficiency, 2.5 / 8, rtol=1e-6)


def test_counts_by_hand() -> None:
    codes = jnp.asarray([[[0, 2], [0, 1]], [[1, 2], [0, 2]]])
    np.testing.assert_array_equal(count_codes(codes, 3), [[3, 1, 0], [0, 1, 3]])
    used = jnp.asarray([[True, True], [False, True]])
    np.testing.assert_array_equal(count_codes(codes, 3, used), [[3, 1, 0], [0, 0, 2]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make("EMA").quantize(LATENTS[..., :5]), r"latents of width 6, got \[4, 25, 5\]"),
        (lambda: make("EMA").quantize(LATENTS, levels=4), "expected 1 to 3 levels, got 4"),
        (lambda: make("EMA").quantize(LATENTS, levels=0), "expected 1 to 3 levels, got 0"),
        (lambda: make("FSQ").decode(jnp.zeros((1, 1, 2), jnp.int32)), r"1 to 1 levels, got \[1, 1, 2\]"),
        (lambda: make("EMA").update({"counts": jnp.zeros((2, 16), jnp.int32)}), "3 levels, got 2"),
        (lambda: make("EMA").start(LATENTS[:, :3], random=RANDOM), "at least 16 vectors"),
        (lambda: ResidualVQ(6, codebooks=0, random=RANDOM), "codebooks of at least 1, got 0"),
        (lambda: EMAResidualVQ(6, decay=1.0, random=RANDOM), "decay from 0 to below 1, got 1"),
        (lambda: FSQ(6, sizes=(8, 1), random=RANDOM), r"sizes from 2 to 256 .* \(8, 1\)"),
        (lambda: FSQ(6, sizes=(8, 8), codebooks=7, random=RANDOM), "got 7 codebooks"),
    ],
)
def test_bad_arguments_are_named(call, message: str) -> None:
    with pytest.raises(WavegenError, match=message):
        call()
