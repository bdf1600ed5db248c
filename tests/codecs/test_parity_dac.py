"""A DAC of Hugging Face, read from its file, gives the codes and the audio of `transformers`."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from wavegen.codecs.pretrained.dac import load_dac
from wavegen.errors import WavegenError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

encode = jax.jit(lambda codec, audio: codec.encode(audio))
decode = jax.jit(lambda codec, tokens: codec.decode(tokens))


def make_model(strides: list[int]):
    """A small random one, with weights large enough for its audio to be loud."""
    torch.manual_seed(0)
    config = transformers.DacConfig(
        encoder_hidden_size=8,
        decoder_hidden_size=32,
        hidden_size=8 * 2 ** len(strides),
        downsampling_ratios=strides,
        upsampling_ratios=strides[::-1],
        n_codebooks=3,
        codebook_size=64,
        codebook_dim=4,
        sampling_rate=8000,
    )
    model = transformers.DacModel(config).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            fan_in = value[0].numel() if value.ndim > 1 else 1
            value.normal_(std=0.1 if "bias" in name else fan_in**-0.5)
            if "alpha" in name:
                value.copy_(1 + 0.3 * torch.randn_like(value))
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dac")
    make_model([2, 4]).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    "norm", [None, torch.nn.utils.weight_norm, torch.nn.utils.parametrizations.weight_norm]
)
@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch's, on the older weight norm
def test_codes_are_equal_and_audio_is_close(tmp_path: Path, norm) -> None:
    model = make_model([2, 4])
    if norm is not None:
        for module in list(model.modules()):
            if isinstance(module, torch.nn.Conv1d | torch.nn.ConvTranspose1d):
                norm(module)
                weight = next(
                    p for n, p in module.named_parameters() if n.endswith(("weight_g", "original0"))
                )
                weight.data *= 0.8  # a length other than the direction's
    model.save_pretrained(tmp_path)
    names = load_file(tmp_path / "model.safetensors")
    assert any(n.endswith(("weight_g", "original0")) for n in names) == (norm is not None)
    codec, sample_rate = load_dac(tmp_path)
    assert sample_rate == 8000
    compare(model, codec, 8 * 40)


def compare(model, codec, length: int, tail: int = 0) -> None:
    audio = 0.3 * np.random.default_rng(1).standard_normal((2, length)).astype(np.float32)
    with torch.no_grad():
        codes = model.encode(torch.tensor(audio)[:, None]).audio_codes
        expected = model.decode(audio_codes=codes).audio_values.numpy()
    got = encode(codec, audio)
    np.testing.assert_array_equal(got, codes.numpy().transpose(0, 2, 1))
    decoded = decode(codec, got)
    assert decoded.shape == (2, length)
    assert 0.1 < expected.std() < 0.9
    assert length - expected.shape[1] <= tail
    np.testing.assert_allclose(decoded[:, : length - tail], expected[:, : length - tail], atol=1e-4)


def test_odd_strides_differ_near_the_end_alone(tmp_path: Path) -> None:
    model = make_model([3, 5])
    model.save_pretrained(tmp_path)
    # What the frame that is missing after the first stride can reach: 40 frames by the dilations of each block.
    compare(model, load_dac(tmp_path)[0], 15 * 40, tail=3 * (40 + 40) + 3)


def test_a_file_is_as_good_as_its_folder(folder: Path) -> None:
    codec, _ = load_dac(folder / "model.safetensors")
    again, _ = load_dac(folder)
    jax.tree.map(np.testing.assert_array_equal, codec, again)


def change(folder: Path, **changes) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def drop(folder: Path, name: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors[name]
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "cannot read .*config.json: No such file"),
        (lambda f: (f / "config.json").write_text("{"), "config.json is not JSON"),
        (
            lambda f: (f / "config.json").write_text('{"model_type": "dac"}'),
            r"downsampling_ratios of config\.json: Field required;",
        ),
        (lambda f: change(f, model_type="encodec"), '"model_type": "dac" in .*got .encodec.'),
        (
            lambda f: change(f, upsampling_ratios=[2, 4]),
            r"expected upsampling_ratios \[4, 2\] .* got \[2, 4\]",
        ),
        (lambda f: change(f, codebook_size=32), r"codebook.weight of shape \[32, 4\], got \[64, 4\]"),
        (
            lambda f: change(f, n_codebooks=2),
            "no more tensors than the model has, got 5 more, such as quantizer.quantizers.2.codebook.weight",
        ),
        (lambda f: drop(f, "decoder.snake1.alpha"), "expected a tensor decoder.snake1.alpha"),
        (lambda f: (f / "model.safetensors").unlink(), "expected model.safetensors in"),
        (lambda f: (f / "model.safetensors").write_bytes(b"no"), "not a whole safetensors file"),
    ],
)
def test_bad_files_are_named(folder: Path, tmp_path: Path, damage, message: str) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    damage(tmp_path)
    with pytest.raises(WavegenError, match=message):
        load_dac(tmp_path)
