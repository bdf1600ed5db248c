"""What a WaveNet's weights do not say by themselves: dilations, vocabulary and the kind of output head."""

from collections.abc import Mapping
from dataclasses import dataclass

import jax

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
| output, output_bias | [H, O], [O] | O as `WaveNetShape.outputs` |
"""

HEADS = ("softmax", "mixture")


@dataclass(frozen=True)
class WaveNetShape:
    """The static half of a WaveNet; hashable, so it can be a static argument of `jax.jit`.

    Attributes:
        dilations: samples between taps, one a layer.
        vocab_size: levels one token can take (256 for mu-law, 65536 for 16 bit).
        head: "softmax" over the levels, or "mixture" of discretised logistics.
        mixtures: components of the mixture head.
        linear_prediction: past amplitudes whose linear prediction shifts the mixture's means; 0 = off.
        mu: companding of the tokens' values, 255 for mu-law codes, 0 for linear ones.
    """

    dilations: tuple[int, ...]
    vocab_size: int = 256
    head: str = "softmax"
    mixtures: int = 10
    linear_prediction: int = 0
    mu: int = 255

    def __post_init__(self) -> None:
        """Check every field.

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
        if self.linear_prediction and self.head != "mixture":
            raise ValueError('linear_prediction shifts mixture means: it needs head="mixture"')

    @property
    def start_token(self) -> int:
        """The token of silence, which stands before the first sample."""
        return self.vocab_size // 2

    @property
    def outputs(self) -> int:
        """Width O of the network's output: what parametrises one token's distribution."""
        if self.head == "softmax":
            return self.vocab_size
        return 3 * self.mixtures + self.linear_prediction

    def receptive_field(self, kernel_size: int, input_kernel_size: int = 1) -> int:
        """Return how many tokens, the current one included, one output depends on."""
        return (kernel_size - 1) * sum(self.dilations) + input_kernel_size
