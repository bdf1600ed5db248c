"""Quantizers and losses give the numbers of independent PyTorch code, where that is installed."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from wavegen.codecs.quantizers import FSQ, EMAResidualVQ, GradientVQ
from wavegen.spectral import multi_resolution_stft_loss, multi_scale_mel_loss, si_sdr

torch = pytest.importorskip("torch")

BATCH, FRAMES, WIDTH = 2, 50, 6
quantize = nnx.jit(lambda q, latents: q.quantize(latents))
decode = nnx.jit(lambda q, codes: q.decode(codes))


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.fixture
def their_quantizers():
    return pytest.importorskip("vector_quantize_pytorch")


@pytest.fixture
def their_losses():
    return pytest.importorskip("auraloss")


@pytest.mark.parametrize("sizes", [(8, 5, 5, 5), (7, 4, 3), (8, 6, 5)], ids=str)
def test_fsq(their_quantizers, sizes: tuple[int, ...]) -> None:
    theirs = their_quantizers.FSQ(levels=list(sizes))
    ours = FSQ(len(sizes), sizes=sizes, random=np.random.default_rng(0))
    ours.project_in[...] = ours.project_out[...] = jnp.eye(len(sizes))

    every = np.arange(theirs.codebook_size)
    points = decode(ours, jnp.asarray(every)[None, :, None])[0]
    np.testing.assert_allclose(points, theirs.indices_to_codes(torch.tensor(every)), rtol=1e-6)

    latents = 2 * noise(0, 2, 2000, len(sizes))
    quantized, codes = theirs(torch.tensor(latents))
    got = quantize(ours, jnp.asarray(latents))
    np.testing.assert_array_equal(got.codes[..., 0], codes)
    np.testing.assert_allclose(got.latents, quantized, rtol=1e-6)


def test_residual_vq_in_the_space_of_the_latents(their_quantizers) -> None:
    torch.manual_seed(0)
    theirs = their_quantizers.GradientVQ(
        dim=WIDTH, num_quantizers=3, codebook_size=32, kmeans_init=False
    ).eval()
    ours = EMAResidualVQ(WIDTH, codebooks=3, codebook_size=32, random=np.random.default_rng(0))
    entries = noise(1, 3, 32, WIDTH) * np.float32([[[1.0]], [[0.5]], [[0.25]]])
    ours.codebook[...] = jnp.asarray(entries)
    for layer, own in zip(theirs.layers, entries, strict=True):
        layer._codebook.embed.data = torch.tensor(own)[None]
    latents = noise(2, BATCH, FRAMES, WIDTH)
    quantized, codes, _ = theirs(torch.tensor(latents))
    got = quantize(ours, jnp.asarray(latents))
    np.testing.assert_array_equal(got.codes, codes)
    np.testing.assert_allclose(got.latents, quantized.detach(), atol=1e-6)
    np.testing.assert_allclose(
        decode(ours, got.codes[..., :2]), theirs.get_codes_from_indices(codes)[:2].sum(dim=0), atol=1e-6
    )


def test_averages_after_one_update(their_quantizers) -> None:
    decay, size = 0.8, 8
    theirs = their_quantizers.VectorQuantize(
        dim=WIDTH,
        codebook_size=size,
        decay=decay,
        kmeans_init=False,
        threshold_ema_dead_code=0,
        rotation_trick=False,
    ).train()
    ours = EMAResidualVQ(
        WIDTH, codebooks=1, codebook_size=size, decay=decay, restart=0, random=np.random.default_rng(0)
    )
    codebook, latents = theirs._codebook, noise(3, BATCH, FRAMES, WIDTH)
    # The same averages before: an even share of counts, and sums to match.
    each = BATCH * FRAMES / size
    codebook.embed.data = torch.tensor(np.asarray(ours.codebook[...]))
    codebook.cluster_size.data = torch.full((1, size), each)
    codebook.embed_avg.data = codebook.embed.data * each
    _, codes, commitment = theirs(torch.tensor(latents))
    got = quantize(ours, jnp.asarray(latents))
    ours.update(got.statistics)
    np.testing.assert_array_equal(got.codes[..., 0], codes)
    np.testing.assert_allclose(got.losses["commitment"], commitment.item(), rtol=1e-5)
    np.testing.assert_allclose(ours.share[...] * BATCH * FRAMES, codebook.cluster_size, rtol=1e-5)
    # Theirs is smoothed, by 1e-5 of a vector.
    np.testing.assert_allclose(ours.codebook[...], codebook.embed, rtol=1e-4, atol=1e-5)


def test_one_factorised_level(their_quantizers) -> None:
    """Theirs has entries of length one; ours compares directions and uses the entries, of any length."""
    theirs = their_quantizers.VectorQuantize(
        dim=WIDTH,
        codebook_dim=4,
        codebook_size=32,
        use_cosine_sim=True,
        kmeans_init=False,
        rotation_trick=False,
    ).eval()
    ours = GradientVQ(WIDTH, codebooks=1, codebook_size=32, codebook_width=4, random=np.random.default_rng(0))
    entries = noise(4, 32, 4)
    entries /= np.linalg.norm(entries, axis=1, keepdims=True)
    ours.codebook[...] = jnp.asarray(entries)[None]
    theirs._codebook.embed.data = torch.tensor(entries)[None]
    for name in ("project_in", "project_out"):
        linear = getattr(theirs, name)
        getattr(ours, name)[...] = jnp.asarray(linear.weight.detach().numpy().T)[None]
        getattr(ours, f"{name}_bias")[...] = jnp.asarray(linear.bias.detach().numpy())[None]
    latents = noise(5, BATCH, FRAMES, WIDTH)
    quantized, codes, _ = theirs(torch.tensor(latents))
    got = quantize(ours, jnp.asarray(latents))
    np.testing.assert_array_equal(got.codes[..., 0], codes)
    np.testing.assert_allclose(got.latents, quantized.detach(), atol=1e-6)


@pytest.fixture
def clips() -> tuple[np.ndarray, np.ndarray]:
    target = 0.3 * noise(6, 2, 6000)
    return target + 0.1 * noise(7, 2, 6000), target


def test_multi_resolution_stft_loss(their_losses, clips) -> None:
    estimate = torch.tensor(clips[0])[:, None].requires_grad_()
    expected = their_losses.freq.MultiResolutionSTFTLoss()(estimate, torch.tensor(clips[1])[:, None])
    expected.backward()
    loss, gradient = jax.jit(jax.value_and_grad(multi_resolution_stft_loss))(*map(jnp.asarray, clips))
    np.testing.assert_allclose(loss, expected.item(), rtol=1e-5)
    np.testing.assert_allclose(gradient, estimate.grad[:, 0], rtol=1e-2, atol=1e-6)


def test_si_sdr(their_losses, clips) -> None:
    expected = -their_losses.time.SISDRLoss(reduction="none")(*map(torch.tensor, clips))
    np.testing.assert_allclose(jax.jit(si_sdr)(*map(jnp.asarray, clips)), expected, rtol=1e-5)


def test_log_mel_distance_of_dac(clips) -> None:
    """DAC's formula with torch's STFT and librosa's filters: magnitudes, clamped, common logarithm, L1."""
    librosa = pytest.importorskip("librosa")
    scales, expected = ((256, 20), (1024, 80)), 0.0
    for n_fft, n_mels in scales:
        bands = torch.tensor(librosa.filters.mel(sr=16000, n_fft=n_fft, n_mels=n_mels))
        transform = partial(
            torch.stft,
            n_fft=n_fft,
            hop_length=n_fft // 4,
            window=torch.hann_window(n_fft),
            return_complex=True,
        )
        ours, theirs = ((bands @ transform(torch.tensor(x)).abs()).clamp(1e-5).log10() for x in clips)
        expected += torch.nn.functional.l1_loss(ours, theirs).item()
    loss = jax.jit(partial(multi_scale_mel_loss, sample_rate=16000, scales=scales))(*map(jnp.asarray, clips))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
