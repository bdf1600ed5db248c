"""Timing of codecs and masked models, and the PyTorch networks that it compares with."""

import json
import math

import numpy as np
import pytest

from wavegen.bench import networks, tokens, training
from wavegen.cli import main

CODEC = {
    "data": {"sample_rate": 1000, "crop": 125, "batch_size": 2},
    "model": {
        "kind": "wave_vq",
        "strides": [5],
        "width": 2,
        "decoder_width": 16,
        "quantizer": {"kind": "gradient", "codebooks": 2, "codebook_size": 8, "codebook_width": 3},
    },
}
BERT = {
    "data": {"batch_size": 2},
    "model": {"kind": "bert", "width": 16, "layers": 2, "heads": 2, "dropout": 0, "label_smoothing": 0.2},
}


@pytest.fixture(scope="module", autouse=True)
def tiny():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(networks.CODECS, "tiny", CODEC)
        patch.setitem(networks.MODELS, "tiny-bert", BERT)
        patch.setattr(networks, "_WINDOW", 0.2)
        patch.setattr(training, "processors", lambda: 1)
        yield


def losses(works: list[tokens.Work], steps: int) -> list[list[float]]:
    assert [work.by for work in works] == ["wavegen", "torch"]
    return [[work.call() for _ in range(steps)] for work in works]


def test_a_codec_learns_the_same_in_pytorch():
    pytest.importorskip("torch")
    ours, theirs = losses(training.codec_training(networks.open_codec("tiny"), True), 3)
    assert ours[2] < ours[0]
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)


def test_a_masked_model_has_the_same_loss_in_pytorch():
    pytest.importorskip("torch")
    model = networks.open_model("tiny-bert", networks.open_codec("tiny"))
    # Masks differ after the first step.
    (bits,), (nats,) = losses(training.model_training(model, True), 1)
    assert bits * math.log(2) == pytest.approx(nats, rel=1e-5)


def test_bench_times_coding_and_generation_and_keeps_the_figures(tmp_path, capsys):
    call = "bench --codec tiny --model tiny-bert --seconds 0.1 --passes 3 --batch 2 --rounds 2"
    main([*call.split(), "--json", str(tmp_path / "bench.json")])
    assert "tiny tiny-bert, median of 2 rounds" in capsys.readouterr().out
    rows = json.loads((tmp_path / "bench.json").read_text())["rows"]
    assert [row["name"] for row in rows] == ["encode", "decode", "pass", "generate 3"]
    for row in rows:
        assert 0 < row["milliseconds"] <= row["slowest"] < math.inf
        assert row["real_time"] == pytest.approx(2 * 0.1 * 1e3 / row["milliseconds"])
    codec, frames = networks.open_codec("tiny").codec, 20
    model = networks.open_model("tiny-bert", networks.open_codec("tiny"))
    network = tokens.masked_model(model)
    forward = network.flops_per_frame(frames) - 2 * (codec.codebooks - 1) * 16 * 8
    work = rows[2]["gflops"] * rows[2]["milliseconds"] * 1e6
    assert work == pytest.approx(2 * frames * forward)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--codec nowhere", "expected one of wave_vq-8k, "),
        ("--model bert-base", "bert-base reads the tokens of a codec; name one"),
        (
            "--codec tiny --net 20x64x128",
            "the bench of a codec or a masked model takes no --net; leave it out",
        ),
        ("--codec tiny --precision bfloat16", "a codec or a masked model takes no --precision"),
        ("--seconds 3", "the bench of a WaveNet takes no --seconds; leave it out"),
        ("--codec tiny --seconds 0", "--seconds must be a number above 0 and up to 86,400, got 0.0"),
        ("--codec tiny --model tiny-bert --seconds 9", "at most 0.2 s, the window of the model, got 9 s"),
        ("--codec tiny --model tiny-bert --passes 1", "expected a pass for each of 2 codebooks, got 1"),
    ],
)
def test_what_cannot_be_timed_is_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit):
        main(["bench", *arguments.split()])
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
