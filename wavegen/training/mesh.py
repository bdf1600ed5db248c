"""Devices and processes: a mesh with axes ``data`` and ``fsdp``, and where batches and parameters lie on it.

Both axes split the batch. ``fsdp`` also splits large parameters (and with them the optimizer's moments and
the average), so that a state larger than one device fits; XLA inserts the collectives. One device and many
run the same code.
"""

import os
from math import prod
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import PyTree

from wavegen.errors import WavegenError

SMALLEST_SHARDED = 2**16
"""Elements under which an array is kept whole on every device: gathering it would cost more than it saves."""


def initialize_distributed(
    coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Joins the other processes of this run; do nothing where there is only this one, or when they are joined.

    JAX finds SLURM, Kubernetes, Open MPI and TPU pods by itself. Elsewhere, or to overrule it, give all three
    arguments, or set ``WAVEGEN_COORDINATOR``, ``WAVEGEN_NUM_PROCESSES`` and ``WAVEGEN_PROCESS_ID``; a number
    of 1 alone keeps this process on its own. Call it before anything else touches a device.

    Args:
        coordinator: ``host:port`` of process 0, reachable from all.
        num_processes: how many processes run.
        process_id: this one's number, from 0.

    Raises:
        WavegenError: only some of the three are known, one is not a number, or a launcher's other processes
            cannot be joined.
    """
    if jax.distributed.is_initialized():
        return
    given = {
        "WAVEGEN_COORDINATOR": coordinator,
        "WAVEGEN_NUM_PROCESSES": num_processes,
        "WAVEGEN_PROCESS_ID": process_id,
    }
    known: dict[str, Any] = {name: os.environ.get(name) if v is None else v for name, v in given.items()}
    missing = [name for name, value in known.items() if value is None]
    if str(known["WAVEGEN_NUM_PROCESSES"]) == "1":
        return
    if len(missing) == len(known):
        _initialize_detected()
        return
    if missing:
        raise WavegenError(
            f"expected all of {', '.join(known)} or none of them, got no {', '.join(missing)}; set that too"
        )
    try:
        count, index = int(known["WAVEGEN_NUM_PROCESSES"]), int(known["WAVEGEN_PROCESS_ID"])
    except ValueError as error:
        raise WavegenError(
            f"expected whole numbers in WAVEGEN_NUM_PROCESSES and WAVEGEN_PROCESS_ID, got {error}; mend it"
        ) from error
    jax.distributed.initialize(known["WAVEGEN_COORDINATOR"], count, index)


def _initialize_detected() -> None:
    try:
        jax.distributed.initialize()
    except (ValueError, RuntimeError) as error:
        # No launcher was recognised, or a device is in use: right for a process on its own. But where others
        # were launched with it, each would train by itself into the same folder.
        counts = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
        signs = [name for name in counts if int(os.environ.get(name, "1")) > 1]
        signs += [name for name in ("JOB_COMPLETION_INDEX", "TPU_PROCESS_ADDRESSES") if name in os.environ]
        if signs:
            raise WavegenError(
                f"expected to join the processes that {signs[0]} announces, got {error} "
                "Set WAVEGEN_COORDINATOR, WAVEGEN_NUM_PROCESSES and WAVEGEN_PROCESS_ID, or "
                "WAVEGEN_NUM_PROCESSES=1 for a run on its own"
            ) from error


def make_mesh(data: int = -1, fsdp: int = 1) -> Mesh:
    """Returns the mesh over all devices of all processes.

    Args:
        data: devices along the axis that splits the batch only; -1 takes all that ``fsdp`` leaves.
        fsdp: devices along the axis that splits the batch and the large parameters.

    Raises:
        WavegenError: the product is not the number of devices.
    """
    devices = jax.device_count()
    shape = (devices // fsdp if data == -1 and fsdp > 0 else data, fsdp)
    if min(shape) < 1 or prod(shape) != devices:
        raise WavegenError(
            f"expected data * fsdp == {devices} devices, got data={data} and fsdp={fsdp}; "
            f"choose an fsdp that divides {devices} and leave data at -1"
        )
    return jax.make_mesh(shape, ("data", "fsdp"), axis_types=(AxisType.Auto, AxisType.Auto))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of a batch: the first axis over all devices."""
    return NamedSharding(mesh, P(("data", "fsdp")))


def shard_batch(batch: PyTree[np.ndarray], mesh: Mesh) -> PyTree[jax.Array]:
    """Returns the global batch on the devices, given this process's rows of it.

    Args:
        batch: arrays ``[rows of this process, ...]``; with one process, the whole batch.
        mesh: from ``make_mesh``.

    Raises:
        WavegenError: the rows cannot be dealt out evenly to this process's devices.
    """
    sharding = batch_sharding(mesh)
    local = len(mesh.local_devices)
    for path, rows in jax.tree.leaves_with_path(batch):
        if rows.shape[0] % local:
            raise WavegenError(
                f"expected a batch that {local} devices can share evenly, got {rows.shape[0]} rows in "
                f"{jax.tree_util.keystr(path)}; make the batch a multiple of {mesh.size}"
            )
    return jax.tree.map(lambda rows: jax.make_array_from_process_local_data(sharding, rows), batch)


def state_sharding(state: PyTree, mesh: Mesh, *, smallest: int = SMALLEST_SHARDED) -> PyTree[NamedSharding]:
    """Returns where each array of a state lies: its longest axis that ``fsdp`` divides is split.

    Moments and averages have the shapes of their parameters, so the one rule puts them in the same place.

    Args:
        state: arrays or ``ShapeDtypeStruct``.
        mesh: from ``make_mesh``.
        smallest: arrays with fewer elements stay whole on every device.
    """
    ways = mesh.shape["fsdp"]

    def place(x: Any) -> NamedSharding:
        axes = [axis for axis, size in enumerate(x.shape) if size % ways == 0]
        if ways == 1 or not axes or prod(x.shape) < smallest:
            return NamedSharding(mesh, P())
        longest = max(axes, key=lambda axis: x.shape[axis])
        return NamedSharding(mesh, P(*[None] * longest, "fsdp"))

    return jax.tree.map(place, state)


def shard_state(state: PyTree, mesh: Mesh) -> PyTree[jax.Array]:
    """Returns ``state`` laid out by ``state_sharding``; every process must hold the same numbers."""
    return jax.device_put(state, state_sharding(state, mesh))
