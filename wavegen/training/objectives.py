"""What a step minimises: functions of a model and one device batch."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from wavegen.codecs.quantizers import count_codes, draw_levels
from wavegen.codecs.spectrogram_vae import MelReconstruction, SpectrogramVAE
from wavegen.codecs.wave_vq import Reconstruction, WaveVQ
from wavegen.config import Config
from wavegen.config.codec_models import (
    CodecLossConfig,
    CodecModelConfig,
    MelLossConfig,
    SpectrogramVQConfig,
    WaveVQConfig,
)
from wavegen.config.codecs import FixedCodecConfig
from wavegen.config.models import BertConfig, DecoderConfig, WindowVAEConfig
from wavegen.data.device import frame_mask
from wavegen.models.base import MaskedModel, TokenModel
from wavegen.models.decoder import Decoder
from wavegen.models.masks import level_of
from wavegen.models.window_vae import WindowVAE
from wavegen.spectral import si_sdr
from wavegen.training.codec_loss import audio_losses
from wavegen.training.masking import Masked, drop_labels, mask_classic, mask_levels
from wavegen.training.mel_loss import mel_losses
from wavegen.types import Logits


class Outcome(NamedTuple):
    """What an objective made of a batch; see ``add_outcomes``.

    Attributes:
        total: the loss, summed, to be minimised.
        scored: how many tokens or clips it is a sum over; `total / scored` does not depend on the size of a batch.
        figures: parts of the loss and whatever else is worth a curve, summed likewise.
        statistics: integer histograms and sums from which a quantizer learns; free of gradients.
    """

    total: Float[Array, ""]
    scored: Int[Array, ""]
    figures: dict[str, Array]
    statistics: dict[str, Array]


def add_outcomes(one: Outcome, other: Outcome) -> Outcome:
    """The outcome of two parts of a batch together.

    Everything adds up but vectors to which an unused entry may move: those are the ones of the second part.
    """
    both: Outcome = jax.tree.map(jnp.add, one, other)
    if "candidates" in both.statistics:
        return both._replace(statistics=both.statistics | {"candidates": other.statistics["candidates"]})
    return both


Objective = Callable[[Any, Mapping[str, Array], Array | None], Outcome]
"""`(model, examples, key) -> outcome`; without a key, as in evaluation, nothing is random and nothing dropped."""


def next_token(model: TokenModel, examples: Mapping[str, Array], key: Array | None) -> Outcome:
    """The exact negative log-likelihood of an autoregressive model, in nats, over the scored tokens.

    Args:
        model: predicts ``targets`` from ``inputs``, which are the targets shifted by one.
        examples: what ``wavegen.data.device`` made of a batch.
        key: turns dropout on. Without it there is a figure more, "accuracy": tokens whose likeliest value is right.
    """
    logits = model(examples["inputs"], examples.get("labels"), examples.get("features"), dropout_key=key)
    outcome = _likelihood(model, logits, examples)
    if key is not None:
        return outcome
    guess = model.likeliest(logits)
    scored = jnp.broadcast_to(examples["mask"][..., None], examples["targets"].shape)
    return outcome._replace(figures=_accuracy(guess, examples["targets"], scored))


def _accuracy(
    guess: Int[Array, "*axes"] | None, targets: Int[Array, "*axes"], scored: Bool[Array, "*axes"]
) -> dict[str, Array]:
    """How many scored tokens were guessed right, as a figure; none without a guess."""
    return {} if guess is None else {"accuracy": jnp.sum((guess == targets) & scored)}


def _likelihood(model: TokenModel, logits: Logits, examples: Mapping[str, Array]) -> Outcome:
    log_prob = model.log_prob(logits, examples["targets"], examples["inputs"])
    scored = jnp.broadcast_to(examples["mask"][..., None], log_prob.shape)
    return Outcome(-jnp.sum(jnp.where(scored, log_prob, 0.0)), jnp.sum(scored), {}, {})


def next_token_and_memory(
    model: Decoder, examples: Mapping[str, Array], key: Array | None, *, weight: float
) -> Outcome:
    """``next_token`` for a model with compressed memory, from whose reconstruction the compression learns.

    Args:
        model: see ``next_token``.
        examples: see ``next_token``.
        key: turns dropout on, and the reconstruction loss: without it the figure is the likelihood alone.
        weight: of the reconstruction loss.
    """
    if key is None:
        return next_token(model, examples, None)
    logits, lost = model.with_reconstruction(
        examples["inputs"], examples.get("labels"), examples.get("features"), dropout_key=key
    )
    nats, scored, _, _ = _likelihood(model, logits, examples)
    return Outcome(nats + weight * lost * scored, scored, {"reconstruction": lost * scored}, {})


def masked_token(
    model: MaskedModel,
    examples: Mapping[str, Array],
    key: Array | None,
    *,
    masking: Callable[..., Masked] = mask_levels,
    label_smoothing: float = 0.1,
    label_dropout: float = 0.1,
) -> Outcome:
    """The negative log-likelihood of masked tokens given the others, in nats, over the masked tokens.

    Args:
        model: predicts the masked tokens.
        examples: "targets", "mask" (frames that belong to the clips) and, for a model with labels, "labels".
        key: draws the masks and turns on dropout, label smoothing and label dropout. None is for evaluation: masks
            depend on the targets alone, nothing is added, and "accuracy" is a figure as for ``next_token``.
        masking: draws the masks; ``mask_levels`` or ``mask_classic``.
        label_smoothing: share of each target that is spread evenly over the vocabulary (Szegedy et al. 2016).
        label_dropout: share of rows whose labels are unknown.
    """
    targets, valid, labels = examples["targets"], examples["mask"], examples.get("labels")
    # From a constant key XLA would draw the masks while it compiles, which takes it longer.
    fixed = jax.random.fold_in(jax.random.key(0), jnp.sum(targets))
    mask_key, label_key, dropout_key = jax.random.split(fixed if key is None else key, 3)
    if key is not None and labels is not None:
        labels = drop_labels(label_key, labels, label_dropout)
    conditions = {"dropout_key": None if key is None else dropout_key, "valid": valid}
    inputs, scored, level = masking(mask_key, targets, valid, model.vocab_size)
    if level is None:
        logits = model(inputs, labels, **conditions)
    else:
        logits = model.level_logits(inputs, level, labels, **conditions)
        targets, scored = level_of(targets, level), level_of(scored, level)
    log_p = jax.nn.log_softmax(logits)
    nats = -jnp.take_along_axis(log_p, targets[..., None], axis=-1)[..., 0]
    if key is not None:
        nats = (1 - label_smoothing) * nats - label_smoothing * jnp.mean(log_p, axis=-1)
    figures = _accuracy(jnp.argmax(logits, axis=-1), targets, scored) if key is None else {}
    return Outcome(jnp.sum(jnp.where(scored, nats, 0.0)), jnp.sum(scored), figures, {})


def evidence_bound(
    model: WindowVAE,
    examples: Mapping[str, Array],
    key: Array | None,
    *,
    beta: float | Float[Array, ""] = 1.0,
    free_nats: float | Float[Array, ""] = 0.0,
    token_dropout: float | Float[Array, ""] = 0.0,
) -> Outcome:
    """An upper bound on the nats of windows: of their tokens given z drawn from q(z | window), and KL(q || prior).

    Args:
        model: the autoencoder.
        examples: what ``wavegen.data.device`` made of a batch; each row is a window.
        key: draws z and turns dropout on, and what follows. None is for evaluation: z depends on the targets alone,
            and the outcome is the bound itself.
        beta: weight of the divergence (Higgins et al. 2017, "beta-VAE").
        free_nats: of a window's divergence, which cost nothing (Roberts et al. 2018, arXiv:1803.05428, section 2.1).
        token_dropout: share of its inputs that the decoder does not see, so that it asks z (Bowman et al. 2016,
            arXiv:1511.06349).

    Returns:
        Sums over tokens. Its figures: the nats of tokens given z, the divergence for as many tokens as a window has,
        and the share of tokens whose value is the likeliest one given z and all tokens before.
    """
    targets, inputs, valid = examples["targets"], examples["inputs"], examples["mask"]
    fixed = jax.random.fold_in(jax.random.key(0), jnp.sum(targets))  # as in masked_token
    z_key, token_key, encoder_key, decoder_key = jax.random.split(fixed if key is None else key, 4)
    dropout_keys = (None, None) if key is None else (encoder_key, decoder_key)
    posterior = model.encode(targets, valid, dropout_keys[0])
    if key is not None:
        hidden = jax.random.bernoulli(token_key, token_dropout, inputs.shape)
        inputs = jnp.where(hidden, model.vocabulary.size, inputs)
    logits = model(inputs, None, posterior.draw(z_key)[:, None], dropout_key=dropout_keys[1])
    nats, scored, _, _ = _likelihood(model, logits, examples)
    divergence = jnp.where(valid.any(axis=1), posterior.divergence(), 0.0)
    cost = divergence if key is None else beta * jnp.maximum(divergence - free_nats, 0.0)
    right = (jnp.argmax(logits, axis=-1) == targets) & valid[..., None]
    figures = {
        "nats_per_token": nats,
        "kl_per_window": jnp.sum(divergence) * model.window,
        "accuracy": jnp.sum(right, dtype=jnp.float32),
    }
    return Outcome(nats + jnp.sum(cost), scored, figures, {})


def reconstruction(
    model: WaveVQ,
    examples: Mapping[str, Array],
    key: Array | None,
    *,
    sample_rate: int,
    weights: CodecLossConfig,
    quantizer_dropout: float,
) -> Outcome:
    """How far a codec's audio is from what it was given, and its latents from their codes.

    Args:
        model: the codec.
        examples: "waveform", and "length": rows without samples, which fill up a batch, do not count.
        key: draws with how many codebooks each clip is coded; None codes with all.
        sample_rate: Hz.
        weights: of the parts.
        quantizer_dropout: see ``draw_levels``.

    Returns:
        Sums over clips: the weighted loss, its parts, and the scale-invariant signal-to-distortion ratio in dB. Without
        a key padding is not counted among the codes.
    """
    levels = dropped_levels(model, examples, key, quantizer_dropout)
    result = model.reconstruct(examples["waveform"], levels=levels)
    if key is None:
        result = result._replace(statistics=_without_padding(result, model, examples["length"]))
    return judge_reconstruction(result, examples, sample_rate=sample_rate, weights=weights)


def dropped_levels(
    model: WaveVQ | SpectrogramVAE, examples: Mapping[str, Array], key: Array | None, share: float
) -> Int[Array, "B"] | None:
    """With how many codebooks each clip is coded; without a key with all."""
    return None if key is None else draw_levels(key, len(examples["waveform"]), model.codebooks, share)


def judge_reconstruction(
    result: Reconstruction, examples: Mapping[str, Array], *, sample_rate: int, weights: CodecLossConfig
) -> Outcome:
    """The second half of ``reconstruction``: what came out beside what went in."""
    audio, counted = examples["waveform"], examples["length"] > 0
    # Row by row: some losses are ratios over what they are given.
    parts = jax.vmap(lambda ours, theirs: audio_losses(ours[None], theirs[None], sample_rate))(
        result.audio, audio
    )
    outcome = _weighted(parts, result.losses, weights, counted, result.statistics)
    outcome.figures["si_sdr"] = jnp.sum(jnp.where(counted, si_sdr(result.audio, audio), 0.0))
    return outcome


def mel_reconstruction(
    model: SpectrogramVAE,
    examples: Mapping[str, Array],
    key: Array | None,
    *,
    weights: MelLossConfig,
    quantizer_dropout: float,
) -> Outcome:
    """How far a spectrogram codec's rows are from those of the audio, and its latents from their codes.

    Args:
        model: the codec.
        examples: as for ``reconstruction``; frames that begin after the clip's end do not count.
        key: as for ``reconstruction``.
        weights: of the parts.
        quantizer_dropout: see ``draw_levels``.

    Returns:
        Sums over clips: the weighted loss, and its parts.
    """
    audio, length = examples["waveform"], examples["length"]
    levels = dropped_levels(model, examples, key, quantizer_dropout)
    result = model.reconstruct(audio, levels=levels)
    valid = frame_mask(jnp.zeros_like(length), length, result.target.shape[1], model.frames.hop_length)
    parts = mel_losses(result.rows, result.target, valid)
    statistics = result.statistics if key is not None else _without_padding(result, model, length)
    return _weighted(parts, result.losses, weights, length > 0, statistics)


def _without_padding(
    result: Reconstruction | MelReconstruction, model: WaveVQ | SpectrogramVAE, length: Int[Array, "B"]
) -> dict[str, Array]:
    """The statistics of a codec, with codes counted only in frames that begin before the clip ends.

    A quantizer learns from all frames that it was given; how well it is used, recordings alone tell.
    """
    valid = frame_mask(jnp.zeros_like(length), length, result.codes.shape[1], model.hop_length)
    return result.statistics | {"counts": count_codes(result.codes, model.vocab_size, valid=valid)}


def _weighted(
    parts: dict[str, Float[Array, "B"]],
    losses: dict[str, Float[Array, ""]],
    weights: CodecLossConfig | MelLossConfig,
    counted: Bool[Array, "B"],
    statistics: dict[str, Array],
) -> Outcome:
    """The parts of each clip and the quantizer's losses, summed over the clips that count."""
    parts = parts | {name: jnp.broadcast_to(loss, counted.shape) for name, loss in losses.items()}
    figures = {name: jnp.sum(jnp.where(counted, loss, 0.0)) for name, loss in parts.items()}
    total = sum(getattr(weights, name) * figure for name, figure in figures.items())
    return Outcome(jnp.asarray(total), jnp.sum(counted), figures, statistics)


