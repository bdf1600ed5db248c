"""Divides a network among the blocks of a cluster, and each block's weights among its registers and memories."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..shapes import WaveNetShape

STREAMS = 8
"""Streams of a group, the width of a tile of the tensor cores."""
WARPS = 8
MOST_BLOCKS = 8
"""Blocks of a cluster that every GPU with clusters can have (CUDA C++ programming guide)."""
MOST_GROUPS = 4
REGISTERS = 144
"""Registers of each thread of a stage that hold weights; with them, and no more, the compilers spill none of 255."""
SPREAD_REGISTERS = 80
"""The same where weights are read from global memory too, which takes registers until they arrive."""
HEAD_REGISTERS = 128
SHARED_MEMORY = {9: 227 * 1024, 10: 227 * 1024, 11: 227 * 1024, 12: 99 * 1024}
"""Bytes that one block can have, by the major compute capability (CUDA C++ programming guide)."""
WIDEST = {"residual": 128, "gate": 128, "skip": 256, "hidden": 256, "outputs": 512}
MOST_REACH = 64


@dataclass(frozen=True)
class Sizes:
    """The network as the kernel has it; channels are padded to multiples of 32.

    Attributes:
        layers: number of layers.
        taps: of the dilated convolutions.
        residual: padded channels R.
        gate: padded channels G.
        skip: padded channels S.
        hidden: padded channels H.
        outputs: padded outputs.
        table: elements of the input convolution's kernel.
    """

    layers: int
    taps: int
    residual: int
    gate: int
    skip: int
    hidden: int
    outputs: int
    table: int

    @property
    def matrices(self) -> dict[str, tuple[int, int]]:
        """Rows and columns of a stage's matrices by kind, in the order in which they are brought closer."""
        return {
            "ahead": (2 * self.gate, self.gate),
            "residual": (self.residual, self.gate),
            "current": (2 * self.gate, self.residual),
            "past": (2 * self.gate, (self.taps - 1) * self.residual),
            "skip": (self.skip, self.gate),
        }

    @property
    def ends(self) -> dict[str, tuple[int, int]]:
        """The same for the head."""
        return {"hidden": (self.hidden, self.skip), "output": (self.outputs, self.hidden)}


