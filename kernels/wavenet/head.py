"""Interprets the network's outputs, as a softmax over levels or as a mixture of discretised logistics.

The mixture is that of PixelCNN++ (Salimans et al. 2017): level q has the probability that a mixture of
logistics gives to its bin [u - w, u + w] around its code value u, w = 1 / (V - 1); the first and last bins
are open. With linear prediction (LP-WaveNet, Hwang et al. 2018) the network also emits P coefficients, and
every mean is an offset from the prediction p = sum_k c_k x_{t-k} of the amplitude x_t, taken to code space.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..draw import choose_token
from .companding import amplitude, code_value, compress
from .shapes import WaveNetShape

LOG_SCALE_FLOOR = -14.0
"""The smallest log-scale: below it a logistic is a point even among 16-bit levels, and its gradients overflow."""


def mixture_parameters(
    outputs: Float[Array, "*s O"], shape: WaveNetShape, history: Float[Array, "*s P"] | None = None
) -> tuple[Float[Array, "*s M"], Float[Array, "*s M"], Float[Array, "*s M"]]:
    """Splits a mixture head's outputs into component logits, means (code space) and log-scales.

    Args:
        outputs: raw outputs of the network.
        shape: the network's static half, with ``head="mixture"``.
        history: the last P amplitudes before the predicted sample, most recent first; with linear prediction.

    Returns:
        logits, means, log_scales.

    Raises:
        ValueError: the network predicts linearly, but there is no history.
    """
    m = shape.mixtures
    logits, means, log_scales, coefficients = jnp.split(outputs, [m, 2 * m, 3 * m], axis=-1)
    if shape.linear_prediction:
        if history is None:
            raise ValueError(
                f"linear prediction of order {shape.linear_prediction} needs the past amplitudes, got none"
            )
        prediction = jnp.clip(jnp.sum(coefficients * history, -1, keepdims=True), -1, 1)
        means = means + compress(prediction, shape.mu)
    return logits, means, jnp.maximum(log_scales, LOG_SCALE_FLOOR)


def past_amplitudes(tokens: Int[Array, "B N"], shape: WaveNetShape, samples: int) -> Float[Array, "B T P"]:
    """Returns, for each of the last ``samples`` tokens, the P amplitudes up to and with it, most recent first.

    Where the tokens do not reach back far enough, and where they are missing (negative), amplitudes are 0.
    """
    order, length = shape.linear_prediction, tokens.shape[1]
    x = jnp.pad(amplitude(tokens, shape.vocab_size, shape.mu), ((0, 0), (order - 1, 0)))
    ends = range(length + order - 1, length - 1, -1)
    return jnp.stack([x[:, end - samples : end] for end in ends], axis=-1)


def mixture_log_prob(
    logits: Float[Array, "*s M"],
    means: Float[Array, "*s M"],
    log_scales: Float[Array, "*s M"],
    targets: Int[Array, "*s"],
    vocab_size: int,
) -> Float[Array, "*s"]:
    """Returns ln p(target) under a mixture of logistics discretised to ``vocab_size`` levels.

    With a and b the bin's edges in units of scale, sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b)
    (1 - e^(b - a)): every factor has a stable logarithm, in the tails and for bins narrower than the scale.
    """
    half = 1 / (vocab_size - 1)
    centred = code_value(targets, vocab_size)[..., None] - means
    inverse_scale = jnp.exp(-log_scales)
    upper, lower = (centred + half) * inverse_scale, (centred - half) * inverse_scale
    below_upper, above_lower = jax.nn.log_sigmoid(upper), jax.nn.log_sigmoid(-lower)
    between = below_upper + above_lower + jnp.log(-jnp.expm1(-2 * half * inverse_scale))
    q = targets[..., None]
    component = jnp.where(q == 0, below_upper, jnp.where(q == vocab_size - 1, above_lower, between))
    return jax.nn.logsumexp(jax.nn.log_softmax(logits, -1) + component, -1)


def choose_from_mixture(
    logits: Float[Array, "B M"],
    means: Float[Array, "B M"],
    log_scales: Float[Array, "B M"],
    uniform: tuple[Float[Array, "B"], Float[Array, "B"]],
    vocab_size: int,
    temperature: Float[Array, ""] | float = 1.0,
) -> Int[Array, "B"]:
    """Draws from a mixture of logistics: a component by one uniform number, its value by the other.

    Args:
        logits: of the components.
        means: in code space, where the tokens span [-1, 1].
        log_scales: natural logarithms of the logistics' scales.
        uniform: two numbers in (0, 1) per row, from ``draw.uniforms``.
        vocab_size: number V of levels.
        temperature: divides the logits and multiplies the scales; 0 takes the mean of the likeliest component.

    Returns:
        The nearest tokens, in [0, V).
    """
    component = choose_token(logits, uniform[0], temperature)[:, None]
    mean = jnp.take_along_axis(means, component, axis=-1)[:, 0]
    scale = jnp.exp(jnp.take_along_axis(log_scales, component, axis=-1)[:, 0])
    value = mean + temperature * scale * (jnp.log(uniform[1]) - jnp.log1p(-uniform[1]))
    level = jnp.floor((value + 1) / 2 * (vocab_size - 1) + 0.5)
    return jnp.clip(level, 0, vocab_size - 1).astype(jnp.int32)


def log_prob(
    outputs: Float[Array, "B T O"],
    shape: WaveNetShape,
    targets: Int[Array, "B T"],
    previous: Int[Array, "B N"] | None = None,
) -> Float[Array, "B T"]:
    """Returns the natural logarithm of the probability of each target token.

    Args:
        outputs: of the network; ``outputs[:, t]`` parametrises the distribution of ``targets[:, t]``.
        shape: the network's static half.
        targets: tokens in [0, V).
        previous: the tokens that the network had read, N >= T; the last one comes just before the last target, as
            they are the targets shifted by one. Only linear prediction needs them.

    Returns:
        Log-probabilities in nats, float32.

    Raises:
        ValueError: the network predicts linearly, but there are no previous tokens.
    """
    outputs = outputs.astype(jnp.float32)
    if shape.head == "softmax":
        # The derivative of a selection is elementwise, that of a gather would be a scatter.
        levels = jnp.arange(shape.vocab_size)[None, None]
        chosen = jnp.sum(jnp.where(levels == targets[..., None], outputs, 0), axis=-1)
        return chosen - jax.nn.logsumexp(outputs, -1)
    history = None
    if shape.linear_prediction and previous is not None:
        history = past_amplitudes(previous, shape, outputs.shape[1])
    return mixture_log_prob(*mixture_parameters(outputs, shape, history), targets, shape.vocab_size)
