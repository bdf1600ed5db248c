"""Reads a prompt at once by the parallel form, and returns the state from which sampling continues."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .checks import check_condition, check_inputs, check_state, check_weights
from .forward import condition_frames, input_convolution, network
from .shapes import WaveNetShape, Weights
from .state import State, advance, ring_starts


def wavenet_prefill(
    weights: Weights,
    shape: WaveNetShape,
    state: State,
    tokens: Int[Array, "B T"],
    *,
    inputs: Float[Array, "B T R"] | None = None,
    condition: Float[Array, "B F C"] | None = None,
    condition_hop: int = 1,
    condition_offset: Int[Array, ""] | int = 0,
    form: str | None = None,
) -> tuple[Float[Array, "B T O"], State]:
    """Reads given tokens at once: this is ``wavenet_generate(forced=tokens)`` in the parallel form.

    Args:
        weights: the network.
        shape: its static half.
        state: before the tokens.
        tokens: in [0, V), T >= 1.
        inputs: as for ``wavenet_generate``; position t belongs to ``tokens[:, t]``.
        condition: as for ``wavenet_generate``.
        condition_hop: samples per frame.
        condition_offset: samples of the first frame that have already been read, in [0, condition_hop).
        form: of the dilated convolution, see ``forward.dilated_convolution``.

    Returns:
        Outputs, of which position t parametrises the distribution of ``tokens[:, t]`` given those before it, and the
        state after the tokens.

    Raises:
        ValueError: an argument does not fit the network.

    Example:
        >>> import jax.numpy as jnp
        >>> from wavegen.kernels import WaveNetShape, wavenet_init_state, wavenet_prefill
        >>> from wavegen.kernels.wavenet.shapes import Net
        >>> net = Net(WaveNetShape(dilations=(1, 2, 4)), residual=8, gate=8, skip=8, hidden=8)
        >>> weights = net.random_weights()
        >>> state = wavenet_init_state(weights, net.shape, batch=1)
        >>> outputs, state = wavenet_prefill(weights, net.shape, state, jnp.asarray([[128, 130, 127]]))
        >>> outputs.shape, state["history"].tolist()
        ((1, 3, 256), [[127]])
    """
    check_weights(weights, shape)
    batch = check_state(weights, shape, state)
    if tokens.ndim != 2 or tokens.shape[0] != batch or tokens.shape[1] < 1:
        raise ValueError(f"tokens must be [{batch}, T] with T at least 1, got {list(tokens.shape)}")
    length = tokens.shape[1]
    check_inputs(weights, inputs, batch, length)
    check_condition(weights, condition, batch, length, condition_hop, condition_offset)
    given = (inputs, condition, condition_hop, condition_offset)
    with jax.default_matmul_precision("highest"):  # as steps have it, see ``wavenet_generate``
        return _prefill(weights, shape, state, tokens, *given, form)


@partial(jax.jit, static_argnames=("shape", "condition_hop", "form"))
def _prefill(weights, shape, state, tokens, inputs, condition, condition_hop, condition_offset, form):
    length, tokens = tokens.shape[1], tokens.astype(jnp.int32)
    read = jnp.concatenate([state["history"], tokens], axis=1)
    h = input_convolution(weights, shape, read[:, :-1], length)
    if inputs is not None:
        h = h + inputs.astype(h.dtype)
    rows = condition_frames(weights, condition, condition_hop, condition_offset, length)
    rings = jnp.split(state["rings"], ring_starts(weights, shape)[1:])
    t, end = state["position"], state["position"] + length
    past = [jnp.roll(ring, -(t % len(ring)), axis=0).swapaxes(0, 1) for ring in rings]
    outputs, layer_inputs = network(weights, shape, h, rows, past=past, form=form)
    rings = []
    for before, x in zip(past, layer_inputs, strict=True):
        size = before.shape[1]
        latest = jnp.concatenate([before, x], axis=1)[:, -size:].swapaxes(0, 1)
        rings.append(jnp.roll(latest, end % size, axis=0))
    return outputs, advance(state, jnp.concatenate(rings), tokens)
