"""What each quantizer promises on its own, and the figures of usage. The laws of quantizers are in tests/laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from laws.cases.quantizers import fresh, make_case
from laws.quantizer import (
    ALL_LEVELS,
    BATCH,
    FRAMES,
    LATENTS,
    WIDTH,
    decode,
    differentiate,
    noise,
    quantize,
    update,
    weigh,
)

from wavegen.codecs.quantizers import (
    FSQ,
    Average,
    EMAResidualVQ,
    GradientVQ,
    code_usage,
    count_codes,
    draw_codebooks,
)
from wavegen.codecs.quantizers.base import Quantizer, straight_through
from wavegen.codecs.quantizers.fsq import EXCESS
from wavegen.codecs.quantizers.kmeans import kmeans
from wavegen.errors import WavegenError

RANDOM = np.random.default_rng(0)


def make(name: str) -> Quantizer:
    return make_case(name).quantizer


def test_straight_through_keeps_values_to_the_last_bit() -> None:
    latents, quantized = noise(2, 1000), 1e-3 * noise(3, 1000)
    value, pull = jax.vjp(straight_through, latents, quantized)
    np.testing.assert_array_equal(value, quantized)
    to_latents, to_quantized = pull(jnp.full(1000, 0.5))
    np.testing.assert_array_equal(to_latents, np.full(1000, 0.5, np.float32))
    np.testing.assert_array_equal(to_quantized, np.zeros(1000, np.float32))


def gradient_of_latents(name: str, weight: jax.Array) -> jax.Array:
    return differentiate(make(name), LATENTS, ALL_LEVELS, weigh(weight))[2]


def test_gradient_passes_the_averaged_codebook_unchanged() -> None:
    weight = noise(4, *LATENTS.shape)
    np.testing.assert_array_equal(gradient_of_latents("EMA", weight), weight)


def test_gradient_passes_the_projections_of_all_levels() -> None:
    quantizer, weight = make("gradient"), noise(4, *LATENTS.shape)
    left = np.eye(WIDTH)
    for into, out in zip(quantizer.project_in[...], quantizer.project_out[...], strict=True):
        left = left @ (np.eye(WIDTH) - np.asarray(into, np.float64) @ np.asarray(out, np.float64))
    expected = np.asarray(weight, np.float64) @ (np.eye(WIDTH) - left).T
    np.testing.assert_allclose(gradient_of_latents("gradient", weight), expected, rtol=1e-4, atol=1e-4)


def test_gradient_passes_the_rounding_and_not_the_squeeze() -> None:
    quantizer, weight = make("residual FSQ"), noise(4, *LATENTS.shape)
    into, out = (np.asarray(w[...], np.float64) for w in (quantizer.project_in, quantizer.project_out))
    size = np.asarray(quantizer.sizes)
    half, offset = (1 + EXCESS) * (size - 1) / 2, np.where(size % 2, 0, 0.5)
    slope = half / np.cosh(np.asarray(LATENTS) @ into + np.arctanh(offset / half)) ** 2
    expected = (np.asarray(weight) @ out.T / (size // 2) * slope) @ into.T
    np.testing.assert_allclose(gradient_of_latents("residual FSQ", weight), expected, rtol=1e-4, atol=1e-5)


def test_commitment_moves_latents_and_codebook_loss_moves_entries() -> None:
    quantizer, one_level = make("gradient"), np.ones(BATCH, np.int32)
    into, codebook = (np.asarray(w[...])[0] for w in (quantizer.project_in, quantizer.codebook))
    quantized, to_quantizer, to_latents = differentiate(quantizer, LATENTS, one_level, weigh(commitment=1.0))
    codes = np.asarray(quantized.codes)[..., 0]
    difference = np.asarray(LATENTS) @ into - codebook[codes]
    assert not np.any(to_quantizer.codebook[...])
    np.testing.assert_allclose(to_latents, 2 * difference @ into.T / difference.size, rtol=1e-4, atol=1e-7)
    _, to_quantizer, to_latents = differentiate(quantizer, LATENTS, one_level, weigh(codebook=1.0))
    assert not np.any(to_latents)
    expected = np.zeros_like(codebook)
    np.add.at(expected, codes, -2 * difference / difference.size)
    np.testing.assert_allclose(to_quantizer.codebook[...][0], expected, rtol=1e-4, atol=1e-7)


def test_commitment_of_every_averaged_level_reaches_the_latents() -> None:
    quantizer = make("EMA")
    quantized, _, gradient = differentiate(quantizer, LATENTS, ALL_LEVELS, weigh(commitment=1.0))
    errors = [np.asarray(LATENTS) - decode(quantizer, quantized.codes[..., :levels]) for levels in (1, 2, 3)]
    expected = 2 * sum(errors) / LATENTS.size
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-7)


def test_codes_are_those_of_the_nearest_direction() -> None:
    quantizer = make("gradient")
    projected = np.asarray(LATENTS, np.float64) @ np.asarray(quantizer.project_in[...][0])
    entries = np.asarray(quantizer.codebook[...][0], np.float64)
    cosine = projected @ (entries / np.linalg.norm(entries, axis=1, keepdims=True)).T
    np.testing.assert_array_equal(quantize(quantizer, LATENTS).codes[..., 0], cosine.argmax(axis=-1))


def test_dropped_levels_are_evenly_drawn(key: jax.Array) -> None:
    draw = jax.jit(lambda key: [draw_codebooks(key, 9000, 9, p) for p in (0.0, 1.0, 0.5)])
    never, always, half = map(np.asarray, draw(key))
    assert (never == 9).all()
    drawn = np.bincount(always, minlength=10)
    assert drawn[0] == 0
    assert np.abs(drawn[1:] - 1000).max() < 150
    assert 0.5 < np.mean(half == 9) < 0.6


def exact_fsq(sizes: tuple[int, ...], codebooks: int) -> FSQ:
    """Without projections, so that latents are what is squeezed."""
    quantizer = FSQ(len(sizes), sizes=sizes, codebooks=codebooks, random=np.random.default_rng(0))
    quantizer.project_in[...] = quantizer.project_out[...] = jnp.eye(len(sizes))
    return quantizer


@pytest.mark.parametrize("sizes", [(8, 5, 5, 5), (2, 3), (256,)], ids=str)
def test_fsq_codes_and_grid_points_are_one_to_one(sizes: tuple[int, ...]) -> None:
    quantizer, size = exact_fsq(sizes, 1), np.asarray(sizes)
    codes = np.arange(quantizer.codebook_size)
    points = np.asarray(decode(quantizer, codes[None, :, None]))[0]
    # the first dimension is the least significant digit
    digits = np.stack(np.unravel_index(codes, sizes[::-1])[::-1], axis=-1)
    np.testing.assert_allclose(points, (digits - size // 2) / (size // 2), rtol=1e-6)
    half, offset = (1 + EXCESS) * (size - 1) / 2, np.where(size % 2, 0, 0.5)
    latents = np.arctanh((points * (size // 2) + offset) / half) - np.arctanh(offset / half)
    got = quantize(quantizer, latents.astype(np.float32)[None])
    np.testing.assert_array_equal(got.codes[0, :, 0], codes)
    np.testing.assert_allclose(got.latents[0], points, rtol=1e-6)
    silence = quantize(quantizer, np.zeros((1, len(codes), len(sizes)), np.float32))
    assert not np.any(silence.latents)


def test_every_residual_fsq_level_divides_the_error_by_its_size() -> None:
    sizes = np.asarray([8, 5, 3])
    quantizer = exact_fsq((8, 5, 3), 4)
    latents = 1.5 * noise(5, 1, 2000, 3)
    half, offset = (1 + EXCESS) * (sizes - 1) / 2, np.where(sizes % 2, 0, 0.5)
    squeezed = half * np.tanh(np.asarray(latents, np.float64) + np.arctanh(offset / half)) - offset
    codes = quantize(quantizer, latents).codes
    decoded = jax.jit(lambda q, codes: [q.decode(codes[..., :level]) for level in range(1, 5)])(
        quantizer, codes
    )
    for level, values in enumerate(decoded):
        rounded = np.asarray(values) * (sizes // 2)
        assert (np.abs(rounded - squeezed).max(axis=(0, 1)) <= 0.5 / sizes**level + 2e-6).all()


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
        update(quantizer, quantize(quantizer, latents).statistics)
        counts = 0.9 * counts + 0.1 * chosen.sum(axis=0)
        sums = 0.9 * sums + 0.1 * chosen.T @ np.asarray(latents).reshape(-1, WIDTH)
    codebook, share = averages(quantizer)
    np.testing.assert_allclose(share[0], counts / (BATCH * FRAMES), rtol=1e-5)
    np.testing.assert_allclose(codebook[0], sums / counts[:, None], rtol=1e-4, atol=1e-5)


def test_dead_entries_move_to_vectors_of_the_batch() -> None:
    quantizer = fresh("EMA", decay=0.9)
    corners = np.stack([np.sign(np.arange(16) & bit) - 0.5 for bit in (1, 2, 4, 8, 1, 2)], axis=1)
    far = 100 * np.eye(16, WIDTH, dtype=np.float32)
    quantizer.codebook[...] = quantizer.codebook[...].at[0].set(far)
    rows = np.repeat(corners, np.diff(np.arange(17) * BATCH * FRAMES // 16), axis=0)
    latents = jnp.asarray(rows.reshape(LATENTS.shape), jnp.float32)
    for _ in range(200):
        update(quantizer, quantize(quantizer, latents).statistics)
    usage = code_usage(quantize(quantizer, latents).statistics["counts"])
    assert usage.used[0] == 1
    distances = np.abs(np.asarray(quantizer.codebook[...][0])[:, None] - corners[None]).max(axis=-1)
    np.testing.assert_allclose(distances.min(axis=0), 0, atol=1e-2)


def test_a_level_that_no_row_used_keeps_its_averages() -> None:
    quantizer = fresh("EMA")
    codebook, share = averages(quantizer)
    statistics = differentiate(quantizer, LATENTS, np.ones(BATCH, np.int32), weigh())[0].statistics
    for _ in range(300):
        update(quantizer, statistics)
    after, share_after = averages(quantizer)
    assert (after[0] != codebook[0]).any()
    np.testing.assert_array_equal(after[1:], codebook[1:])
    np.testing.assert_array_equal(share_after[1:], share[1:])


def test_averages_are_apart_from_parameters_and_have_no_gradient() -> None:
    _, params, kept = nnx.split(make("EMA"), nnx.Param, Average)
    assert not jax.tree.leaves(params)
    assert len(jax.tree.leaves(kept)) == 2
    gradient = differentiate(make("EMA"), LATENTS, ALL_LEVELS, weigh(LATENTS, 1.0, 1.0))[1]
    assert not any(np.any(g) for g in jax.tree.leaves(gradient))


def test_kmeans_start_lowers_the_error_level_by_level() -> None:
    quantizer = fresh("EMA")
    before = np.mean((np.asarray(quantize(quantizer, LATENTS).latents) - LATENTS) ** 2)
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

    silence, codes = kmeans(jnp.zeros_like(rows), 12, iterations=20, random=rng)
    assert not np.any(silence)
    assert not np.any(codes)


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
    valid = jnp.asarray([[True, False], [True, True]])
    np.testing.assert_array_equal(count_codes(codes, 3, valid=valid), [[2, 1, 0], [0, 0, 3]])
    np.testing.assert_array_equal(count_codes(codes, 3, used, valid), [[2, 1, 0], [0, 0, 2]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make("EMA").update({"counts": jnp.zeros((2, 16), jnp.int32)}), "3 codebooks, got 2"),
        (lambda: make("EMA").start(LATENTS[:, :3], random=RANDOM), "at least 16 vectors"),
        (lambda: GradientVQ(6, codebooks=0, random=RANDOM), "codebooks of at least 1, got 0"),
        (lambda: EMAResidualVQ(6, decay=1.0, random=RANDOM), "decay from 0 to below 1, got 1"),
        (lambda: FSQ(6, sizes=(8, 1), random=RANDOM), r"sizes from 2 to 256 .* \(8, 1\)"),
        (lambda: FSQ(6, sizes=(8, 8), codebooks=7, random=RANDOM), "got 7 codebooks"),
    ],
)
def test_bad_arguments_are_named(call, message: str) -> None:
    with pytest.raises(WavegenError, match=message):
        call()