@dataclass(frozen=True)
class Plan:
    """Determines all that the kernel is compiled for; hashable, so that it can be a static argument.

    Attributes:
        sizes: of the network.
        macros: those of the network that ``sizes`` lacks, and where weights are: names and values for ``sizes.h``.
        stage_layers: layers of one block.
        groups: the most groups of streams in flight in a cluster.
        shared_bytes: shared memory of a block.
    """

    sizes: Sizes
    macros: tuple[tuple[str, int], ...]
    stage_layers: int
    groups: int
    shared_bytes: int

    @property
    def stages(self) -> int:
        """Blocks that hold layers."""
        return -(-self.sizes.layers // self.stage_layers)

    @property
    def blocks(self) -> int:
        """Blocks of a cluster."""
        return self.stages + 1

    @property
    def on_chip(self) -> bool:
        """Whether no weights are read from global memory for each sample."""
        places = dict(self.macros)
        layers = all(places[f"{kind}_on_chip"] == self.stage_layers for kind in self.sizes.matrices)
        return layers and all(places[f"{kind}_on_chip"] for kind in ("hidden", "output", "table"))

    @property
    def in_registers(self) -> bool:
        """Whether all weights that a sample waits for in the stages are in registers."""
        places = dict(self.macros)
        return all(
            places[f"{kind}_in_registers"] == self.stage_layers for kind in ("ahead", "residual", "current")
        )

    def defines(self) -> list[str]:
        """Returns the compiler's options that set the macros."""
        own = {name: value for name, value in vars(self.sizes).items() if name != "table"}
        own |= {"stage_layers": self.stage_layers, "groups": self.groups, "shared_bytes": self.shared_bytes}
        return [f"-DWAVENET_{name.upper()}={value}" for name, value in (own | dict(self.macros)).items()]


def padded(width: int) -> int:
    """Returns the next multiple of 32."""
    return -(-width // 32) * 32


def input_name(weights: Mapping[str, Any]) -> str:
    """Returns the name of the kernel of the input convolution."""
    return "embedding" if "embedding" in weights else "scalar"


def make_plan(weights: Mapping[str, Any], shape: WaveNetShape, shared_memory: int = 227 * 1024) -> Plan:
    """Plans for a network, of whose weights only the shapes are read.

    Stages are as few as keep what a sample waits for in registers and the rest in shared memory, as each message costs
    about as much as a layer. A network that does not fit is spread over as many as there are; what a sample waits for
    least is then read from global memory.

    Args:
        weights: arrays or their shapes and dtypes.
        shape: the static half.
        shared_memory: bytes that one block can have.

    Raises:
        NotImplementedError: something is too wide; the message gives the figure.
    """
    layers, taps, residual, gates = weights["dilated"].shape
    skip, hidden = weights["hidden"].shape
    widths = {"residual": residual, "gate": gates // 2, "skip": skip, "hidden": hidden}
    widths["outputs"] = shape.outputs
    for name, width in widths.items():
        if width > WIDEST[name]:
            raise NotImplementedError(f"takes up to {WIDEST[name]} {name} channels, got {width}")
    table = weights[input_name(weights)]
    longest = max(table.shape[0], shape.linear_prediction)
    if longest > MOST_REACH:
        raise NotImplementedError(f"keeps up to {MOST_REACH} past tokens, the network reads {longest}")
    wide = {name: padded(width) for name, width in widths.items()}
    elements = table.shape[0] * table.shape[1] * wide["residual"]
    sizes = Sizes(layers, taps, **wide, table=elements)
    network = {
        "real_outputs": shape.outputs,
        "levels": shape.vocab_size,
        "input_taps": table.shape[0],
        "reach": longest,
        "mu": shape.mu,
        "scalar_input": int("scalar" in weights),
        "mixtures": shape.mixtures if shape.head == "mixture" else 0,
        "prediction": shape.linear_prediction,
    }
    counts = dict.fromkeys(-(-layers // stages) for stages in range(1, MOST_BLOCKS))
    for groups in (MOST_GROUPS, 2, 1):
        for count in counts:
            plan = placed(sizes, network, count, groups, shared_memory)
            if plan is not None and plan.on_chip and plan.in_registers:
                return plan
    for groups in (MOST_GROUPS, 2, 1):
        plan = placed(sizes, network, min(counts), groups, shared_memory, SPREAD_REGISTERS)
        if plan is not None:
            return plan
    raise NotImplementedError(
        f"activations of {min(counts)} layers need more than {shared_memory // 1024} KiB of shared memory"
    )


def replan(plan: Plan, stage_layers: int, groups: int, shared_memory: int) -> Plan:
    """Returns the plan for the same network with other stages, groups and memory, to test and time them."""
    places = ("_in_registers", "_on_chip")
    network = {name: value for name, value in plan.macros if not name.endswith(places)}
    other = placed(plan.sizes, network, stage_layers, groups, shared_memory)
    if other is None:
        raise NotImplementedError(f"activations do not fit into {shared_memory} bytes")
    return other


def placed(
    sizes: Sizes,
    network: dict[str, int],
    stage_layers: int,
    groups: int,
    shared_memory: int,
    registers: int = REGISTERS,
) -> Plan | None:
    """Brings as many weights as fit into registers and shared memory; None if not even the activations fit."""
    stage, places = fill(
        sizes.matrices,
        stage_layers,
        shared_memory - stage_bytes(sizes, stage_layers, groups),
        dict.fromkeys(("ahead", "residual", "current"), registers),
    )
    head, ends = fill(
        sizes.ends,
        1,
        shared_memory - head_bytes(sizes, network, groups),
        {"hidden": HEAD_REGISTERS, "output": HEAD_REGISTERS},
    )
    if stage < 0 or head < 0:
        return None
    places |= ends
    table = 2 * sizes.table <= head
    places["table_on_chip"] = int(table)
    used = max(shared_memory - stage, shared_memory - head + (2 * sizes.table if table else 16))
    macros = {name: value for name, value in (network | places).items() if name not in UNPLACED}
    macros |= {name: places[name] for name in ("past_on_chip", "skip_on_chip")}
    return Plan(sizes, tuple(macros.items()), stage_layers, groups, -(-used // 1024) * 1024)


UNPLACED = ("past_in_registers", "skip_in_registers")
"""What is never in registers, so that the kernel has no number for it."""


def fill(
    matrices: dict[str, tuple[int, int]], count: int, room: int, registers: dict[str, int]
) -> tuple[int, dict[str, int]]:
    """Places matrices of ``count`` layers; returns the bytes of shared memory that are left, and the numbers placed.

    Kinds with registers share them: whole layers' matrices, as many as fit, kind after kind.
    """
    places: dict[str, int] = {}
    left = max(registers.values())
    for kind, (rows, columns) in matrices.items():
        turns = -(-rows // (16 * WARPS))
        each = 4 * turns * (columns // 16)
        places[f"{kind}_in_registers"] = min(count, left // each) if kind in registers else 0
        left -= each * places[f"{kind}_in_registers"]
    for kind, (rows, columns) in matrices.items():
        own = places[f"{kind}_in_registers"]
        more = max(min(count - own, room // (2 * rows * columns)), 0)
        places[f"{kind}_on_chip"] = own + more
        room -= 2 * rows * columns * more
    return room, places


def stage_bytes(sizes: Sizes, stage_layers: int, groups: int) -> int:
    """Returns what a stage needs for activations: ``StageMemory`` in kernel.h without weights."""
    turns = -(-2 * sizes.gate // (16 * WARPS))
    known = groups * stage_layers * turns * WARPS * 32 * 16
    inbox = groups * STREAMS * (4 * sizes.residual + 4 * sizes.skip + 2 * sizes.gate + 2 * sizes.residual)
    own = stage_layers * STREAMS * 2 * (sizes.gate + sizes.residual)
    return known + inbox + own + 16 * groups + 32


def head_bytes(sizes: Sizes, network: dict[str, int], groups: int) -> int:
    """Returns what the head needs for activations: ``HeadMemory`` in kernel.h without weights and table."""
    inbox = groups * STREAMS * 2 * sizes.skip
    own = STREAMS * (2 * sizes.hidden + 4 * (sizes.outputs + 4))
    return inbox + own + groups * (STREAMS * 4 * network["reach"] + 8) + 64
