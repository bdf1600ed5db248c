"""Compile the samplers for TPUs and a GPU on a machine that has neither, and read the compilers' estimates.

The compilers come as wheels, large ones, that nothing else here needs. Put them beside the environment, in the
versions that belong to the installed jax (`pip download jax[tpu]` and `jax[cuda13]` name them; 0.10.2 here):

    pip install --target WHEELS --no-deps libtpu==0.0.42
    pip install --target WHEELS --no-deps jax-cuda13-plugin==0.10.2 jax-cuda13-pjrt==0.10.2

    python benchmarks/speed/compile_targets.py tpu --wheels WHEELS
    python benchmarks/speed/compile_targets.py h100 --wheels WHEELS

A compiled kernel has met the real compiler: its layouts, its memory limits, its registers. It has not run.
"Cycles" are the compiler's: of a kernel the length of the longest chain of one sample's instructions, of XLA's
loop the sum over the operations of one sample. Neither knows what waits at run time.
"""

import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import tyro
from jax.sharding import SingleDeviceSharding

from wavegen.kernels import wavenet_init_state
from wavegen.kernels.wavenet import mosaic_gpu, mosaic_gpu_cluster, pallas_tpu, xla
from wavegen.kernels.wavenet.call import Call
from wavegen.kernels.wavenet.mosaic_gpu_cluster_weights import STREAMS, Division, divide
from wavegen.kernels.wavenet.mosaic_gpu_weights import BLOCK, sizes_of
from wavegen.kernels.wavenet.shapes import NETS, Net

TPUS = {
    "v5e": ("v5e:2x2", "TPU_V5E", 1),
    "v5p": ("v5p:2x2x1", "TPU_V5P", 2),
    "v6e": ("v6e:2x2", "TPU_V6E", 1),
}
"""Topology, name in jax's table of chips, and cores that act as one device."""
H100 = """
gpu_device_info {
  model_str: "sm_9.0a" name: "NVIDIA H100" device_vendor: "NVIDIA Corporation"
  platform_version: "Compute Capability 9.0a"
  cuda_compute_capability { major: 9 feature_extension: ACCELERATED_FEATURES }
  driver_version: "13.0.0" runtime_version: "13.0.0" compile_time_toolkit_version: "13.0.0" dnn_version: "9.10.0"
  core_count: 132 clock_rate_ghz: 1.98 fpus_per_core: 128
  device_memory_size: 84942979072 memory_bandwidth: 3352320000000 l2_cache_size: 52428800 ecc_enabled: true
  device_address_bits: 64
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448 shared_memory_per_core: 233472
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  threads_per_warp: 32 threads_per_block_limit: 1024 threads_per_core_limit: 2048
  thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
}
platform_name: "CUDA" dnn_version_info { major: 9 minor: 10 } device_description_str: "NVIDIA H100"
"""
"""The chip in the fields of XLA's GpuTargetConfig."""
UNTUNED = {"xla_gpu_autotune_level": 0}
"""Choosing among matrix kernels by timing them needs the GPU."""
STEPS, HOP = 256, 80
KERNELS = [(net, dtype, 8, True) for net in NETS for dtype in (jnp.bfloat16, jnp.float32)]
KERNELS += [("20x64x128", jnp.bfloat16, 8, False), ("20x64x128", jnp.bfloat16, 64, True)]
"""Network, weights, batch, look-ahead."""


