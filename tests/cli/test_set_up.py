"""What commands that train set before JAX starts."""

import os
from importlib import metadata

import pytest

from wavegen.cli.runs import set_up_process


@pytest.mark.parametrize(
    ("version", "devices", "flags"),
    [
        ("0.10.2", 1, "--given"),
        ("0.11.2", 1, "--given --xla_cpu_multi_thread_eigen=false"),
        ("0.12.0.1", 2, "--given --xla_force_host_platform_device_count=2"),
    ],
)
def test_flags_of_xla(monkeypatch, version, devices, flags):
    monkeypatch.setenv("XLA_FLAGS", "--given")
    monkeypatch.setattr(metadata, "version", lambda name: version)
    monkeypatch.setattr("wavegen.training.malloc.keep_freed_memory", lambda: True)
    set_up_process(devices)
    assert os.environ["XLA_FLAGS"] == flags
