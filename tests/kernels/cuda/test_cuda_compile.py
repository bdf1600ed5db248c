"""The kernel meets its real compiler, where there is NVRTC: nothing may spill. And what is planned without one."""

import re
from dataclasses import replace

import jax
import pytest

from wavegen.kernels import WaveNetShape
from wavegen.kernels.wavenet.cuda import compiler
from wavegen.kernels.wavenet.cuda.plan import MOST_BLOCKS, SHARED_MEMORY, Plan, make_plan
from wavegen.kernels.wavenet.shapes import NETS, Net

SHIPPED = {
    "quickstart": Net(WaveNetShape((1, 4, 16, 64)), 32, 32, 64, 64, 4, condition=8),
    "fsdd": Net(WaveNetShape((1, 4, 16, 64, 256)), 96, 96, 128, 128, 4, condition=8),
}


def plan_of(net: Net, shared_memory: int = SHARED_MEMORY[9]) -> Plan:
    return make_plan(jax.eval_shape(net.random_weights), net.shape, shared_memory)


@pytest.fixture(scope="module")
def nvrtc():
    try:
        return compiler.nvrtc()
    except NotImplementedError as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize("name", NETS | SHIPPED)
def test_nothing_spills(name, nvrtc):
    code, report = compiler.compile_kernel(plan_of((NETS | SHIPPED)[name]), "9.0")
    assert code.startswith(b"\x7fELF")
    assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in report
    assert int(re.search(r"Used (\d+) registers", report)[1]) <= 255


@pytest.mark.parametrize("capability", ["10.0", "12.0"])
def test_later_gpus_spill_nothing_either(capability, nvrtc):
    plan = plan_of(NETS["20x64x128"], SHARED_MEMORY[int(capability[:2])])
    assert " 0 bytes spill stores" in compiler.compile_kernel(plan, capability)[1]


def test_a_compiler_that_is_too_old_is_one_line(nvrtc):
    with pytest.raises(NotImplementedError, match=r"cannot compile it for 99\.0") as refused:
        compiler.compile_kernel(plan_of(NETS["20x64x128"]), "99.0")
    assert "\n" not in str(refused.value)


def test_no_compiler_says_how_to_get_one(monkeypatch):
    monkeypatch.setattr(compiler.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(compiler.ctypes.util, "find_library", lambda name: None)
    compiler.nvrtc.cache_clear()
    try:
        with pytest.raises(NotImplementedError, match=r"install wavegen\[cuda\]"):
            compiler.nvrtc()
    finally:
        compiler.nvrtc.cache_clear()


def test_plans_of_the_timed_networks():
    plan = plan_of(NETS["20x64x128"])
    assert (plan.stages, plan.stage_layers, plan.groups) == (7, 3, 4)
    assert plan.on_chip
    assert plan.in_registers
    small = plan_of(SHIPPED["quickstart"])
    assert (small.blocks, small.in_registers) == (2, True)
    for net in NETS.values():
        for room in set(SHARED_MEMORY.values()):
            plan = plan_of(net, room)
            assert plan.blocks <= MOST_BLOCKS
            assert plan.shared_bytes <= room
    large = plan_of(NETS["24x128x128"])
    assert not large.on_chip
    assert dict(large.macros)["ahead_on_chip"] > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"residual": 160}, "up to 128 residual channels, got 160"),
        ({"skip": 512}, "up to 256 skip channels, got 512"),
        ({"input_kernel_size": 65}, "up to 64 past tokens"),
        ({"shape": WaveNetShape((1,), vocab_size=1024)}, "up to 512 outputs channels, got 1024"),
    ],
)
def test_what_is_too_wide_is_refused_with_the_figure(change, message):
    with pytest.raises(NotImplementedError, match=message):
        plan_of(replace(NETS["20x64x128"], **change))


def test_compiled_kernels_are_kept_by_gpu_source_network_and_compiler(monkeypatch, tmp_path):
    compiled = []

    def compile_kernel(plan, capability):
        compiled.append(capability)
        return b"code for " + capability.encode(), ""

    monkeypatch.setenv("WAVEGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(compiler, "compile_kernel", compile_kernel)
    monkeypatch.setattr(compiler, "version", lambda: "13.0")
    plan = plan_of(NETS["20x64x128"])
    first = compiler.cubin(plan, "9.0")
    assert first == compiler.cubin(plan, "9.0")
    assert first.read_bytes() == b"code for 9.0"
    others = {first, compiler.cubin(plan, "10.0"), compiler.cubin(plan_of(SHIPPED["fsdd"]), "9.0")}
    monkeypatch.setattr(compiler, "version", lambda: "13.1")
    others.add(compiler.cubin(plan, "9.0"))
    monkeypatch.setattr(compiler, "sources", lambda: {"kernel.h": "another"})
    others.add(compiler.cubin(plan, "9.0"))
    assert len(others) == len(compiled) == 5
    assert set((tmp_path / "cache").iterdir()) == others  # nothing unfinished is left


def test_a_folder_that_cannot_be_written_leaves_nothing(monkeypatch, tmp_path):
    def cannot(*_):
        raise OSError("disk full")

    monkeypatch.setenv("WAVEGEN_CACHE", str(tmp_path))
    monkeypatch.setattr(compiler, "compile_kernel", lambda *_: (b"code", ""))
    monkeypatch.setattr(compiler, "version", lambda: "13.0")
    monkeypatch.setattr(compiler.os, "replace", cannot)
    with pytest.raises(NotImplementedError, match=r"disk full.*WAVEGEN_CACHE"):
        compiler.cubin(plan_of(NETS["20x64x128"]), "9.0")
    assert not list(tmp_path.iterdir())