def call_of(net: Net, batch: int, dtype: Any, device: Any) -> Call:
    """Return a call of abstract arrays, on a device that need not exist."""
    place = SingleDeviceSharding(device)

    def array(*size: int, dtype: Any = jnp.float32) -> Any:
        return jax.ShapeDtypeStruct(size, dtype, sharding=place)

    def placed(tree: Any) -> Any:
        return jax.tree.map(
            lambda x: array(*x.shape, dtype=dtype if x.dtype == jnp.float32 else x.dtype), tree
        )

    weights = placed(jax.eval_shape(net.random_weights))
    return Call(
        weights,
        net.shape,
        state=placed(jax.eval_shape(lambda w: wavenet_init_state(w, net.shape, batch), weights)),
        steps=STEPS,
        key=array(2, dtype=jnp.uint32),
        condition=array(batch, -(-STEPS // HOP) + 1, net.condition) if net.condition else None,
        condition_hop=HOP,
        condition_offset=array(dtype=jnp.int32),
        temperature=array(),
        row_offset=array(dtype=jnp.int32),
    )


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    net: str
    weights: str
    batch: int
    seconds: float | None
    """Of processor time, to compile."""
    note: str

    def __str__(self) -> str:
        seconds = "" if self.seconds is None else f"{self.seconds:.1f}"
        return f"| {self.what} | {self.net} | {self.weights} | {self.batch} | {seconds} | {self.note} |"


def loop_of(hlo: str, rings: str) -> str:
    """Return the body of the loop over time: the one that carries the rings, given as "f32[rows,B,R]"."""
    loops = {
        loop[1]
        for line in hlo.splitlines()
        if rings in line and (loop := re.search(r" while\(.*body=%?([\w.-]+)", line))
    }
    if len(loops) != 1:
        raise ValueError(f"expected one loop that carries {rings}, found {len(loops)}")
    name = loops.pop()
    computations = re.split(r"^(?=\S.*\{$)", hlo, flags=re.MULTILINE)
    return next(c for c in computations if c.lstrip("%").startswith(f"{name} "))


def check_no_ring_copy(body: str, rings: str) -> None:
    """Check that the loop over time updates the rings in place.

    Raises:
        AssertionError: it copies them, with the line.
    """
    for line in body.splitlines():
        if re.search(rf"= {re.escape(rings)}\S* copy(-start)?\(", line):
            raise AssertionError(f"the loop over time copies the rings: {line.strip()[:200]}")


def compile_xla(net: Net, batch: int, dtype: Any, device: Any, options: dict[str, Any]) -> tuple[str, float]:
    """Compile the portable sampler; return the body of its loop over time and the processor seconds it took."""
    call = call_of(net, batch, dtype, device)
    start = time.process_time()
    with jax.default_matmul_precision("highest"):  # as `wavenet_generate` has it
        compiled = xla.generate.lower(call).compile(compiler_options=options)
    seconds = time.process_time() - start
    kind = "f32" if dtype == jnp.float32 else "bf16"
    rings = f"{kind}[{','.join(map(str, call.state['rings'].shape))}]"
    body = loop_of(compiled.as_text(), rings)
    check_no_ring_copy(body, rings)
    return body, seconds


def compile_pallas_tpu(
    net: Net, batch: int, dtype: Any, device: Any, chip: Any, look_ahead: bool
) -> tuple[float, int, int]:
    """Compile the TPU kernel; return the processor seconds it took, the bytes of VMEM, and the streams of a tile."""
    call = call_of(net, batch, dtype, device)
    bytes_of_tile = partial(pallas_tpu.vmem_bytes, call, look_ahead=look_ahead)
    tile = pallas_tpu.choose_tile(batch, chip.num_cores, chip.vmem_capacity_bytes, bytes_of_tile)
    limit = bytes_of_tile(tile) + pallas_tpu.RESERVED
    start = time.process_time()
    pallas_tpu.run.lower(call, look_ahead=look_ahead, tile=tile, vmem_limit=limit, interpret=False).compile()
    return time.process_time() - start, bytes_of_tile(tile), tile


def read_schedule(dump: Path) -> str:
    """Return what libtpu wrote about the kernel: cycles of its longest chain, and bundles of instructions."""
    chains = [path.read_text() for path in dump.glob("*-wavenet_generate*-critical-path.txt")]
    cycles = max(int(n) for chain in chains for n in re.findall(r"Length to end: (\d+)", chain))
    schedules = [
        path.read_text() for path in dump.glob("*-wavenet_generate*-schedule-analysis_final_bundles.txt")
    ]
    bundles = [int(n) for text in schedules for n in re.findall(r"total scheduled bundles:\s+(\d+)", text)]
    return f"{cycles:,} cycles a sample, {max(bundles):,} bundles"


def tpu_rows(dump: Path) -> Iterator[Row]:
    from jax.experimental import topologies
    from jax.experimental.pallas import tpu as pltpu

    for name, (topology, version, cores) in TPUS.items():
        device = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices[0]
        chip = pltpu.get_tpu_info_for_chip(pltpu.ChipVersion[version], cores)
        for net, dtype, batch, look_ahead in KERNELS:
            what = f"{name} kernel" + (", look-ahead" if look_ahead else "")
            row = partial(Row, what, net, jnp.dtype(dtype).name, batch)
            try:
                seconds, size, tile = compile_pallas_tpu(NETS[net], batch, dtype, device, chip, look_ahead)
            except NotImplementedError as reason:
                yield row(None, f"refused: {reason}")
                continue
            except jax.errors.JaxRuntimeError as error:
                yield row(None, f"the compiler: {str(error).splitlines()[0][:200]}")
                continue
            yield row(seconds, f"{size / 2**20:.1f} MiB, tile {tile}, {read_schedule(dump)}")
            for path in dump.iterdir():
                path.unlink()
        for net in NETS:
            body, seconds = compile_xla(NETS[net], 8, jnp.float32, device, {})
            cycles = sum(map(int, re.findall(r'"estimated_cycles":"(\d+)"', body)))
            yield Row(
                f"{name} XLA", net, "float32", 8, seconds, f"{cycles:,} cycles a sample, rings in place"
            )


def compile_mosaic_gpu(net: Net, batch: int, device: Any) -> tuple[float, int]:
    """Compile the Hopper kernel; return the processor seconds it took, and its slots for weights."""
    call = call_of(net, batch, jnp.bfloat16, device)
    mosaic_gpu.check_network(call)
    slots = mosaic_gpu.choose_slots(sizes_of(call.weights, net.shape))
    start = time.process_time()
    mosaic_gpu.run.lower(call, slots=slots, interpret=False).compile(compiler_options=UNTUNED)
    return time.process_time() - start, slots


def compile_mosaic_gpu_cluster(net: Net, batch: int, device: Any) -> tuple[float, Division]:
    """Compile the kernel of a Hopper cluster; return the processor seconds it took, and its stages."""
    call = call_of(net, batch, jnp.bfloat16, device)
    mosaic_gpu.check_network(call)
    room = mosaic_gpu.SHARED_MEMORY - mosaic_gpu_cluster.RESERVED
    division = divide(sizes_of(call.weights, net.shape), room)
    start = time.process_time()
    lowered = mosaic_gpu_cluster.run.lower(call, division=division, interpret=False)
    lowered.compile(compiler_options=UNTUNED)
    return time.process_time() - start, division


def read_assembler(dump: Path) -> str:
    """Return what NVIDIA's assembler wrote about the kernel: registers of a thread, and bytes it spills."""
    text = "".join(path.read_text() for path in dump.glob("*.ptxas"))
    registers = max(int(n) for n in re.findall(r"Used (\d+) registers", text))
    spilled = max(int(n) for n in re.findall(r"(\d+) bytes spill stores", text))
    return f"{registers} registers a thread, {spilled} bytes spilled"


def h100_rows(dump: Path) -> Iterator[Row]:
    from jax.experimental import topologies

    target = {"target_config": H100, "topology": "1x1x1"}
    device = topologies.get_topology_desc(platform="cuda", topology_name="", **target).devices[0]
    batch = 132 * BLOCK  # a tile for every multiprocessor
    for net in NETS:
        row = partial(Row, "H100 kernel", net, "bfloat16", batch)
        try:
            seconds, slots = compile_mosaic_gpu(NETS[net], batch, device)
        except NotImplementedError as reason:
            yield row(None, f"refused: {reason}")
            continue
        yield row(seconds, f"{read_assembler(dump)}, {slots} blocks of weights in flight")
        for path in dump.iterdir():
            path.unlink()
    for net in NETS:
        row = partial(Row, "H100 cluster", net, "bfloat16", STREAMS)
        try:
            seconds, division = compile_mosaic_gpu_cluster(NETS[net], STREAMS, device)
        except NotImplementedError as reason:
            yield row(None, f"refused: {reason}")
            continue
        held = f"{division.stages} multiprocessors of {division.shared_bytes / 2**10:.0f} KiB"
        yield row(seconds, f"{read_assembler(dump)}, {held}")
        for path in dump.iterdir():
            path.unlink()
    nothing = ("parameter", "constant", "get-tuple-element", "tuple", "bitcast")
    for net in NETS:
        body, seconds = compile_xla(NETS[net], 8, jnp.float32, device, UNTUNED)
        operations = re.findall(r"^  \S+ = .*? ([a-z-]+)\(", body, flags=re.MULTILINE)
        count = sum(operation not in nothing for operation in operations)
        yield Row("H100 XLA", net, "float32", 8, seconds, f"{count} kernels a sample, rings in place")


def main(target: Literal["tpu", "h100"], /, wheels: Path) -> None:
    """Compile for a target and print a table.

    Args:
        target: of the compiler.
        wheels: folder with the compiler's wheels, unpacked.
    """
    sys.path.insert(0, str(wheels))
    jax.config.update("jax_platforms", "cpu")
    with tempfile.TemporaryDirectory() as folder:
        if target == "tpu":
            os.environ |= {
                "TPU_LIBRARY_PATH": str(wheels / "libtpu" / "libtpu.so"),
                "TPU_SKIP_MDS_QUERY": "1",  # do not ask a cloud machine's metadata which TPU it has
                "TPU_WORKER_HOSTNAMES": "localhost",
                "TPU_ACCELERATOR_TYPE": "v5litepod-4",
                "LIBTPU_INIT_ARGS": f"--xla_jf_dump_to={folder} --xla_jf_dump_llo_text=true",
            }
        else:
            os.environ |= {"MOSAIC_GPU_DUMP_TO": folder, "MOSAIC_GPU_DUMP_PTXAS": "1"}
        print("| target | net | weights | batch | CPU s | |\n| --- | --- | --- | --- | --- | --- |")
        for row in {"tpu": tpu_rows, "h100": h100_rows}[target](Path(folder)):
            print(row, flush=True)


if __name__ == "__main__":
    tyro.cli(main)
