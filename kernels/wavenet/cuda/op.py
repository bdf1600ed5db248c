"""The sampler for GPUs with clusters, in CUDA C++: what surrounds the kernel.

``generate`` decides whether the kernel can do what is asked on this GPU, and proves it there once. ``run`` brings
everything into the kernel's layout and takes the results out of it. ``kernel.h`` says how it works.

It has never run on a GPU. A CPU has run its source (tests/kernels/cuda), and its compilers report no spilled registers;
only a GPU can show that the instructions in device.h are right, and how fast they are. Therefore nothing is drawn with
it on a GPU before it has agreed with the reference there.
"""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .. import reference
from ..call import Call, Generated
from ..shapes import Net, WaveNetShape, Weights
from ..state import advance, wavenet_init_state
from .gpu import NUMBERS, Launch, Runner
from .gpu import runner as gpu_runner
from .plan import STREAMS, Plan, input_name, make_plan
from .weights import arrange, pad

PROVEN_STEPS, PROVEN_STREAMS = 16, STREAMS + 1
PATIENCE = 1 << 27
"""Cycles, a tenth of a second, that a wait may take in the test; so a kernel that hangs fails within seconds."""
TOLERANCE = 0.03
"""The largest difference of outputs from the reference's, as a share of its largest output: bfloat16 makes 0.005."""


