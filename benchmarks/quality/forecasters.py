"""Forecasts of the tokens that a WaveNet is about to draw, see predictive.py."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import baselines
import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.lib.stride_tricks import sliding_window_view
from scipy.signal import lfilter

from wavegen.kernels.draw import choose_token, keep_likely, key_words, uniforms
from wavegen.kernels.wavenet.forward import network
from wavegen.kernels.wavenet.shapes import WaveNetShape, Weights
from wavegen.models.wavenet import WaveNet

PASSES = (2, 4, 8, 16)
"""Samples a pass reads."""
STALEST = max(PASSES) - 2
"""Checked outputs are so many samples older at the last forecast of a pass than at its first."""
PAST = 32


class Coupling(NamedTuple):
    """How random numbers choose a token."""

    numbers: Callable[[jax.Array, int, int, int], jax.Array]
    """(key, clips, samples, levels) -> [B, T, ...]."""
    choose: Callable[..., jax.Array]
    """(logits [N, V], numbers [N, ...], temperature, top_p) -> [N]."""


def counted(key: jax.Array, clips: int, samples: int, levels: int) -> jax.Array:
    positions = jnp.arange(samples)
    return jax.vmap(uniforms, (None, 0, None), 1)(key_words(key), positions, jnp.arange(clips))[0]


def by_inverse(logits, numbers, temperature, top_p):
    return choose_token(logits, numbers, temperature, top_p=top_p)


def gumbels(key: jax.Array, clips: int, samples: int, levels: int) -> jax.Array:
    return jax.random.gumbel(key, (clips, samples, levels))


def by_gumbel(logits, numbers, temperature, top_p):
    scaled = logits / temperature if top_p is None else keep_likely(logits / temperature, 0, top_p)
    return jnp.argmax(scaled + numbers, axis=-1).astype(jnp.int32)


COUPLINGS = {"inverse CDF": Coupling(counted, by_inverse), "Gumbel": Coupling(gumbels, by_gumbel)}


@partial(jax.jit, static_argnames=("choose", "top_p"))
def draw(choose, logits, numbers, temperature, top_p):
    """Choose tokens for any leading axes."""
    rows = logits.reshape(-1, logits.shape[-1])
    shape = logits.shape[:-1]
    numbers = numbers.reshape(len(rows), *numbers.shape[len(shape) :])
    return choose(rows, numbers, temperature, top_p).reshape(shape)


class Net(NamedTuple):
    """A trained network as arrays."""

    model: WaveNet
    weights: Weights
    shape: WaveNetShape

    @property
    def multiplications(self) -> int:
        """Multiply-adds of a sample."""
        return sum(self.weights[name].size for name in ("dilated", "residual", "skip", "hidden", "output"))


class Paths(NamedTuple):
    """Clips and all that the network computed on the way.

    Attributes:
        tokens: [B, T].
        logits: [B, T, V], of which `tokens` were drawn.
        numbers: [B, T, ...], with which they were drawn.
        read: [B, T], tokens one sample earlier.
        inputs: [B, T, R], added to the first layer's input.
        rows: of every layer, the condition's part of the gates, [B, T or 1, 2G]; or None.
        layer_inputs: of every layer [B, reach + T, R], zeros first.
        skip: [B, T, S], the summed skip connections behind their rectifier.
        states: by number of layers, what comes out of these first layers, [B, T, R].
    """

    tokens: jax.Array
    logits: jax.Array
    numbers: jax.Array
    read: jax.Array
    inputs: jax.Array
    rows: list[jax.Array] | None
    layer_inputs: list[jax.Array]
    skip: jax.Array
    states: dict[int, jax.Array]


@partial(jax.jit, static_argnames=("shape", "k"))
def outputs_at(weights, shape, paths: Paths, start, read, k):
    """Return the logits [B, k, V] of positions start[b] + (0..k-1), had the network read these k tokens there."""
    taps = weights["dilated"].shape[1] - 1

    def clip(start, read, inputs, rows, layer_inputs):
        h = weights["embedding"][0][read] + weights["input_bias"][None]
        h = h + jax.lax.dynamic_slice_in_dim(inputs, start, k)
        if rows is not None:
            rows = [(r if len(r) == 1 else jax.lax.dynamic_slice_in_dim(r, start, k))[None] for r in rows]
        past = [
            jax.lax.dynamic_slice_in_dim(x, start, taps * d)[None]
            for x, d in zip(layer_inputs, shape.dilations, strict=True)
        ]
        return network(weights, shape, h[None], rows, past=past)[0][0]

    return jax.vmap(clip)(start, read, paths.inputs, paths.rows, paths.layer_inputs)


@partial(jax.jit, static_argnames=("shape", "choose", "top_p", "k"))
def iterate(weights, shape, choose, paths: Paths, first, last, temperature, top_p, k):
    """Forecast by what the last pass drew after its first mistake; return passes and samples kept."""
    clips = jnp.arange(len(paths.tokens))

    def one_pass(carry):
        start, guess, passes = carry
        at = start[:, None] + jnp.arange(k)
        read = jnp.concatenate([paths.read[clips, start][:, None], guess], axis=1)
        logits = outputs_at(weights, shape, paths, start, read, k)
        rows = paths.numbers[clips[:, None], at]
        drawn = draw(choose, logits, rows, temperature, top_p)
        right = jnp.cumprod(guess == paths.tokens[clips[:, None], at[:, :-1]], axis=1)
        kept = 1 + right.sum(axis=1)
        # The first forecast of the next pass is for position start + kept.
        later = jnp.minimum(kept[:, None] + jnp.arange(k - 1), k - 1)
        active = start < last
        guess = jnp.where(active[:, None], jnp.take_along_axis(drawn, later, axis=1), guess)
        return jnp.where(active, start + kept, start), guess, passes + active.sum()

    guess = jnp.repeat(paths.read[clips, first][:, None], k - 1, axis=1)
    start, _, passes = jax.lax.while_loop(lambda c: (c[0] < last).any(), one_pass, (first, guess, 0))
    return passes, (start - first).sum()


@partial(jax.jit, static_argnames="shape")
def integrated(weights, shape, paths: Paths, clip, t, temperature):
    """Return the logarithm of p(x_t | x_<t-1) at a temperature: the newest token summed out, exactly."""
    taps = weights["dilated"].shape[1] - 1
    newest = jax.nn.log_softmax(paths.logits[clip, t - 1] / temperature)
    h = weights["embedding"][0] + weights["input_bias"][None] + paths.inputs[clip, t][None]
    rows = None
    if paths.rows is not None:
        rows = [jax.lax.dynamic_index_in_dim(r[clip], t if r.shape[1] > 1 else 0)[None] for r in paths.rows]
    past = []
    for x, d in zip(paths.layer_inputs, shape.dilations, strict=True):
        kept = x[clip, t + d * jnp.arange(taps)]
        past.append(jnp.broadcast_to(kept[None], (shape.vocab_size, *kept.shape)))
    # One sample a row: its taps lie side by side, whatever the dilation was.
    dense = replace(shape, dilations=(1,) * len(shape.dilations))
    logits = network(weights, dense, h[:, None], rows, past=past)[0][:, 0]
    log_p = jax.nn.log_softmax(logits / temperature)
    return jax.nn.logsumexp(newest[:, None] + log_p, axis=0) * temperature


def shifted(tokens: jax.Array, lag: int, start: int) -> jax.Array:
    return jnp.pad(tokens, ((0, 0), (lag, 0)), constant_values=start)[:, : tokens.shape[1]]


LINEAR_PREDICTION_COST = (256 * PAST**2 + PAST**3 // 3) // 32 + PAST + 256
"""Multiply-adds of a forecast: its share of the products and the solution of a fit, the prediction, the levels."""


def linear_prediction(tokens: np.ndarray, window: int = 256, hop: int = 32) -> np.ndarray:
    """Logits of a Laplace distribution around a linear prediction of order 32, refitted on the recent past.

    The scale is the running mean of the residuals before, forgetting a tenth at every sample.
    """
    y = np.pad(baselines.AMPLITUDE[tokens], (window, -len(tokens) % hop))
    x = baselines.past(y)
    windows_x = np.swapaxes(sliding_window_view(x, window, axis=0)[:-1:hop], -1, -2)
    predictors = baselines.fit(windows_x, sliding_window_view(y, window)[:-1:hop])
    blocks = x[window:].reshape(-1, hop, x.shape[1])
    prediction = (blocks @ predictors[..., None]).reshape(-1)[: len(tokens)]
    residuals = np.abs(baselines.AMPLITUDE[tokens] - prediction)
    scale = lfilter([0.1], [1, -0.9], np.concatenate([[0.0], residuals[:-1]]), zi=[0.01])[0]
    scale = np.maximum(scale, baselines.QUIETEST)[:, None]
    bits = baselines.laplace_bits(np.arange(256)[None], prediction[:, None], scale)
    return (-np.log(2) * bits).astype(np.float32)


class Head(NamedTuple):
    """A forecaster to be taught: one hidden layer over what is known.

    Attributes:
        params: to be fitted.
        logits: (params, paths, clips [N], positions [N], j) -> [N, V]; j: forecasts of the pass made before.
        cost: multiply-adds of a forecast, as a share of the network's for a sample.
    """

    params: dict[str, jax.Array]
    logits: Callable[..., jax.Array]
    cost: float


def make_head(net: Net, key: jax.Array, *, skip: bool = False, layers: int = 0) -> Head:
    """Start a head over the last 32 tokens.

    Args:
        net: to be forecast.
        key: of the initial weights.
        skip: it also sees the skip sum that was checked last.
        layers: it also sees what comes out of the network's first layers, which run on for every forecast.
    """
    shape, (skips, hidden) = net.shape, net.weights["hidden"].shape
    residual = net.weights["residual"].shape[-1]
    keys = jax.random.split(key, 5)
    params = {
        "values": jax.random.normal(keys[0], (PAST, hidden)),
        "newest": 0.3 * jax.random.normal(keys[1], (shape.vocab_size, hidden)),
        "bias": jnp.zeros((STALEST + 1, hidden)),
        "output": jax.random.normal(keys[2], (hidden, shape.vocab_size)) * hidden**-0.5,
        "output_bias": jnp.zeros(shape.vocab_size),
    }
    cost = (PAST + shape.vocab_size) * hidden
    if skip:
        params["skip"] = jax.random.normal(keys[3], (STALEST + 1, skips, hidden)) * skips**-0.5
        cost += skips * hidden
    if layers:
        params["state"] = jax.random.normal(keys[4], (residual, hidden)) * residual**-0.5
        cost += residual * hidden + sum(net.weights[name][:layers].size for name in ("dilated", "residual"))

    def logits(params, paths: Paths, clips, at, j):
        heard = paths.tokens[clips[:, None], at[:, None] - jnp.arange(1, PAST + 1)]
        heard = jnp.where(at[:, None] < jnp.arange(1, PAST + 1), shape.start_token, heard)
        h = (heard * (2 / (shape.vocab_size - 1)) - 1) @ params["values"]
        h = h + params["newest"][paths.read[clips, at]] + params["bias"][j][None]
        if skip:
            # The pass before ended with the output for the sample before this pass' first forecast.
            checked = paths.skip[clips, jnp.maximum(at - 1 - j, 0)]
            h = h + jnp.where(at[:, None] > j, checked, 0) @ params["skip"][j]
        if layers:
            h = h + paths.states[layers][clips, at] @ params["state"]
        return jax.nn.relu(h) @ params["output"] + params["output_bias"][None]

    return Head(params, logits, cost / net.multiplications)


def teach(head: Head, paths: list[Paths], steps: int, seed: int, batch: int = 2048) -> Head:
    """Fit the head's distributions to the network's."""
    optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, steps, 0.03))

    @jax.jit
    def step(params, average, state, paths, clips, at, j):
        target = jax.nn.softmax(paths.logits[clips, at])

        def loss(params):
            outputs = head.logits(params, paths, clips, at, j)
            return -(target * jax.nn.log_softmax(outputs)).sum(-1).mean()

        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(gradient, state)
        params = optax.apply_updates(params, updates)
        return params, jax.tree.map(lambda a, p: 0.99 * a + 0.01 * p, average, params), state, value

    random, losses = np.random.default_rng(seed), []
    params, average, state = head.params, head.params, optimizer.init(head.params)
    for _ in range(steps):
        some = paths[random.integers(len(paths))]
        clips, at = (jnp.asarray(random.integers(size, size=batch)) for size in some.tokens.shape)
        params, average, state, value = step(
            params, average, state, some, clips, at, random.integers(STALEST + 1)
        )
        losses.append(float(value))
    bits = np.mean(losses[-50:]) / np.log(2)
    print(f"  cross-entropy {bits:.2f} bits a sample", flush=True)
    return head._replace(params=average)


@partial(jax.jit, static_argnames="logits")
def forecast(logits, params, paths: Paths, j):
    """Return the head's logits everywhere, [B, T, V]."""
    clips, samples = paths.tokens.shape
    at = jnp.arange(samples)
    return jax.lax.map(lambda clip: logits(params, paths, jnp.full(samples, clip), at, j), jnp.arange(clips))
