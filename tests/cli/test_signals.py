"""Signals end commands in one line, and what is whole is kept."""

import os
import signal
import subprocess
import sys
import time

import pytest
from cli.test_cli import RATE, ROOT, write_model

from wavegen.audio import Audio

# A shell starts background jobs with SIGINT ignored, nohup with SIGHUP, and these tests may run in such a job.
RUN = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
    "signal.signal(signal.SIGHUP, signal.SIG_DFL);"
    "from wavegen.__main__ import run; print('ready', flush=True); run(sys.argv[1:])"
)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_command_with_one_line_and_its_status(number, rng):
    """From its beginning on, in the imports of JAX as well as later."""
    command = [sys.executable, "-c", RUN, "bench", "--steps", "100000000", "--implementation", "xla"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for delay in (0.05, *rng.uniform(0.2, 5, 3)):
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        ) as process:
            assert process.stdout.readline() == "ready\n"
            time.sleep(delay)
            process.send_signal(number)
            try:
                _, error = process.communicate(timeout=20)
            finally:
                process.kill()
        assert process.returncode == 128 + number, error
        assert error == f"wavegen: stopped by {number.name}; the files that are written are whole\n"


@pytest.mark.slow
def test_ctrl_c_while_sampling_keeps_a_valid_recording(tmp_path):
    model = write_model(tmp_path / "m.safetensors")
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, "sample", model, "--seconds", "3600", "-o", tmp_path / "out"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    wav = tmp_path / "out" / "m-seed0-0.wav"
    while not (wav.exists() and wav.stat().st_size > 2 * 4000):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "stopped; the " in err
    assert f"audio        {wav}" in out
    audio = Audio.read(wav)
    assert audio.sample_rate == RATE
    assert 0.5 <= audio.duration < 3600
