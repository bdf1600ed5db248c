"""Nothing that was changed after it was written is read as good."""

import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from wavegen.codecs.spectrogram.files import read_codebook, write_codebook
from wavegen.errors import WavegenError
from wavegen.runs.checkpoints import Checkpoints
from wavegen.runs.weights import read_weights, write_weights
from wavegen.sealed import read_sealed


def write_model(path):
    params = {"layers": {0: {"kernel": np.linspace(-1, 1, 12).reshape(3, 4)}}, "bias": np.ones(2)}
    return write_weights(path, params, {"config": {"name": "m", "seed": 3}})


@pytest.mark.parametrize(
    "write", [write_model, lambda path: write_codebook(path, {"codebook": np.eye(3)}, {"n": 1})]
)
def test_no_flipped_bit_goes_unnoticed(tmp_path, write, rng):
    path = tmp_path / "m.safetensors"
    write(path)
    arrays, card = read_sealed(path)
    whole = path.read_bytes()
    for position in rng.permutation(len(whole))[:300]:
        damaged = bytearray(whole)
        damaged[position] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            found, other = read_sealed(path)
        except WavegenError:
            continue
        # The name of the seal itself was changed, or a space of the file's own header.
        assert {n: x.tolist() for n, x in found.items()} == {n: x.tolist() for n, x in arrays.items()}
        assert card.items() <= other.items()


def test_equal_contents_give_equal_files(tmp_path):
    first, second = (write_model(tmp_path / name).read_bytes() for name in ("a.safetensors", "b.safetensors"))
    assert first == second


def test_files_of_before_there_were_seals_are_read(tmp_path):
    path = tmp_path / "old.safetensors"
    save_file({"bias": np.ones(2, np.float16)}, path, metadata={"wavegen": '{"config": {"seed": 3}}'})
    params, card = read_weights(path)
    assert (params["bias"].tolist(), card) == ([1.0, 1.0], {"config": {"seed": 3}})
    save_file({"codebook": np.eye(2)}, path, metadata={"wavegen": '{"codec": "spectrogram_vq"}'})
    assert read_codebook(path)[0]["codebook"].shape == (2, 2)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (None, "holds tensors but no wavegen card"),
        ({"wavegen": "[]"}, "holds a damaged wavegen card .*expected an object, got list"),
        ({"wavegen": "{" * 100_000}, "holds a damaged wavegen card"),
        ({"wavegen": "[" * 100_000}, "holds a damaged wavegen card"),
        ({"wavegen": '"' + "x" * (17 << 20) + '"'}, "holds a damaged wavegen card .*characters"),
    ],
)
def test_odd_cards_are_one_short_line(tmp_path, metadata, message):
    path = tmp_path / "odd.safetensors"
    save_file({"bias": np.ones(2)}, path, metadata=metadata)
    with pytest.raises(WavegenError, match=message) as caught:
        read_sealed(path)
    assert len(str(caught.value)) < 1100


def test_weights_that_are_not_finite_are_refused(tmp_path):
    path = tmp_path / "nan.safetensors"
    save_file({"bias": np.array([1.0, np.nan])}, path, metadata={"wavegen": "{}"})
    with pytest.raises(WavegenError, match="bias holds numbers that are not finite"):
        read_sealed(path)


def state_of(step: int):
    return {"kernel": jnp.full(4, float(step))}


def test_a_checkpoint_under_another_steps_name_is_no_checkpoint(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, state_of(step), {})
    shutil.copytree(tmp_path / "1", tmp_path / "7")
    with (
        Checkpoints(tmp_path) as checkpoints,
        pytest.warns(UserWarning, match="checkpoint 7 is damaged .* holds step 1, under another step's name"),
    ):
        state, step, _ = checkpoints.restore(state_of(0))
    assert step == 2
    np.testing.assert_array_equal(state["kernel"], state_of(2)["kernel"])
