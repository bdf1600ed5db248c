"""Describes what a WaveNet's weights leave open: its dilations, its vocabulary and the kind of its output head."""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import numpy as np

Weights = Mapping[str, jax.Array]
"""The network as arrays, layers stacked on the leading axis L.

| name | shape | |
| --- | --- | --- |
| embedding | [J, V, R] | causal input convolution over tokens of kernel size J, or |
| scalar | [J, 2, R] | over (code value, amplitude); one of the two; tap J-1 is the current token |
| input_bias | [R] | |
| dilated, dilated_bias | [L, K, R, 2G], [L, 2G] | tap K-1 is the current sample; first G columns tanh |
| condition | [L, C, 2G] | optional; added to the gate's input |
| residual, residual_bias | [L, G, R], [L, R] | |
| skip, skip_bias | [L, G, S], [S] | |
| hidden, hidden_bias | [S, H], [H] | |
| output, output_bias | [H, O], [O] | O as ``WaveNetShape.outputs`` |
"""

HEADS = ("softmax", "mixture")


@dataclass(frozen=True)
class WaveNetShape:
    """The static half of a WaveNet, which is hashable so that it can be a static argument of ``jax.jit``.

    Attributes:
        dilations: samples between taps, one number per layer.
        vocab_size: levels one token can take (256 for mu-law, 65536 for 16 bit).
        head: "softmax" over the levels, or "mixture" of discretised logistics.
        mixtures: components of the mixture head.
        linear_prediction: number of past amplitudes whose linear prediction shifts the mixture's means; 0 for none.
        mu: companding of the tokens' values, 255 for mu-law codes, 0 for linear ones.
        start: the token before the first sample; None is the middle of the vocabulary, which is silence in mu-law
            and linear codes.
        int8: whether the sampler multiplies in 8 bits, see ``int8``. Only the C++ sampler and the reference do; the
            parallel form takes the weights as they are.
    """

    dilations: tuple[int, ...]
    vocab_size: int = 256
    head: str = "softmax"
    mixtures: int = 10
    linear_prediction: int = 0
    mu: int = 255
    start: int | None = None
    int8: bool = False

    def __post_init__(self) -> None:
        """Checks every field.

        Raises:
            ValueError: a field is out of its range.
        """
        if not self.dilations or min(self.dilations) < 1:
            raise ValueError(f"dilations must be positive, at least one; got {self.dilations}")
        if self.vocab_size < 2:
            raise ValueError(f"vocab_size must be at least 2; got {self.vocab_size}")
        if self.head not in HEADS:
            raise ValueError(f"head must be one of {', '.join(HEADS)}; got {self.head!r}")
        if self.mixtures < 1 or self.linear_prediction < 0 or self.mu < 0:
            raise ValueError(
                "mixtures must be positive, linear_prediction and mu not negative; "
                f"got {self.mixtures}, {self.linear_prediction}, {self.mu}"
            )
        if not 0 <= self.start_token < self.vocab_size:
            raise ValueError(f"start must lie in [0, {self.vocab_size}); got {self.start}")
        if self.linear_prediction and self.head != "mixture":
            raise ValueError(
                f'linear_prediction shifts the means of a mixture: it needs head="mixture", got {self.head!r}'
            )

    @property
    def start_token(self) -> int:
        """The token before the first sample."""
        return self.vocab_size // 2 if self.start is None else self.start

    @property
    def outputs(self) -> int:
        """Width O of the network's output: what parametrises one token's distribution."""
        if self.head == "softmax":
            return self.vocab_size
        return 3 * self.mixtures + self.linear_prediction

    def receptive_field(self, kernel_size: int, input_kernel_size: int = 1) -> int:
        """Returns how many tokens, the current one included, one output depends on."""
        return (kernel_size - 1) * sum(self.dilations) + input_kernel_size


@dataclass(frozen=True)
class Net:
    """Describes a network by its sizes, to test and time implementations with random weights.

    Attributes:
        shape: the static half.
        residual: channels R.
        gate: channels G of z; the dilated convolution has 2G.
        skip: channels S.
        hidden: channels H of the head.
        kernel_size: taps K of the dilated convolutions.
        input_kernel_size: taps J of the input convolution.
        condition: width C of the condition; 0 for none.
        scalar_input: the input is (code value, amplitude), not an embedding.
    """

    shape: WaveNetShape
    residual: int = 64
    gate: int = 64
    skip: int = 128
    hidden: int = 128
    kernel_size: int = 2
    input_kernel_size: int = 1
    condition: int = 0
    scalar_input: bool = False

    def random_weights(self, seed: int = 0) -> dict[str, jax.Array]:
        """Returns normal float32 weights, with the scale that keeps the signal's size from layer to layer."""
        layers, k, r, g = len(self.shape.dilations), self.kernel_size, self.residual, self.gate
        inputs = 2 if self.scalar_input else self.shape.vocab_size
        sizes: dict[str, tuple[int, ...]] = {
            "scalar" if self.scalar_input else "embedding": (self.input_kernel_size, inputs, r),
            "input_bias": (r,),
            "dilated": (layers, k, r, 2 * g),
            "dilated_bias": (layers, 2 * g),
            "residual": (layers, g, r),
            "residual_bias": (layers, r),
            "skip": (layers, g, self.skip),
            "skip_bias": (self.skip,),
            "hidden": (self.skip, self.hidden),
            "hidden_bias": (self.hidden,),
            "output": (self.hidden, self.shape.outputs),
            "output_bias": (self.shape.outputs,),
        }
        if self.condition:
            sizes["condition"] = (layers, self.condition, 2 * g)
        rng = np.random.default_rng(seed)
        fan_in = {"dilated": k * r, "residual": g, "skip": layers * g / 16, "hidden": self.skip / 2}
        fan_in |= {"output": self.hidden / 4, "condition": self.condition, "scalar": 2, "embedding": 1}
        return {
            name: jax.numpy.asarray(rng.normal(size=size) / fan_in.get(name, 100) ** 0.5, "float32")
            for name, size in sizes.items()
        }


_TEN = tuple(2**i for i in range(10))
NETS = {
    "20x64x128": Net(WaveNetShape(_TEN * 2)),
    "30x64x256": Net(WaveNetShape(_TEN * 3), skip=256, hidden=256),
    "24x128x128": Net(
        WaveNetShape(_TEN[:6] * 4, vocab_size=65536, head="mixture", mu=0),
        residual=128,
        gate=128,
        kernel_size=3,
        condition=80,
        scalar_input=True,
    ),
}
"""Networks that are timed: two of nv-wavenet and one of wavenet_vocoder, named layers x residual x skip channels."""