def generate(call: Call, runner: Runner | None = None) -> Generated:
    """Generates; see ``api.wavenet_generate``.

    Args:
        call: with bfloat16 weights, whose products are summed in float32; whatever is multiplied with them is rounded
            to bfloat16 too.
        runner: what runs the kernel; None is this process' GPU.

    Raises:
        NotImplementedError: there is no GPU with clusters, the kernel does not take the network, or it has computed
            something wrong here.
    """
    runner = gpu_runner() if runner is None else runner
    plan = proven_plan(call.weights, call.shape, runner)
    return run(call, plan, runner.launch, max(runner.multiprocessors // plan.blocks, 1))


def proven_plan(weights: Weights, shape: WaveNetShape, runner: Runner) -> Plan:
    """Returns the plan for a network, with which the kernel agrees with the reference on this GPU.

    Raises:
        NotImplementedError: the kernel does not take the network, or it has computed something wrong here.
    """
    if (dtype := weights["residual"].dtype) != jnp.bfloat16:
        raise NotImplementedError(f"takes bfloat16 weights, got {dtype}")
    plan = make_plan(weights, shape, runner.shared_memory)
    if wrong := prove(plan, shape, net_of(weights, shape), runner):
        raise NotImplementedError(wrong)
    return plan


def takes(weights: Weights, shape: WaveNetShape) -> bool:
    """Returns whether the kernel samples this network on this machine."""
    try:
        proven_plan(weights, shape, gpu_runner())
    except NotImplementedError:
        return False
    return True


def net_of(weights: Mapping[str, Any], shape: WaveNetShape) -> Net:
    """Returns the sizes of a network."""
    _, taps, residual, gates = weights["dilated"].shape
    skip, hidden = weights["hidden"].shape
    condition = weights["condition"].shape[1] if "condition" in weights else 0
    ends = weights[input_name(weights)].shape[0], condition, "scalar" in weights
    return Net(shape, residual, gates // 2, skip, hidden, taps, *ends)


@cache
def prove(plan: Plan, shape: WaveNetShape, net: Net, runner: Runner) -> str:
    """Compares the kernel with the reference at first use of a plan: 16 samples of a random network of these sizes.

    Returns:
        What is wrong, in one line that has also been given as a warning; empty if nothing is.
    """
    with jax.ensure_compile_time_eval():
        try:
            error = error_of(plan, shape, net, runner)
        except jax.errors.JaxRuntimeError as reason:
            wrong = str(reason).splitlines()[0]
        else:
            # Written so that NaN is wrong.
            wrong = "" if error <= TOLERANCE else f"outputs are off by {error:.2g} of the largest"
    if not wrong:
        return ""
    line = f"the CUDA kernel fails its test on {runner.name}, another implementation is used: {wrong}"
    warnings.warn(line, RuntimeWarning, stacklevel=2)
    return line


def error_of(plan: Plan, shape: WaveNetShape, net: Net, runner: Runner) -> float:
    """Returns the largest difference from the reference, as a share of its largest output; NaN where none is drawn."""
    weights = jax.tree.map(lambda w: w.astype(jnp.bfloat16), net.random_weights())
    condition = jnp.ones((PROVEN_STREAMS, 1, net.condition)) if net.condition else None
    state = wavenet_init_state(weights, shape, PROVEN_STREAMS)
    call = Call(
        *(weights, shape, state, PROVEN_STEPS),
        key=jnp.asarray([1, 2], jnp.uint32),
        condition=condition,
        return_logits=True,
    )
    tokens, after, outputs = run(call, plan, runner.launch, 1, PATIENCE)
    drawn = np.asarray(tokens)
    if drawn.min() < 0 or drawn.max() >= shape.vocab_size:
        return float("nan")
    wide = jax.tree.map(lambda x: x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x, (weights, state))
    exact = reference.generate(replace(call, weights=wide[0], state=wide[1], forced=tokens))
    pairs = [(outputs, exact[2]), (after["rings"], exact[1]["rings"])]
    errors = [np.abs(np.asarray(a, np.float32) - b).max() / np.abs(b).max() for a, b in pairs]
    return float(np.max(errors))


@partial(jax.jit, static_argnames="plan")
def arguments(call: Call, plan: Plan) -> dict[str, Array]:
    """Returns the kernel's arrays."""
    residual = plan.sizes.residual
    top_k = 0 if call.top_k is None else call.top_k
    integers = [call.state["position"], *call.key, call.row_offset, call.condition_offset, top_k]
    floats = [call.temperature, 1 if call.top_p is None else call.top_p]
    inputs = jnp.zeros((0,), jnp.float32)
    if call.inputs is not None:
        # Rounded as the other implementations do, which add them to what has the weights' type.
        inputs = pad(call.inputs.astype(call.dtype).astype(jnp.float32), 2, residual)
    return arrange(call, plan.sizes) | {
        "history": call.state["history"],
        "integers": jnp.stack([jnp.asarray(n).astype(jnp.uint32) for n in integers]),
        "floats": jnp.stack([jnp.asarray(n, jnp.float32) for n in floats]),
        "inputs": inputs,
        "forced": jnp.zeros((0,), jnp.int32) if call.forced is None else call.forced,
        "rings": pad(call.state["rings"], 2, residual),
    }


def divide(batch: int, plan: Plan, most_clusters: int) -> tuple[int, int]:
    """Returns how many groups of streams each cluster has, and how many clusters that makes.

    Groups are spread over as many clusters as run at once; more groups share clusters, and more still wait in line.
    """
    groups = -(-batch // STREAMS)
    each = min(-(-groups // most_clusters), plan.groups)
    return each, -(-groups // each)


def results_of(call: Call, plan: Plan) -> tuple[jax.ShapeDtypeStruct, ...]:
    """Returns the shapes and types of the kernel's results."""
    rows, outputs = call.state["rings"].shape[0], call.steps * call.return_logits
    return (
        jax.ShapeDtypeStruct((call.batch, call.steps), jnp.int32),
        jax.ShapeDtypeStruct((rows, call.batch, plan.sizes.residual), jnp.bfloat16),
        jax.ShapeDtypeStruct((call.batch, outputs, call.shape.outputs), jnp.float32),
    )


def run(call: Call, plan: Plan, launch: Launch, most_clusters: int, patience: int = 0) -> Generated:
    """Hands a call to the kernel.

    Args:
        call: with bfloat16 weights.
        plan: for its network.
        launch: what runs the kernel.
        most_clusters: how many clusters the GPU runs at once.
        patience: cycles after which a wait within the kernel is given up and tokens are -1; 0 for an error instead,
            after a second.
    """
    given = arguments(call, plan)
    each, clusters = divide(call.batch, plan, most_clusters)
    frames, base_groups = given["base"].shape[0], given["base"].shape[2]
    values = (call.batch, call.steps, each, frames, base_groups, call.condition_hop, patience)
    numbers = dict(zip(NUMBERS, values, strict=True))
    tokens, rings, outputs = launch(plan, given, numbers, clusters, results_of(call, plan))
    after = advance(call.state, rings[..., : call.residual], tokens)
    return tokens, after, outputs if call.return_logits else None
