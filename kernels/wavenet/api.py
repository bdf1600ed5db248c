"""Generates audio tokens with a WaveNet, sample by sample: the public operation, which checks its arguments."""

from collections.abc import Callable
from typing import Literal, overload

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..dispatch import dispatch
from ..draw import key_words
from . import cpu, cuda, mosaic_gpu, mosaic_gpu_cluster, pallas_tpu, reference, xla
from .call import Call, Generated
from .checks import check_condition, check_inputs, check_sampling, check_state, check_weights, is_number
from .shapes import WaveNetShape, Weights
from .state import State

IMPLEMENTATIONS: dict[str, Callable[[Call], Generated]] = {
    "cuda": cuda.generate,
    "cpu": cpu.generate,
    "xla": xla.generate,
    "pallas_tpu": pallas_tpu.generate,
    "mosaic_gpu": mosaic_gpu.generate,
    "mosaic_gpu_cluster": mosaic_gpu_cluster.generate,
    "reference": reference.generate,
}
"""The best comes first; but kernels that have not yet run on their hardware come after XLA, and run when named. The
CUDA kernel has not either, and comes first as it is tested against the reference on each GPU before its first use."""


@overload
def wavenet_generate(
    weights: Weights,
    shape: WaveNetShape,
    state: State,
    steps: int,
    *,
    key: Array,
    inputs: Float[Array, "B T R"] | None = None,
    condition: Float[Array, "B F C"] | None = None,
    condition_hop: int = 1,
    condition_offset: Int[Array, ""] | int = 0,
    forced: Int[Array, "B T"] | None = None,
    temperature: Float[Array, ""] | float = 1.0,
    top_k: Int[Array, ""] | int = 0,
    top_p: Float[Array, ""] | float = 1.0,
    row_offset: Int[Array, ""] | int = 0,
    return_logits: Literal[False] = False,
    implementation: str | None = None,
) -> tuple[Int[Array, "B T"], State]: ...
@overload
def wavenet_generate(
    weights: Weights,
    shape: WaveNetShape,
    state: State,
    steps: int,
    *,
    key: Array,
    inputs: Float[Array, "B T R"] | None = None,
    condition: Float[Array, "B F C"] | None = None,
    condition_hop: int = 1,
    condition_offset: Int[Array, ""] | int = 0,
    forced: Int[Array, "B T"] | None = None,
    temperature: Float[Array, ""] | float = 1.0,
    top_k: Int[Array, ""] | int = 0,
    top_p: Float[Array, ""] | float = 1.0,
    row_offset: Int[Array, ""] | int = 0,
    return_logits: Literal[True],
    implementation: str | None = None,
) -> tuple[Int[Array, "B T"], State, Float[Array, "B T O"]]: ...
def wavenet_generate(
    weights: Weights,
    shape: WaveNetShape,
    state: State,
    steps: int,
    *,
    key: Array,
    inputs: Float[Array, "B T R"] | None = None,
    condition: Float[Array, "B F C"] | None = None,
    condition_hop: int = 1,
    condition_offset: Int[Array, ""] | int = 0,
    forced: Int[Array, "B T"] | None = None,
    temperature: Float[Array, ""] | float = 1.0,
    top_k: Int[Array, ""] | int = 0,
    top_p: Float[Array, ""] | float = 1.0,
    row_offset: Int[Array, ""] | int = 0,
    return_logits: bool = False,
    implementation: str | None = None,
) -> tuple[Int[Array, "B T"], State] | Generated:
    """Generates ``steps`` tokens for each of B streams.

    The network is that of van den Oord et al. 2016 (arXiv 1609.03499), which ``forward`` writes out. Generating in
    chunks, each from the state that the one before returned, gives the same tokens as one call. Random numbers depend
    on the key, the position in the stream and the row only. Under an outer ``jax.jit`` the state can be donated.

    Args:
        weights: the network, see ``shapes.Weights``.
        shape: its static half.
        state: from ``wavenet_init_state``, ``wavenet_prefill`` or an earlier call.
        steps: number T of tokens to generate, at least 1.
        key: one threefry key (``jax.random.key``), the same for every chunk of a stream.
        inputs: added to the first layer's input of each step.
        condition: features at frame rate, needed if and only if the weights have "condition". A single frame holds
            for all steps; else step i of this call has frame (condition_offset + i) // condition_hop.
        condition_hop: samples per frame.
        condition_offset: samples of the first frame that are already generated, in [0, condition_hop).
        forced: tokens to use instead of drawn ones, which are returned unchanged; a negative one is drawn.
        temperature: at least 0. It divides the softmax's logits; of a mixture it divides the logits of the components
            and multiplies their scales. 0 takes the likeliest token, or the likeliest component's mean.
        top_k: draw from the k likeliest tokens; 0 for all. It needs a softmax head.
        top_p: draw from the fewest tokens that hold this share of the probability, in (0, 1]. It needs a softmax head.
        row_offset: number of the first row, where a batch is generated in parts.
        return_logits: whether to return the network's raw outputs too.
        implementation: the name of one; None takes the best that can run here, for a shape with ``int8`` the C++
            sampler.

    Returns:
        Tokens, int32, the state after them and, with ``return_logits``, the outputs that each was drawn from.

    Raises:
        ValueError: an argument does not fit the network.
        NotImplementedError: the implementation cannot run this network here.

    Example:
        >>> import jax
        >>> from wavegen.kernels import WaveNetShape, wavenet_generate, wavenet_init_state
        >>> from wavegen.kernels.wavenet.shapes import Net
        >>> net = Net(WaveNetShape(dilations=(1, 2, 4)), residual=8, gate=8, skip=8, hidden=8)
        >>> weights = net.random_weights()
        >>> state = wavenet_init_state(weights, net.shape, batch=2)
        >>> tokens, state = wavenet_generate(weights, net.shape, state, 10, key=jax.random.key(0))
        >>> tokens.shape, int(state["position"])
        ((2, 10), 10)
    """
    check_weights(weights, shape)
    batch = check_state(weights, shape, state)
    if steps < 1 or steps % 1:
        raise ValueError(f"steps must be at least 1 and whole, got {steps}")
    check_inputs(weights, inputs, batch, steps)
    if forced is not None and (
        forced.shape != (batch, steps) or not jnp.issubdtype(forced.dtype, jnp.integer)
    ):
        raise ValueError(
            f"forced must be integers [{batch}, {steps}], got {forced.dtype}{list(forced.shape)}"
        )
    check_condition(weights, condition, batch, steps, condition_hop, condition_offset)
    check_sampling(shape, temperature, top_k, top_p)
    call = Call(
        weights,
        shape,
        state,
        steps,
        key=key_words(key),
        inputs=inputs,
        condition=condition,
        # Without a condition these mean nothing, and must not make a kernel compile again.
        condition_hop=1 if condition is None else condition_hop,
        condition_offset=0 if condition is None else condition_offset,
        forced=None if forced is None else forced.astype(jnp.int32),
        temperature=temperature,
        top_k=None if is_number(top_k) and top_k == 0 else top_k,
        top_p=None if is_number(top_p) and top_p == 1 else top_p,
        row_offset=row_offset,
        return_logits=return_logits,
    )
    if shape.int8 and implementation is None:
        implementation = "cpu"  # what could run besides is the reference, which no one wants to wait for
    # GPUs and TPUs shorten float32 products by default, so that one seed would give other streams on other machines.
    with jax.default_matmul_precision("highest"):
        tokens, state, outputs = dispatch("wavenet_generate", IMPLEMENTATIONS, implementation, call)
    return (tokens, state, outputs) if return_logits else (tokens, state)
