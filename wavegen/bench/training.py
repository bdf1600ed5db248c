"""Training steps of codecs and masked models, next to the same networks in plain PyTorch.

Both sides do the whole of a step: forward pass, loss, gradients, clipping by the global norm, AdamW, and the average
of the weights. The batch is the same in every step and stays on the device. A codec codes every clip with all
codebooks. A masked model reads existing tokens, and its masks are those of the sampler: wavegen draws them in every
step, PyTorch gets them once. PyTorch is also spared the figures of merit that wavegen computes in addition to the
loss.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, PyTree

from wavegen.bench.machine import processors
from wavegen.bench.tokens import Work, level_flops, masked_model, noise
from wavegen.codecs.base import Codecs
from wavegen.codecs.waveform.network import WaveVQ
from wavegen.config import Config
from wavegen.errors import WavegenError
from wavegen.generation.codec import Reconstructor
from wavegen.generation.masked import MaskedGenerator
from wavegen.models.bert import Bert
from wavegen.models.masking import mask_levels
from wavegen.models.masks import level_of
from wavegen.networks.base import parameters, with_parameters
from wavegen.training.optimizer import make_schedule
from wavegen.training.state import init_state
from wavegen.training.step import make_train_step, metric_of, optimizer_of
from wavegen.types import Tokens


def codec_training(codec: Reconstructor, against_torch: bool) -> list[Work]:
    """Returns the training step of a codec, with the batch of its experiment.

    Raises:
        WavegenError: if PyTorch is asked for and not installed, or its codec has no such layers.
    """
    config = _plain(codec.config)
    rows, samples = config.data.batch_size, config.data.crop
    pcm = noise(rows, samples)
    network: WaveVQ = with_parameters(codec.codec.graph, codec.codec.params)
    network.quantizer_dropout = 0.0
    calls = {"wavegen": _step(config, parameters(network), _batch(pcm), Codecs(None))}
    if against_torch:
        torch = _import_torch()
        from wavegen.bench.torch_codec import TorchCodec
        from wavegen.bench.torch_training import torch_step

        copy = TorchCodec(network, config.data.sample_rate, network.loss)
        audio = torch.from_numpy(pcm.astype(np.float32) / 32768)
        calls["torch"] = torch_step(copy, (audio,), config.optimizer, _rates(config))
    frames = -(-samples // network.hop_length)
    flops = 3 * rows * frames * network.flops_per_frame(frames)
    seconds = samples / config.data.sample_rate
    return [Work("train codec", by, call, rows, seconds, flops) for by, call in calls.items()]


def model_training(generator: MaskedGenerator, against_torch: bool) -> list[Work]:
    """Returns the training step of a masked model, with the batch of its experiment.

    Raises:
        WavegenError: if PyTorch is asked for and not installed, or its model does not cover this one.
    """
    config, codec, model = _plain(generator.config), generator.codec, masked_model(generator)
    rows, samples = config.data.batch_size, config.data.crop
    frames = -(-samples // codec.hop_length)
    random = np.random.default_rng(0)
    tokens = random.integers(0, codec.vocab_size, (rows, frames, codec.codebooks), np.int32)
    batch = _batch(np.zeros((rows, samples), np.int16), len(config.model.label_fields))
    batch["tokens"] = jnp.asarray(tokens)
    trained = (generator.graph, generator.params)
    calls = {"wavegen": _step(config, trained, batch, Codecs(codec))}
    if against_torch:
        torch = _import_torch()
        from wavegen.bench.torch_bert import TorchBert
        from wavegen.bench.torch_training import torch_step

        copy = TorchBert(model, model.label_smoothing)
        arrays = _masked(config.seed, model, batch["tokens"])
        given = [torch.from_numpy(np.array(array)) for array in arrays]
        given = [x if x.dtype == torch.bool else x.long() for x in given]
        calls["torch"] = torch_step(copy, given, config.optimizer, _rates(config))
    flops = 3 * rows * frames * level_flops(model, frames)
    seconds = samples / config.data.sample_rate
    return [Work("train model", by, call, rows, seconds, flops) for by, call in calls.items()]


def _masked(seed: int, model: Bert, tokens: Tokens) -> tuple[Array, ...]:
    """Returns what the first step reads.

    Returns:
        The inputs [B, N, K], the targets and what is scored [B, N], and the level [B] of each row.
    """
    masking = model.masking
    if masking.scheme != "levels":
        raise WavegenError(
            "expected a model that is trained level by level for PyTorch, got another; leave --against out"
        )
    step_key = jax.random.fold_in(jax.random.key(seed), 0)
    mask_key = jax.random.split(jax.random.split(step_key)[1], 3)[0]
    valid = jnp.ones(tokens.shape[:2], bool)
    inputs, scored, level = mask_levels(
        mask_key, tokens, valid, model.vocab_size, spans=masking.spans, prompts=masking.prompts
    )
    assert level is not None
    return inputs, level_of(tokens, level), level_of(scored, level), level


def _plain(config: Config) -> Config:
    """Removes settings that split a step, round its numbers, or that the peers do not have."""
    optimizer = config.optimizer.model_copy(update={"accumulate": 1, "kind": "adamw"})
    training = config.training.model_copy(update={"precision": "float32"})
    return config.model_copy(update={"optimizer": optimizer, "training": training})


def _batch(pcm: np.ndarray, fields: int = 0) -> dict[str, Array]:
    rows, samples = pcm.shape
    return {
        "pcm": jnp.asarray(pcm),
        "labels": jnp.full((rows, fields), -1, jnp.int32),
        "context": jnp.zeros(rows, jnp.int32),
        "length": jnp.full(rows, samples, jnp.int32),
    }


def _step(
    config: Config, model: tuple[nnx.GraphDef, PyTree], batch: dict[str, Array], codecs: Codecs
) -> Callable[[], float]:
    """Returns a function that does the next training step, and returns the run's metric from before it."""
    graph, params = model
    # jit copies the parameters, which the step then consumes.
    start = jax.jit(partial(init_state, optimizer=optimizer_of(config), ema=config.optimizer.ema_decay > 0))
    state = start(params)
    compiled = jax.jit(make_train_step(config, graph), donate_argnums=0)
    name = metric_of(config)[0]

    def step() -> float:
        nonlocal state
        state, metrics = compiled(state, batch, codecs)
        jax.block_until_ready(state)
        return float(metrics[name])

    return step


def _rates(config: Config) -> list[float]:
    o = config.optimizer
    schedule = make_schedule(
        learning_rate=o.learning_rate,
        warmup_steps=config.warmup_steps,
        total_steps=config.training.steps,
        final_fraction=o.final_fraction,
    )
    rates: list[float] = np.asarray(jax.jit(jax.vmap(schedule))(jnp.arange(100))).tolist()
    return rates


def _import_torch() -> Any:
    try:
        import torch
    except ImportError:
        raise WavegenError("--against torch needs PyTorch; pip install torch") from None
    if jax.default_backend() != "cpu":
        raise WavegenError("--against torch compares CPUs only; run it with JAX_PLATFORMS=cpu")
    torch.set_num_threads(processors())
    return torch
