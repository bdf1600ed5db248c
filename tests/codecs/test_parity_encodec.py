"""EnCodec gives the codes and the audio of transformers' own, where that is installed."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wavegen.codecs.pretrained.encodec import load_encodec

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
save_file = pytest.importorskip("safetensors.torch").save_file

SIZES = {
    "24 kHz": {"upsampling_ratios": [8, 5], "num_residual_layers": 2, "target_bandwidths": [3.0, 12.0]},
    "32 kHz": {
        "upsampling_ratios": [5, 4],
        "sampling_rate": 32000,
        "use_causal_conv": False,
        "use_conv_shortcut": False,
        "target_bandwidths": [32.0],
    },
}
VOCABULARY = 32
encode = jax.jit(lambda codec, audio: codec.encode(audio))
decode = jax.jit(lambda codec, tokens: codec.decode(tokens))


def noise(samples: int) -> np.ndarray:
    return np.random.default_rng(samples).uniform(-1, 1, (2, samples)).astype(np.float32)


@pytest.fixture(scope="module", params=list(SIZES))
def theirs(request):
    """A small model of random weights, whose entries lie among its residuals: as drawn they are all zero."""
    torch.manual_seed(0)
    config = transformers.EncodecConfig(
        num_filters=4, hidden_size=12, codebook_size=VOCABULARY, **SIZES[request.param]
    )
    model = transformers.EncodecModel(config).eval()
    with torch.no_grad():
        rows = model.encoder(torch.tensor(noise(4000))[:, None]).mT.flatten(0, 1)
        for layer in model.quantizer.layers:
            # Near some of the vectors, but on none.
            entries = rows[torch.randperm(len(rows))[:VOCABULARY]]
            entries = entries + 0.1 * rows.std() * torch.randn_like(entries)
            layer.codebook.embed.copy_(entries)
            rows = rows - entries[torch.cdist(rows, entries).argmin(dim=1)]
        # Else the output is out of range.
        model.decoder.layers[-1].conv.parametrizations.weight.original0.mul_(0.1)
    return model


@pytest.fixture(scope="module")
def folder(theirs, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("encodec")
    theirs.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def ours(folder):
    return load_encodec(folder)


@pytest.mark.parametrize("samples", [1, 1003])
def test_codes_and_audio(theirs, ours, samples: int) -> None:
    audio = noise(samples)
    with torch.no_grad():
        bandwidth = theirs.config.target_bandwidths[-1]
        codes = theirs.encode(torch.tensor(audio)[:, None], bandwidth=bandwidth).audio_codes
        expected = theirs.decode(codes, [None]).audio_values[:, 0].numpy()
    assert len(codes[0, 0, 0].unique()) > samples // 100
    tokens = encode(ours, jnp.asarray(audio))
    np.testing.assert_array_equal(tokens, codes[0].transpose(1, 2))
    assert 0.01 < np.abs(expected).max() < 1
    np.testing.assert_allclose(decode(ours, tokens), expected, rtol=0, atol=1e-4)


def test_lower_bandwidths(theirs, ours) -> None:
    audio = noise(1003)
    with torch.no_grad():
        codes = theirs.encode(
            torch.tensor(audio)[:, None], bandwidth=theirs.config.target_bandwidths[0]
        ).audio_codes[0]
        expected = theirs.decode(codes[None], [None]).audio_values[:, 0]
    tokens = encode(ours, jnp.asarray(audio))[..., : codes.shape[1]]
    np.testing.assert_array_equal(tokens, codes.transpose(1, 2))
    np.testing.assert_allclose(decode(ours, tokens), expected, rtol=0, atol=1e-4)


def test_the_older_spelling_of_weight_norm(theirs, folder, ours, tmp_path) -> None:
    spelling = {
        "parametrizations.weight.original0": "weight_g",
        "parametrizations.weight.original1": "weight_v",
    }
    renamed = {}
    for name, tensor in theirs.state_dict().items():
        for new, old in spelling.items():
            name = name.replace(new, old)
        renamed[name] = tensor.contiguous()
    assert sum(name.endswith("weight_g") for name in renamed) > 10
    save_file(renamed, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    older = load_encodec(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, older, ours)
