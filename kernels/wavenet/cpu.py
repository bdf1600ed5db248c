"""The CPU sampler runs the whole loop over time in one call of native code, see ``kernels/native/streams.h``.

Weights may be float32, or bfloat16 for half the memory traffic; activations and sums are float32 either way, and only
what the rings keep has the weights' dtype. Each thread runs a share of the streams, so that one stream has one thread.
The tile unit of newer x86 processors ("amx") is an exception: where a thread has 16 streams or more with bfloat16
weights, it rounds what it multiplies to bfloat16 too, and then a stream's outputs depend, by that rounding, on the
number of streams.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from .. import native
from .call import Call, Generated
from .companding import amplitude, code_value
from .state import State, input_table


def generate(call: Call) -> Generated:
    """Generates; see ``api.wavenet_generate``.

    Raises:
        NotImplementedError: there is no native library, the backend is not a CPU, or the weights have another dtype.
    """
    if jax.default_backend() != "cpu":
        raise NotImplementedError(f"runs on CPU only, the default backend is {jax.default_backend()}")
    if call.dtype not in (jnp.float32, jnp.bfloat16):
        raise NotImplementedError(f"takes float32 or bfloat16 weights, got {call.dtype}")
    return run(call, settings=native.settings())


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
        threads=np.int64(settings.threads),
        instruction_set=np.int64(settings.instruction_set),
    )
    after: State = {"rings": rings, "history": history, "position": state["position"] + call.steps}
    return tokens, after, logits if call.return_logits else None
