"""The CPU sampler runs the whole loop over time in one call of native code, see ``kernels/native/streams.h``.

Weights may be float32, or bfloat16 for half the memory traffic; activations and sums are float32 either way, and only
what the rings keep has the weights' dtype. A shape with ``int8`` has float32 weights and multiplies in 8 bits, see
``int8``, for a quarter of the traffic.

Each thread runs a share of the streams, so that one stream has one thread. The tile unit of newer x86 processors
("amx") is an exception: where a thread has 16 streams or more with bfloat16 weights, it rounds what it multiplies to
bfloat16 too, and then a stream's outputs depend, by that rounding, on the number of streams.

On a GPU's backend XLA's loop launches about a hundred kernels for each sample, which depend on one another, so few
streams are sampled sooner by the processor next to it: see ``sampling_device``.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from .. import native
from ..dispatch import platform
from .call import Call, Generated
from .companding import amplitude, code_value
from .state import State, input_table

STREAMS_PER_THREAD = 8
"""The most streams for each thread of the host that are taken off a GPU.

For 20 layers, 64 residual and 128 skip channels, XLA's loop makes an estimated 3,000 to 5,000 samples per second of
each stream on an H100 (134 kernels a sample of 1.5 to 2.5 microseconds each), however few streams there are. A core
makes 35,000 to 100,000 in all, measured on two cores. They break even between about 8 and 30 streams for each core; a
network twice as large moves both. No GPU has been measured.
"""


def sampling_device(
    batch: int, implementation: str | None = None, on: str | None = None
) -> jax.Device | None:
    """Returns where streams are sampled soonest: the host's processor, or None for where JAX computes by default.

    Weights and state that are put there stay there, and a program that is compiled for it under
    ``jax.default_device`` has this sampler inside. A caller that samples in pieces copies the weights once that way,
    and not for each piece.

    Args:
        batch: number of streams.
        implementation: the name of the one that is asked for, if any.
        on: the platform on which JAX computes; by default the one at hand.
    """
    if (on or platform()) != "gpu" or implementation not in (None, "cpu"):
        return None
    try:
        most = STREAMS_PER_THREAD * native.settings().threads
    except NotImplementedError:
        return None
    return native.host() if batch <= most else None


def generate(call: Call) -> Generated:
    """Generates; see ``api.wavenet_generate``.

    On a GPU's backend the arguments are copied to the host, and the results back to where JAX computes.

    Raises:
        NotImplementedError: there is no native library, the weights have another dtype, or the call would run on an
            accelerator that is likely to be faster or is traced for one.
    """
    if call.dtype not in (jnp.float32, jnp.bfloat16):
        raise NotImplementedError(f"takes float32 or bfloat16 weights, got {call.dtype}")
    if call.shape.int8:
        check_int8(call)
    settings, on = native.settings(), platform()
    if on == "cpu":
        return run(call, settings=settings)
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(call)):
        raise NotImplementedError(
            f"runs on the CPU, this call is part of a program that is compiled for {on}"
        )
    host = sampling_device(call.batch)
    if host is None:
        most = STREAMS_PER_THREAD * settings.threads
        raise NotImplementedError(
            f"runs on the CPU, beside a gpu for at most {most} streams; got {call.batch} on {on}"
        )
    with jax.default_device(host):
        generated = jax.device_get(run(jax.device_put(call, host), settings=settings))
    return jax.tree.map(jnp.asarray, generated)


MOST_CHANNELS = 65536
"""Rows of a matrix of bytes: more products of 255 and 127 could exceed 32 bits."""


def check_int8(call: Call) -> None:
    """Checks that a network in 8 bits is one that the native code takes.

    Raises:
        NotImplementedError: it is not.
    """
    if call.dtype != jnp.float32:
        raise NotImplementedError(f"rounds float32 weights to 8 bits, got {call.dtype}")
    taps = call.weights["dilated"].shape[1]
    widest = max((taps - 1) * call.residual, call.weights["residual"].shape[1], *call.weights["hidden"].shape)
    if widest > MOST_CHANNELS:
        raise NotImplementedError(
            f"sums products of 8 bits over at most {MOST_CHANNELS} channels, got {widest}"
        )


@partial(jax.jit, static_argnames="settings")
def run(call: Call, settings: native.Settings) -> Generated:
    """Hands the call to the native code, with numbers in the types that it reads."""
    weights, shape, state = call.weights, call.shape, call.state
    rings, history = state["rings"], state["history"]
    conditions = weights.get(
        "condition", jnp.zeros((call.layers, 0, weights["dilated"].shape[-1]), call.dtype)
    )
    levels = jnp.arange(shape.vocab_size if "scalar" in weights or shape.linear_prediction else 0)
    values = [code_value(levels, shape.vocab_size), amplitude(levels, shape.vocab_size, shape.mu)]
    biases = ("input_bias", "dilated_bias", "residual_bias", "skip_bias", "hidden_bias", "output_bias")
    arguments = [
        input_table(weights),
        weights["dilated"],
        conditions,
        *(weights[name] for name in ("residual", "skip", "hidden", "output")),
        *(weights[name].astype(jnp.float32) for name in biases),
        jnp.stack(values, axis=-1),
        rings,
        history,
        state["position"],
        call.key,
        jnp.zeros((call.batch, 0, call.residual), jnp.float32)
        if call.inputs is None
        else call.inputs.astype(jnp.float32),
        jnp.zeros((call.batch, 1, 0), jnp.float32)
        if call.condition is None
        else call.condition.astype(jnp.float32),
        jnp.asarray(call.condition_offset, jnp.int32),
        jnp.zeros((call.batch, 0), jnp.int32) if call.forced is None else call.forced,
        jnp.asarray(call.temperature, jnp.float32),
        jnp.asarray(0 if call.top_k is None else call.top_k, jnp.int32),
        jnp.asarray(1 if call.top_p is None else call.top_p, jnp.float32),
        jnp.asarray(call.row_offset, jnp.int32),
    ]
    rings_at, history_at = len(biases) + 8, len(biases) + 9
    generate_natively = jax.ffi.ffi_call(
        "wavegen_wavenet_generate",
        (
            jax.ShapeDtypeStruct((call.batch, call.steps), jnp.int32),
            jax.ShapeDtypeStruct(rings.shape, rings.dtype),
            jax.ShapeDtypeStruct(history.shape, jnp.int32),
            jax.ShapeDtypeStruct((call.batch, call.steps * call.return_logits, shape.outputs), jnp.float32),
        ),
        input_output_aliases={rings_at: 1, history_at: 2},
    )
    tokens, rings, history, logits = generate_natively(
        *arguments,
        dilations=np.asarray(shape.dilations, np.int64),
        scalar_input="scalar" in weights,
        mixture=shape.head == "mixture",
        mixtures=np.int64(shape.mixtures),
        linear_prediction=np.int64(shape.linear_prediction),
        mu=np.int64(shape.mu),
        levels=np.int64(shape.vocab_size),
        condition_hop=np.int64(call.condition_hop),
        int8=shape.int8,
        threads=np.int64(settings.threads),
        instruction_set=np.int64(settings.instruction_set),
    )
    after: State = {"rings": rings, "history": history, "position": state["position"] + call.steps}
    return tokens, after, logits if call.return_logits else None