def objective_of(config: Config) -> Objective:
    """What the model of a configuration minimises."""
    model = config.model
    if isinstance(model, WaveVQConfig):
        return partial(
            reconstruction,
            sample_rate=config.data.sample_rate,
            weights=model.loss,
            quantizer_dropout=model.quantizer_dropout,
        )
    if isinstance(model, SpectrogramVQConfig):
        return partial(mel_reconstruction, weights=model.loss, quantizer_dropout=model.quantizer_dropout)
    if isinstance(model, BertConfig):
        masking = model.masking
        return partial(
            masked_token,
            masking=mask_classic
            if masking.scheme == "classic"
            else partial(mask_levels, spans=masking.spans, prompts=masking.prompts),
            label_smoothing=model.label_smoothing,
            label_dropout=model.condition_dropout,
        )
    if isinstance(model, WindowVAEConfig):
        options = model.model_dump(include={"beta", "free_nats", "token_dropout"})
        return partial(evidence_bound, **options)
    if isinstance(model, DecoderConfig) and model.reach.compressed:
        return partial(next_token_and_memory, weight=model.reconstruction)
    return next_token


def metric_of(config: Config) -> tuple[str, float]:
    """The figure that a run is judged by, lower is better: its name, and what ``total / scored`` is multiplied by."""
    if isinstance(config.model, CodecModelConfig):
        return "loss", 1.0
    token = "sample" if isinstance(config.codec, FixedCodecConfig) else "token"
    return f"bits_per_{token}", 1 / math.log(2)
