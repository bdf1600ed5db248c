"""WaveNet over one token a frame (van den Oord et al. 2016, arXiv:1609.03499).

This module owns the parameters and the conditioning. The arithmetic of the network is defined once, in
``wavegen.kernels.wavenet``, where training (all samples at once) and sampling (one at a time) share it.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from wavegen.codecs.base import Codecs
from wavegen.config.models import MixtureHeadConfig, WaveNetConfig
from wavegen.errors import WavegenError
from wavegen.kernels import wavenet_generate, wavenet_init_state, wavenet_prefill
from wavegen.kernels.lookup import look_up
from wavegen.kernels.wavenet import cuda
from wavegen.kernels.wavenet.cpu import sampling_device
from wavegen.kernels.wavenet.forward import wavenet_forward
from wavegen.kernels.wavenet.head import log_prob
from wavegen.kernels.wavenet.int8 import round_matrices
from wavegen.kernels.wavenet.shapes import WaveNetShape
from wavegen.models.base import CausalModel, Choice, State
from wavegen.models.conditions.base import FrameWindow, LabelCondition, LocalCondition
from wavegen.models.conditions.make import make_condition
from wavegen.models.likelihood import next_token
from wavegen.models.stepwise import draw_rows
from wavegen.networks.base import Examples, Given, Outcome
from wavegen.networks.initial import normal, zeros
from wavegen.types import Features, Labels, Logits, Tokens

_ANY_HOP = 1 << 30
"""The hop of a condition that has one frame: it holds for every sample."""


class WaveNet(CausalModel):
    """Stacks of dilated, gated, residual convolutions with skip connections to a small head.

    Args:
        config: sizes; see the fields' descriptions.
        vocab_size: tokens of the codec.
        mu: companding of the codec's code space, 0 for linear codes.
        start_token: of the codec.
        label_sizes: values of each field in ``config.label_fields``.
        local: makes what it is conditioned on at frame rate, if anything: between the other weights, as all take their
            random numbers in turn.
        period: samples after which the kinds of tokens recur, such as voices written one after the other; 0 is
            none.
        random: draws the initial weights.
    """

    def __init__(
        self,
        config: WaveNetConfig,
        *,
        vocab_size: int,
        mu: int,
        start_token: int,
        label_sizes: tuple[int, ...] = (),
        local: Callable[[], LocalCondition | None] = lambda: None,
        period: int = 0,
        random: np.random.Generator,
    ) -> None:
        c = config
        mixture = c.head if isinstance(c.head, MixtureHeadConfig) else None
        self.shape = WaveNetShape(
            dilations=c.dilations * c.cycles,
            vocab_size=vocab_size,
            head=c.head.kind,
            mixtures=mixture.components if mixture else 1,
            linear_prediction=mixture.linear_prediction if mixture else 0,
            mu=mu,
            start=start_token,
        )
        self.dropout, self.kernel_size, self.input_kernel_size = c.dropout, c.kernel_size, c.input_kernel_size
        layers, residual, gate = len(self.shape.dilations), c.residual_channels, c.gate_channels

        def weight(*shape: int, fan_in: int) -> nnx.Param:
            return normal(random, *shape, scale=fan_in**-0.5)

        if c.input == "embedding":
            self.embedding = nnx.Param(_smooth_embedding(random, c.input_kernel_size, vocab_size, residual))
        else:
            self.scalar = weight(c.input_kernel_size, 2, residual, fan_in=2 * c.input_kernel_size)
        self.input_bias = zeros(residual)
        self.dilated = weight(layers, c.kernel_size, residual, 2 * gate, fan_in=c.kernel_size * residual)
        self.dilated_bias = zeros(layers, 2 * gate)
        self.residual = weight(layers, gate, residual, fan_in=gate)
        self.residual_bias = zeros(layers, residual)
        self.skip = weight(layers, gate, c.skip_channels, fan_in=gate * layers)
        self.skip_bias = zeros(c.skip_channels)
        self.hidden = weight(c.skip_channels, c.head_channels, fan_in=c.skip_channels)
        self.hidden_bias = zeros(c.head_channels)
        self.output = weight(c.head_channels, self.shape.outputs, fan_in=100 * c.head_channels)
        self.output_bias = nnx.Param(_initial_output_bias(self.shape))

        self.labels = (
            LabelCondition(label_sizes, c.label_channels, random=random) if c.label_fields else nnx.data(None)
        )
        condition = local()
        self.local = nnx.data(None) if condition is None else condition
        self.places = normal(random, period, residual, scale=0.5) if period else nnx.data(None)
        channels = c.label_channels if c.label_fields else 0
        if condition is not None and condition.waves is not None:
            self.excitation = weight(condition.waves, residual, fan_in=max(condition.waves, 1))
        if c.local is not None:
            channels += c.local.channels
        if channels:
            self.condition = weight(layers, channels, 2 * gate, fan_in=channels)

    @classmethod
    def make(cls, config: WaveNetConfig, given: Given, random: np.random.Generator) -> "WaveNet":
        """See ``Network``."""
        section = config.local
        return cls(
            config,
            vocab_size=given.tokens.vocab_size,
            mu=given.tokens.mu,
            start_token=given.tokens.start_token,
            label_sizes=given.label_sizes,
            local=lambda: None if section is None else make_condition(section, given, random),
            period=given.tokens.places,
            random=random,
        )

    def objective(self, examples: Examples, key: Array | None) -> Outcome:
        """See ``Network``: the exact negative log-likelihood."""
        return next_token(self, examples, key)

    def reads(self, examples: Examples, codecs: Codecs) -> dict[str, Array]:
        """See ``Network``; with the features of the local condition."""
        plain = super().reads(examples, codecs)
        return plain if self.local is None else plain | {"features": self.local.features(examples, codecs)}

    @property
    def receptive_field(self) -> int:
        """Samples, the newest included, that one output depends on."""
        network = self.shape.receptive_field(self.kernel_size, self.input_kernel_size)
        return max(network, self.shape.linear_prediction)

    def flops_per_frame(self, frames: int) -> int:
        """Multiply-adds of the matrices, times two, in clips of any length; biases and gates are not counted."""
        del frames
        layers, taps, residual, gates = self.dilated.shape
        skip, hidden = self.hidden.shape
        per_layer = taps * residual * gates + gates // 2 * (residual + skip)
        return 2 * (layers * per_layer + skip * hidden + hidden * self.shape.outputs)

    def weights(self) -> dict[str, Array]:
        """The arrays that ``wavegen.kernels`` reads, by its names."""
        names = [
            *("embedding", "scalar", "input_bias", "dilated", "dilated_bias", "condition", "residual"),
            *("residual_bias", "skip", "skip_bias", "hidden", "hidden_bias", "output", "output_bias"),
        ]
        return {name: getattr(self, name)[...] for name in names if hasattr(self, name)}

    def encode(
        self, labels: Labels | None, features: Features | None, valid: Bool[Array, "F"] | None = None
    ) -> Float[Array, "B frames C"] | None:
        """Turns labels and features into the frames that are added to every gate; None for a model without.

        A frame holds for ``condition_hop`` samples.

        Args:
            labels: needed when the model has global fields.
            features: needed when the model has local conditioning.
            valid: frames of the features that belong to the clips, see ``FrameWindow``; None is all.

        Raises:
            WavegenError: a condition is missing, or is one that the model does not take.
        """
        for name, given, taken in (
            ("labels", labels is not None, self.labels is not None),
            ("features", features is not None, self.local is not None),
        ):
            if given != taken:
                raise WavegenError(
                    f"this model needs {name}; give those of each clip"
                    if taken
                    else f"this model takes no {name}; leave them out"
                )
        parts = [] if features is None or self.local is None else [self.local(features, valid)]
        if labels is not None and self.labels is not None:
            vectors = self.labels(labels)
            frames = parts[0].shape[1] if parts else 1
            parts.append(jnp.broadcast_to(vectors, (vectors.shape[0], frames, vectors.shape[2])))
        return jnp.concatenate(parts, -1) if parts else None

    @property
    def condition_hop(self) -> int:
        """Samples per frame of ``encode``."""
        return self.local.hop_length if self.local is not None else _ANY_HOP

    def excite(
        self, features: Features | None, offset: Int[Array, ""] | int, samples: int
    ) -> Float[Array, "B T R"] | None:
        """What is added to the first layer's input for the samples from ``offset`` on; None without excitation."""
        if features is None or self.local is None or not self.local.waves:
            return None
        return self.local.excitation(features, offset, samples) @ self.excitation[...]

    def _inputs(
        self,
        batch: int,
        features: Features | None,
        position: Int[Array, ""] | int,
        offset: Int[Array, ""] | int,
        samples: int,
    ) -> Float[Array, "B T R"] | None:
        """The excitation, and the vectors of the places in the period: those of the tokens to be predicted.

        Args:
            batch: clips.
            features: of whole clips, or of a part of them.
            position: of the first sample in the clips.
            offset: of the first sample in the features.
            samples: how many there are.
        """
        excitation = self.excite(features, offset, samples)
        if self.places is None:
            return excitation
        table = self.places[...]
        places = look_up(table, (position + jnp.arange(samples)) % len(table))
        places = jnp.broadcast_to(places, (batch, *places.shape))
        return places if excitation is None else places + excitation

    def __call__(
        self,
        tokens: Tokens,
        labels: Labels | None = None,
        features: Features | None = None,
        *,
        dropout_key: Array | None = None,
    ) -> Logits:
        """See ``TokenModel``; the last axis holds logits, or the parameters of the mixture."""
        outputs = wavenet_forward(
            self.weights(),
            self.shape,
            tokens[..., 0],
            self._inputs(len(tokens), features, 0, 0, tokens.shape[1]),
            self.encode(labels, features),
            self.condition_hop,
            dropout_key=dropout_key,
            dropout_rate=self.dropout,
        )
        return outputs[:, :, None, :]

    def log_prob(self, logits: Logits, targets: Tokens, inputs: Tokens) -> Float[Array, "B N K"]:
        """See ``TokenModel``."""
        return log_prob(logits[:, :, 0], self.shape, targets[..., 0], inputs[..., 0])[..., None]

    @property
    def cuts_tails(self) -> bool:
        """See ``CausalModel``."""
        return self.shape.head == "softmax"

    def likeliest(self, logits: Logits) -> Tokens | None:
        """See ``TokenModel``; those of a mixture do not show it."""
        return super().likeliest(logits) if self.shape.head == "softmax" else None

    def in_eight_bits(self) -> "WaveNet":
        """See ``CausalModel``: the sampler's products are of 8 bits, all else is as it was."""
        self.shape = replace(self.shape, int8=True)
        for name, rounded in round_matrices(self.weights()).items():
            getattr(self, name)[...] = rounded
        return self

    def sampling_device(self, batch: int, choice: Choice, implementation: str | None) -> jax.Device | None:
        """See ``CausalModel``: the host, where that beats a GPU."""
        if _differs_by_place(choice):
            return None
        device = sampling_device(batch, implementation)
        if device is not None and implementation is None and cuda.takes(self.weights(), self.shape):
            return None
        return device

    def init_state(self, batch: int, labels: Labels | None = None, features: Features | None = None) -> State:
        """See ``CausalModel``."""
        state: State = {"network": wavenet_init_state(self.weights(), self.shape, batch)}
        condition = self.encode(labels, features)
        if condition is not None:
            state["condition"] = condition.astype(jnp.float32)
        if features is not None:
            state["features"] = features
        return state

    def window_state(self, labels: Labels | None, window: FrameWindow) -> State:
        """See ``CausalModel``."""
        assert self.local is not None, "windows are of what a model is conditioned on"
        condition = self.encode(labels, window.features, window.valid)
        assert condition is not None, "a local condition gives frames"
        return {
            "condition": condition.astype(jnp.float32),
            "features": window.features,
            "first": window.first * self.local.input_hop,
        }

    def _window(self, state: State, samples: int) -> dict[str, Any]:
        """The kernel's arguments for the next ``samples`` samples: what of the conditions falls on them."""
        position, batch = state["network"]["position"], len(state["network"]["history"])
        offset = position - state.get("first", 0)
        inputs = self._inputs(batch, state.get("features"), position, offset, samples)
        window: dict[str, Any] = {"inputs": inputs}
        if "condition" in state:
            condition, hop = state["condition"], self.condition_hop
            # A window may reach past the end of the clip; what it finds there is cut off again.
            missing = -(-samples // hop) - condition.shape[1]
            if missing > 0:
                condition = jnp.pad(condition, ((0, 0), (0, missing), (0, 0)), mode="edge")
            frames = min(condition.shape[1], (samples - 2) // hop + 2 if samples > 1 else 1)
            # A slice that would reach past the end is moved back by XLA, and the offset with it.
            first = jnp.clip(offset // hop, 0, condition.shape[1] - frames)
            window["condition"] = jax.lax.dynamic_slice_in_dim(condition, first, frames, axis=1)
            window["condition_hop"] = hop
            window["condition_offset"] = offset - first * hop
        return window

    def step(self, token: Int[Array, "B K"], state: State) -> tuple[Float[Array, "B K V"], State]:
        """See ``CausalModel``."""
        # The kernel's history ends with the token to be read next; it is put there, and after the step its place
        # is taken by the same token, which the next step replaces.
        before = state["network"].copy()
        before["history"] = before["history"].at[:, -1].set(token[:, 0])
        _, network, outputs = wavenet_generate(
            self.weights(),
            self.shape,
            before,
            1,
            key=jax.random.key(0),
            forced=token,
            return_logits=True,
            **self._window(state, 1),
        )
        return outputs, {**state, "network": network}

    def read(self, tokens: Tokens, state: State) -> State:
        """See ``CausalModel``; all tokens at once, by the parallel form."""
        return self._read(tokens, state)[1]

    def score(
        self, tokens: Tokens, state: State, then: Int[Array, "B M K"] | None = None
    ) -> tuple[Float[Array, "B N K"], State]:
        """See ``CausalModel``; all tokens at once, by the parallel form."""
        del then
        outputs, after = self._read(tokens, state)
        read_before = jnp.concatenate([state["network"]["history"], tokens[..., 0]], axis=1)
        return log_prob(outputs, self.shape, tokens[..., 0], read_before[:, :-1])[..., None], after

    def _read(self, tokens: Tokens, state: State) -> tuple[Float[Array, "B N O"], State]:
        outputs, network = wavenet_prefill(
            self.weights(),
            self.shape,
            state["network"],
            tokens[..., 0],
            **self._window(state, tokens.shape[1]),
        )
        return outputs, {**state, "network": network}

    def draw(
        self,
        state: State,
        frames: int,
        key: Array,
        *,
        choice: Choice,
        left: int | Int[Array, ""] | None = None,
        implementation: str | None = None,
    ) -> tuple[Tokens, State]:
        """See ``CausalModel``; the whole loop runs in one kernel, but for choices that differ from place to place.

        Raises:
            WavegenError: such a choice with a mixture head, or with a kernel's name.
        """
        del left
        if _differs_by_place(choice):
            return self._draw_by_steps(state, frames, key, choice, implementation)
        tokens, network = wavenet_generate(
            self.weights(),
            self.shape,
            state["network"],
            frames,
            key=key,
            temperature=choice.temperature,
            top_k=choice.top_k,
            top_p=choice.top_p,
            implementation=implementation,
            **self._window(state, frames),
        )
        return tokens[..., None], {**state, "network": network}

    def _draw_by_steps(
        self, state: State, frames: int, key: Array, choice: Choice, implementation: str | None
    ) -> tuple[Tokens, State]:
        if self.shape.head != "softmax" or implementation is not None:
            raise WavegenError(
                "a choice for each place in a period needs a softmax head and no implementation, got head "
                f"{self.shape.head} and implementation {implementation}; draw with one temperature for all tokens"
            )
        history, position = state["network"]["history"], state["network"]["position"]
        free = jnp.full((len(history), frames, 1), -1)
        tokens, after = draw_rows(self.step, history[:, -1:], state, position, free, key, choice)
        network = after["network"]
        history = network["history"].at[:, -1].set(tokens[:, -1, 0])
        return tokens, {**after, "network": {**network, "history": history}}


def _differs_by_place(choice: Choice) -> bool:
    """Whether tokens are drawn differently from place to place in a period."""
    return choice.allowed is not None or jnp.ndim(choice.temperature) > 0


def _smooth_embedding(
    random: np.random.Generator, taps: int, vocab_size: int, channels: int
) -> Float[Array, "J V R"]:
    """Random sinusoids of the code value, so that neighbouring levels start out alike."""
    value = np.linspace(-1.0, 1.0, vocab_size)[None, :, None]
    frequency = 3 * random.standard_normal((taps, 1, channels))
    phase = random.uniform(0, 2 * np.pi, (taps, 1, channels))
    return jnp.asarray(np.sin(frequency * value + phase) * taps**-0.5, jnp.float32)


def _initial_output_bias(shape: WaveNetShape) -> Float[Array, "O"]:
    """Zero for a softmax; for a mixture, means spread over code space and scales about as wide as their distance."""
    if shape.head == "softmax":
        return jnp.asarray(np.zeros(shape.outputs, np.float32))
    m, order = shape.mixtures, shape.linear_prediction
    means = np.zeros(m) if order else np.linspace(-0.8, 0.8, m)
    scales = np.linspace(-6.0, -1.0, m) if order else np.full(m, -2.0)
    first = np.eye(1, order)[0]
    return jnp.asarray(np.concatenate([np.zeros(m), means, scales, first]), jnp.float32)
