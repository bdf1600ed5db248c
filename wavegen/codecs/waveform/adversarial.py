"""Losses of the game between a codec and its discriminators, and a balance of gradients.

In a step the discriminators lower ``discriminator_loss`` on recordings and on decoded audio without its gradient. The
codec lowers its own losses with ``adversarial_loss`` and ``feature_matching_loss`` added, whose gradients to its audio
``balance`` keeps in proportion. The step itself is in ``wavegen.training.adversary``.

Sources: Mao et al. 2017, "Least Squares Generative Adversarial Networks"; Lim and Ye 2017, "Geometric GAN" (hinge);
Larsen et al. 2016, "Autoencoding beyond Pixels Using a Learned Similarity Metric" (features); Défossez et al. 2022,
"High Fidelity Neural Audio Compression", section 3.4 (balance).
"""

from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from wavegen.codecs.waveform.discriminators import Judgement

Game = Literal["least squares", "hinge"]
"""Least squares, as in DAC, draws scores to 1 and 0; hinge, as in EnCodec, pushes them beyond 1 and -1."""


def discriminator_loss(
    real: list[Judgement], decoded: list[Judgement], game: Game = "least squares"
) -> Float[Array, ""]:
    """What the discriminators lower: the sum over them.

    Args:
        real: of recordings.
        decoded: of decoded audio; stop its gradient before it is judged.
        game: which loss.
    """
    total = jnp.zeros((), jnp.float32)
    for ours, theirs in zip(decoded, real, strict=True):
        low, high = _scores(ours), _scores(theirs)
        if game == "hinge":
            total = total + jnp.mean(jax.nn.relu(1 - high)) + jnp.mean(jax.nn.relu(1 + low))
        else:
            total = total + jnp.mean((1 - high) ** 2) + jnp.mean(low**2)
    return total


def adversarial_loss(decoded: list[Judgement], game: Game = "least squares") -> Float[Array, ""]:
    """What the codec lowers so that its audio is taken for a recording: the sum over discriminators."""
    total = jnp.zeros((), jnp.float32)
    for ours in decoded:
        score = _scores(ours)
        total = total + (jnp.mean(jax.nn.relu(1 - score)) if game == "hinge" else jnp.mean((1 - score) ** 2))
    return total


def feature_matching_loss(real: list[Judgement], decoded: list[Judgement]) -> Float[Array, ""]:
    """The mean absolute difference of hidden layers, summed over layers and discriminators.

    No gradient flows to ``real``.
    """
    total = jnp.zeros((), jnp.float32)
    for ours, theirs in zip(decoded, real, strict=True):
        for a, b in zip(ours[:-1], theirs[:-1], strict=True):
            total = total + jnp.mean(jnp.abs(a - lax.stop_gradient(b)).astype(jnp.float32))
    return total


def balance(
    reference: Float[Array, "B *axes"],
    gradients: Mapping[str, Float[Array, "B *axes"]],
    shares: Mapping[str, float],
    averages: Mapping[str, Float[Array, "2"]],
    *,
    decay: float = 0.999,
) -> tuple[Float[Array, "B *axes"], dict[str, Float[Array, "2"]]]:
    """Gradients of several losses, each brought to its share of the size of a reference, whatever its own scale.

    With ``|g|`` the mean over the batch of the norm of a row, ``<|g|>`` its moving average, and r the reference:

        sum_i s_i g_i <|r|> / <|g_i|>

    Args:
        reference: the gradient of the losses that keep their scale, to the decoded audio.
        gradients: of each other loss, to the same.
        shares: of each, s.
        averages: from the call before, at first zeros [2] for "reference" and for each loss: decayed sums of norms,
            and of how many. A norm that is not finite is left out.
        decay: of the averages.

    Returns:
        What is to be added to the reference, and the averages after it.
    """
    after, means = {}, {}
    for name, gradient in {"reference": reference, **gradients}.items():
        norm = jnp.mean(jnp.sqrt(jnp.sum(gradient.reshape(len(gradient), -1) ** 2, axis=1)))
        more = decay * averages[name] + jnp.stack([norm, jnp.ones_like(norm)])
        after[name] = jnp.where(jnp.isfinite(norm), more, averages[name])
        means[name] = after[name][0] / jnp.maximum(after[name][1], 1e-12)
    total = jnp.zeros_like(reference)
    for name, gradient in gradients.items():
        total = total + shares[name] * means["reference"] / (means[name] + 1e-12) * gradient
    return total, after


def _scores(judgement: Judgement) -> Float[Array, "..."]:
    return judgement[-1].astype(jnp.float32)
