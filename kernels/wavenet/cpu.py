"""The CPU sampler: the whole loop over time in one call of native code, see `kernels/native/streams.h`.

Weights may be float32, or bfloat16 for half the memory traffic; activations and sums are float32 either way, and only
what the rings keep has the weights' dtype. One thread runs a share of the streams, so a single stream has one thread.
An exception is the tile unit of newer x86 processors ("amx"): where a thread has 16 streams and more with bfloat16
weights, it rounds what it multiplies to bfloat16 too, so that a stream's outputs then depend, by that rounding, on how
many there are.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt32

from .. import native
from .companding import amplitude, code_value
from .shapes import WaveNetShape, Weights
from .state import State, input_table


def generate(
    weights: Weights,
    shape: WaveNetShape,
    state: State,
    steps: int,
    **options: Array | int | float | bool | None,
) -> tuple[Int[Array, "B T"], State, Float[Array, "B T O"] | None]:
    """Generate; see `api.wavenet_generate`.

    Raises:
        NotImplementedError: no native library, not on a CPU, or weights of another dtype.
    """
    if jax.default_backend() != "cpu":
        raise NotImplementedError(f"runs on CPU only, the default backend is {jax.default_backend()}")
    dtype = weights["residual"].dtype
    if dtype not in (jnp.float32, jnp.bfloat16):
        raise NotImplementedError(f"takes float32 or bfloat16 weights, got {dtype}")
    settings = native.settings()
    return _generate(weights, shape, state, steps, settings=settings, **options)


@partial(jax.jit, static_argnames=("shape", "steps", "condition_hop", "return_logits", "settings"))
def _generate(
    weights: Weights,
    shape: WaveNetShape,
    state: State,
    steps: int,
    *,
    key: UInt32[Array, "2"],
    inputs: Float[Array, "B T R"] | None,
    condition: Float[Array, "B F C"] | None,
    condition_hop: int,
    condition_offset: Int[Array, ""] | int,
    forced: Int[Array, "B T"] | None,
    temperature: Float[Array, ""] | float,
    top_k: Int[Array, ""] | int | None,
    top_p: Float[Array, ""] | float | None,
    row_offset: Int[Array, ""] | int,
    return_logits: bool,
    settings: native.Settings,
) -> tuple[Int[Array, "B T"], State, Float[Array, "B T O"] | None]:
    rings, history = state["rings"], state["history"]
    batch, residual = rings.shape[1:]
    layers, _, _, gates = weights["dilated"].shape
    conditions = weights.get("condition", jnp.zeros((layers, 0, gates), rings.dtype))
    tokens = jnp.arange(shape.vocab_size if "scalar" in weights or shape.linear_prediction else 0)
    levels = [code_value(tokens, shape.vocab_size), amplitude(tokens, shape.vocab_size, shape.mu)]
    biases = ("input_bias", "dilated_bias", "residual_bias", "skip_bias", "hidden_bias", "output_bias")
    arguments = [
        input_table(weights),
        weights["dilated"],
        conditions,
        *(weights[name] for name in ("residual", "skip", "hidden", "output")),
        *(weights[name].astype(jnp.float32) for name in biases),
        jnp.stack(levels, axis=-1),
        rings,
        history,
        state["position"],
        key,
        jnp.zeros((batch, 0, residual)) if inputs is None else inputs.astype(jnp.float32),
        jnp.zeros((batch, 1, 0)) if condition is None else condition.astype(jnp.float32),
        jnp.asarray(condition_offset, jnp.int32),
        jnp.zeros((batch, 0), jnp.int32) if forced is None else forced,
        jnp.asarray(temperature, jnp.float32),
        jnp.asarray(0 if top_k is None else top_k, jnp.int32),
        jnp.asarray(1 if top_p is None else top_p, jnp.float32),
        jnp.asarray(row_offset, jnp.int32),
    ]
    rings_at, history_at = len(biases) + 8, len(biases) + 9
    call = jax.ffi.ffi_call(
        "wavegen_wavenet_generate",
        (
            jax.ShapeDtypeStruct((batch, steps), jnp.int32),
            jax.ShapeDtypeStruct(rings.shape, rings.dtype),
            jax.ShapeDtypeStruct(history.shape, jnp.int32),
            jax.ShapeDtypeStruct((batch, steps if return_logits else 0, shape.outputs), jnp.float32),
        ),
        input_output_aliases={rings_at: 1, history_at: 2},
    )
    tokens, rings, history, logits = call(
        *arguments,
        dilations=np.asarray(shape.dilations, np.int64),
        scalar_input="scalar" in weights,
        mixture=shape.head == "mixture",
        mixtures=np.int64(shape.mixtures),
        linear_prediction=np.int64(shape.linear_prediction),
        mu=np.int64(shape.mu),
        levels=np.int64(shape.vocab_size),
        condition_hop=np.int64(condition_hop),
        threads=np.int64(settings.threads),
        instruction_set=np.int64(settings.instruction_set),
    )
    state = {"rings": rings, "history": history, "position": state["position"] + steps}
    return tokens, state, logits if return_logits else None
